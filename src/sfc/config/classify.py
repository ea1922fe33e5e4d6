"""Settings of the first two stages: the classifier and its CAMs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from sfc.config.training import InputConfig, TrainingConfig

Coefficient = Literal["off", "exact", "official"]


@dataclass(frozen=True)
class NetworkConfig:
    """The classifier network; see `sfc.classify.network.SFCNetwork`.

    Args:
        backbone: `compact` (small images from scratch) or any timm model with stage features.
        pretrained: load timm's published weights.
        weights: local file with backbone weights, instead of `pretrained`.
        output_stride: stride of the last stage.
        frozen_norm: keep batch-norm statistics (right for pretrained backbones, wrong from scratch).
        trained_from: first stage that learns; 3 in the released code, 0 from scratch.
        side_channels: channels that each stage gives to the hierarchical feature.
        pixel_correlation: refine CAMs with pixel correlation.
        centre_features: subtract each image's mean feature before cosines; needed from scratch.
        background_scale: factor on the background CAM before the argmax that makes seeds.
        seed_threshold: seeds by this threshold on the peak-normalised CAM instead of argmax (the paper's rule).
        consistency_gradient: factor on the gradient that the losses on CAMs send into the backbone: 1 in the released
            code; from scratch, less keeps the classifier a classifier.
    """

    backbone: str = "resnet50.tv_in1k"
    pretrained: bool = True
    weights: str = ""
    output_stride: int = 16
    frozen_norm: bool = True
    trained_from: int = 3
    side_channels: tuple[int, int, int, int] = (128, 128, 256, 256)
    pixel_correlation: bool = True
    centre_features: bool = False
    background_scale: float = 0.3
    seed_threshold: float | None = None
    consistency_gradient: float = 1.0


@dataclass(frozen=True)
class LossConfig:
    """The losses beside classification; see `sfc.classify.loss.MSDWLoss`.

    Args:
        prototype_weight: weight of the loss between classifier CAM and prototype CAM; 0 switches it off.
        scale_weight: weight of the loss between the two sizes; 0 switches it off.
        half_size_pass: classify the batch at half size too; needed by the scale loss.
        coefficient: distribution coefficient: `off`, `exact` (from the training labels), `official` (the released
            formula with its factor of 3 and equal shares).
        start: share of the training (0 to 1) before which only classification acts.
    """

    prototype_weight: float = 1.6
    scale_weight: float = 0.8
    half_size_pass: bool = True
    coefficient: Coefficient = "exact"
    start: float = 0.0


@dataclass(frozen=True)
class BankConfig:
    """The image bank.

    Args:
        draws: images drawn from the bank and appended to each batch; 0 switches the bank off.
    """

    draws: int = 4


@dataclass(frozen=True)
class ClassifierTrainingConfig(TrainingConfig):
    """Optimiser, schedule and checkpoints of the classifier.

    Args:
        picture_every: epochs between CAM pictures of a few training images; 0: never.
        select: which weights later stages use: `last`, or `ground_truth`: the epoch whose CAMs score best against
            masks of training images. The latter uses what image-level labels do not give, and every score says so.
    """

    picture_every: int = 0
    select: Literal["last", "ground_truth"] = "last"


@dataclass(frozen=True)
class ClassifyConfig:
    """Stage 1: train the classifier."""

    network: NetworkConfig = field(default_factory=NetworkConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    bank: BankConfig = field(default_factory=BankConfig)
    input: InputConfig = field(default_factory=InputConfig)
    training: ClassifierTrainingConfig = field(default_factory=ClassifierTrainingConfig)


@dataclass(frozen=True)
class LocalizeConfig:
    """Stage 2: CAMs of every image.

    Args:
        scales: of the image; each is run with its mirror.
        labels: which classes an image's CAMs are kept for: `given` by the data set, or `predicted` by the classifier.
        threshold: probability from which a predicted class counts as present.
        store: how CAMs are kept: `compact` (8 bit, reduced resolution) or `lossless` (float32 at image size).
    """

    scales: tuple[float, ...] = (1.0, 0.5, 1.5, 2.0)
    labels: Literal["given", "predicted"] = "given"
    threshold: float = 0.5
    store: Literal["compact", "lossless"] = "compact"
