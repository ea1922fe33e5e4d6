"""The one painter of masks over photographs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sfc.data.palette import mask_palette
from sfc.data.records import IGNORE

COVER = 55
"""How much of a class's colour an overlay shows, in percent."""
UNDECIDED_COVER = 85
"""How much white covers what has no class."""
BLOCK = 256
"""Rows that are blended at once."""


def overlay(
    image: NDArray[np.uint8],
    mask: NDArray[np.integer],
    colours: NDArray[np.uint8] | None = None,
    cover: int = COVER,
) -> NDArray[np.uint8]:
    """The photograph with the classes' colours laid over it; background stays as it is.

    Args:
        image: uint8 [H, W, 3].
        mask: integers [H, W]: 0 background, 1 + class index, 255 undecided (white).
        colours: uint8 [at least largest class + 2, 3], by mask value; None: VOC's palette.
        cover: how much of a class's colour is shown, in percent.

    Returns:
        uint8 [H, W, 3].
    """
    palette = np.zeros((256, 3), dtype=np.uint16)
    given = mask_palette() if colours is None else colours
    palette[: len(given)] = given
    palette[IGNORE] = 255
    covers = np.full((256, 1), cover, dtype=np.uint16)
    covers[IGNORE] = UNDECIDED_COVER
    picture = image.copy()
    for top in range(0, len(image), BLOCK):
        rows = slice(top, top + BLOCK)
        shown = mask[rows] > 0
        values = mask[rows][shown]
        blend = (100 - covers[values]) * image[rows][shown].astype(np.uint16) + covers[values] * palette[values]
        picture[rows][shown] = (blend + 50) // 100
    return picture


def pale(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The photograph in pale grey, a ground on which colours speak; uint8 [H, W, 3]."""
    grey = image.mean(axis=2, keepdims=True)
    return np.repeat(np.round(0.25 * 255 + 0.65 * grey), 3, axis=2).astype(np.uint8)
