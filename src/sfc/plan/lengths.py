"""How long a plan lets the stages work, and what a budget cuts; every number has the measurement that it comes from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from sfc.errors import ConfigError
from sfc.plan.facts import DataFacts
from sfc.plan.rules import HOPELESS, MOST_EPOCHS, Choice
from sfc.run.clock import in_words

CLASSIFIER_STEPS, CLASSIFIER_LEAST = 300, 100
"""Steps of the classifier, and what a budget may cut them to. 300 photographs, one seed, masks after the CRF: 144 steps
38.2, 288 steps 39.3, 576 steps 39.7 (docs/log.md). Fewer than 144 were not measured."""
SEGMENTER_STEPS, SEGMENTER_LEAST, SEGMENTER_EPOCHS = 300, 100, 6
"""Likewise of the segmenter, and how often it sees every photograph at least. 300 photographs, one seed: 306 steps 32.3
on validation, 918 steps 34.6, for three times the time. 3,131: 2 epochs 40.6, 6 epochs 43.6 (docs/log.md)."""
VIEWS = 60
"""How often the photographs of a rare class are seen in all, at least: tvmonitor, 40 of 3,131, is seen 80 times in the
two epochs of the classifier of `BASE`."""
PICTURES = 5
"""Pictures of CAMs that a training leaves."""
ONE_SCALE = (1.0,)
BEST_WAY, BEST_WAY_GAIN = "multi+crf", "2 to 3 points over the photograph alone"
"""Of predicting. Four segmenters of 300 photographs, validation: 31.3 to 33.3, 27.4 to 30.5, 28.1 to 30.4, 28.9 to
32.1 (docs/log.md)."""


@dataclass(frozen=True)
class Lengths:
    """How long the stages work: what a budget can cut.

    Args:
        classifier: epochs.
        segmenter: epochs.
        cam_scales: at which a photograph is looked at for its CAMs.
        ways: of predicting validation images.
    """

    classifier: int
    segmenter: int
    cam_scales: tuple[float, ...]
    ways: tuple[str, ...]


def wanted(data: DataFacts, batch: int, base: Lengths) -> Lengths:
    """How long stages work where time is no matter.

    Args:
        data: the data set.
        batch: of both trainings.
        base: scales and ways of `BASE`.
    """
    per_epoch = max(1, data.images // batch)
    learnable = [count for _, count in data.classes if count >= HOPELESS] or [data.classes[-1][1]]
    classifier = max(math.ceil(CLASSIFIER_STEPS / per_epoch), math.ceil(VIEWS / learnable[-1]), 2)
    segmenter = max(math.ceil(SEGMENTER_STEPS / per_epoch), SEGMENTER_EPOCHS)
    return replace(base, classifier=min(classifier, MOST_EPOCHS), segmenter=min(segmenter, MOST_EPOCHS))


def shorter(lengths: Lengths, data: DataFacts, batch: int) -> tuple[Lengths, str] | None:
    """The next cut for a budget, the cheapest first, and what it costs in words; None where nothing is left to cut."""
    per_epoch = max(1, data.images // batch)
    least_classifier = math.ceil(CLASSIFIER_LEAST / per_epoch)
    least_segmenter = math.ceil(SEGMENTER_LEAST / per_epoch)
    if len(lengths.ways) > 1:
        return replace(lengths, ways=lengths.ways[-1:]), "validation images are predicted in one way"
    if lengths.segmenter > least_segmenter and lengths.segmenter >= lengths.classifier:
        return replace(lengths, segmenter=lengths.segmenter - 1), "the segmenter trains more briefly"
    if lengths.classifier > least_classifier:
        return replace(lengths, classifier=lengths.classifier - 1), "the classifier trains more briefly"
    if lengths.segmenter > least_segmenter:
        return replace(lengths, segmenter=lengths.segmenter - 1), "the segmenter trains more briefly"
    if lengths.cam_scales != ONE_SCALE:
        return replace(lengths, cam_scales=ONE_SCALE), "maps are made at one scale"
    return None


def cut_down(lengths: Lengths, data: DataFacts, batch: int) -> Iterator[tuple[Lengths, list[str]]]:
    """`lengths` and what is left of them after one cut, two, …, with what was cut in words."""
    words: list[str] = []
    yield lengths, []
    while (cut := shorter(lengths, data, batch)) is not None:
        lengths = cut[0]
        words.append(cut[1])
        yield lengths, [*words]


def length_choices(lengths: Lengths, data: DataFacts, batch: int, cuts: Sequence[str]) -> list[Choice]:
    """The decisions that `Lengths` holds."""
    per_epoch = max(1, data.images // batch)
    said = f"cut for the budget: {'; '.join(dict.fromkeys(cuts))}" if cuts else ""
    rarest, last = data.classes[-1], lengths.ways[-1:]
    return [
        Choice(
            "classifier",
            f"{lengths.classifier} epochs, {lengths.classifier * per_epoch:,} steps",
            said or f"{CLASSIFIER_STEPS} steps or more; '{rarest[0]}' is seen {lengths.classifier * rarest[1]:,} times",
            {
                "classify.training.epochs": lengths.classifier,
                "classify.training.picture_every": max(1, lengths.classifier // PICTURES),
            },
        ),
        Choice(
            "maps",
            f"scales {', '.join(f'{scale:g}' for scale in lengths.cam_scales)}",
            "cut for the budget" if lengths.cam_scales == ONE_SCALE and cuts else "as measured",
            {"localize.scales": list(lengths.cam_scales)},
        ),
        Choice(
            "training of it",
            f"{lengths.segmenter} epochs, {lengths.segmenter * per_epoch:,} steps",
            said or f"{SEGMENTER_STEPS} steps and {SEGMENTER_EPOCHS} epochs, or more",
            {"segment.training.epochs": lengths.segmenter},
        ),
        Choice(
            "prediction",
            f"{BEST_WAY}: three scales with mirror, dense CRF" if last == (BEST_WAY,) else ", ".join(last) or "none",
            "cut to one way for the budget" if len(lengths.ways) == 1 and cuts else BEST_WAY_GAIN,
            {"predict.ways": list(lengths.ways)},
        ),
    ]


def refuse_no_time(budget: float, least: float) -> ConfigError:
    """The error where nothing is left to cut."""
    return ConfigError(
        f"--budget of {in_words(budget)} is too little: the shortest that makes sense takes "
        f"{in_words(60 * math.ceil(least / 60))} "
        "on this machine; use fewer photographs (--data.limit), or give it more time"
    )
