"""Scores of masks from files: what each step of refinement made of the CAMs."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from sfc.data.images import mask_path, read_mask
from sfc.data.records import IGNORE, DataSet
from sfc.errors import SFCError
from sfc.evaluate import SHARDS, mask_score
from sfc.metrics import ConfusionMatrix
from sfc.refine.stage import Refinement, mask_folders
from sfc.scores import MaskScore, Scores


def evaluate_refinement(entry: Scores, dataset: DataSet, job: Refinement) -> Scores:
    """The scores of the CAMs, with those of all masks that the variant has.

    Raises:
        ConfigError: the masks were made from other CAMs or settings.
        SFCError, DataError: see `evaluate_masks`.
    """
    masks = [
        evaluate_masks(dataset, folder, what, entry.class_groups, undecided=undecided)
        for method, folder in mask_folders(job)
        for what, undecided in _rows(method, job)
    ]
    return replace(entry, masks=masks)


def _rows(method: str, job: Refinement) -> list[tuple[str, bool]]:
    """What to call a method's masks, and whether pixels that they leave open stay out of the score."""
    seeds = f"W + {job.config.seeds.fusion_lambda:g} P"
    return {
        "none": [(f"argmax of {seeds}", False)],
        # Where relation labels are open, the CRF's own answer was background.
        "crf": [(f"CRF of {seeds}", False), ("relation labels", True)],
        "irn": [("random walk", False)],
        "irn+crf": [("random walk, CRF", False)],
    }[method]


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

    def count(shard: int) -> tuple[ConfusionMatrix, int, int]:
        matrix, open_pixels, pixels = ConfusionMatrix(num_classes), 0, 0
        for record in found[shard::SHARDS]:
            assert record.mask is not None
            truth = record.mask.load()
            mask = read_mask(mask_path(folder, record.id), num_classes - 1, (truth.shape[0], truth.shape[1]))
            is_open = (mask == IGNORE) & (truth != IGNORE)
            open_pixels += int(is_open.sum())
            pixels += int((truth != IGNORE).sum())
            # An open pixel counts as background, or its truth is left out.
            matrix.update(np.where(is_open & undecided, IGNORE, truth), np.where(mask == IGNORE, 0, mask))
        return matrix, open_pixels, pixels

    with ThreadPoolExecutor(SHARDS) as pool:
        (total, open_pixels, pixels), *others = pool.map(count, range(min(SHARDS, len(found))))
    for matrix, more_open, more in others:
        total.merge(matrix)
        open_pixels, pixels = open_pixels + more_open, pixels + more
    if not total.counts.any():
        raise SFCError(f"{folder}: no pixel is both decided and known")
    return mask_score(what, total, class_groups, 100 * open_pixels / pixels if undecided else 0.0)
