"""Settings of the fourth stage: a segmentation network trained on masks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from sfc.config.training import MaskedInputConfig, TrainingConfig


@dataclass(frozen=True)
class SegmenterConfig:
    """The segmentation network; see `sfc.segment.networks.build_segmenter`. Defaults: DeepLab-v2 as published.

    Args:
        architecture: `deeplab_v2`, or the name of an architecture of segmentation-models-pytorch, such as `Unet`.
        backbone: for `deeplab_v2` any timm model with stage features, `compact` (small images from scratch), or
            `classifier`: the trained classifier's, weights included; for other architectures an encoder of
            segmentation-models-pytorch, such as `resnet50`, or `tu-` and the name of a timm model.
        pretrained: load the backbone's published weights (ImageNet); `classifier` needs none.
        weights: local file with backbone weights, instead of `pretrained`.
        output_stride: of the backbone; architectures that leave no choice, such as Unet, have their own.
        atrous_rates: dilations of DeepLab-v2's pyramid, in cells of the backbone's last stage.
        frozen_norm: the backbone's batch norms neither learn nor update their statistics (wrong from scratch).
    """

    architecture: str = "deeplab_v2"
    backbone: str = "resnet101.tv_in1k"
    pretrained: bool = True
    weights: str = ""
    output_stride: int = 8
    atrous_rates: tuple[int, ...] = (6, 12, 18, 24)
    frozen_norm: bool = True


@dataclass(frozen=True)
class SegmentConfig:
    """Stage 4: a segmentation network. Defaults: the published values for VOC, 20,000 steps there.

    Args:
        masks: what it learns from: `pseudo`, the masks of `refine.method`; `truth`, the ground truth of the training
            images that have one: the upper bound, no weak supervision.
        network: architecture and backbone.
        input: augmentation.
        scales: sizes, relative to the crop, that each have a loss; with more than one, so has the maximum over them.
        bias_factor: factor on the learning rate of the head's biases, which have no weight decay.
        accumulate: parts that a process's share of the batch goes through one after the other: less memory. The same
            result as at once, but for batch norms that learn.
        training: optimiser and schedule; `head_factor` is that of the head's other parameters.
    """

    masks: Literal["pseudo", "truth"] = "pseudo"
    network: SegmenterConfig = field(default_factory=SegmenterConfig)
    input: MaskedInputConfig = field(default_factory=lambda: MaskedInputConfig(scale=(0.5, 1.5), crop=321))
    scales: tuple[float, ...] = (1.0, 0.75, 0.5)
    bias_factor: float = 20.0
    accumulate: int = 2
    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(
            learning_rate=2.5e-4,
            momentum=0.9,
            weight_decay=5e-4,
            poly_every=10,
            clip=0.0,
            batch=10,
            epochs=19,
            seed=0,
        )
    )
