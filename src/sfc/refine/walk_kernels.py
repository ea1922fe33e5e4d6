"""The random walk on a CPU: one map, or two side by side, through a stencil of symmetric weights.

Every map lies on a flat grid with margins of zeros, so that a step to a neighbour is a fixed shift of the index and
nothing asks whether a cell is inside. The weights of a pair are stored once, at its upper (or left) cell.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import cgutils, types
from numba.extending import intrinsic

from sfc.refine.kernels import kernel
from sfc.refine.paths import half_plane_offsets, path_cells

LANES = 8
COLUMNS = 16
"""Columns whose sums stay in registers; rows of the grid are multiples of it."""
ROWS = 2
"""Rows done together: a map's value is loaded once for both."""
DEPTH = 4
"""Steps that follow each other down the grid, so that a row of weights is in the cache for all of them."""
NEGLIGIBLE = np.float32(1e-30)
"""Smaller values (of maps with peak 1) count as 0: arithmetic with subnormal numbers is many times slower."""


def _tile_of_sums(maps: int) -> Any:
    """Makes the inner loop for one or two maps.

    Written in LLVM's language because numba cannot know that the sums do not overlap what they are made of, and would
    store and load them at every term; here they stay in registers.
    """
    vector = ir.VectorType(ir.FloatType(), LANES)
    number = ir.IntType(64)
    vectors = range(0, COLUMNS, LANES)

    @intrinsic
    def tile_of_sums(
        _: Any, sums: Any, source: Any, weights: Any, table: Any, at_sum: Any, at: Any, at_weight: Any
    ) -> Any:
        """sums[row, map] = Σ weight · neighbour, for 2 rows of 16 columns of each map.

        Args:
            sums: float32 [2 * maps, width]; written at columns `at_sum` and the next 15.
            source: float32 [maps, cells].
            weights: float32, flat.
            table: int64 [terms, 3]: see `_table`.
            at_sum: first column in `sums`.
            at: index in a map of the tile's first cell.
            at_weight: index in `weights` of that cell and offset 0.
        """

        def generate(context: Any, builder: Any, signature: Any, arguments: Sequence[Any]) -> Any:
            arrays = [
                context.make_array(t)(context, builder, a) for t, a in zip(signature.args[:4], arguments, strict=False)
            ]
            at_sum, at, at_weight = arguments[4:]

            def pointer(array: int, *index: Any) -> Any:
                position = index[0]
                for term in index[1:]:
                    position = builder.add(position, term)
                return builder.gep(arrays[array].data, [position])

            def vector_at(array: int, *index: Any) -> Any:
                return builder.bitcast(pointer(array, *index), vector.as_pointer())

            def row(array: int, index: int) -> Any:
                return builder.mul(builder.extract_value(arrays[array].shape, 1), number(index))

            zero = ir.Constant(vector, [0.0] * LANES)
            total = {
                (r, m, v): cgutils.alloca_once_value(builder, zero)
                for r in range(ROWS)
                for m in range(maps)
                for v in vectors
            }
            with cgutils.for_range(builder, builder.extract_value(arrays[3].shape, 0)) as loop:
                entry = builder.mul(loop.index, number(1 + ROWS))
                shift, *weight_shift = [builder.load(pointer(3, entry, number(i))) for i in range(1 + ROWS)]
                for v in vectors:
                    value = [builder.load(vector_at(1, at, shift, row(1, m), number(v)), align=4) for m in range(maps)]
                    for r in range(ROWS):
                        weight = builder.load(vector_at(2, at_weight, weight_shift[r], number(v)), align=4)
                        for m in range(maps):
                            term = builder.fmul(weight, value[m], flags=("contract",))
                            so_far = builder.load(total[r, m, v])
                            builder.store(builder.fadd(so_far, term, flags=("contract",)), total[r, m, v])
            for (r, m, v), place in total.items():
                target = vector_at(0, at_sum, row(0, r * maps + m), number(v))
                builder.store(builder.load(place), target, align=4)
            return context.get_dummy_value()

        return types.void(sums, source, weights, table, at_sum, at, at_weight), generate

    return tile_of_sums


_sums_of_one = _tile_of_sums(1)
_sums_of_two = _tile_of_sums(2)


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


@kernel
def _finish_row(
    later: Any, now: Any, sums: Any, scale: Any, result: Any, gain: Any, back: Any, coefficient: Any
) -> None:
    """later = gain · scale · (now + sums) − back · later; result += coefficient · later; all of one row."""
    for x in range(len(later)):
        value = gain * scale[x] * (now[x] + sums[x]) - back * later[x]
        later[x] = value if abs(value) > NEGLIGIBLE else np.float32(0)
    if coefficient != 0:
        for x in range(len(later)):
            result[x] += coefficient * later[x]


@kernel
def _apply(
    result: Any, now: Any, later: Any, weights: Any, scale: Any, sums: Any, table: Any, recurrence: Any, grid: Any
) -> None:
    """Applies the walk once for each row of `recurrence`, in a wave: step k works on rows that step k − 1 has left.

    Args:
        result: float32 [maps, cells]; added to.
        now: float32 [maps, cells], the maps; overwritten.
        later: float32 [maps, cells], zeros; overwritten.
        weights: float32, flat [rows, pairs + 1, pitch].
        scale: float32 [cells], 1 / degree inside, 0 in the margins.
        sums: float32 [2 * maps, width], scratch.
        table: int64 [terms, 3].
        recurrence: float32 [steps, 3]: gain, back, coefficient.
        grid: pairs of rows, pitch, first cell, first weight, and weights of one row of the grid.
    """
    pairs_of_rows, pitch, first, first_weight, row_of_weights = grid
    maps, width = now.shape[0], sums.shape[1]
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
                source, target = (now, later) if step % 2 == 0 else (later, now)
                gain, back, coefficient = recurrence[step]
                at, at_weight = first + y * pitch, first_weight + y * row_of_weights
                for x in range(0, width, COLUMNS):
                    if maps == 2:
                        _sums_of_two(sums, source, weights, table, x, at + x, at_weight + x)
                    else:
                        _sums_of_one(sums, source, weights, table, x, at + x, at_weight + x)
                for row in range(ROWS):
                    here = slice(at + row * pitch, at + row * pitch + width)
                    for m in range(maps):
                        _finish_row(
                            target[m, here], source[m, here], sums[row * maps + m], scale[here], result[m, here],
                            gain, back, coefficient,
                        )  # fmt: skip


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
        """First column of the image; whole vectors, so that it is aligned as the grid is."""
        return -(-self.reach // LANES) * LANES

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
    geometry = (grid.rows_together, grid.pitch, at_image, grid.reach * row_of_weights + grid.left, row_of_weights)
    result = first * start
    for begin in range(0, len(start), 2):
        maps = start[begin : begin + 2]
        now, later, total = (_aligned_zeros(len(maps), grid.rows, grid.pitch) for _ in range(3))
        now[:, *grid.image] = maps
        sums = _aligned_zeros(ROWS * len(maps), grid.columns)
        flat = [array.reshape(len(maps), -1) for array in (total, now, later)]
        _apply(*flat, weights.reshape(-1), scale.reshape(-1), sums, _table(radius, grid.pitch), recurrence, geometry)
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
    """Compiles the kernels for one map and for two, or loads them from the cache."""
    passable = np.ones((2, 2), dtype=np.float32)
    walk_maps(np.ones((2, 2, 2), dtype=np.float32), passable, 2, 0.0, np.ones((1, 3), dtype=np.float32))
