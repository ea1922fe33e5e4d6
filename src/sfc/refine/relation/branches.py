"""Branches of the relation network: 1×1 convolution and group norm, and their join without a joined map."""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def branch(channels_in: int, channels: int, groups: int) -> nn.Sequential:
    """1×1 convolution without bias, and group norm; the rectifier comes after enlarging, in `join`."""
    return nn.Sequential(nn.Conv2d(channels_in, channels, 1, bias=False), nn.GroupNorm(groups, channels))


class Part(NamedTuple):
    """Maps [N, channels, h, w], what makes them ready to be joined, and how many times they are enlarged after it."""

    maps: Tensor
    branch: nn.Module
    scale: int


def join(convolution: nn.Module, parts: list[Part], grid: Tensor) -> Tensor:
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


def _width(branch_or_norm: nn.Module) -> int:
    norm = branch_or_norm[-1] if isinstance(branch_or_norm, nn.Sequential) else branch_or_norm
    assert isinstance(norm, nn.GroupNorm)
    return norm.num_channels


def _convolve(
    maps: Tensor, ready: nn.Module, scale: int, size: tuple[int, int], weight: Tensor, bias: Tensor | None
) -> Tensor:
    maps = ready(maps)
    if scale > 1:
        maps = F.interpolate(maps, scale_factor=scale, mode="bilinear", align_corners=False)
    if maps.shape[2:] != size:
        maps = maps[:, :, : size[0], : size[1]]  # not resized: that would move every cell
    return F.conv2d(F.relu(maps, inplace=True), weight, bias)
