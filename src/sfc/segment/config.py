"""Settings of the fourth stage: a segmentation network trained on masks, and its predictions."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from sfc.refine.crf.config import CRFConfig
from sfc.segment.networks import SegmenterSection
from sfc.settings.limits import Limits, Scales, Share
from sfc.settings.shared import MaskedInputConfig, TrainingConfig

Way = Literal["single", "single+crf", "multi", "multi+crf"]


@dataclass(frozen=True)
class SegmenterTrainingConfig(TrainingConfig):
    """Optimiser and length of a segmenter's training.

    Args:
        head_factors: factors on the learning rate of the head's weights, and of its biases (which have no weight
            decay).
        repeat_below: share of the training images below which a class is rare: an epoch shows an image √(this / share
            of its rarest class) times as often as one without (repeat factor sampling, LVIS); 0: all alike.
    """

    optimiser: Literal["sgd", "sgd-released", "adamw"] = "sgd"
    learning_rate: Annotated[float, Limits(0)] = 2.5e-4
    weight_decay: Annotated[float, Limits(0)] = 5e-4
    batch: Annotated[int, Limits(1)] = 10
    epochs: Annotated[int, Limits(1)] = 19
    head_factors: Annotated[tuple[float, float], Limits(0)] = (10.0, 20.0)
    repeat_below: Share = 0.0


@dataclass(frozen=True)
class SegmentConfig:
    """Stage 4: a segmentation network. Defaults: the published values for VOC, 20,000 steps there.

    Args:
        masks: what it learns from: `pseudo`, the masks of `refine.method`; `truth`, the ground truth of the training
            images that have one: the upper bound, no weak supervision.
        network: architecture and backbone.
        input: augmentation.
        scales: sizes, relative to the crop, that each have a loss; with more than one, so has the maximum over them.
        training: optimiser and schedule.
    """

    masks: Literal["pseudo", "truth"] = "pseudo"
    network: SegmenterSection = field(default_factory=SegmenterSection)
    input: MaskedInputConfig = field(default_factory=lambda: MaskedInputConfig(scale=(0.5, 1.5), crop=321))
    scales: Scales = (1.0, 0.75, 0.5)
    training: SegmenterTrainingConfig = field(default_factory=SegmenterTrainingConfig)


@dataclass(frozen=True)
class PredictConfig:
    """Masks by a trained segmenter, of validation images and of new photographs. Defaults: DeepLab-v2 as published.

    Args:
        scales: sizes at which the network sees the image, as factors.
        mirror: average with the mirror image's answer. The field's other protocol is scales 0.5, 0.75, 1, 1.25, 1.5,
            with mirror, by `mean`.
        pooling: how scales are joined: `maximum` of the logits, as in training, or `mean` of the probabilities.
        logit_adjustment: how far frequent classes are not preferred for being frequent, in all ways: τ of logit
            adjustment; 0: as trained, 1: as if equally many training images showed each class.
        crf: dense CRF on the probabilities.
        ways: how validation images are predicted and scored, a row each: `single` is the image alone, as it is;
            `multi` has the scales, mirror and pooling above; `+crf` puts the dense CRF behind it.
    """

    scales: Scales = (1.0, 0.75, 0.5)
    mirror: bool = False
    pooling: Literal["maximum", "mean"] = "maximum"
    logit_adjustment: Annotated[float, Limits(0)] = 0.0
    crf: CRFConfig = field(default_factory=lambda: CRFConfig(gaussian=(1.0, 3.0), bilateral=(67.0, 3.0, 4.0)))
    ways: tuple[Way, ...] = ("single", "single+crf", "multi", "multi+crf")

    def in_words(self) -> str:
        """What the ways of the scores mean."""
        scales = ", ".join(f"{scale:g}" for scale in self.scales)
        mirrored = ", each with its mirror" if self.mirror else ""
        kernels = (self.crf.gaussian, self.crf.bilateral)
        gaussian, bilateral = (" ".join(f"{value:g}" for value in values) for values in kernels)
        adjusted = f"logits adjusted by {self.logit_adjustment:g}; " if self.logit_adjustment else ""
        return (
            f"{adjusted}single: the image as it is; multi: scales {scales}{mirrored}, {self.pooling} over them; "
            f"crf: 10 updates, Gaussian {gaussian}, bilateral {bilateral}"
        )


@dataclass(frozen=True)
class ModelConfig:
    """What a model folder says of its network and of its predictions."""

    network: SegmenterSection = field(default_factory=SegmenterSection)
    predict: PredictConfig = field(default_factory=PredictConfig)
