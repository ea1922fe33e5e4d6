"""Masks as palette PNGs: pixel values are classes, and any image viewer shows them in colours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sfc.errors import DataError


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


def check_mask_header(path: Path) -> None:
    """Refuses what is not a palette or 8-bit grayscale PNG: Pillow would silently stretch 2- and 4-bit grayscale."""
    with path.open("rb") as file:
        depth, colour = file.read(26)[24:26]
    if colour == 3 or (colour == 0 and depth == 8):
        return
    kind = {0: "grayscale", 2: "RGB", 4: "grayscale with alpha", 6: "RGBA"}.get(colour, "unknown")
    raise DataError(path, f"a mask is a palette or 8-bit grayscale PNG of class indices, not {depth}-bit {kind}")
