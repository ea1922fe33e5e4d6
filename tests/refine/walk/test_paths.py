"""Pairs of cells and the paths between them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfc.refine.walk.paths import half_plane_offsets, path_cells


def test_offsets_of_radius_10_are_those_of_the_released_code(golden) -> None:
    np.testing.assert_array_equal(half_plane_offsets(10), golden("pair_offsets")["radius10"])


def test_small_radii_by_hand() -> None:
    assert half_plane_offsets(1).shape == (0, 2)
    assert half_plane_offsets(2).tolist() == [[0, 1], [1, 0], [1, -1], [1, 1]]
    assert [0, 3] not in half_plane_offsets(3).tolist()
    assert len(half_plane_offsets(5)) == 34


@given(st.integers(1, 14))
def test_offsets_and_their_opposites_fill_the_disc_once(radius: int) -> None:
    half = [tuple(offset) for offset in half_plane_offsets(radius).tolist()]
    everything = half + [(-dy, -dx) for dy, dx in half]
    span = range(-radius, radius + 1)
    disc = {(dy, dx) for dy in span for dx in span if 0 < dy**2 + dx**2 < radius**2}
    assert len(everything) == len(disc)
    assert set(everything) == disc


OFFSETS = st.tuples(st.integers(-12, 12), st.integers(-12, 12)).filter(any)


@given(OFFSETS)
def test_path_equals_plain_loops(offset: tuple[int, int]) -> None:
    dy, dx = offset
    expected = [
        [y, x]
        for y in range(min(dy, 0), max(dy, 0) + 1)
        for x in range(min(dx, 0), max(dx, 0) + 1)
        if (dy * x - dx * y) ** 2 / (dy**2 + dx**2) < 1
    ]
    cells = path_cells(dy, dx)
    assert cells.dtype == np.int64
    assert cells.tolist() == expected
    assert [0, 0] in expected
    assert [dy, dx] in expected


@given(OFFSETS)
def test_path_is_the_same_from_both_ends(offset: tuple[int, int]) -> None:
    dy, dx = offset
    forth = {(y, x) for y, x in path_cells(dy, dx).tolist()}
    back = {(y + dy, x + dx) for y, x in path_cells(-dy, -dx).tolist()}
    assert forth == back


@pytest.mark.parametrize("radius", [0, -3, 2.5, float("nan"), float("inf")])
def test_refuses_a_radius_that_is_none(radius: float) -> None:
    with pytest.raises(ValueError, match="positive whole number"):
        half_plane_offsets(radius)  # type: ignore[arg-type]


def test_refuses_a_path_without_length() -> None:
    with pytest.raises(ValueError, match="two cells"):
        path_cells(0, 0)
