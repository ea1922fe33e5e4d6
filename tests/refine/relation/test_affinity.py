"""Path maxima by pieces of shared paths, against plain loops over cells."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sfc.refine.relation.affinity import PathMaxima, path_pieces
from sfc.refine.walk.paths import half_plane_offsets, path_cells


@pytest.mark.parametrize("radius", [2, 3, 5, 10, 12])
def test_pieces_of_every_path_cover_it_and_nothing_else(radius: int) -> None:
    covered: list[set] = []
    for offset, pieces in zip(half_plane_offsets(radius), path_pieces(radius), strict=True):
        cells = set()
        for path, dy, dx in pieces:
            cells |= {(y + dy, x + dx) for y, x in (covered[path] if path is not None else {(0, 0)})}
        assert cells == {tuple(cell) for cell in path_cells(*offset).tolist()}
        covered.append(cells)


def test_pieces_are_far_fewer_than_cells() -> None:
    cells = sum(len(path_cells(*offset)) for offset in half_plane_offsets(10))
    assert 5 * sum(map(len, path_pieces(10))) < cells


def plain_maxima(edge: Tensor, radius: int) -> Tensor:
    """[pairs, N, sources]: maxima one source and one path at a time, in autograd's own terms."""
    reach = radius - 1
    sources = [(y, x) for y in range(edge.shape[1] - reach) for x in range(reach, edge.shape[2] - reach)]
    rows = []
    for offset in half_plane_offsets(radius):
        cells = path_cells(*offset)
        paths = [torch.stack([edge[:, y + i, x + j] for i, j in cells]).max(dim=0).values for y, x in sources]
        rows.append(torch.stack(paths, dim=1))
    return torch.stack(rows)


@settings(max_examples=15)
@given(st.integers(2, 5), st.integers(0, 4), st.integers(0, 4), st.integers(0, 2**31))
def test_maxima_and_their_gradient_equal_plain_loops(radius: int, rows: int, columns: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    shape = (2, radius + rows, 2 * radius - 1 + columns)
    edge = torch.randn(shape, dtype=torch.float64, generator=random).requires_grad_()
    expected = plain_maxima(edge, radius)
    maxima = PathMaxima(edge.detach(), radius)
    cotangent = torch.randn(expected.shape, dtype=torch.float64, generator=random)
    for index in range(len(expected)):
        assert torch.equal(maxima.maximum(index).flatten(1), expected[index].detach())
    for index in reversed(range(len(expected))):
        maxima.send_back(index, cotangent[index].view(maxima.maximum(index).shape))
    (gradient,) = torch.autograd.grad(expected, edge, cotangent)
    torch.testing.assert_close(maxima.edge_gradient, gradient)


def test_gradient_of_ties_goes_to_one_cell_of_each_path() -> None:
    edge = torch.full((1, 9, 12), 0.5)
    edge[0, 4:, 3] = 1.0
    maxima = PathMaxima(edge, 4)
    for index in reversed(range(len(maxima.offsets))):
        maxima.send_back(index, torch.ones_like(maxima.maximum(index)))
    sources = (9 - 3) * (12 - 6)
    assert float(maxima.edge_gradient.sum()) == len(half_plane_offsets(4)) * sources
    # Whatever path meets the wall sends its gradient there: all eighteen pairs that lie within it for certain.
    assert float(maxima.edge_gradient[0, 4:, 3].sum()) > 18


def test_maps_without_a_source_have_no_pairs() -> None:
    for shape in ((1, 9, 30), (1, 30, 18), (1, 1, 1)):
        maxima = PathMaxima(torch.rand(shape), 10)
        assert maxima.offsets == []
        assert np.count_nonzero(maxima.edge_gradient) == 0
    assert len(PathMaxima(torch.rand(1, 10, 19), 10).offsets) == 152
