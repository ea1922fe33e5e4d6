"""Any timm model, or a compact network for small images, as four stage features."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfc.errors import CheckpointError, ConfigError

COMPACT_CHANNELS = (32, 48, 64, 96)
Norm = nn.modules.batchnorm._BatchNorm


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
    """170 thousand parameters that learn small images from scratch on a CPU; strides 4, 8, 8, 8.

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
        assert norm.running_var is not None and norm.running_mean is not None
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        return self._conv_forward(x, self.weight * scale[:, None, None, None], norm.bias - norm.running_mean * scale)


class _FoldedNorm(nn.BatchNorm2d):
    """A frozen batch norm whose work the convolution before it does; keeps its parameters and their names."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def fold_norms(module: nn.Module) -> None:
    """Folds every frozen `BatchNorm2d` that directly follows a bias-free convolution among its siblings, in place.

    Names and parameters stay, so checkpoints do not change; affine parameters keep training.
    """
    for parent in module.modules():
        previous: nn.Module | None = None
        for child in parent.children():
            if (
                type(child) is nn.BatchNorm2d
                and type(previous) is nn.Conv2d
                and previous.bias is None
                and previous.out_channels == child.num_features
                and child.affine
                and child.track_running_stats
            ):
                child.__class__ = _FoldedNorm
                previous.__class__ = _FoldedConv2d
                # In a tuple, so that the norm is not registered a second time; a deep copy keeps the pair together.
                previous.folded = (child,)
            previous = child


def _probe(model: nn.Module, size: int = 64) -> list[Tensor]:
    """Stage features of a fixed random image, without a change to the model's state."""
    image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    training = model.training
    model.eval()
    features = model(image)
    model.train(training)
    return features


class Backbone(nn.Module):
    """Stage features of a network at chosen strides.

    Args:
        name: `compact`, or any timm model that can give stage features: convolutional or hierarchical ones by stage,
            plain ViTs at four evenly spaced blocks.
        pretrained: load timm's published weights (from timm's cache, or over the network unless HF_HUB_OFFLINE=1).
        weights: local file with backbone weights (timm's .safetensors, .pth or .bin); instead of `pretrained`.
        output_stride: stride of the last stage where the network supports it: 8, 16 or 32. Dilation is undone
            (released code: the last stage has stride 1 and no dilation).
        frozen_norm: keep batch-norm statistics; affine parameters train.
        trained_from: the first stage (1 to 4) that learns. All parameters below get no gradient and build no graph.
            1 trains everything but the stem, 0 the stem too.

    Attributes:
        channels: channels of the four stages.
        patch: multiple that image sizes are padded to inside the network (1: none).

    Raises:
        ConfigError: the name is unknown, or has no stage features.
        CheckpointError: the weights are missing or do not fit.
    """

    def __init__(
        self,
        name: str,
        *,
        pretrained: bool = False,
        weights: str = "",
        output_stride: int = 16,
        frozen_norm: bool = True,
        trained_from: int = 3,
    ) -> None:
        super().__init__()
        self.frozen_norm = frozen_norm
        self.model = CompactNetwork() if name == "compact" else _timm_model(name, pretrained, weights, output_stride)
        self.channels_last_output = getattr(self.model, "output_fmt", "NCHW") == "NHWC"
        before = _probe(self.model)
        shapes = [self._nchw(feature) for feature in before]
        self.channels = tuple(feature.shape[1] for feature in shapes)
        self._freeze_below(trained_from, before)
        if frozen_norm:
            fold_norms(self.model)
            self._check_folding([feature.detach() for feature in before])
        self.train(self.training)

    def _nchw(self, feature: Tensor) -> Tensor:
        return feature.permute(0, 3, 1, 2) if self.channels_last_output else feature

    def _freeze_below(self, trained_from: int, features: list[Tensor]) -> None:
        """Freezes every parameter that stage `trained_from` − 1 depends on, found through the graph of a probe."""
        if trained_from <= 0:
            return
        if trained_from == 1:
            frozen = list(_stem_parameters(self.model))
        else:
            candidates = [p for p in self.model.parameters() if p.requires_grad]
            below = torch.autograd.grad(features[trained_from - 2].sum(), candidates, allow_unused=True)
            frozen = [p for p, gradient in zip(candidates, below, strict=True) if gradient is not None]
        for parameter in frozen:
            parameter.requires_grad_(False)

    def _check_folding(self, before: list[Tensor]) -> None:
        """Folding relies on the order of siblings; a network where that is not the order of the forward is refused."""
        with torch.no_grad():
            after = _probe(self.model)
        for a, b in zip(after, before, strict=True):
            if not torch.allclose(a, b, rtol=1e-3, atol=1e-3 * float(b.abs().max())):
                raise ConfigError("this backbone's frozen norms cannot be folded; set network.frozen_norm to false")

    def train(self, mode: bool = True) -> Backbone:
        """Training mode, save that frozen norms stay as in evaluation."""
        super().train(mode)
        if self.frozen_norm:
            for module in self.modules():
                if isinstance(module, Norm):
                    module.eval()
        return self

    def forward(self, image: Tensor) -> list[Tensor]:
        """Normalised image [N, 3, H, W] to four features [N, channels, h, w]."""
        return [self._nchw(feature) for feature in self.model(image)]


def _stem_parameters(model: nn.Module) -> Iterator[nn.Parameter]:
    """Parameters of the modules before the first stage, by the names that timm and the compact network use."""
    for name, parameter in model.named_parameters():
        if name.split(".")[0].startswith(("stem", "conv1", "bn1", "patch_embed")):
            yield parameter


def _timm_model(name: str, pretrained: bool, weights: str, output_stride: int) -> nn.Module:
    if weights and not Path(weights).is_file():
        raise CheckpointError(f"{weights}: no such file (network.weights)")
    if not timm.is_model(name):
        raise ConfigError(f"network.backbone: timm knows no model '{name}'")
    overlay = {"file": weights} if weights else None
    indices = _vit_blocks(name)
    attempts: list[dict[str, object]]
    if indices is not None:
        attempts = [{"dynamic_img_size": True, "dynamic_img_pad": True, "out_indices": indices}]
    else:
        last_four = {"out_indices": (-4, -3, -2, -1)}
        attempts = [{"output_stride": output_stride, **last_four}, {"strict_img_size": False, **last_four}, last_four]
    failures: list[str] = []
    for options in attempts:
        try:
            model = timm.create_model(
                name,
                features_only=True,
                pretrained=pretrained or bool(weights),
                pretrained_cfg_overlay=overlay,
                **options,
            )
        except (TypeError, NotImplementedError, AssertionError) as error:
            failures.append(str(error))
            continue
        except (OSError, RuntimeError, ValueError) as error:
            raise CheckpointError(_weights_message(name, weights, error)) from error
        _undo_dilation(model)
        return model
    raise ConfigError(f"network.backbone: '{name}' cannot give stage features ({failures[-1]})")


def _vit_blocks(name: str) -> tuple[int, ...] | None:
    """Four evenly spaced blocks of a plain ViT, the last one included; None for other networks."""
    with torch.device("meta"):
        model = timm.create_model(name)
    blocks = getattr(model, "blocks", None)
    if not hasattr(model, "patch_embed") or blocks is None or not hasattr(model, "pos_embed"):
        return None
    depth = len(blocks)
    return tuple(depth * (i + 1) // 4 - 1 for i in range(4))


def _undo_dilation(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and max(module.dilation) > 1 and not isinstance(module.padding, str):
            vertical, horizontal = module.padding
            module.padding = (vertical // module.dilation[0], horizontal // module.dilation[1])
            module.dilation = (1, 1)


def _weights_message(name: str, weights: str, error: Exception) -> str:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    if weights:
        return f"{weights}: not weights of {name} ({reason})"
    offline = " HF_HUB_OFFLINE is set." if os.environ.get("HF_HUB_OFFLINE") == "1" else ""
    return (
        f"The published weights of {name} cannot be loaded ({reason}).{offline} Fetch them on a machine with a network "
        f"(`timm.create_model('{name}', pretrained=True)`), copy the file, and set network.weights to its path."
    )
