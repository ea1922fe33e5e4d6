"""Scores of masks from files: what each step of refinement made of the CAMs."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sfc.data.images import mask_path, read_mask
from sfc.data.records import IGNORE, DataSet, Record
from sfc.errors import SFCError
from sfc.evaluate.cams import SHARDS, listed, mask_score
from sfc.evaluate.scores import MaskScore
from sfc.metrics.boundary import BoundaryCounts
from sfc.metrics.counts import ConfusionMatrix, mean_of_present


def evaluate_masks(
    dataset: DataSet, folder: Path, what: str, class_groups: Sequence[str], *, undecided: bool = True
) -> MaskScore:
    """Scores the masks of a split, several images at a time.

    Args:
        dataset: images with masks.
        folder: one palette PNG for each image id.
        what: which masks these are, in words.
        class_groups: head, medium, tail or absent for each class, from the **training** counts.
        undecided: leave pixels that the masks leave open (255) out of the score; False: take them as background.

    Raises:
        SFCError: no image has a mask in `folder`, or nothing is left to score.
        DataError: a mask is damaged, or their sizes differ.
    """
    num_classes = len(dataset.classes) + 1
    records = dataset.with_masks().records
    found = [record for record in records if mask_path(folder, record.id).exists()]
    if not found:
        raise SFCError(f"{folder}: no masks of the {len(records)} images in {dataset.name} {dataset.split}")

    def count(shard: int) -> _Counts:
        counts = _Counts(ConfusionMatrix(num_classes), BoundaryCounts(num_classes))
        for record in found[shard::SHARDS]:
            counts.update(record, folder, undecided)
        return counts

    with ThreadPoolExecutor(SHARDS) as pool:
        total, *others = pool.map(count, range(min(SHARDS, len(found))))
    for counts in others:
        total.merge(counts)
    if not total.matrix.counts.any():
        raise SFCError(f"{folder}: no pixel is both decided and known")
    some = f" ({len(found)} of {len(records)} images)" if len(found) < len(records) else ""
    return total.score(f"{what}{some}", class_groups, undecided)


@dataclass
class _Counts:
    """What the score of masks is made of."""

    matrix: ConfusionMatrix
    boundary: BoundaryCounts
    open_pixels: int = 0
    pixels: int = 0

    def update(self, record: Record, folder: Path, undecided: bool) -> None:
        assert record.mask is not None
        truth = record.mask.load()
        path = mask_path(folder, record.id)
        mask = read_mask(path, self.matrix.num_classes - 1, (truth.shape[0], truth.shape[1]))
        is_open = (mask == IGNORE) & (truth != IGNORE)
        self.open_pixels += int(is_open.sum())
        self.pixels += int((truth != IGNORE).sum())
        # An open pixel counts as background, or its truth is left out.
        truth, mask = np.where(is_open & undecided, IGNORE, truth), np.where(mask == IGNORE, 0, mask)
        self.matrix.update(truth, mask)
        self.boundary.update(truth, mask)

    def merge(self, other: _Counts) -> None:
        self.matrix.merge(other.matrix)
        self.boundary.merge(other.boundary)
        self.open_pixels += other.open_pixels
        self.pixels += other.pixels

    def score(self, what: str, class_groups: Sequence[str], undecided: bool) -> MaskScore:
        iou, f_score = 100 * self.boundary.iou(), 100 * self.boundary.f_score()
        mean_iou, mean_f = listed(np.array([mean_of_present(iou), mean_of_present(f_score)]))
        share = 100 * self.open_pixels / self.pixels if undecided else 0.0
        return replace(
            mask_score(what, self.matrix, class_groups, share),
            boundary_iou=mean_iou,
            boundary_f=mean_f,
            class_boundary_iou=listed(iou),
            class_boundary_f=listed(f_score),
        )
