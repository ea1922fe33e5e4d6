"""Which photographs a command line names: files, folders, patterns, and lists in text files."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path

from sfc.data.folders import IMAGE_SUFFIXES, images_below
from sfc.data.listing import Listing, record_id
from sfc.data.records import DataSet, Record
from sfc.errors import DataError

LIST_SUFFIX = ".txt"


def find_photographs(sources: Sequence[str], classes: Sequence[str], root: str = "") -> DataSet:
    """The photographs that `sources` name, each once, without labels.

    A source is an image; a folder, with all images below it; a pattern such as `holiday/*.jpg` (`**` for any depth);
    or a text file with an image on each line: a path from `root`, or its name without suffix, as VOC lists images.
    Ids, which name what is made of an image, are paths without suffix: from the folder, from the part of the pattern
    before its first wildcard, or from `root`; of a single image, its name.

    Args:
        sources: at least one.
        classes: foreground classes of whatever will predict.
        root: where the paths in a list start; empty: the list's own folder.

    Raises:
        DataError: a source or an image of a list is missing, or there twice; a source holds no image; two images have
            the same id.
    """
    records: dict[str, Record] = {}
    for source in sources:
        found = list(_images_of(source, root))
        if not found:
            raise DataError(source, "holds no image")
        for place, image, folder in found:
            identity = record_id(folder, image)
            other = records.get(identity)
            if other is None:
                records[identity] = Record(identity, image, ())
            elif other.image.resolve() != image.resolve():
                raise DataError(place, f"would share the name '{identity}' with {other.image}; predict them apart")
    return DataSet("photographs", "photographs", tuple(classes), tuple(records.values()))


def _images_of(source: str, root: str) -> Iterator[tuple[str, Path, Path]]:
    """For each image: what to call it in a message, the file, and the folder that its id starts from."""
    path = Path(source)
    if path.is_dir():
        for image in images_below(path):
            yield str(image), image, path
    elif path.is_file() and path.suffix.lower() == LIST_SUFFIX:
        yield from _listed(path, Path(root) if root else path.parent)
    elif path.is_file():
        yield source, path, path.parent
    elif glob.has_magic(source):
        start = _before_wildcard(path)
        for found in sorted(glob.glob(source, recursive=True)):
            if Path(found).is_file() and Path(found).suffix.lower() in IMAGE_SUFFIXES:
                yield found, Path(found), start
    else:
        raise DataError(source, "there is no such file or folder")


def _before_wildcard(pattern: Path) -> Path:
    """The folder that a pattern starts in."""
    parts = pattern.parts
    first = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:first])


def _listed(path: Path, root: Path) -> Iterator[tuple[str, Path, Path]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(path, "the list cannot be read as UTF-8 text") from error
    files = Listing()
    seen: dict[Path, int] = {}
    for number, line in enumerate(lines, start=1):
        name = line.strip()
        if not name:
            continue
        place = f"{path}, line {number}"
        found = files.find(root / name) or next(
            (image for suffix in IMAGE_SUFFIXES if (image := files.find(root / f"{name}{suffix}"))), None
        )
        if found is None:
            raise DataError(place, f"there is no image {root / name}")
        if found in seen:
            raise DataError(place, f"names '{name}' again (line {seen[found]})")
        seen[found] = number
        yield place, found, root
