"""Tiles cover an image, fade into each other, and give back what a network without context would say of the whole."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfc.segment.tiles import fades, in_strips, spans

sizes = st.tuples(st.integers(1, 400), st.integers(64, 200), st.integers(0, 31))


@given(sizes)
def test_pieces_cover_the_length_and_overlap_enough(size: tuple[int, int, int]) -> None:
    length, tile, overlap = size
    pieces = spans(length, tile, overlap)
    assert pieces[0][0] == 0
    assert pieces[-1][1] == length
    assert len({end - begin for begin, end in pieces}) == 1
    assert pieces[0][1] <= tile
    assert all(a_end - b_begin >= overlap for (_, a_end), (b_begin, _) in pairwise(pieces))
    assert len(pieces) == 1 or len(pieces) == -(-(length - overlap) // (tile - overlap))


@given(sizes)
def test_weights_sum_to_one_and_fall_towards_inner_ends(size: tuple[int, int, int]) -> None:
    length, tile, overlap = size
    pieces = spans(length, tile, overlap)
    total = np.zeros(length)
    for (begin, end), weight in zip(pieces, fades(length, pieces), strict=True):
        total[begin:end] += weight
        assert (weight > 0).all()
    np.testing.assert_allclose(total, 1, atol=1e-6)
    if len(pieces) > 1 and overlap:
        first = fades(length, pieces)[0]
        assert first[0] == 1
        assert first[-1] <= 0.5


@settings(max_examples=30)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(16, 60), st.integers(0, 7))
def test_maps_without_context_come_back_whole(height: int, width: int, tile: int, overlap: int) -> None:
    maps = np.random.default_rng(height + width).random((3, height, width), dtype=np.float32)
    calls = []

    def predict(rows: slice, columns: slice) -> np.ndarray:
        calls.append((rows, columns))
        return maps[:, rows, columns]

    found = np.full_like(maps, np.nan)
    expected_top = 0
    for top, strip in in_strips((height, width), tile, overlap, predict):
        assert top == expected_top
        expected_top += strip.shape[1]
        found[:, top:expected_top] = strip
    assert expected_top == height
    np.testing.assert_allclose(found, maps, atol=1e-6)
    assert all(rows.stop - rows.start <= tile and columns.stop - columns.start <= tile for rows, columns in calls)


def test_a_seam_fades_from_one_tile_to_the_other() -> None:
    """Two tiles of different opinion meet in a ramp, not in an edge."""

    def predict(rows: slice, columns: slice) -> np.ndarray:
        return np.full((1, rows.stop - rows.start, columns.stop - columns.start), float(rows.start > 0), np.float32)

    column = np.concatenate([strip[0, :, 0] for _, strip in in_strips((100, 10), 60, 20, predict)])
    assert column[:40].max() == 0
    assert column[60:].min() == 1
    steps = np.diff(column[39:61])
    assert steps.min() > 0
    assert steps.max() == pytest.approx(1 / 21, rel=1e-4)
