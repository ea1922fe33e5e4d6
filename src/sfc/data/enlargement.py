"""Maps of a shrunk photograph at the photograph's own size, their edges drawn to those of the photograph."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

RADIUS = 1
"""Of the windows, in pixels of the small image; larger ones let a map run along the photograph's texture."""
EPSILON = 3e-4
"""Variance of colours in [0, 1] below which a window counts as plain, and the map is only smoothed."""
ROWS = 64
"""In a strip of the answer."""


def enlarged(
    maps: NDArray[np.float32], small: NDArray[np.uint8], image: NDArray[np.uint8]
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Maps at the size of a larger image, by the fast guided filter (He and Sun 2015, arXiv 1505.00996).

    In every window of the small image a map is taken as linear in the colours; those coefficients are enlarged and
    applied to the colours of the large image, whose edges the answer therefore has.

    Args:
        maps: float32 [K, h, w].
        small: uint8 [h, w, 3], the shrunk image.
        image: uint8 [H, W, 3].

    Yields:
        From top to bottom the first row of a strip, and float32 [K, rows, W]; values may leave the range of `maps`.
    """
    height, width = image.shape[:2]
    slopes, offsets = _linear_in_colours(torch.from_numpy(maps), _colours(small))
    rows, columns = _Between(maps.shape[1], height), _Between(maps.shape[2], width)
    for top in range(0, height, ROWS):
        some = slice(top, min(top + ROWS, height))
        strip = columns.along(rows.along(offsets, 1, some), 2)
        for colour, values in enumerate(_colours(image[some])):
            strip += columns.along(rows.along(slopes[:, colour], 1, some), 2) * values
        yield top, strip.numpy()


def enlarged_labels(labels: NDArray[np.uint8], small: NDArray[np.uint8], image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A label map of a shrunk image at the size of the image: the strongest of its labels' maps, see `enlarged`.

    Args:
        labels: uint8 [h, w] of any values.
        small: uint8 [h, w, 3].
        image: uint8 [H, W, 3].

    Returns:
        uint8 [H, W], values of `labels`; itself where the sizes are the same.
    """
    if labels.shape == image.shape[:2]:
        return labels
    values = np.unique(labels)
    maps = torch.from_numpy((labels == values[:, None, None]).astype(np.float32))
    slopes, offsets = _linear_in_colours(maps, _colours(small))
    width = labels.shape[1]
    table = torch.cat([slopes, offsets[:, None]], dim=1).permute(2, 3, 0, 1).reshape(-1, 4 * len(values))
    is_mixed = torch.from_numpy(_is_mixed(labels))
    rows, columns = _Between(labels.shape[0], image.shape[0]), _Between(width, image.shape[1])
    found = labels[rows.nearest.numpy()[:, None], columns.nearest.numpy()]
    for top in range(0, image.shape[0], ROWS):
        some = slice(top, top + ROWS)
        # Away from every border the maps are 0 and 1, and the nearest label is the answer.
        y, x = is_mixed[rows.before[some, None], columns.before].nonzero(as_tuple=True)
        if not len(y):
            continue
        y = y + top
        left, right, share = columns.before[x], columns.after[x], columns.share[x, None]
        above, below = (
            torch.lerp(table[row * width + left], table[row * width + right], share)
            for row in (rows.before[y], rows.after[y])
        )
        linear = torch.lerp(above, below, rows.share[y, None]).reshape(-1, len(values), 4)
        colours = torch.from_numpy(image[y.numpy(), x.numpy()]).float() / 255
        strongest = (torch.einsum("nkc,nc->nk", linear[:, :, :3], colours) + linear[:, :, 3]).argmax(dim=1)
        found[y.numpy(), x.numpy()] = values[strongest.numpy()]
    return found


def _is_mixed(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether some coefficient between a cell and those below and to the right knows of two labels; bool [h, w]."""
    reach = 4 * RADIUS + 1  # windows of windows
    index = torch.from_numpy(labels.astype(np.float32))[None]
    most, least = (sign * F.max_pool2d(sign * index, reach, 1, 2 * RADIUS) for sign in (1, -1))
    mixed = F.pad((most != least).float(), (0, 1, 0, 1))
    return F.max_pool2d(mixed, 2, 1)[0].numpy() > 0


def _colours(image: NDArray[np.uint8]) -> Tensor:
    """float32 [3, H, W] in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float() / 255


def _window_mean(maps: Tensor) -> Tensor:
    """Mean of the window around every position, of what lies inside the image; [..., h, w]."""
    flat = maps.reshape(1, -1, *maps.shape[-2:])
    return F.avg_pool2d(flat, 2 * RADIUS + 1, 1, RADIUS, count_include_pad=False).reshape(maps.shape)


def _linear_in_colours(maps: Tensor, colours: Tensor) -> tuple[Tensor, Tensor]:
    """Slopes [K, 3, h, w] and offsets [K, h, w] of the regression of each map on the colours, window by window."""
    mean_colour, mean_map = _window_mean(colours), _window_mean(maps)
    covariance = _window_mean(maps[:, None] * colours) - mean_map[:, None] * mean_colour
    spread = _window_mean(colours[:, None] * colours) - mean_colour[:, None] * mean_colour
    spread = spread.permute(2, 3, 0, 1) + EPSILON * torch.eye(3)
    slopes = torch.linalg.solve(spread, covariance.permute(2, 3, 1, 0)).permute(3, 2, 0, 1)
    return _window_mean(slopes), _window_mean(mean_map - (slopes * mean_colour).sum(dim=1))


class _Between:
    """Linear interpolation along one axis, cell centres apart by old / new."""

    def __init__(self, old: int, new: int) -> None:
        position = ((torch.arange(new) + 0.5) * old / new - 0.5).clamp(0, old - 1)
        self.before = position.long()
        self.after = (self.before + 1).clamp(max=old - 1)
        self.share = position - self.before
        self.nearest = torch.where(self.share < 0.5, self.before, self.after)

    def along(self, maps: Tensor, axis: int, some: slice = slice(None)) -> Tensor:
        """`maps` at the positions `some` of the new axis."""
        before, after = maps.index_select(axis, self.before[some]), maps.index_select(axis, self.after[some])
        share = self.share[some].reshape([-1 if dimension == axis else 1 for dimension in range(maps.ndim)])
        return torch.lerp(before, after, share)
