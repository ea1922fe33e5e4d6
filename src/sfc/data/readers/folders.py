"""The folder reader: one sub-folder a class, for photographs that show one class each."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sfc.data.class_list import BACKGROUND, check_classes, is_background, read_class_file
from sfc.data.config import DataConfig, Split, kind_of
from sfc.data.faults import OnFault, refuse
from sfc.data.listing import record_id
from sfc.data.readers.reader import Reader
from sfc.data.records import DataSet, Record
from sfc.errors import ConfigError, DataError

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".jp2", ".avif"),
    *(".heic", ".heif"),
)
"""What counts as an image; other files are passed over."""


class FolderReader(Reader):
    """Reads class folders, see `read_folders`."""

    settings = None

    def read(self, config: DataConfig, split: Split, on_fault: OnFault) -> DataSet:
        """See `Reader`."""
        return read_folders(config, split, on_fault)

    def detect(self, folder: Path) -> dict[str, Any] | None:
        """Class folders, also below train/ and val/."""
        for train in ("train", "."):
            if any(_has_image(child) for child in _children(folder / train)):
                val = {"val": "val"} if train == "train" and (folder / "val").is_dir() else {}
                return {"format": "folders", "root": str(folder), "train": train, **val}
        return None


def _children(folder: Path) -> list[Path]:
    return [child for child in folder.iterdir() if child.is_dir()] if folder.is_dir() else []


def _has_image(folder: Path) -> bool:
    return any(file.suffix.lower() in IMAGE_SUFFIXES for file in folder.rglob("*"))


def read_folders(config: DataConfig, split: Split, on_fault: OnFault = refuse) -> DataSet:
    """Reads the folder that `data.train` or `data.val` names: each sub-folder is a class, `background` holds negatives.

    Images may lie deeper inside a class folder. Ids are paths from the split's folder without suffix; they begin with
    the class, so one file name in two class folders is two images with one label each (images that show several
    classes need a table). Hidden files and files of other kinds are passed over. Classes come from the class file or
    are the sorted sub-folders of the training folder; a class whose folder is missing or empty has no images.

    Args:
        config: where the folders lie.
        split: which one to read.
        on_fault: gets the fault of an image, which is then left out.

    Raises:
        DataError: a folder is missing or holds no images; an image lies outside the class folders; a folder is no
            class; two images of a folder differ in their suffix only.
        ConfigError: the split has no name.
    """
    root = Path(config.root)
    name = config.named(split)
    if not name:
        raise ConfigError(f"data.{split} is empty; name the folder of the split, '.' for data.root itself")
    classes = _classes(config, root)
    folder = root / name
    records: dict[str, Record] = {}
    for image in images_below(folder):
        try:
            record = _record(folder, image, classes)
        except DataError as fault:
            on_fault(fault)
            continue
        if record.id in records:
            on_fault(DataError(image, f"has the same path without suffix as '{records[record.id].image.name}'"))
        else:
            records[record.id] = record
    if not records:
        raise DataError(folder, "has no images")
    limit = config.limit if split != "train_masks" else 0
    return DataSet(root.resolve().name, kind_of(split), classes, tuple(records.values())[: limit or None])


def _record(folder: Path, image: Path, classes: tuple[str, ...]) -> Record:
    label, *rest = image.relative_to(folder).parts
    if not rest:
        raise DataError(image, f"lies in no class folder; negatives belong into a folder named {BACKGROUND}")
    if not is_background(label) and label not in classes:
        raise DataError(folder / label, "the folder's name is not in the class list")
    labels = () if is_background(label) else (classes.index(label),)
    return Record(record_id(folder, image), image, labels)


def _classes(config: DataConfig, root: Path) -> tuple[str, ...]:
    if config.classes:
        return read_class_file(root / config.classes)
    folder = root / config.train
    _, names, _ = next(_walk(folder))
    return check_classes([name for name in names if not is_background(name)], folder)


def images_below(folder: Path) -> Iterator[Path]:
    """Every image in a folder and the folders in it, in sorted order; hidden ones are passed over.

    Raises:
        DataError: a folder is missing or cannot be read.
    """
    for place, _, names in _walk(folder):
        for name in names:
            if Path(name).suffix.lower() in IMAGE_SUFFIXES:
                yield Path(place) / name


def passed_over(folder: Path) -> Counter[str]:
    """How many files below a folder are no images, by suffix. Raises as `images_below`."""
    counts: Counter[str] = Counter()
    for _, _, names in _walk(folder):
        suffixes = [Path(name).suffix.lower() for name in names]
        counts.update(suffix or "without suffix" for suffix in suffixes if suffix not in IMAGE_SUFFIXES)
    return counts


def _walk(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """`os.walk` in sorted order, without hidden files and folders; raises as `images_below`."""

    def refuse(error: OSError) -> None:
        missing = isinstance(error, FileNotFoundError)
        raise DataError(error.filename, "there is no such folder" if missing else f"cannot be read ({error.strerror})")

    visited: set[tuple[int, int]] = set()
    for place, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        here = os.stat(place)
        if (here.st_dev, here.st_ino) in visited:
            folders.clear()  # a link in circles
            continue
        visited.add((here.st_dev, here.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield place, list(folders), sorted(name for name in names if not name.startswith("."))
