"""Which photographs a command line names: files, folders, patterns, and lists in text files."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path

from sfc.data.listing import Listing, record_id
from sfc.data.readers.folders import IMAGE_SUFFIXES, images_below
from sfc.data.records import DataSet, Record
from sfc.errors import DataError

LIST_SUFFIX = ".txt"
SUFFIXES = (*IMAGE_SUFFIXES, *(suffix.upper() for suffix in IMAGE_SUFFIXES))


def find_photographs(
    sources: Sequence[str], classes: Sequence[str], root: str = "", without: Sequence[Path] = ()
) -> DataSet:
    """The photographs that `sources` name, each once, without labels.

    A source is an image; a folder, with all images below it; a pattern such as `holiday/*.jpg` (`**` for any depth);
    or a text file with an image on each line: a path from `root`, or its name without suffix, as VOC lists images.
    Ids, which name what is made of an image, are paths without suffix: from the folder, from the folder in which the
    pattern's wildcards begin, or from `root`; of a single image, its name.

    Args:
        sources: at least one.
        classes: foreground classes of whatever will predict.
        root: where the paths in a list start; empty: the list's own folder.
        without: folders whose images are none of them: what is predicted must not be predicted again.

    Raises:
        DataError: a source or an image of a list is missing, or there twice; a source holds no image; two images have
            the same id; a file's name is not UTF-8.
    """
    records: dict[str, Record] = {}
    seen: set[Path] = set()
    excluded = {folder.resolve() for folder in without}
    for source in sources:
        try:
            found = [(place, image, folder, image.resolve()) for place, image, folder in _images_of(source, root)]
        except (OSError, ValueError) as error:
            raise DataError(ascii(source), f"cannot be looked up ({error})") from error
        found = [entry for entry in found if excluded.isdisjoint(entry[3].parents)]
        if not found:
            raise DataError(source, "holds no image")
        for place, image, folder, resolved in found:
            if resolved in seen:
                continue
            seen.add(resolved)
            identity = _identity(folder, image)
            if identity in records:
                other = records[identity].image
                raise DataError(place, f"would share the name '{identity}' with {other}; predict them apart")
            records[identity] = Record(identity, image, ())
    return DataSet("photographs", "photographs", tuple(classes), tuple(records.values()))


def _identity(folder: Path, image: Path) -> str:
    identity = record_id(folder, image)
    try:
        identity.encode()
    except UnicodeEncodeError as error:
        raise DataError(ascii(str(image)), "the file's name is not UTF-8") from error
    return identity


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
        start = next(parent for parent in path.parents if parent.is_dir())
        pattern = str(path.relative_to(start))
        for name in sorted(glob.glob(pattern, root_dir=start, recursive=True)):
            image = start / name
            if image.is_file() and image.suffix.lower() in IMAGE_SUFFIXES:
                yield str(image), image, start
    else:
        raise DataError(source, "there is no such file or folder")


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
            (image for suffix in SUFFIXES if (image := files.find(root / f"{name}{suffix}"))), None
        )
        if found is None:
            raise DataError(place, f"there is no image {root / name}")
        if found in seen:
            raise DataError(place, f"names '{name}' again (line {seen[found]})")
        seen[found] = number
        yield place, found, root
