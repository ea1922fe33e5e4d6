"""Scores of CAMs from files: stored CAMs and ground-truth masks in, numbers with everything said about them out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sfc.data.records import DataSet, Record
from sfc.errors import DataError, SFCError
from sfc.localize.store import cam_path, load_cams
from sfc.metrics import BACKGROUND_SCORE, Areas, ThresholdCurve, best_foreground, group_means
from sfc.run_folder import write_json

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
) -> Scores:
    """Scores the stored CAMs of a split.

    Args:
        dataset: images with masks.
        folder: the CAM store.
        run: what the variant is called.
        class_groups: head, medium, tail or absent for each class, from the **training** counts.
        provenance: what to print beside the scores.
        fusion_lambda: λ of the sum W + λP.

    Raises:
        SFCError: no image has CAMs.
        DataError: a CAM file or a mask is damaged, or their sizes differ.
    """
    records = dataset.with_masks().records
    found = [record for record in records if cam_path(folder, record.id).exists()]
    if not found:
        raise SFCError(f"{folder}: no CAMs of the {len(records)} images with masks in {dataset.name} {dataset.split}")
    num_classes = len(dataset.classes) + 1
    with ThreadPoolExecutor() as pool:
        shards = pool.map(
            lambda shard: _count(found[shard::SHARDS], folder, num_classes, fusion_lambda), range(min(SHARDS, len(found)))
        )
        curves = next(iter(shards))
        for other in shards:
            for curve, addition in zip(curves, other, strict=True):
                curve.merge(addition)
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
        scores=[_score(name, curve, class_groups) for name, curve in zip(names, curves, strict=True)],
    )


def _count(records: Sequence[Record], folder: Path, num_classes: int, fusion_lambda: float) -> list[ThresholdCurve]:
    """Counts of W, P and W + λP over some images."""
    curves = [ThresholdCurve(num_classes, scale) for scale in (1.0, 1.0, 1.0 + fusion_lambda)]
    for record in records:
        assert record.mask is not None
        truth = record.mask.load()
        path = cam_path(folder, record.id)
        keys, weight, prototype = load_cams(path)
        if truth.shape != weight.shape[1:]:
            raise DataError(path, f"CAMs of {weight.shape[1:]} pixels for a mask of {truth.shape}")
        if keys[-1] >= num_classes:
            raise DataError(path, f"class {keys[-1] - 1} in a data set of {num_classes - 1} classes")
        for curve, cam in zip(curves, (weight, prototype, weight + np.float32(fusion_lambda) * prototype), strict=True):
            curve.update(truth, *best_foreground(keys, cam))
    return curves


def _score(what: str, curve: ThresholdCurve, class_groups: Sequence[str]) -> Score:
    areas = curve.areas()
    mean = 100 * areas.mean_iou()
    fixed: Areas = areas[curve.fixed_index]
    oracle = int(np.nanargmax(mean))
    iou = 100 * fixed.iou()
    return Score(
        what=what,
        fixed=float(mean[curve.fixed_index]),
        background_score=float(curve.thresholds[curve.fixed_index]),
        oracle=float(mean[oracle]),
        oracle_background_score=float(curve.thresholds[oracle]),
        iou=[None if np.isnan(value) else float(value) for value in iou],
        groups=group_means(iou[1:], class_groups),
        over_activation=group_means(100 * fixed.over_activation()[1:], class_groups),
        under_activation=group_means(100 * fixed.under_activation()[1:], class_groups),
        pixel_accuracy=float(100 * fixed.pixel_accuracy()),
        curve={"background_score": curve.thresholds[::5].tolist(), "miou": mean[::5].tolist()},
    )


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
