"""Segmentations of COCO annotations, checked before they reach pycocotools, whose C code trusts them."""

from __future__ import annotations

from operator import index
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

_FARTHEST = 10
"""In image sizes; the rasteriser walks along every edge, so a point at infinity would take all memory."""


def run_lengths(segmentation: Any, height: int, width: int) -> list[int]:
    """A segmentation as run lengths: pixels outside, inside, outside, ... column by column.

    Args:
        segmentation: polygons (lists of x, y, x, y, ... in pixels), or run lengths, {size, counts}, with counts as a
            list or as COCO's string.
        height: of the image.
        width: of the image.

    Raises:
        ValueError, TypeError, KeyError: what is wrong with it.
    """
    if isinstance(segmentation, dict):
        if list(segmentation["size"]) != [height, width]:
            raise ValueError(f"its run lengths are for another size than {width}x{height}")
        counts = segmentation["counts"]
        counts = unpack_counts(counts) if isinstance(counts, str) else [index(count) for count in counts]
    elif isinstance(segmentation, list):
        counts = _polygon_counts(segmentation, height, width)
    else:
        raise TypeError("it is neither polygons nor run lengths")
    if sum(counts) != height * width or min(counts) < 0:
        raise ValueError("its run lengths do not add up to the image")
    return counts


def area(counts: list[int]) -> int:
    """Pixels inside."""
    return sum(counts[1::2])


def pixels(counts: list[int], height: int) -> np.ndarray:
    """bool [H, W], column by column in memory (Fortran order)."""
    inside = np.arange(len(counts)) % 2 == 1
    return np.repeat(inside, counts).reshape(-1, height).T


def unpack_counts(text: str) -> list[int]:
    """Run lengths from COCO's string: 5 bits a character, and from the third on differences to the one before last.

    Raises:
        ValueError: a character out of range, or an end within a number.
    """
    counts: list[int] = []
    number, shift = 0, 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise ValueError("its run lengths hold a character that is none of COCO's")
        number |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            number -= 1 << shift
        counts.append(number + (counts[-2] if len(counts) > 2 else 0))
        number, shift = 0, 0
    if shift:
        raise ValueError("its run lengths end within a number")
    return counts


def _polygon_counts(polygons: list[Any], height: int, width: int) -> list[int]:
    # Two points would be taken for a bounding box; they cover nothing.
    shapes = [np.asarray(polygon, dtype=np.float64) for polygon in polygons if len(polygon) >= 6]
    for shape in shapes:
        if shape.ndim != 1 or shape.size % 2:
            raise ValueError("a polygon is a list of x, y, x, y, ...")
        if not (np.abs(shape) <= _FARTHEST * max(height, width)).all():
            raise ValueError("a polygon has a point far outside the image")
    if not shapes:
        return [height * width]
    code = coco_mask.merge(coco_mask.frPyObjects([shape.tolist() for shape in shapes], height, width))
    return unpack_counts(code["counts"].decode())
