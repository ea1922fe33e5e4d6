"""Scores of a method, with all that has to be known about them, and the JSON file that keeps them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sfc.errors import DataError
from sfc.run.files import write_json


@dataclass(frozen=True, kw_only=True)
class MaskScore:
    """Masks against the truth.

    Attributes:
        what: which masks, in words.
        fixed: mIoU in percent, nothing searched on this ground truth.
        iou: percent per class, background first; None for a class in neither truth nor prediction.
        groups: mean IoU in percent of head, medium and tail classes.
        over_activation: false positives in percent of the true area, by group.
        under_activation: false negatives in percent of the true area, by group.
        pixel_accuracy: percent.
        undecided: percent of the pixels that the masks leave open and that are therefore not scored.
        class_over_activation: percent per class, background first; None without true area.
        class_over_on_background: the part of it that lies on background; the rest lies on other classes.
        class_under_activation: percent per class.
        boundary_iou: mean boundary IoU in percent over the classes that have it; None where it was not taken (maps).
        boundary_f: mean boundary F-score in percent, likewise; None also where there is no contour at all.
        class_boundary_iou: percent per class, background first; None for a class in neither truth nor prediction.
        class_boundary_f: percent per class; None without contour in truth and prediction.
    """

    what: str
    fixed: float
    iou: list[float | None]
    groups: dict[str, float]
    over_activation: dict[str, float]
    under_activation: dict[str, float]
    pixel_accuracy: float
    undecided: float = 0.0
    class_over_activation: list[float | None] = field(default_factory=list)
    class_over_on_background: list[float | None] = field(default_factory=list)
    class_under_activation: list[float | None] = field(default_factory=list)
    boundary_iou: float | None = None
    boundary_f: float | None = None
    class_boundary_iou: list[float | None] = field(default_factory=list)
    class_boundary_f: list[float | None] = field(default_factory=list)

    def invented(self) -> list[int]:
        """Classes, background 0, that masks show and no truth does: one pixel of such a class is an IoU of 0."""
        pairs = zip(self.iou, self.class_under_activation, strict=False)
        return [index for index, (iou, missed) in enumerate(pairs) if iou is not None and missed is None]

    def miou_of_true_classes(self) -> float:
        """mIoU in percent over the classes that the truth shows: the same classes for every method."""
        invented = self.invented()
        values = [iou for index, iou in enumerate(self.iou) if iou is not None and index not in invented]
        return sum(values) / len(values) if values else float("nan")


@dataclass(frozen=True, kw_only=True)
class Score(MaskScore):
    """One map against the truth under the fixed background rule, and what a searched threshold would give.

    Attributes:
        background_score: the score of the fixed rule; `what` is `W` (classifier CAM), `P` (prototype CAM) or `W + λP`.
        oracle: mIoU in percent with the best background score, searched on this very ground truth.
        oracle_background_score: that score.
        curve: background scores and their mIoU in percent, for the threshold curve.
    """

    background_score: float
    oracle: float
    oracle_background_score: float
    curve: dict[str, list[float]]


@dataclass(frozen=True)
class Scores:
    """All scores of one method on one split, and what has to be known about them.

    Attributes:
        run: what the method is called.
        dataset: name of the data set.
        split: which images; `train` is the protocol of the field for CAMs.
        images: how many were scored.
        missing: ids of images with a mask but without CAMs.
        classes: `background`, then the foreground classes.
        class_groups: head, medium, tail or absent, for each foreground class.
        class_counts: training images of each foreground class; empty if not known.
        provenance: checkpoint selection, scales, labels, CRF, treatment of 255, in words.
        scores: W, P and their sum.
        masks: what refinement made of them; empty before that.
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
    masks: list[MaskScore] = field(default_factory=list)

    def best(self) -> Score:
        """The map with the highest score under the fixed rule."""
        return max(self.scores, key=lambda score: score.fixed)


def fused_name(fusion_lambda: float) -> str:
    """What W + λP is called beside a score."""
    return "W + P" if fusion_lambda == 1 else f"W + {fusion_lambda:g} P"


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
        return [_read_entry(entry) for entry in entries]
    except OSError as error:
        raise DataError(path, "no such scores; evaluate the run first") from error
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(path, "damaged, or not scores of this version") from error


def _read_entry(entry: dict[str, Any]) -> Scores:
    maps = [Score(**_with_numbers(score)) for score in entry["scores"]]
    masks = [MaskScore(**_with_numbers(score)) for score in entry["masks"]]
    return Scores(**{**entry, "scores": maps, "masks": masks})


def _with_numbers(entry: dict[str, Any]) -> dict[str, Any]:
    def numbers(values: dict[str, float | None]) -> dict[str, float]:
        return {name: float("nan") if value is None else value for name, value in values.items()}

    groups = {name: numbers(entry[name]) for name in ("groups", "over_activation", "under_activation")}
    return {**entry, **groups}
