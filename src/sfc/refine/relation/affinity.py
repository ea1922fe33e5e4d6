"""Largest edge on the paths of all pairs, and the way back of its gradient, by shifted views of the edge map.

The affinity of a pair is 1 − that largest edge (IRN, CVPR 2019, eq. 3). Paths overlap, and a maximum may count a cell
twice: the path of a far pair is covered by paths of nearer ones that begin at its source or end at its destination,
and by a few single cells. Radius 10 has 152 paths of 2134 cells; 376 pieces cover them. Nothing is indexed by path and
cell, and memory is one map for each offset.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from sfc.refine.walk.paths import half_plane_offsets, path_cells

Cells = frozenset[tuple[int, int]]


class Piece(NamedTuple):
    """Part of a path: `path` (its number among the offsets; None: a single cell), moved by (dy, dx) from the source."""

    path: int | None
    dy: int
    dx: int


@cache
def path_pieces(radius: int) -> tuple[tuple[Piece, ...], ...]:
    """For every offset of `half_plane_offsets`, pieces whose union is its path; paths among them come earlier."""
    offsets = half_plane_offsets(radius).tolist()
    paths = [frozenset((y, x) for y, x in path_cells(*offset).tolist()) for offset in offsets]
    return tuple(_cover(paths, offsets, index) for index in range(len(paths)))


def _cover(paths: list[Cells], offsets: list[list[int]], index: int) -> tuple[Piece, ...]:
    """Greedy cover of one path: always the piece that adds most cells."""
    path, (dy, dx) = paths[index], offsets[index]
    candidates = []
    for earlier, (to_y, to_x) in enumerate(offsets[:index]):
        for move_y, move_x in ((0, 0), (dy - to_y, dx - to_x)):
            cells = {(y + move_y, x + move_x) for y, x in paths[earlier]}
            if cells <= path:
                candidates.append((Piece(earlier, move_y, move_x), cells))
    left, pieces = set(path), []
    while candidates and left:
        piece, cells = max(candidates, key=lambda candidate: len(candidate[1] & left))
        if len(cells & left) < 2:
            break
        pieces.append(piece)
        left -= cells
    return (*pieces, *(Piece(None, y, x) for y, x in sorted(left)))


class PathMaxima:
    """Maxima of an edge map over all paths that lie in it.

    Sources are the cells for which every offset fits: rows [0, h − reach) and columns [reach, w − reach), with
    reach = radius − 1. Where two cells of a path tie, the gradient goes to one of them.

    Args:
        edge: [N, h, w], float.
        radius: pairs are strictly nearer than this, in cells.
    """

    def __init__(self, edge: Tensor, radius: int) -> None:
        self.offsets: list[tuple[int, int]] = [(dy, dx) for dy, dx in half_plane_offsets(radius).tolist()]
        self.pieces = path_pieces(radius)
        self.edge, self.reach = edge, radius - 1
        self.edge_gradient = torch.zeros_like(edge)
        self._maxima: list[Tensor | None] = []
        self._gradients: list[Tensor | None] = [None] * len(self.offsets)
        if edge.shape[1] <= self.reach or edge.shape[2] <= 2 * self.reach:
            self.offsets = []  # there is no source
        for index, _ in enumerate(self.offsets):
            first, *others = self._views(index)
            maximum = torch.maximum(first, others[0])
            for other in others[1:]:
                torch.maximum(maximum, other, out=maximum)
            self._maxima.append(maximum)

    def _views(self, index: int) -> list[Tensor]:
        return [self._view(self.edge if p.path is None else self._maxima[p.path], index, p) for p in self.pieces[index]]

    def _view(self, of: Tensor | None, index: int, piece: Piece) -> Tensor:
        """The part of a piece's map that the sources of a path meet.

        The map of a path has a cell for each source from which this path alone fits: its first column is max(0, −dx).
        """
        assert of is not None
        (dy, dx), (height, width) = self.offsets[index], self.edge.shape[1:]
        top, left = piece.dy, max(0, -dx) + piece.dx
        if piece.path is not None:
            left -= max(0, -self.offsets[piece.path][1])
        return of[:, top : top + height - dy, left : left + width - abs(dx)]

    def _sources(self, of: Tensor, index: int) -> Tensor:
        left = self.reach - max(0, -self.offsets[index][1])
        return of[:, : self.edge.shape[1] - self.reach, left : left + self.edge.shape[2] - 2 * self.reach]

    def maximum(self, index: int) -> Tensor:
        """[N, h − reach, w − 2·reach]: largest edge on the path of offset `index` from every source (a view)."""
        maximum = self._maxima[index]
        assert maximum is not None
        return self._sources(maximum, index)

    def send_back(self, index: int, gradient: Tensor) -> None:
        """Takes the gradient of `maximum(index)`; for all offsets, the last first. Adds up in `edge_gradient`."""
        maximum = self._maxima[index]
        assert maximum is not None
        rest = self._gradient(index)
        self._sources(rest, index).add_(gradient)
        pieces = self.pieces[index]
        for piece, view in zip(pieces[:-1], self._views(index)[:-1], strict=True):
            # Written as floats: bool tensors are several times slower.
            share = torch.eq(view, maximum, out=torch.empty_like(rest)).mul_(rest)
            self._view(self._gradient_of(piece), index, piece).add_(share)
            rest -= share
        self._view(self._gradient_of(pieces[-1]), index, pieces[-1]).add_(rest)
        self._maxima[index] = self._gradients[index] = None

    def _gradient_of(self, piece: Piece) -> Tensor:
        return self.edge_gradient if piece.path is None else self._gradient(piece.path)

    def _gradient(self, index: int) -> Tensor:
        gradient = self._gradients[index]
        if gradient is None:
            maximum = self._maxima[index]
            assert maximum is not None
            gradient = self._gradients[index] = torch.zeros_like(maximum)
        return gradient
