"""Scores of CAMs from files: stored CAMs and ground-truth masks in, numbers with everything said about them out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sfc.data.records import DataSet, Record
from sfc.errors import DataError, SFCError
from sfc.localize.store import cam_path, load_cams
from sfc.metrics import BACKGROUND_SCORE, ConfusionMatrix, ThresholdCurve, best_foreground, group_means, ratio
from sfc.run_folder import write_json
from sfc.training_log import progress_bar

SHARDS = 8
"""Images are counted in so many shards, which threads share; the counts are integers, so the sum is exact."""


@dataclass(frozen=True)
class Score:
    """One map against the truth under the fixed background rule, and what a searched threshold would give.

    Attributes:
        what: `W` (classifier CAM), `P` (prototype CAM) or `W + λP`.
        fixed: mIoU in percent with the fixed background score.
        background_score: that score.
        oracle: mIoU in percent with the best background score, searched on this very ground truth.
        oracle_background_score: that score.
        iou: percent per class, background first; None for a class in neither truth nor prediction.
        groups: mean IoU in percent of head, medium and tail classes.
        over_activation: false positives in percent of the true area, by group.
        under_activation: false negatives in percent of the true area, by group.
        pixel_accuracy: percent.
        curve: background scores and their mIoU in percent, for the threshold curve.
        class_over_activation: percent per class, background first; None without true area.
        class_over_on_background: the part of it that lies on background; the rest lies on other classes.
        class_under_activation: percent per class.
    """

    what: str
    fixed: float
    background_score: float
    oracle: float
    oracle_background_score: float
    iou: list[float | None]
    groups: dict[str, float]
    over_activation: dict[str, float]
    under_activation: dict[str, float]
    pixel_accuracy: float
    curve: dict[str, list[float]]
    class_over_activation: list[float | None] = field(default_factory=list)
    class_over_on_background: list[float | None] = field(default_factory=list)
    class_under_activation: list[float | None] = field(default_factory=list)


@dataclass(frozen=True)
class Scores:
    """All scores of one variant on one split, and what has to be known about them.

    Attributes:
        run: what the variant is called.
        dataset: name of the data set.
        split: which images; `train` is the protocol of the field for CAMs.
        images: how many were scored.
        missing: ids of images with a mask but without CAMs.
        classes: `background`, then the foreground classes.
        class_groups: head, medium, tail or absent, for each foreground class.
        class_counts: training images of each foreground class; empty if not known.
        provenance: checkpoint selection, scales, labels, CRF, treatment of 255, in words.
        scores: W, P and their sum.
    """

    run: str
    dataset: str
    split: str
    images: int
    missing: list[str]
    classes: list[str]
    class_groups: list[str]
    provenance: dict[str, str]
    scores: list[Score]
    class_counts: list[int] = field(default_factory=list)

    def best(self) -> Score:
        """The map with the highest score under the fixed rule."""
        return max(self.scores, key=lambda score: score.fixed)


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
        run: what the variant is called.
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
    with progress_bar() as bar, ThreadPoolExecutor(SHARDS) as pool:
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
    names = ("W", "P", "W + P" if fusion_lambda == 1 else f"W + {fusion_lambda:g} P")
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
        if truth.shape != weight.shape[1:]:
            raise DataError(path, f"CAMs of {weight.shape[1:]} pixels for a mask of {truth.shape}")
        if keys[-1] >= num_classes:
            raise DataError(path, f"class {keys[-1] - 1} in a data set of {num_classes - 1} classes")
        for count, cam in zip(counts, (weight, prototype, weight + np.float32(fusion_lambda) * prototype), strict=True):
            count.update(truth, keys, cam)
        done()
    return counts


def _score(what: str, counts: _Counts, class_groups: Sequence[str]) -> Score:
    curve, fixed = counts.curve, counts.matrix.areas()
    mean = 100 * curve.areas().mean_iou()
    oracle = int(np.nanargmax(mean))
    iou, over, under = 100 * fixed.iou(), 100 * fixed.over_activation(), 100 * fixed.under_activation()
    on_background = counts.matrix.counts[0].copy()
    on_background[0] = 0
    return Score(
        what=what,
        fixed=float(100 * fixed.mean_iou()),
        background_score=float(curve.thresholds[curve.fixed_index]),
        oracle=float(mean[oracle]),
        oracle_background_score=float(curve.thresholds[oracle]),
        iou=_listed(iou),
        groups=group_means(iou[1:], class_groups),
        over_activation=group_means(over[1:], class_groups),
        under_activation=group_means(under[1:], class_groups),
        pixel_accuracy=float(100 * fixed.pixel_accuracy()),
        curve={"background_score": curve.thresholds[::5].tolist(), "miou": mean[::5].tolist()},
        class_over_activation=_listed(over),
        class_over_on_background=_listed(100 * ratio(on_background, fixed.truth)),
        class_under_activation=_listed(under),
    )


def _listed(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]


def write_scores(path: Path, scores: Sequence[Scores]) -> None:
    """Writes scores as JSON, atomically."""
    write_json(path, [asdict(entry) for entry in scores])


def read_scores(path: Path) -> list[Scores]:
    """Reads what `write_scores` wrote; numbers that were NaN come back as NaN.

    Raises:
        DataError: missing or damaged.
    """
    try:
        entries: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        return [Scores(**{**entry, "scores": [_read_score(score) for score in entry["scores"]]}) for entry in entries]
    except OSError as error:
        raise DataError(path, "no such scores; evaluate the run first") from error
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(path, "damaged, or not scores of this version") from error


def _read_score(entry: dict[str, Any]) -> Score:
    def numbers(values: dict[str, float | None]) -> dict[str, float]:
        return {name: float("nan") if value is None else value for name, value in values.items()}

    groups = {name: numbers(entry[name]) for name in ("groups", "over_activation", "under_activation")}
    return Score(**{**entry, **groups})
