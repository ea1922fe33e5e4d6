"""Masks as palette PNGs: pixel values are classes, and any image viewer shows them in colours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo


def mask_palette() -> np.ndarray:
    """uint8 [256, 3]: the colour map of PASCAL VOC; 0 is black, 255 (ignored) is cream."""
    index = np.arange(256)
    colors = np.zeros((256, 3), dtype=np.int64)
    for bit in range(8):
        for channel in range(3):
            colors[:, channel] |= ((index >> (3 * bit + channel)) & 1) << (7 - bit)
    return colors.astype(np.uint8)


def write_mask_png(file: IO[bytes] | str, mask: np.ndarray, texts: Mapping[str, str] | None = None) -> None:
    """Writes `mask`, uint8 [H, W], as a PNG whose indices are the mask values; `texts` become its text chunks."""
    image = Image.fromarray(np.ascontiguousarray(mask, dtype=np.uint8))
    image.putpalette(mask_palette().tobytes())
    info = PngInfo()
    for name, text in (texts or {}).items():
        info.add_text(name, text)
    image.save(file, format="PNG", pnginfo=info)
