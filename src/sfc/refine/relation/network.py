"""The inter-pixel relation network: class boundaries, and displacements to instance centres (IRN, CVPR 2019)."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sfc.engine.checkpoint import read_state
from sfc.errors import CheckpointError
from sfc.networks.backbone import Backbone
from sfc.refine.relation.frozen_stages import FrozenStages

EDGE_CHANNELS, EDGE_GROUPS = 32, 4
WIDE, WIDE_GROUPS = 256, 16


class RelationNetwork(nn.Module):
    """Edge logits and displacements on the grid of a frozen backbone's first stage.

    Args:
        backbone: `compact` or the name of a timm model, see `sfc.networks.backbone.Backbone`; or a backbone, for
            instance a trained classifier's, which is copied.
        pretrained: load timm's published backbone weights.
        weights: local file with backbone weights.
        output_stride: stride of the last stage.

    Attributes:
        stride: pixels to a cell of the grid; 4 for ResNets and most others.

    Raises:
        ConfigError, CheckpointError: as `Backbone`.
    """

    mean_displacement: Tensor

    def __init__(
        self,
        backbone: str | Backbone = "resnet50.tv_in1k",
        *,
        pretrained: bool = False,
        weights: str = "",
        output_stride: int = 16,
    ) -> None:
        super().__init__()
        if isinstance(backbone, str):
            frozen = Backbone(backbone, pretrained=pretrained, weights=weights, output_stride=output_stride)
        else:
            frozen = deepcopy(backbone)
        self.stages = FrozenStages(frozen)
        channels, self.scales = self.stages.channels, self.stages.scales
        self.stride = self.stages.stride
        self.edge = nn.ModuleList(_branch(count, EDGE_CHANNELS, EDGE_GROUPS) for count in channels)
        self.edge_logit = nn.Conv2d(EDGE_CHANNELS * len(channels), 1, 1)
        # Stem and first stage get fewer channels; a network without a stem's map starts with its first stage.
        widths = [(64, 8), (128, 16), *[(WIDE, WIDE_GROUPS)] * 3][-len(channels) :]
        self.displacement = nn.ModuleList(
            _branch(count, width, groups) for count, (width, groups) in zip(channels, widths, strict=True)
        )
        fine = sum(width for width, _ in widths[:-3])
        self.displacement_coarse = _branch(3 * WIDE, WIDE, WIDE_GROUPS)
        self.displacement_fine = _branch(fine + WIDE, WIDE, WIDE_GROUPS)
        self.displacement_out = nn.Conv2d(WIDE, 2, 1, bias=False)
        self.register_buffer("mean_displacement", torch.zeros(2))

    def edge_parameters(self) -> list[nn.Parameter]:
        """What is trained for the edges."""
        return [*self.edge.parameters(), *self.edge_logit.parameters()]

    def displacement_parameters(self) -> list[nn.Parameter]:
        """What is trained for the displacements, at a higher rate."""
        known = {id(p) for p in [*self.stages.parameters(), *self.edge_parameters()]}
        return [p for p in self.parameters() if id(p) not in known]

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """One pass.

        Args:
            image: float [N, 3, H, W], normalised.

        Returns:
            Edge logits [N, 1, h, w] and displacements [N, 2, h, w] in cells (channel 0 is dy), h = ⌈H / stride⌉. In
            evaluation mode the mean displacement over the training set is subtracted.
        """
        maps = self.stages(image)
        displacement = self._displacement(maps)
        if not self.training:
            displacement = displacement - self.mean_displacement[:, None, None]
        return self._edge(maps), displacement

    def _edge(self, maps: list[Tensor]) -> Tensor:
        parts = [_Part(*part) for part in zip(maps, self.edge, self.scales, strict=True)]
        return _join(self.edge_logit, parts, maps[-4])

    def _displacement(self, maps: list[Tensor]) -> Tensor:
        own = [_Part(*part) for part in zip(maps, self.displacement, self.scales, strict=True)]
        coarse_scale = self.scales[-3]
        coarse = [part._replace(scale=part.scale // coarse_scale) for part in own[-3:]]
        joined = _join(self.displacement_coarse[0], coarse, maps[-3])
        fine = [*own[:-3], _Part(joined, self.displacement_coarse[1], coarse_scale)]
        joined = _join(self.displacement_fine[0], fine, maps[-4])
        return _join(self.displacement_out, [_Part(joined, self.displacement_fine[1], 1)], maps[-4])

    @torch.no_grad()
    def infer(self, image: Tensor, crop_size: int | None = None) -> tuple[Tensor, Tensor]:
        """Edge and displacement of one image, from it and its mirror.

        Both are padded with zeros, at the bottom and on the right, to the size of the training crops, as in the
        released code: the statistics of the group norms include the padding.

        Args:
            image: float [3, H, W], normalised.
            crop_size: side to pad to; None, or an axis that is as long already: no padding.

        Returns:
            edge [h, w] in [0, 1] and displacement [2, h, w] in cells (channel 0 is dy), h = ⌈H / stride⌉.

        Raises:
            ValueError: not such an image.
        """
        if image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape or not image.is_floating_point():
            raise ValueError(f"image must be normalised float [3, H, W], not {image.dtype} {list(image.shape)}")
        height, width = image.shape[1:]
        below, right = (max(0, (crop_size or 0) - length) for length in (height, width))
        pair = F.pad(torch.stack([image, image.flip(-1)]), (0, right, 0, below))
        training = self.training
        self.eval()
        edge, displacement = self(pair)
        self.train(training)
        rows, columns = -(-height // self.stride), -(-width // self.stride)
        edge = edge[:, 0, :rows, :columns].float()
        mean = (edge[0] + edge[1].flip(-1)) / 2
        return torch.sigmoid(mean), displacement[0, :, :rows, :columns].float()

    @classmethod
    def from_official(cls, checkpoint: str | Path | dict[str, Any]) -> RelationNetwork:
        """Loads a checkpoint of the released code.

        Args:
            checkpoint: file, or what loading it gave: a state dict. The released modules register parameters several
                times; the canonical names are used, and the copies and index buffers ignored.

        Returns:
            The network (ResNet-50), in evaluation mode.

        Raises:
            CheckpointError: not such a checkpoint, or a damaged file.
        """
        state, where = read_state(checkpoint, "a relation network's checkpoint")
        net = cls("resnet50")
        mapped = {_our_name(name): value for name, value in state.items() if _our_name(name)}
        try:
            missing, unexpected = net.load_state_dict(mapped, strict=False)
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise CheckpointError(f"{where}not a relation network's checkpoint: {reason}") from error
        missing = [name for name in missing if not name.endswith("num_batches_tracked")]
        if missing or unexpected:
            raise CheckpointError(
                f"{where}not a relation network's checkpoint: {(missing + unexpected)[0]} does not fit"
            )
        return net.eval()


def _branch(channels_in: int, channels: int, groups: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels_in, channels, 1, bias=False), nn.GroupNorm(groups, channels))


class _Part(NamedTuple):
    """Maps [N, channels, h, w], what makes them ready to be joined, and how many times they are enlarged after it."""

    maps: Tensor
    branch: nn.Module
    scale: int


def _join(convolution: nn.Module, parts: list[_Part], grid: Tensor) -> Tensor:
    """1×1 convolution of the parts side by side: each through its branch, enlarged, cut to the grid, and rectified.

    It is a sum over parts, so that they and their gradients are never copied together; and backward repeats what
    leads to a part instead of keeping it. Both together halve the memory of a training step.
    """
    assert isinstance(convolution, nn.Conv2d)
    size = (grid.shape[2], grid.shape[3])
    weights = convolution.weight.split([_width(part.branch) for part in parts], dim=1)
    total: Tensor | None = None
    # The last part first: it is the largest, and nothing else is held yet.
    for part, weight in reversed(list(zip(parts, weights, strict=True))):
        bias = convolution.bias if total is None else None
        share = checkpoint(_convolve, *part, size, weight, bias, use_reentrant=False, preserve_rng_state=False)
        total = share if total is None else total.add_(share)
    assert total is not None
    return total


def _width(branch: nn.Module) -> int:
    norm = branch[-1] if isinstance(branch, nn.Sequential) else branch
    assert isinstance(norm, nn.GroupNorm)
    return norm.num_channels


def _convolve(
    maps: Tensor, branch: nn.Module, scale: int, size: tuple[int, int], weight: Tensor, bias: Tensor | None
) -> Tensor:
    maps = branch(maps)
    if scale > 1:
        maps = F.interpolate(maps, scale_factor=scale, mode="bilinear", align_corners=False)
    if maps.shape[2:] != size:
        maps = maps[:, :, : size[0], : size[1]]  # not resized: that would move every cell
    return F.conv2d(F.relu(maps, inplace=True), weight, bias)


_OFFICIAL = {
    "resnet50": "stages.backbone.model",
    **{f"fc_edge{i + 1}": f"edge.{i}" for i in range(5)},
    "fc_edge6": "edge_logit",
    **{f"fc_dp{i + 1}": f"displacement.{i}" for i in range(5)},
    "fc_dp6": "displacement_coarse",
    **{f"fc_dp7.{i}": f"displacement_fine.{i}" for i in range(2)},
    "fc_dp7.3": "displacement_out",
    "mean_shift.running_mean": "mean_displacement",
}
"""Names of the released code's modules, and ours."""


def _our_name(name: str) -> str:
    """Where a tensor of a released checkpoint belongs; empty for copies, indices and the ImageNet classifier."""
    if name.startswith("resnet50.fc."):
        return ""
    for theirs, ours in _OFFICIAL.items():
        if name == theirs or name.startswith(f"{theirs}."):
            return ours + name.removeprefix(theirs)
    return ""
