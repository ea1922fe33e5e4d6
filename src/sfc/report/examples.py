"""Which images a report shows, and what the runs make of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sfc.data.images import mask_path, read_image, read_mask
from sfc.data.pixels import resize_labels
from sfc.data.records import DataSet, Record
from sfc.errors import DataError
from sfc.localize.store import cam_path, load_cams
from sfc.report.grid import Example, Panel

PATTERN = ("tail", "medium", "tail", "head", "tail", "medium")
"""Groups of the classes that the examples are chosen for, in order: what the method is about comes first."""


@dataclass(frozen=True)
class Source:
    """Where the CAMs of one method lie, and what to call it.

    Args:
        name: of the method.
        folder: its CAM store.
        fusion_lambda: λ of W + λP.
        what: the map to show: `W`, `P`, or anything else for W + λP.
        masks: folder of masks, refined or a segmenter's, shown instead of the map's own; None: there are none.
        method: what made those masks.
    """

    name: str
    folder: Path
    fusion_lambda: float
    what: str = ""
    masks: Path | None = None
    method: str = ""


@dataclass(frozen=True)
class Gallery:
    """Images of one split for a picture of examples, and what the methods made of them.

    Args:
        dataset: the images, preferably with masks.
        sources: one a method.
    """

    dataset: DataSet
    sources: Sequence[Source]


def choose_examples(
    dataset: DataSet, counts: Sequence[int] | np.ndarray, groups: Sequence[str], folders: Sequence[Path]
) -> list[tuple[Record, int]]:
    """A few images with CAMs of all methods, the same ones for the same data: mostly of rare classes.

    Each is chosen for one class (by `PATTERN`, the rarest of a group first), among the images that show it with one or
    two others where there are any: shared features need company. Within those the choice follows a hash of the id, so
    that it is not the first frames of a film.

    Args:
        dataset: images, preferably with masks.
        counts: training images of each class.
        groups: head, medium, tail or absent, for each class.
        folders: CAM stores of all methods.

    Returns:
        Records, and the index of the class that each was chosen for.
    """
    shown: list[tuple[Record, int]] = []
    rarest = {
        group: [int(k) for k in np.argsort(counts, kind="stable") if groups[k] == group and counts[k] > 0]
        for group in set(PATTERN)
    }
    fallback = [int(k) for k in np.argsort(counts, kind="stable") if counts[k] > 0]
    taken: set[int] = set()
    used: set[str] = set()
    for group in PATTERN:
        for label in (k for k in (*rarest[group], *fallback) if k not in taken):
            taken.add(label)
            record = _best_image(dataset, label, folders, used)
            if record is not None:
                shown.append((record, label))
                used.add(record.id)
                break
    return shown


def _best_image(dataset: DataSet, label: int, folders: Sequence[Path], used: set[str]) -> Record | None:
    candidates = [
        record
        for record in dataset.records
        if label in record.labels
        and record.id not in used
        and all(cam_path(folder, record.id).exists() for folder in folders)
    ]
    return min(candidates, key=_preference, default=None)


def _preference(record: Record) -> tuple[int, str]:
    company = 0 if 2 <= len(record.labels) <= 3 else 1 if len(record.labels) == 1 else 2
    return company, hashlib.sha256(record.id.encode()).hexdigest()


def load_example(record: Record, shown: int, sources: Sequence[Source]) -> Example:
    """Reads an image, its mask and the CAMs of all methods.

    Raises:
        DataError: one of these files is missing or damaged, or their sizes differ.
    """
    image = read_image(record.image, record.longest)
    size = (image.shape[0], image.shape[1])
    truth = resize_labels(record.mask.load(), size) if record.mask is not None else None
    panels = [_panel(record, source, shown, size) for source in sources]
    return Example(record.id, image, truth, record.labels, shown, panels)


def _panel(record: Record, source: Source, shown: int, size: tuple[int, int]) -> Panel:
    path = cam_path(source.folder, record.id)
    keys, weight, prototype = load_cams(path)
    if weight.shape[1:] != size:
        raise DataError(path, f"CAMs of {weight.shape[1:]} pixels for an image of {size}")
    if source.what == "W":
        cam, peak = weight, 2.0
    elif source.what == "P":
        cam, peak = prototype, 2.0
    else:
        cam, peak = weight + np.float32(source.fusion_lambda) * prototype, 2 * (1 + source.fusion_lambda)
    position = np.flatnonzero(keys == shown + 1)
    heat = cam[position[0]] / peak if len(position) else None
    if source.masks is None or not mask_path(source.masks, record.id).exists():
        return Panel(keys[cam.argmax(axis=0)], heat)
    return Panel(resize_labels(read_mask(mask_path(source.masks, record.id), 254), size), heat)
