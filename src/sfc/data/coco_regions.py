"""Segmentations of COCO annotations, checked before they reach pycocotools, whose C code trusts them."""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

_FARTHEST = 10
"""In image sizes; the rasteriser walks along every edge, so a point at infinity would take all memory."""


def run_lengths(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    """The compressed run-length code of a segmentation on an image of this size.

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
        return _from_counts(unpack_counts(counts) if isinstance(counts, str) else list(counts), height, width)
    if not isinstance(segmentation, list):
        raise TypeError("it is neither polygons nor run lengths")
    # Two points would be taken for a bounding box; they cover nothing.
    polygons = [np.asarray(polygon, dtype=np.float64) for polygon in segmentation if len(polygon) >= 6]
    for polygon in polygons:
        if polygon.ndim != 1 or polygon.size % 2:
            raise ValueError("a polygon is a list of x, y, x, y, ...")
        if not (np.abs(polygon) <= _FARTHEST * max(height, width)).all():
            raise ValueError("a polygon has a point far outside the image")
    if not polygons:
        return _from_counts([height * width], height, width)
    return coco_mask.merge(coco_mask.frPyObjects([polygon.tolist() for polygon in polygons], height, width))


def area(region: dict[str, Any]) -> int:
    """Pixels of a run-length code."""
    return int(coco_mask.area(region))


def pixels(region: dict[str, Any]) -> np.ndarray:
    """bool [H, W], column by column in memory (Fortran order)."""
    return coco_mask.decode(region).view(bool)


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


def _from_counts(counts: list[int], height: int, width: int) -> dict[str, Any]:
    if sum(counts) != height * width or min(counts, default=0) < 0:
        raise ValueError("its run lengths do not add up to the image")
    return coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
