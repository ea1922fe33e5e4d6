"""What a data set is to every stage: classes, and records that name an image, its labels and where its mask lies."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np

from sfc.errors import DataError

IGNORE = 255
"""Mask value of pixels that take no part in training or scoring."""


def artifact_path(folder: Path, image_id: str, suffix: str) -> Path:
    """Where something made of one image lies in a folder of such things.

    Raises:
        DataError: the id leaves the folder.
    """
    parts = PurePosixPath(image_id).parts
    if not parts or ".." in parts or PurePosixPath(image_id).is_absolute():
        raise DataError(image_id, "is no relative path inside a folder, and so cannot name a file")
    return folder / f"{image_id}{suffix}"


class MaskSource(Protocol):
    """Somewhere a mask can be read from: a PNG file, or polygons of a COCO annotation file."""

    def load(self) -> np.ndarray:
        """uint8 [H, W]: 0 background, 1 + class index, 255 ignored. Raises DataError."""
        ...


@dataclass(frozen=True)
class Record:
    """One image.

    Args:
        id: unique in its data set; a relative POSIX path without suffix; names every artifact of this image.
        image: the image file.
        labels: indices into the class list (0 is the first foreground class), ascending, no duplicates; empty for a
            negative.
        mask: where its ground-truth mask can be read, if it has one.
        longest: the long side that a larger photograph is shrunk to for all work on it; None: worked on as it is.
    """

    id: str
    image: Path
    labels: tuple[int, ...]
    mask: MaskSource | None = None
    longest: int | None = None


@dataclass(frozen=True)
class DataSet:
    """One split of a data set.

    Args:
        name: what the scores call it, such as `camvid`.
        split: `train` or `val`.
        classes: names of the foreground classes; mask value k + 1 is class k.
        records: the images, in the order of the source.
    """

    name: str
    split: str
    classes: tuple[str, ...]
    records: tuple[Record, ...]

    def __len__(self) -> int:
        return len(self.records)

    def label_matrix(self) -> np.ndarray:
        """bool [images, classes]: which image shows which class."""
        matrix = np.zeros((len(self.records), len(self.classes)), dtype=bool)
        for row, record in zip(matrix, self.records, strict=True):
            row[list(record.labels)] = True
        return matrix

    def class_counts(self) -> np.ndarray:
        """int64 [classes]: how many images show each class."""
        return self.label_matrix().sum(axis=0, dtype=np.int64)

    def at_most(self, longest: int | None) -> DataSet:
        """The same split, its photographs worked on at a long side of at most `longest` pixels."""
        return replace(self, records=tuple(replace(record, longest=longest) for record in self.records))

    def with_masks(self) -> DataSet:
        """The same split, only the images that have a mask."""
        return replace(self, records=tuple(record for record in self.records if record.mask is not None))


def evenly(records: Sequence[Record], count: int) -> list[Record]:
    """At most `count` of the records, evenly spaced, always the same ones."""
    if len(records) <= count:
        return list(records)
    return [records[i * len(records) // count] for i in range(count)]


def input_hash(dataset: DataSet) -> str:
    """SHA-256 over ids, labels and image file sizes: tells whether a run goes on with the data it began with.

    Raises:
        DataError: an image is gone.
    """
    digest = hashlib.sha256()
    for record in dataset.records:
        try:
            size = record.image.stat().st_size
        except OSError as error:
            raise DataError(record.image, f"cannot be read ({error.strerror})") from error
        digest.update(f"{record.id}\0{record.labels}\0{size}\n".encode())
    return digest.hexdigest()
