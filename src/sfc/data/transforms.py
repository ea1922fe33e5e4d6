"""Augmentation of training images, on uint8, before anything touches the device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from sfc.data.records import IGNORE


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
    placed = _place_crop(size, generator, crop, flip)
    return placed.cut(image), placed.rectangle


def augment_with_labels(
    image: Image.Image,
    labels: np.ndarray,
    generator: np.random.Generator,
    scale: tuple[float, float] = (0.5, 1.0),
    crop: int = 512,
    flip: bool = True,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random scale, mirror and square crop of an image and its label map together (METHOD: relation network).

    As `augment`, save that the size is that of the image times a factor; labels are resized by nearest.

    Args:
        image: an RGB picture.
        labels: uint8 [H, W] of the same size.
        generator: the only source of randomness.
        scale: range of the factor, drawn uniformly.
        crop: side of the square in pixels.
        flip: mirror with probability one half.

    Returns:
        uint8 [crop, crop, 3], zero in the padding; uint8 [crop, crop], 255 in the padding; and int64 [4], top, left,
        bottom and right (ends excluded) of the real pixels.
    """
    factor = generator.uniform(*scale)
    size = (max(1, round(image.height * factor)), max(1, round(image.width * factor)))
    placed = _place_crop(size, generator, crop, flip)
    return placed.cut(image), placed.cut_labels(labels), placed.rectangle


@dataclass(frozen=True)
class _Placement:
    """Which part of a resized image goes where in a square; all in pixels."""

    size: tuple[int, int]
    crop: int
    mirror: bool
    to: tuple[int, int]
    start: tuple[int, int]
    shape: tuple[int, int]

    @property
    def rectangle(self) -> np.ndarray:
        (top, left), (height, width) = self.to, self.shape
        return np.array([top, left, top + height, left + width], dtype=np.int64)

    def cut(self, image: Image.Image) -> np.ndarray:
        part = np.asarray(_resized_part(image, self.size, (*self.start, *self.shape)))
        return self._put(part, np.zeros((self.crop, self.crop, 3), dtype=np.uint8))

    def cut_labels(self, labels: np.ndarray) -> np.ndarray:
        rows, columns = (
            (2 * np.arange(start, start + length) + 1) * old // (2 * new)
            for start, length, old, new in zip(self.start, self.shape, labels.shape, self.size, strict=True)
        )
        part = labels[rows[:, None], columns]
        return self._put(part, np.full((self.crop, self.crop), IGNORE, dtype=np.uint8))

    def _put(self, part: np.ndarray, square: np.ndarray) -> np.ndarray:
        top, left, bottom, right = self.rectangle
        square[top:bottom, left:right] = part[:, ::-1] if self.mirror else part
        return square


def _place_crop(size: tuple[int, int], generator: np.random.Generator, crop: int, flip: bool) -> _Placement:
    mirror = bool(generator.random() < 0.5) and flip
    to_top, from_top, height = _place(size[0], crop, generator)
    to_left, from_left, width = _place(size[1], crop, generator)
    return _Placement(size, crop, mirror, (to_top, to_left), (from_top, from_left), (height, width))


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
