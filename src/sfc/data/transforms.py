"""Augmentation of training images, on uint8, before anything touches the device."""

from __future__ import annotations

import numpy as np
from PIL import Image


def augment(
    image: Image.Image,
    generator: np.random.Generator,
    long_side: tuple[int, int] | None = (320, 640),
    crop: int = 512,
    flip: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Random size, mirror and square crop, as SFC's released code draws them (METHOD: long side 320 to 640, crop 512).

    An axis longer than the crop is cut at a random offset; a shorter one is placed at a random offset and padded with
    zeros. Normalisation comes later, on the device, and must leave the padding at zero.

    Args:
        image: an RGB picture.
        generator: the only source of randomness.
        long_side: range, both ends included, of the long side in pixels after bicubic resizing; None keeps the size.
        crop: side of the square in pixels.
        flip: mirror with probability one half.

    Returns:
        uint8 [crop, crop, 3]; and int64 [4], top, left, bottom and right (ends
        excluded) of the real pixels in it.
    """
    size = (image.height, image.width)
    if long_side is not None:
        size = _with_long_side(size, int(generator.integers(*long_side, endpoint=True)))
    mirror = bool(generator.random() < 0.5) and flip
    to_top, from_top, height = _place(size[0], crop, generator)
    to_left, from_left, width = _place(size[1], crop, generator)
    part = np.asarray(_resized_part(image, size, (from_top, from_left, height, width)))
    pixels = np.zeros((crop, crop, 3), dtype=np.uint8)
    pixels[to_top : to_top + height, to_left : to_left + width] = part[:, ::-1] if mirror else part
    return pixels, np.array([to_top, to_left, to_top + height, to_left + width], dtype=np.int64)


def _resized_part(image: Image.Image, size: tuple[int, int], part: tuple[int, int, int, int]) -> Image.Image:
    """Part (top, left, height, width) of the image resized to `size`; only that part is computed.

    Pillow takes the edges of its box as float32, so a few pixels differ slightly from those of the whole resized image.
    """
    top, left, height, width = part
    if size == (image.height, image.width):
        return image.crop((left, top, left + width, top + height))
    rows, columns = image.height / size[0], image.width / size[1]
    right, bottom = min((left + width) * columns, image.width), min((top + height) * rows, image.height)
    return image.resize((width, height), Image.Resampling.BICUBIC, box=(left * columns, top * rows, right, bottom))


def _with_long_side(size: tuple[int, int], target: int) -> tuple[int, int]:
    """Height and width with the long side at `target`, the short one rounded, at least one pixel."""
    height, width = size
    if height > width:
        return target, max(1, round(width * target / height))
    return max(1, round(height * target / width)), target


def _place(length: int, crop: int, generator: np.random.Generator) -> tuple[int, int, int]:
    """Along one axis: offset in the crop, offset in the image, pixels taken."""
    offset = int(generator.integers(abs(crop - length), endpoint=True))
    return (offset, 0, length) if length <= crop else (0, offset, crop)
