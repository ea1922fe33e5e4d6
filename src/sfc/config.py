"""Settings: one frozen dataclass a stage, defaults included.

A recipe (`configs/*.yaml`) holds only what differs from these defaults; `sfc run --config FILE --section.field VALUE`
overrides both. Unknown keys and ill-typed values fail. The resolved settings are saved in the run folder.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

Coefficient = Literal["off", "exact", "official"]


@dataclass(frozen=True)
class DataConfig:
    """Which images, which labels, which masks.

    Args:
        format: the reader. `table`: CSV, TSV or JSON lines with columns image, labels and optionally mask. `voc`: a
            VOCdevkit/VOC2012 folder. `coco`: a folder with annotations/instances_*.json. `folders`: one sub-folder a
            class. `synthetic`: the built-in long-tail benchmark, written into the run folder.
        root: folder that relative paths start from.
        train: training split. table: file name; voc and coco: split name (`trainaug`, `train2014`); folders: folder.
        val: validation split, same forms; none when empty.
        train_masks: the training split with masks, used for scoring only; table: file name. VOC, COCO and the
            synthetic set know their training masks without it.
        classes: file with one class name a line; a first line `background` is allowed and skipped. Empty: inferred.
        label_separator: between the labels of one image in a table.
        labels_from: VOC only: image-level labels from the XML annotations or from the segmentation masks.
        difficult: VOC only: whether objects marked difficult count as labels.
        limit: use only the first so many images of each split (0: all); for trying things out.
        head_share: share of the classes, sorted by training images, that form the head.
        tail_share: share of the classes that form the tail.
        synthetic_images: images of the most frequent class of the synthetic set.
        synthetic_seed: seed of the synthetic set.
    """

    format: Literal["table", "voc", "coco", "folders", "synthetic"] = "table"
    root: str = "."
    train: str = "train.csv"
    val: str = ""
    train_masks: str = ""
    classes: str = ""
    label_separator: str = ";"
    labels_from: Literal["xml", "masks"] = "xml"
    difficult: bool = True
    limit: int = 0
    head_share: float = 1 / 3
    tail_share: float = 1 / 3
    synthetic_images: int = 480
    synthetic_seed: int = 0


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
class InputConfig:
    """Augmentation of training images.

    Args:
        long_side: range (inclusive) of the long side that an image is resized to; null keeps its size.
        crop: side of the square random crop; smaller images are padded.
        flip: mirror half of the images.
        batch_sizes: resize each whole batch to one of these sides, drawn by step; empty: none.
    """

    long_side: tuple[int, int] | None = (320, 640)
    crop: int = 512
    flip: bool = True
    batch_sizes: tuple[int, ...] = ()


@dataclass(frozen=True)
class TrainingConfig:
    """Optimiser, schedule and checkpoints of any training stage.

    Args:
        optimiser: `sgd` or `adamw`.
        learning_rate: of the backbone.
        head_factor: factor on the learning rate of new layers.
        momentum: of SGD. The released code passes the weight decay in its place: 0.0001, not 0.9.
        weight_decay: of all parameters.
        poly_power: learning rate times (1 - step / steps) to this power.
        warmup: steps over which the learning rate rises linearly from 0.
        clip: gradient norm above which gradients are scaled down; 0: never.
        batch: images of a step, over all processes, bank images not counted.
        epochs: passes over the training images.
        seed: of weights, order, augmentation and bank.
        checkpoint_every: steps between checkpoints; also after the last step.
        picture_every: epochs between CAM pictures of a few training images; 0: never.
        select: which weights later stages use: `last`, or `ground_truth`: the epoch whose CAMs score best against
            masks of training images. The latter uses what image-level labels do not give, and every score says so.
    """

    optimiser: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.1
    head_factor: float = 10.0
    momentum: float = 1e-4
    weight_decay: float = 1e-4
    poly_power: float = 0.9
    warmup: int = 0
    clip: float = 1.0
    batch: int = 16
    epochs: int = 6
    seed: int = 10
    checkpoint_every: int = 200
    picture_every: int = 0
    select: Literal["last", "ground_truth"] = "last"


@dataclass(frozen=True)
class ClassifyConfig:
    """Stage 1: train the classifier."""

    network: NetworkConfig = field(default_factory=NetworkConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    bank: BankConfig = field(default_factory=BankConfig)
    input: InputConfig = field(default_factory=InputConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)


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


@dataclass(frozen=True)
class EvaluateConfig:
    """Scores of the CAMs.

    Args:
        fusion_lambda: weight of the prototype CAM in the sum W + λP; 1 in the paper; the released code uses 0.7 and
            0.3 in later stages.
    """

    fusion_lambda: float = 1.0


@dataclass(frozen=True)
class MachineConfig:
    """Where and how to compute; changes speed, not what is computed (up to rounding).

    Args:
        accelerator: `auto`, `cpu`, `cuda` or `mps`.
        devices: processes on this machine; more than one trains under DDP and shares images in other stages.
        nodes: machines; started by torchrun or SLURM.
        precision: `fp32`, or `bf16` (autocast).
        channels_last: memory layout of images and weights; usually faster.
        compile: compile the training step with torch.compile; slow to start.
        workers: processes that prepare training images; 0: none.
        threads: CPU threads of each process; 0: torch's choice.
    """

    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: int = 1
    nodes: int = 1
    precision: Literal["fp32", "bf16"] = "fp32"
    channels_last: bool = True
    compile: bool = False
    workers: int = 2
    threads: int = 0


@dataclass(frozen=True)
class RunConfig:
    """A whole run.

    Args:
        name: what tables and pages call this run.
        baseline: train plain CAM with the same budget too, and score both side by side.
    """

    name: str = "SFC"
    baseline: bool = True
    data: DataConfig = field(default_factory=DataConfig)
    classify: ClassifyConfig = field(default_factory=ClassifyConfig)
    localize: LocalizeConfig = field(default_factory=LocalizeConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    machine: MachineConfig = field(default_factory=MachineConfig)


def plain_cam(config: RunConfig) -> RunConfig:
    """The plain-CAM baseline of a run: the same code, data, network and schedule with every part of SFC off."""
    classify = replace(
        config.classify,
        network=replace(config.classify.network, pixel_correlation=False),
        loss=replace(config.classify.loss, prototype_weight=0.0, scale_weight=0.0, half_size_pass=False),
        bank=BankConfig(draws=0),
    )
    return replace(config, name="plain CAM", baseline=False, classify=classify)
