"""Bicubic resizing: the integers that Pillow computes, at a third of its time, for any window of the result.

Pillow (`Resample.c`) filters 8-bit images with weights of 22 fractional bits, first along rows, then along columns,
and rounds to 8 bits in between; so does this. Four bytes of a pixel move as one number while a block of rows is
transposed, so that both passes run along contiguous memory and use vector instructions, and only the window that is
asked for is computed. Pillow's own `box` argument cannot do the latter exactly: it passes box edges as float32.

One difference: recent versions of Pillow begin with the columns where an image shrinks by more than twice as many rows
as columns (a tall image, H > 2 W). Here rows always come first, as in every earlier version.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_BITS = 22
_HALF = np.int32(1 << (_BITS - 1))
_SHIFT = np.int32(_BITS)
_ZERO, _FULL = np.int32(0), np.int32(255)
_GREEN, _BLUE = np.uint32(8), np.uint32(16)
_ROWS = 32
"""Rows that are transposed together: few enough to stay in the first-level cache."""


def resize_bicubic(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`Image.fromarray(image).resize((width, height), BICUBIC)`, the same numbers but for the module's exception.

    Args:
        image: uint8 [H, W, 3].
        size: height and width of the result.

    Returns:
        uint8 [height, width, 3], a view of [3, height, width].
    """
    planes = np.empty((3, *size), dtype=np.uint8)
    resize_into(planes, image, size)
    return planes.transpose(1, 2, 0)


def resize_into(
    planes: np.ndarray,
    image: np.ndarray,
    size: tuple[int, int],
    window: tuple[int, int, int, int] | None = None,
    corner: tuple[int, int] = (0, 0),
    mirror: bool = False,
) -> None:
    """Writes a window of the resized image into `planes`.

    Args:
        planes: uint8 [3, h, w], contiguous; what lies outside the window is left as it is.
        image: uint8 [H, W, 3].
        size: height and width of the whole resized image, of which only the window is computed.
        window: top, left, height and width within the resized image; None: all of it.
        corner: where in `planes` the window's top left corner comes to lie.
        mirror: mirror the window left to right.
    """
    top, left, height, width = window or (0, 0, *size)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"an image is uint8 [H, W, 3], not {image.dtype} {list(image.shape)}")
    if min(top, left, *corner) < 0 or min(height, width, *size) < 1:
        raise ValueError("sizes must be positive, offsets must not be negative")
    if top + height > size[0] or left + width > size[1]:
        raise ValueError("the window reaches beyond the resized image")
    if corner[0] + height > planes.shape[1] or corner[1] + width > planes.shape[2]:
        raise ValueError("the window does not fit into the planes")
    rows, row_weights = _weights(image.shape[0], size[0], top, height)
    columns, column_weights = _weights(image.shape[1], size[1], left, width)
    _resize(np.ascontiguousarray(image), columns, column_weights, rows, row_weights, mirror, planes, *corner)


def _weights(length: int, resized: int, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Where each of `count` outputs starts to read, int64 [count], and its integer weights, int32 [count, taps].

    Catmull-Rom kernel (a = −0.5), stretched when shrinking, cut off at the border and normalised, in the order of
    operations of Pillow's `precompute_coeffs`; weights beyond a row's own taps are 0.
    """
    scale = length / resized
    stretch = max(scale, 1.0)
    centre = (np.arange(first, first + count) + 0.5) * scale
    start = np.maximum((centre - 2.0 * stretch + 0.5).astype(np.int64), 0)
    stop = np.minimum((centre + 2.0 * stretch + 0.5).astype(np.int64), length)
    position = start[:, None] + np.arange((stop - start).max())
    x = np.abs((position - centre[:, None] + 0.5) * (1.0 / stretch))
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5
    weight = np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))
    weight[position >= stop[:, None]] = 0.0
    weight /= np.add.accumulate(weight, axis=1)[:, -1:]
    return start, np.where(weight < 0, weight * (1 << _BITS) - 0.5, weight * (1 << _BITS) + 0.5).astype(np.int32)


@njit(nogil=True, cache=True, error_model="numpy")
def _resize(
    image: np.ndarray,
    columns: np.ndarray,
    column_weights: np.ndarray,
    rows: np.ndarray,
    row_weights: np.ndarray,
    mirror: bool,
    planes: np.ndarray,
    corner_top: int,
    corner_left: int,
) -> None:
    """Rows first: a block of input rows at a time, transposed to [x, y] so that the filter runs along memory."""
    width, height = columns.shape[0], rows.shape[0]
    first_column, first_row = columns[0], rows[0]
    last_column = min(columns[width - 1] + column_weights.shape[1], image.shape[1])
    last_row = min(rows[height - 1] + row_weights.shape[1], image.shape[0])
    pixels = np.zeros((last_column - first_column, _ROWS), np.uint32)
    filtered = np.empty((width, _ROWS), np.uint32)
    narrow = np.empty((3, last_row - first_row, width), np.uint8)
    for block in range(first_row, last_row, _ROWS):
        used = min(_ROWS, last_row - block)
        for x in range(first_column, last_column):
            for y in range(used):
                red, green, blue = image[block + y, x, 0], image[block + y, x, 1], image[block + y, x, 2]
                packed = np.uint32(red) | (np.uint32(green) << _GREEN) | (np.uint32(blue) << _BLUE)
                pixels[x - first_column, y] = packed
        _filter(pixels.view(np.uint8), columns - first_column, column_weights, filtered.view(np.uint8), 0, 0)
        for y in range(used):
            line = narrow[:, block - first_row + y]
            for x in range(width):
                packed = filtered[width - 1 - x if mirror else x, y]
                line[0, x] = np.uint8(packed)
                line[1, x] = np.uint8(packed >> _GREEN)
                line[2, x] = np.uint8(packed >> _BLUE)
    for channel in range(3):
        _filter(narrow[channel], rows - first_row, row_weights, planes[channel], corner_top, corner_left)


@njit(nogil=True, cache=True, error_model="numpy")
def _filter(
    source: np.ndarray, starts: np.ndarray, weights: np.ndarray, target: np.ndarray, top: int, left: int
) -> None:
    """Weighted sums of rows: `source` uint8 [n, m] to m columns of `target` uint8, from row `top` and column `left`."""
    count, length = source.shape
    total = np.empty(length, np.int32)
    for i in range(weights.shape[0]):
        total[:] = _HALF
        for tap in range(min(weights.shape[1], count - starts[i])):
            weight = weights[i, tap]
            if weight != 0:
                row = source[starts[i] + tap]
                for j in range(length):
                    total[j] += weight * np.int32(row[j])
        out = target[top + i, left : left + length]
        for j in range(length):
            out[j] = np.uint8(min(max(total[j] >> _SHIFT, _ZERO), _FULL))
