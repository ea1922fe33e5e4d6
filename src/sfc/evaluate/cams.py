"""Scores of CAMs from files: stored CAMs and ground-truth masks in, numbers with everything said about them out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sfc.data.images import shrunk_size
from sfc.data.pixels import resize_labels
from sfc.data.records import DataSet, Record
from sfc.engine.progress import StageProgress
from sfc.errors import DataError, SFCError
from sfc.evaluate.scores import MaskScore, Score, Scores, fused_name
from sfc.localize.store import cam_path, load_cams
from sfc.metrics.counts import BACKGROUND_SCORE, ConfusionMatrix, ThresholdCurve, best_foreground, group_means, ratio

SHARDS = 8
"""Images are counted in so many shards, which threads share; the counts are integers, so the sum is exact."""


def evaluate_cams(
    dataset: DataSet,
    folder: Path,
    *,
    run: str,
    class_groups: Sequence[str],
    provenance: Mapping[str, str],
    fusion_lambda: float = 1.0,
    class_counts: Sequence[int] | np.ndarray = (),
) -> Scores:
    """Scores the stored CAMs of a split, several images at a time; memory does not depend on their number.

    Args:
        dataset: images with masks.
        folder: the CAM store.
        run: what the method is called.
        class_groups: head, medium, tail or absent for each class, from the **training** counts.
        provenance: what to print beside the scores.
        fusion_lambda: λ of the sum W + λP.
        class_counts: training images of each class, for the table.

    Raises:
        SFCError: no image has CAMs, or no pixel has a truth.
        DataError: a CAM file or a mask is damaged, or their sizes differ.
    """
    records = dataset.with_masks().records
    found = [record for record in records if cam_path(folder, record.id).exists()]
    if not found:
        raise SFCError(f"{folder}: no CAMs of the {len(records)} images with masks in {dataset.name} {dataset.split}")
    num_classes = len(dataset.classes) + 1
    with StageProgress() as bar, ThreadPoolExecutor(SHARDS) as pool:
        task = bar.add_task(f"{run}: scores of {dataset.split}", total=len(found), note="")

        def count(shard: int) -> list[_Counts]:
            images = found[shard::SHARDS]
            return _count(images, folder, num_classes, fusion_lambda, lambda: bar.update(task, advance=1))

        counts, *others = pool.map(count, range(min(SHARDS, len(found))))
    for other in others:
        for total, addition in zip(counts, other, strict=True):
            total.merge(addition)
    if not counts[0].matrix.counts.any():
        raise SFCError(f"{dataset.name} {dataset.split}: every pixel of its masks is ignored (255)")
    names = ("W", "P", fused_name(fusion_lambda))
    done = {record.id for record in found}
    return Scores(
        run=run,
        dataset=dataset.name,
        split=dataset.split,
        images=len(found),
        missing=[record.id for record in records if record.id not in done],
        classes=["background", *dataset.classes],
        class_groups=list(class_groups),
        provenance={
            "background": f"fixed: {BACKGROUND_SCORE:g} added to a peak of 1, against foreground counted twice",
            "ignored": "pixels with mask value 255",
            **provenance,
        },
        scores=[_score(name, count, class_groups) for name, count in zip(names, counts, strict=True)],
        class_counts=[int(count) for count in class_counts],
    )


@dataclass(frozen=True)
class _Counts:
    """What the scores of one map are made of."""

    curve: ThresholdCurve
    matrix: ConfusionMatrix

    def update(self, truth: np.ndarray, keys: np.ndarray, cam: np.ndarray) -> None:
        best, margin = best_foreground(keys, cam)
        self.curve.update(truth, best, margin)
        self.matrix.update(truth, np.where(margin > 0, best, 0))

    def merge(self, other: _Counts) -> None:
        self.curve.merge(other.curve)
        self.matrix.merge(other.matrix)


def _count(
    records: Sequence[Record], folder: Path, num_classes: int, fusion_lambda: float, done: Callable[[], None]
) -> list[_Counts]:
    """Counts of W, P and W + λP over some images."""
    counts = [
        _Counts(ThresholdCurve(num_classes, scale), ConfusionMatrix(num_classes))
        for scale in (1.0, 1.0, 1.0 + fusion_lambda)
    ]
    for record in records:
        assert record.mask is not None
        truth = record.mask.load()
        path = cam_path(folder, record.id)
        keys, weight, prototype = load_cams(path)
        size = shrunk_size((truth.shape[0], truth.shape[1]), record.longest)
        if size != weight.shape[1:]:
            raise DataError(path, f"CAMs of {weight.shape[1:]} pixels for a mask of {truth.shape}")
        truth = resize_labels(truth, size)
        if keys[-1] >= num_classes:
            raise DataError(path, f"class {keys[-1] - 1} in a data set of {num_classes - 1} classes")
        for count, cam in zip(counts, (weight, prototype, weight + np.float32(fusion_lambda) * prototype), strict=True):
            count.update(truth, keys, cam)
        done()
    return counts


def _score(what: str, counts: _Counts, class_groups: Sequence[str]) -> Score:
    curve = counts.curve
    mean = 100 * curve.areas().mean_iou()
    oracle = int(np.nanargmax(mean))
    return Score(
        **vars(mask_score(what, counts.matrix, class_groups)),
        background_score=float(curve.thresholds[curve.fixed_index]),
        oracle=float(mean[oracle]),
        oracle_background_score=float(curve.thresholds[oracle]),
        curve={"background_score": curve.thresholds[::5].tolist(), "miou": mean[::5].tolist()},
    )


def mask_score(what: str, matrix: ConfusionMatrix, class_groups: Sequence[str], undecided: float = 0.0) -> MaskScore:
    """Everything that a confusion matrix says about masks; `undecided` in percent of the pixels."""
    areas = matrix.areas()
    iou, over, under = 100 * areas.iou(), 100 * areas.over_activation(), 100 * areas.under_activation()
    on_background = matrix.counts[0].copy()
    on_background[0] = 0
    return MaskScore(
        what=what,
        fixed=float(100 * areas.mean_iou()),
        iou=listed(iou),
        groups=group_means(iou[1:], class_groups),
        over_activation=group_means(over[1:], class_groups),
        under_activation=group_means(under[1:], class_groups),
        pixel_accuracy=float(100 * areas.pixel_accuracy()),
        undecided=undecided,
        class_over_activation=listed(over),
        class_over_on_background=listed(100 * ratio(on_background, areas.truth)),
        class_under_activation=listed(under),
    )


def listed(values: np.ndarray) -> list[float | None]:
    """Scores for JSON: None for those that do not exist."""
    return [None if np.isnan(value) else float(value) for value in values]
