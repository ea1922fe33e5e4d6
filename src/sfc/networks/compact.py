"""A compact network for small images."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

COMPACT_CHANNELS = (32, 48, 64, 96)


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
