"""Signs of a whole system: those of its photographs, by class and over all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sfc.data.images import read_image
from sfc.data.records import Record
from sfc.errors import DataError
from sfc.localize.store import cam_path, load_cams
from sfc.signs.photograph import PhotoSigns, photo_signs

MOST_PHOTOGRAPHS = 100
"""Of a class at most: a median over more of them does not move."""
THREADS = 4


@dataclass(frozen=True)
class ClassSigns:
    """Medians over the photographs that show a class; see `PhotoSigns`.

    Attributes:
        name: of the class.
        photographs: how many were looked at.
        level: of the classifier CAM.
        coverage: of the photograph.
        spread: standard deviation of log coverage, over photographs where it is not 0: maps of one size whatever the
            photograph shows have none; NaN with fewer than two.
        missed: share of the photographs whose region is empty.
        agreement: of W and P.
        doubt: share of the photograph.
        edges: strength along the contour against the photograph's mean.
    """

    name: str
    photographs: int
    level: float
    coverage: float
    spread: float
    missed: float
    agreement: float
    doubt: float
    edges: float


def chosen_photographs(records: Sequence[Record], num_classes: int, most: int = MOST_PHOTOGRAPHS) -> list[Record]:
    """Enough photographs of every class, evenly over the list; those of rare classes show frequent ones as well.

    Args:
        records: with labels.
        num_classes: foreground classes.
        most: of a class; a frequent one can have more, in photographs that another class needs.

    Returns:
        In the order of `records`, each once.
    """
    showing: list[list[int]] = [[] for _ in range(num_classes)]
    for position, record in enumerate(records):
        for label in record.labels:
            showing[label].append(position)
    chosen: set[int] = set()
    for positions in sorted(showing, key=len):
        lacking = most - len(chosen.intersection(positions))
        left = [position for position in positions if position not in chosen]
        if lacking > 0 and left:
            steps = np.linspace(0, len(left) - 1, min(lacking, len(left)))
            chosen.update(left[int(step)] for step in np.round(steps))
    return [records[position] for position in sorted(chosen)]


def class_signs(
    records: Sequence[Record],
    classes: Sequence[str],
    folder: Path,
    done: Callable[[], None] = lambda: None,
) -> list[ClassSigns]:
    """Signs of stored CAMs by class, several photographs at a time.

    A photograph counts for the classes that it has CAMs of: where the classifier's own labels were used, a class that
    it overlooks counts nowhere.

    Args:
        records: photographs whose CAMs are in the folder.
        classes: names of the foreground classes.
        folder: the CAM store.
        done: called after every photograph.

    Returns:
        One for each class that some photograph shows, in class order.

    Raises:
        DataError: a CAM file or a photograph is damaged, or their sizes differ.
    """

    def look(record: Record) -> tuple[NDArray[np.int64], PhotoSigns] | None:
        path = cam_path(folder, record.id)
        (keys, weight, prototype), image = load_cams(path), read_image(record.image, record.longest)
        if weight.shape[1:] != image.shape[:2]:
            raise DataError(path, f"CAMs of {weight.shape[1:]} pixels for an image of {image.shape[:2]}")
        signs = photo_signs(image, weight, prototype) if len(keys) > 1 else None
        done()
        return None if signs is None else (keys[1:] - 1, signs)

    with ThreadPoolExecutor(THREADS) as pool:
        found = [entry for entry in pool.map(look, records) if entry is not None]
    shown = Counter(int(key) for keys, _ in found for key in keys)
    return [_of_class(name, index, found) for index, name in enumerate(classes) if shown[index]]


def _of_class(name: str, index: int, found: Sequence[tuple[NDArray[np.int64], PhotoSigns]]) -> ClassSigns:
    columns = PhotoSigns(
        *(
            np.array([values[keys == index][0] for keys, signs in found if index in keys for values in [signs[number]]])
            for number in range(len(PhotoSigns._fields))
        )
    )
    covered = columns.coverage[columns.coverage > 0]
    return ClassSigns(
        name=name,
        photographs=len(columns.level),
        level=_median(columns.level),
        coverage=_median(columns.coverage),
        spread=float(np.log(covered).std(ddof=1)) if len(covered) > 1 else float("nan"),
        missed=float((columns.coverage == 0).mean()),
        agreement=_median(columns.agreement),
        doubt=_median(columns.doubt),
        edges=_median(columns.edges),
    )


def _median(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else float("nan")
