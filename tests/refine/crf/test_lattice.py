"""Permutohedral lattice: what a simplex is, chains, normalisation, and the position lattices that are kept."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfc.refine.crf.lattice import Lattice, PositionLattices, image_lattice
from sfc.refine.crf.lattice_filter import blur
from sfc.refine.crf.lattice_kernels import _find


def noise(seed: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def rows(lattice: Lattice, axis: int) -> list[list[int]]:
    """The rows of vertices along an axis."""
    found, row = [], []
    for entry in lattice.chains[lattice.starts[axis] : lattice.starts[axis + 1]]:
        row.append(int(max(entry, ~entry)))
        if entry < 0:
            found.append(row)
            row = []
    assert not row
    return found


@settings(max_examples=20)
@given(st.integers(0, 1000), st.integers(1, 20), st.integers(1, 20), st.sampled_from([5.0, 40.0, 200.0]))
def test_vertices_of_a_pixel_differ_and_follow_each_other(seed, height, width, srgb) -> None:
    lattice = image_lattice(noise(seed, height, width), 10, srgb)
    assert lattice.vertices.min() >= 0
    assert lattice.vertices.max() < lattice.size
    steps = {pair for axis in range(6) for row in rows(lattice, axis) for pair in pairwise(row)}
    for simplex in lattice.vertices.tolist():
        assert len(set(simplex)) == 6
        assert all(pair in steps for pair in pairwise(simplex))


@settings(max_examples=20)
@given(st.integers(0, 1000), st.sampled_from([5.0, 40.0, 200.0]))
def test_a_vertex_lies_in_at_most_one_row_of_each_axis(seed, srgb) -> None:
    lattice = image_lattice(noise(seed, 8, 8), 10, srgb)
    for axis in range(6):
        found = rows(lattice, axis)
        assert all(len(row) > 1 for row in found)
        entries = [vertex for row in found for vertex in row]
        assert len(entries) == len(set(entries))


def test_blur_adds_half_of_both_neighbours_axis_by_axis() -> None:
    lattice = image_lattice(noise(0, 9, 9), 10, 60)
    values = np.random.default_rng(1).random((lattice.size, 6)).astype(np.float32)
    expected = values.astype(np.float64)
    for axis in range(6):
        old = expected.copy()
        for row in rows(lattice, axis):
            for left, right in pairwise(row):
                expected[left] += old[right] / 2
                expected[right] += old[left] / 2
    blurred = values.reshape(-1).copy()
    blur(blurred, lattice.chains, lattice.starts, (0, 0), 3)
    np.testing.assert_allclose(blurred.reshape(values.shape), expected, rtol=1e-5)


def test_vertices_of_equal_fingerprint_are_told_apart_by_their_coordinates() -> None:
    slots, fingerprints = np.array([0, -1, -1, -1], np.int32), np.array([5], np.uint64)
    coordinates = np.array([[1, 2]], np.int32)
    table = slots, np.uint64(62), fingerprints, coordinates
    assert _find(*table, np.uint64(5), np.array([1, 2], np.int32)) == 0
    assert _find(*table, np.uint64(5), np.array([1, 3], np.int32)) == 1
    assert _find(*table, np.uint64(6), np.array([1, 2], np.int32)) == 1


def test_too_small_a_deviation_is_refused() -> None:
    with pytest.raises(ValueError, match="sxy 1e-06 or srgb 5 is too small for an image of 3 × 3 pixels"):
        image_lattice(noise(0, 3, 3), 1e-6, 5)


def test_position_lattices_are_made_once() -> None:
    lattices = PositionLattices()
    first = lattices.get(6, 7, 3)
    assert lattices.get(6, 7, 3.0) is first
    assert lattices.get(7, 6, 3) is not first
    assert lattices.get(6, 7, 2) is not first
    assert first.vertices.shape == (42, 3)


def test_the_least_recently_used_position_lattice_goes_first() -> None:
    one = PositionLattices().get(20, 20, 3).nbytes
    lattices = PositionLattices(limit=2 * one + one // 2)
    first, second = lattices.get(20, 20, 3), lattices.get(20, 20, 3.01)
    assert lattices.get(20, 20, 3) is first
    lattices.get(20, 20, 3.02)
    assert lattices.get(20, 20, 3) is first
    assert lattices.get(20, 20, 3.01) is not second


def test_a_position_lattice_above_the_limit_is_not_kept() -> None:
    lattices = PositionLattices(limit=1000)
    assert lattices.get(20, 20, 3) is not lattices.get(20, 20, 3)
