"""The random walk on a CPU: one map, or two side by side, through a stencil of symmetric weights.

Every map lies on a flat grid with margins of zeros, so that a step to a neighbour is a fixed shift of the index and
nothing asks whether a cell is inside. The weights of a pair are stored once, at its upper (or left) cell.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from sfc.kernels import lanes
from sfc.kernels.compiling import inlined, kernel
from sfc.refine.walk.paths import half_plane_offsets, path_cells

TILE = (0.0,) * 16
"""Cells of a row whose sums stay in registers; its length is what counts."""
COLUMNS = len(TILE)
ROWS = 2
"""Rows done together: a map's value is loaded once for both."""
DEPTH = 4
"""Steps that follow each other down the grid, so that a row of weights is in the cache for all of them."""
NEGLIGIBLE = np.float32(1e-30)
"""Smaller weights count as 0: arithmetic with subnormal numbers is many times slower."""
COARSE = np.float32(2**-76)
"""Added and taken away again, it rounds maps (of peak 1) to multiples of 2^-99, and so nothing becomes subnormal."""


@kernel
def _affinities(
    weights: Any, neighbours: Any, passable: Any, offsets: Any, cells: Any, begins: Any, inside: Any
) -> None:
    """weights[y, pair] = the smallest `passable` along the pair's path; `neighbours` sums them at both its cells.

    Args:
        weights: float32 [rows, pairs + 1, pitch], zeros; written inside.
        neighbours: float64 [rows, pitch], zeros; added to.
        passable: float32 [rows, pitch], 0 outside the image.
        offsets: int64 [pairs, 2].
        cells: int64 [cells of all paths, 2].
        begins: int64 [pairs + 1]: where each path begins in `cells`.
        inside: top, bottom, left, right of the image in the grid.
    """
    top, bottom, left, right = inside
    for y in range(top, bottom):
        for pair in range(len(offsets)):
            weight = weights[y, pair, left:right]
            first = cells[begins[pair]]
            weight[:] = passable[y + first[0], left + first[1] : right + first[1]]
            for index in range(begins[pair] + 1, begins[pair + 1]):
                cell = cells[index]
                other = passable[y + cell[0], left + cell[1] : right + cell[1]]
                for x in range(len(weight)):
                    weight[x] = min(weight[x], other[x])
            here = neighbours[y, left:right]
            there = neighbours[y + offsets[pair, 0], left + offsets[pair, 1] : right + offsets[pair, 1]]
            for x in range(len(weight)):
                here[x] += weight[x]
            for x in range(len(weight)):
                there[x] += weight[x]


@inlined
def _finish(total: Any, at: Any, cell: Any, maps: Any, scale: Any, terms: Any) -> None:
    """later = gain · scale · (now + total) − back · later; result += coefficient · later; in one row of a tile."""
    now, later, result = maps
    gain, back, coefficient = terms
    moved = lanes.multiply(lanes.load(scale, cell, TILE), lanes.add(lanes.load(now, at, TILE), total))
    value = lanes.multiply_add(gain, moved, lanes.multiply(lanes.fill(-back, TILE), lanes.load(later, at, TILE)))
    value = lanes.add(lanes.add(value, lanes.fill(COARSE, TILE)), lanes.fill(-COARSE, TILE))
    lanes.store(later, at, value)
    if coefficient != 0:
        lanes.store(result, at, lanes.multiply_add(coefficient, value, lanes.load(result, at, TILE)))


@inlined
def _step_one(maps: Any, stencil: Any, at: Any, weight: Any, pitch: Any, terms: Any) -> None:
    """A step of one map, in a tile of two rows."""
    now, (weights, scale, table) = maps[0], stencil
    upper = lower = lanes.fill(np.float32(0), TILE)
    for term in range(len(table)):
        value = lanes.load(now, at + table[term, 0], TILE)
        upper = lanes.accumulate(upper, lanes.load(weights, weight + table[term, 1], TILE), value)
        lower = lanes.accumulate(lower, lanes.load(weights, weight + table[term, 2], TILE), value)
    _finish(upper, at, at, maps, scale, terms)
    _finish(lower, at + pitch, at + pitch, maps, scale, terms)


@inlined
def _step_two(maps: Any, stencil: Any, at: Any, weight: Any, pitch: Any, terms: Any) -> None:
    """A step of two maps, in a tile of two rows: each weight is loaded once for both."""
    now, (weights, scale, table) = maps[0], stencil
    other = at + len(scale)
    upper = upper_other = lower = lower_other = lanes.fill(np.float32(0), TILE)
    for term in range(len(table)):
        value = lanes.load(now, at + table[term, 0], TILE)
        value_other = lanes.load(now, other + table[term, 0], TILE)
        weight_upper = lanes.load(weights, weight + table[term, 1], TILE)
        weight_lower = lanes.load(weights, weight + table[term, 2], TILE)
        upper = lanes.accumulate(upper, weight_upper, value)
        upper_other = lanes.accumulate(upper_other, weight_upper, value_other)
        lower = lanes.accumulate(lower, weight_lower, value)
        lower_other = lanes.accumulate(lower_other, weight_lower, value_other)
    _finish(upper, at, at, maps, scale, terms)
    _finish(upper_other, other, at, maps, scale, terms)
    _finish(lower, at + pitch, at + pitch, maps, scale, terms)
    _finish(lower_other, other + pitch, at + pitch, maps, scale, terms)


@kernel
def _apply(result: Any, now: Any, later: Any, weights: Any, scale: Any, table: Any, recurrence: Any, grid: Any) -> None:
    """Applies the walk once for each row of `recurrence`, in a wave: step k works on rows that step k − 1 has left.

    Args:
        result: float32 [maps * cells], one map or two; added to.
        now: float32 [maps * cells], the maps; overwritten.
        later: float32 [maps * cells], zeros; overwritten.
        weights: float32, flat [rows, pairs + 1, pitch].
        scale: float32 [cells], 1 / degree inside, 0 in the margins.
        table: int64 [terms, 3]: see `_table`.
        recurrence: float32 [steps, 3]: gain, back, coefficient.
        grid: pairs of rows, columns, pitch, first cell, its weight, and weights of one row of the grid.
    """
    pairs_of_rows, columns, pitch, first, first_weight, row_of_weights = grid
    reach = first // pitch
    lag = (reach + ROWS - 1) // ROWS
    for begin in range(0, len(recurrence), DEPTH):
        depth = min(DEPTH, len(recurrence) - begin)
        for wave in range(pairs_of_rows + lag * (depth - 1)):
            for follower in range(depth):
                y = ROWS * (wave - lag * follower)
                if y < 0 or y >= ROWS * pairs_of_rows:
                    continue
                step = begin + follower
                maps = (now, later, result) if step % 2 == 0 else (later, now, result)
                terms = (recurrence[step, 0], recurrence[step, 1], recurrence[step, 2])
                for x in range(0, columns, COLUMNS):
                    at, weight = first + y * pitch + x, first_weight + y * row_of_weights + x
                    if len(now) == len(scale):
                        _step_one(maps, (weights, scale, table), at, weight, pitch, terms)
                    else:
                        _step_two(maps, (weights, scale, table), at, weight, pitch, terms)


class _Paths(NamedTuple):
    """All pairs of a radius: offsets [pairs, 2], the cells of their paths one after another, where each begins."""

    offsets: np.ndarray
    cells: np.ndarray
    begins: np.ndarray


@lru_cache(maxsize=16)
def _paths(radius: int) -> _Paths:
    offsets = half_plane_offsets(radius)
    paths = [path_cells(dy, dx) for dy, dx in offsets.tolist()]
    return _Paths(offsets, np.concatenate([*paths, np.zeros((0, 2), np.int64)]), np.cumsum([0, *map(len, paths)]))


@dataclass(frozen=True)
class _Grid:
    """An image of height × width cells with margins wide enough for every offset.

    Args:
        height: of the image.
        width: of the image.
        reach: the largest offset along an axis.
    """

    height: int
    width: int
    reach: int

    @property
    def columns(self) -> int:
        """Columns that are worked on: the image's, filled up to whole tiles."""
        return -(-self.width // COLUMNS) * COLUMNS

    @property
    def left(self) -> int:
        """First column of the image; whole tiles, so that it is aligned as the grid is."""
        return -(-self.reach // COLUMNS) * COLUMNS

    @property
    def pitch(self) -> int:
        """Columns of the grid."""
        return self.left + self.columns + self.left

    @property
    def rows_together(self) -> int:
        """How many times the kernel takes `ROWS` rows."""
        return -(-self.height // ROWS)

    @property
    def rows(self) -> int:
        """Rows of the grid."""
        return self.reach + ROWS * self.rows_together + self.reach

    @property
    def image(self) -> tuple[slice, slice]:
        """The image in the grid."""
        return slice(self.reach, self.reach + self.height), slice(self.left, self.left + self.width)


@lru_cache(maxsize=64)
def _table(radius: int, pitch: int) -> np.ndarray:
    """What is added up: neighbours of the upper or the lower of two rows, from anywhere within reach.

    Returns:
        int64 [terms, 1 + ROWS]: shift of the neighbour in a map; shifts of its weights in the upper and in the lower
        row, at a weight that is always 0 where it is no neighbour of that row.
    """
    offsets = _paths(radius).offsets.tolist()
    nothing = len(offsets) * pitch
    row_of_weights = nothing + pitch
    weight_shift = {}
    for pair, (dy, dx) in enumerate(offsets):
        weight_shift[dy, dx] = pair * pitch
        weight_shift[-dy, -dx] = pair * pitch - dy * row_of_weights - dx
    neighbours = sorted({(dy + row, dx) for dy, dx in weight_shift for row in range(ROWS)})
    terms = [
        [dy * pitch + dx] + [weight_shift.get((dy - row, dx), nothing) + row * row_of_weights for row in range(ROWS)]
        for dy, dx in neighbours
    ]
    return np.array(terms, dtype=np.int64).reshape(-1, 1 + ROWS)


def walk_maps(start: np.ndarray, passable: np.ndarray, radius: int, first: float, recurrence: np.ndarray) -> np.ndarray:
    """A polynomial of the walk's matrix, applied to maps: first · start + Σ coefficient · x_k.

    x_0 = start, x_k = gain · (step of x_(k-1)) − back · x_(k-2).

    Args:
        start: float32 [K, h, w], of order 1.
        passable: float32 [h, w] in [0, 1]; the affinity of a pair is its smallest value on the path.
        radius: pairs are nearer than this.
        first: coefficient of `start`.
        recurrence: float32 [steps, 3]: gain, back, coefficient of each x_k.

    Returns:
        float32 [K, h, w].
    """
    grid = _Grid(passable.shape[0], passable.shape[1], radius - 1)
    paths = _paths(radius)
    weights, scale = _weights(grid, passable, paths)
    row_of_weights = weights[0].size
    at_image = grid.reach * grid.pitch + grid.left
    at_weight = grid.reach * row_of_weights + grid.left
    geometry = (grid.rows_together, grid.columns, grid.pitch, at_image, at_weight, row_of_weights)
    result = first * start
    for begin in range(0, len(start), 2):
        maps = start[begin : begin + 2]
        now, later, total = (_aligned_zeros(len(maps), grid.rows, grid.pitch) for _ in range(3))
        now[:, *grid.image] = maps
        flat = [array.reshape(-1) for array in (total, now, later, weights, scale)]
        _apply(*flat, _table(radius, grid.pitch), recurrence, geometry)
        result[begin : begin + 2] += total[:, *grid.image]
    return result


def _weights(grid: _Grid, passable: np.ndarray, paths: _Paths) -> tuple[np.ndarray, np.ndarray]:
    """Affinities [rows, pairs + 1, pitch], the last of every cell 0, and 1 / degree [rows, pitch], 0 in the margins."""
    padded, scale = (_aligned_zeros(grid.rows, grid.pitch) for _ in range(2))
    # In double precision: a rounded sum would leave a constant map not quite constant, 256 times over.
    neighbours = np.zeros(padded.shape)
    padded[grid.image] = np.where(passable > NEGLIGIBLE, passable, 0)
    weights = _aligned_zeros(grid.rows, len(paths.offsets) + 1, grid.pitch)
    (rows, columns) = grid.image
    inside = (rows.start, rows.stop, columns.start, columns.stop)
    _affinities(weights, neighbours, padded, paths.offsets, paths.cells, paths.begins, inside)
    scale[grid.image] = 1 / (1 + neighbours[grid.image])
    return weights, scale


def _aligned_zeros(*shape: int) -> np.ndarray:
    """float32 zeros that begin on a cache line."""
    size, line = math.prod(shape), 64 // 4
    flat = np.zeros(size + line, dtype=np.float32)
    begin = -flat.ctypes.data // 4 % line
    return flat[begin : begin + size].reshape(shape)


def compile_kernels() -> None:
    """Compiles the kernels, or loads them from the cache."""
    passable = np.ones((2, 2), dtype=np.float32)
    walk_maps(np.ones((2, 2, 2), dtype=np.float32), passable, 2, 0.0, np.ones((1, 3), dtype=np.float32))
