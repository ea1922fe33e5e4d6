"""What the maps of one photograph say of themselves: signs of good and of broken maps, without a mask to compare."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sfc.metrics.counts import ratio

WEAKER_BACKGROUND = 0.5
"""Factor on the background of a second labelling; pixels that change are in doubt (as for relation labels)."""
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


class PhotoSigns(NamedTuple):
    """One value for each present class of a photograph; float64 [M − 1], in the order of its keys.

    Attributes:
        level: mean of the classifier CAM, whose peak is 1. A sharp map is low, a constant one is 1.
        coverage: share of the pixels that the fixed rule gives to the class on W + P.
        agreement: IoU of what W alone and P alone give to the class; NaN where neither gives it anything.
        doubt: share of the pixels that become the class's when the background counts half.
        edges: mean strength of the photograph's edges along the contour of the class's region, relative to the
            photograph's mean; NaN without a contour.
    """

    level: NDArray[np.float64]
    coverage: NDArray[np.float64]
    agreement: NDArray[np.float64]
    doubt: NDArray[np.float64]
    edges: NDArray[np.float64]


def photo_signs(
    image: NDArray[np.uint8],
    weight: NDArray[np.float32],
    prototype: NDArray[np.float32],
) -> PhotoSigns:
    """Signs of one photograph's CAMs.

    Args:
        image: uint8 [H, W, 3].
        weight: float32 [M, H, W], W as stored: background first, with its score added; foreground counted twice.
        prototype: float32 [M, H, W], P likewise.

    Raises:
        ValueError: the sizes differ, or there is no class beside the background.
    """
    if weight.shape != prototype.shape or weight.shape[1:] != image.shape[:2] or len(weight) < 2:
        raise ValueError(f"maps of {weight.shape} and {prototype.shape} for an image of {image.shape}")
    fused = weight + prototype
    label = fused.argmax(axis=0)
    daring = np.concatenate([fused[:1] * np.float32(WEAKER_BACKGROUND), fused[1:]]).argmax(axis=0)
    strength = _edge_strength(image)
    by_weight, by_prototype = weight.argmax(axis=0), prototype.argmax(axis=0)
    columns = []
    for channel in range(1, len(weight)):
        region, one, other = label == channel, by_weight == channel, by_prototype == channel
        contour = _contour(region)
        columns.append(
            (
                weight[channel].mean() / 2,
                region.mean(),
                ratio((one & other).sum(), (one | other).sum()),
                ((daring == channel) & (label == 0)).mean(),
                strength[contour].mean() / strength.mean() if contour.any() and strength.any() else np.nan,
            )
        )
    return PhotoSigns(*np.array(columns, np.float64).T)


def _edge_strength(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Largest grey-level step to a neighbour below or to the right; float32 [H, W]."""
    grey = image.astype(np.float32) @ LUMA
    down = np.abs(np.diff(grey, axis=0, append=grey[-1:]))
    right = np.abs(np.diff(grey, axis=1, append=grey[:, -1:]))
    return np.maximum(down, right)


def _contour(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels whose neighbour below or to the right is on the other side; bool [H, W]."""
    down = region ^ np.concatenate([region[1:], region[-1:]])
    right = region ^ np.concatenate([region[:, 1:], region[:, -1:]], axis=1)
    return down | right
