"""Masks as palette PNGs: pixel values are classes, and any image viewer shows them in colours."""

from __future__ import annotations

from typing import IO

import numpy as np
from PIL import Image


def mask_palette() -> np.ndarray:
    """uint8 [256, 3]: the colour map of PASCAL VOC; 0 is black, 255 (ignored) is cream."""
    index = np.arange(256)
    colors = np.zeros((256, 3), dtype=np.int64)
    for bit in range(8):
        for channel in range(3):
            colors[:, channel] |= ((index >> (3 * bit + channel)) & 1) << (7 - bit)
    return colors.astype(np.uint8)


def write_mask_png(file: IO[bytes] | str, mask: np.ndarray) -> None:
    """Writes `mask`, uint8 [H, W], as a PNG whose indices are the mask values."""
    image = Image.fromarray(np.ascontiguousarray(mask, dtype=np.uint8))
    image.putpalette(mask_palette().tobytes())
    image.save(file, format="PNG")
