"""Large images in overlapping tiles that fade into each other, given out in strips: memory for one row of tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

Span = tuple[int, int]


def spans(length: int, tile: int, overlap: int) -> list[Span]:
    """Begin and end of equally long pieces of at most `tile` that cover [0, length).

    Args:
        length: of what is cut.
        tile: of a piece, at most.
        overlap: what neighbours share, at least; less than `tile`.
    """
    count = max(1, -(-(length - overlap) // (tile - overlap)))
    if count == 1:
        return [(0, length)]
    piece = -(-(length + (count - 1) * overlap) // count)
    begins = [index * (length - piece) // (count - 1) for index in range(count)]
    return [(begin, begin + piece) for begin in begins]


def fades(length: int, pieces: list[Span]) -> list[NDArray[np.float32]]:
    """Weight of every position of each piece: rises and falls where pieces overlap, and sums to 1 everywhere."""
    total = np.zeros(length)
    ramps = []
    for begin, end in pieces:
        position = np.arange(begin, end)
        rising = position - begin + 1 if begin > 0 else np.full(end - begin, length)
        falling = end - position if end < length else np.full(end - begin, length)
        ramps.append(np.minimum(rising, falling))
        total[begin:end] += ramps[-1]
    return [(ramp / total[begin:end]).astype(np.float32) for (begin, end), ramp in zip(pieces, ramps, strict=True)]


def in_strips(
    size: tuple[int, int],
    tile: int,
    overlap: int,
    predict: Callable[[slice, slice], NDArray[np.float32]],
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Maps of a large image from those of its tiles, a strip of finished rows at a time.

    Args:
        size: height and width of the image.
        tile: side of a tile, at most.
        overlap: rows or columns that neighbours share, at least.
        predict: float32 [K, h, w] of the rows and columns that it is given; called tile by tile.

    Yields:
        The first row of a strip, and float32 [K, rows, W]: weighted means over the tiles.
    """
    height, width = size
    rows, columns = spans(height, tile, overlap), spans(width, tile, overlap)
    if len(rows) == len(columns) == 1:
        yield 0, predict(slice(0, height), slice(0, width))
        return
    row_fades, column_fades = fades(height, rows), fades(width, columns)
    unfinished: NDArray[np.float32] | None = None
    for index, ((top, bottom), down) in enumerate(zip(rows, row_fades, strict=True)):
        strip: NDArray[np.float32] | None = None
        for (left, right), across in zip(columns, column_fades, strict=True):
            maps = predict(slice(top, bottom), slice(left, right))
            if strip is None:
                strip = np.zeros((len(maps), bottom - top, width), np.float32)
            strip[:, :, left:right] += maps * (down[:, None] * across)
        assert strip is not None
        if unfinished is not None:
            strip[:, : unfinished.shape[1]] += unfinished
        finished = rows[index + 1][0] - top if index + 1 < len(rows) else bottom - top
        yield top, strip[:, :finished]
        unfinished = strip[:, finished:].copy()
