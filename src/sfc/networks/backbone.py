"""Any timm model, or a compact network for small images, as four stage features."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfc.errors import ConfigError
from sfc.networks.timm_models import timm_features

COMPACT_CHANNELS = (32, 48, 64, 96)
PADDED_TO = 32
PROBED = 64
"""Side of the square image that a network is tried with."""
STEM_NAMES = (
    *("conv_stem", "conv1", "bn1", "conv2", "bn2", "base_layer", "features_conv0", "features_norm0"),
    *("patch_embed", "pos_embed", "cls_token", "reg_token", "norm_pre"),
)
"""Modules before the first stage, in timm, beside those whose name begins with `stem`."""
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class _Block(nn.Module):
    """Basic residual block; `kernel` is that of its second convolution."""

    def __init__(self, channels_in: int, channels: int, stride: int, kernel: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, kernel, 1, kernel // 2, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential(nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels_in, h, w] to [N, channels, h / stride, w / stride]."""
        y = F.relu(self.norm1(self.conv1(x)), inplace=True)
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x), inplace=True)


class CompactNetwork(nn.Module):
    """160 thousand parameters that learn small images from scratch on a CPU; strides 4, 8, 8, 8.

    The second convolutions of the last two blocks are 1×1: a small receptive field keeps CAMs sharp.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1, bias=False)
        self.stem_norm = nn.BatchNorm2d(16)
        sizes = (16, *COMPACT_CHANNELS)
        self.stages = nn.ModuleList(
            _Block(sizes[i], sizes[i + 1], stride=2 if i < 2 else 1, kernel=3 if i < 2 else 1) for i in range(4)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """The output of each of the four stages."""
        x = F.relu(self.stem_norm(self.stem(x)), inplace=True)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


class _FoldedConv2d(nn.Conv2d):
    """A convolution that applies the frozen batch norm behind it by scaling its own weights; exact.

    Saves a pass over the output and the copy of it that the norm would keep for its gradient.
    """

    folded: tuple[nn.BatchNorm2d]

    def forward(self, x: Tensor) -> Tensor:
        norm = self.folded[0]
        assert norm.running_var is not None
        assert norm.running_mean is not None
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        return self._conv_forward(x, self.weight * scale[:, None, None, None], norm.bias - norm.running_mean * scale)


class _FoldedNorm(nn.BatchNorm2d):
    """A frozen batch norm whose work the convolution before it does; keeps its parameters and their names."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def fold_norms(model: nn.Module) -> None:
    """Folds every frozen `BatchNorm2d` that directly follows a bias-free convolution among its siblings, in place.

    Names and parameters stay, so checkpoints do not change; affine parameters keep training. A network in which the
    order of siblings is not that of the forward pass stays as it was.
    """
    pairs = []
    with _random_norms(model):
        with torch.no_grad():
            before = _probe(model)
        for parent in model.modules():
            previous: nn.Module | None = None
            for child in parent.children():
                if type(previous) is nn.Conv2d and type(child) is nn.BatchNorm2d and _foldable(previous, child):
                    pairs.append((previous, child))
                    child.__class__ = _FoldedNorm
                    previous.__class__ = _FoldedConv2d
                    # In a tuple, so that the norm is not registered twice; a deep copy keeps the pair together.
                    cast(_FoldedConv2d, previous).folded = (child,)
                previous = child
        with torch.no_grad():
            after = _probe(model)
    if not all(float((a - b).norm()) < 1e-4 * float(b.norm()) for a, b in zip(after, before, strict=True)):
        for convolution, norm in pairs:
            convolution.__class__ = nn.Conv2d
            norm.__class__ = nn.BatchNorm2d
            del convolution.folded


def _foldable(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> bool:
    same_width = convolution.out_channels == norm.num_features
    return convolution.bias is None and same_width and norm.affine and norm.track_running_stats


@contextmanager
def _random_norms(model: nn.Module) -> Iterator[None]:
    """For a while, norms that change what they get: fresh ones are the identity, which folded anywhere stays exact."""
    random = torch.Generator().manual_seed(0)
    kept: list[tuple[Tensor, Tensor]] = []
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d) and norm.affine and norm.track_running_stats:
            for name, low in (("weight", 0.3), ("bias", -0.5), ("running_mean", -0.5), ("running_var", 0.5)):
                tensor = getattr(norm, name).data
                kept.append((tensor, tensor.clone()))
                tensor.copy_(low + 0.5 * torch.rand(tensor.shape, generator=random))
    try:
        yield
    finally:
        for tensor, value in kept:
            tensor.copy_(value)


def _probe(model: nn.Module, height: int = PROBED, width: int = PROBED) -> list[Tensor]:
    """Stage features of a fixed random image, without a change to the model's state."""
    image = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    training = model.training
    model.eval()
    features = model(image)
    model.train(training)
    return list(features)


def _takes(model: nn.Module, height: int, width: int) -> bool:
    """Whether the network takes images of that size."""
    try:
        with torch.no_grad():
            _probe(model, height, width)
    except (RuntimeError, AssertionError, ValueError):
        return False
    return True


class Backbone(nn.Module):
    """Stage features of a network at chosen strides.

    Args:
        name: `compact`, or any timm model that can give stage features of images of any size: convolutional or
            hierarchical ones by stage, plain ViTs at four evenly spaced blocks.
        pretrained: load timm's published weights, from its cache or over the network.
        weights: local file with backbone weights (timm's .safetensors, .pth or .bin); instead of `pretrained`.
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
        strides: pixels of the image to a cell of each of the four stages.
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
        if name == "compact":
            self.model = CompactNetwork()
        else:
            self.model = timm_features(
                name, pretrained=pretrained, weights=weights, output_stride=output_stride, dilated=dilated
            )
        self.channels_last_output = getattr(self.model, "output_fmt", "NCHW") == "NHWC"
        if not _takes(self.model, PROBED, PROBED):
            raise ConfigError(f"network.backbone: '{name}' takes images of one size only")
        self.multiple = 1 if _takes(self.model, 1, 1) and _takes(self.model, 33, 47) else PADDED_TO
        features = _probe(self.model)
        self.channels = tuple(self._nchw(feature).shape[1] for feature in features)
        self.strides = tuple(PROBED // self._nchw(feature).shape[2] for feature in features)
        self._freeze_below(trained_from, features, name)
        if frozen_norm:
            fold_norms(self.model)
        self.train(self.training)

    def _nchw(self, feature: Tensor) -> Tensor:
        return feature.permute(0, 3, 1, 2) if self.channels_last_output else feature

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


def _is_stem(name: str) -> bool:
    first = name.removeprefix("model.").split(".")[0]
    return first.startswith("stem") or first in STEM_NAMES
