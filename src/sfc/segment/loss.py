"""Cross-entropy at several sizes and of their maximum (DeepLab-v2's training)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfc.data.records import IGNORE

Size = tuple[int, int]


def pyramid(net: nn.Module, image: Tensor, scales: Sequence[float]) -> list[Tensor]:
    """Logits of an image at several sizes; with more than one, also their maximum, on the first one's grid.

    Args:
        net: see `sfc.segment.segmenter.Segmenter`.
        image: float [N, 3, H, W], normalised.
        scales: factors on height and width, rounded down.

    Returns:
        float32 [N, K, h, w] for each scale, each on its own grid; and then the maximum.
    """
    return with_maximum([net(at_scale(image, scale)).float() for scale in scales])


def at_scale(image: Tensor, scale: float) -> Tensor:
    """An image [N, 3, H, W] resized by a factor on height and width, rounded down (bilinear)."""
    if scale == 1:
        return image
    size = (max(1, int(image.shape[2] * scale)), max(1, int(image.shape[3] * scale)))
    return F.interpolate(image, size=size, mode="bilinear", align_corners=False)


def with_maximum(logits: Sequence[Tensor]) -> list[Tensor]:
    """Logits [N, K, h, w] of several sizes; with more than one, then their maximum on the first one's grid."""
    if len(logits) == 1:
        return [*logits]
    grid = logits[0].shape[2:]
    maximum = logits[0]
    for other in logits[1:]:
        maximum = torch.maximum(maximum, F.interpolate(other, size=grid, mode="bilinear", align_corners=False))
    return [*logits, maximum]


def resize_labels(labels: Tensor, size: Size) -> Tensor:
    """The label at the centre of each cell of a grid, as Pillow's nearest resizing takes it.

    Args:
        labels: [N, H, W].
        size: height and width of the grid.

    Returns:
        [N, h, w].
    """
    rows, columns = (
        (2 * torch.arange(new, device=labels.device) + 1) * old // (2 * new)
        for old, new in zip(labels.shape[1:], size, strict=True)
    )
    return labels[:, rows[:, None], columns]


def label_counts(labels: Tensor, grids: Sequence[Size]) -> Tensor:
    """float32 [grids]: cells of each grid whose label is not ignored.

    Args:
        labels: uint8 [N, H, W], 255 ignored.
        grids: heights and widths.
    """
    return torch.stack([(resize_labels(labels, grid) != IGNORE).sum() for grid in grids]).float()


def segmentation_losses(logits: Sequence[Tensor], labels: Tensor, counts: Tensor) -> list[Tensor]:
    """Cross-entropy of each of several logits, summed over cells and divided by a given count.

    Args:
        logits: float [N, K, h, w] each.
        labels: uint8 [N, H, W], 255 ignored.
        counts: [logits], see `label_counts`; where 0, the loss is 0.

    Returns:
        A scalar for each.
    """
    safe = torch.where(counts > 0, counts, 1.0)
    return [
        F.cross_entropy(
            each, resize_labels(labels, (each.shape[2], each.shape[3])).long(), ignore_index=IGNORE, reduction="sum"
        )
        / count
        for each, count in zip(logits, safe, strict=True)
    ]
