"""Outlines: filled, they are the region; one a region; no point too many."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis.extra.numpy import array_shapes, arrays
from matplotlib.path import Path as MatplotlibPath
from scipy import ndimage

from sfc.export.polygons import polygon_area, region_polygons

Fill = Callable[[np.ndarray, tuple[int, int]], np.ndarray]


def picture(*rows: str) -> np.ndarray:
    return np.array([[character == "#" for character in row] for row in rows])


def check(inside: np.ndarray, winding: Fill) -> list[np.ndarray]:
    polygons = region_polygons(inside)
    labels, count = ndimage.label(inside, structure=np.ones((3, 3)))
    assert len(polygons) == count
    y, x = np.mgrid[: inside.shape[0], : inside.shape[1]] + 0.5
    for label, polygon in enumerate(polygons, start=1):
        turns = winding(polygon, inside.shape)
        # scipy numbers regions by their first pixel too.
        np.testing.assert_array_equal(turns, labels == label)
        assert polygon_area(polygon) == turns.sum()
        path = MatplotlibPath(np.vstack([polygon, polygon[:1]]))
        np.testing.assert_array_equal(
            path.contains_points(np.stack([x.ravel(), y.ravel()], axis=1)), turns.ravel().astype(bool)
        )
        steps = np.roll(polygon, -1, axis=0) - polygon
        assert ((steps == 0).sum(axis=1) == 1).all()
        headings = np.sign(steps)
        assert (headings != np.roll(headings, 1, axis=0)).any(axis=1).all()
        assert_bridges_stay_inside(polygon, labels == label)
    return polygons


def assert_bridges_stay_inside(polygon: np.ndarray, region: np.ndarray) -> None:
    """Every step of a pixel's length touches the region: an edge has it on one side, a bridge on both."""
    solid = np.pad(region, 1)
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        (left, right), (top, bottom) = sorted((x0, x1)), sorted((y0, y1))
        across, along = solid[y0 : y0 + 2, left + 1 : right + 1], solid[top + 1 : bottom + 1, x0 : x0 + 2].T
        assert (across if y0 == y1 else along).any(axis=0).all()


@settings(max_examples=250)
@given(inside=arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=9)))
@example(inside=np.zeros((3, 3), dtype=bool))
@example(inside=np.ones((3, 5), dtype=bool))
@example(inside=np.indices((6, 7)).sum(axis=0) % 2 == 0)
def test_any_region_comes_back(winding: Fill, inside: np.ndarray) -> None:
    polygons = check(inside, winding)
    assert sum(map(polygon_area, polygons)) == inside.sum()


@pytest.mark.parametrize("share", [0.5, 0.75, 0.9])
def test_many_holes(winding: Fill, share: float) -> None:
    inside = np.random.default_rng(5).random((40, 50)) < share
    assert sum(map(polygon_area, check(inside, winding))) == inside.sum()


def test_a_rectangle_has_four_points() -> None:
    inside = np.zeros((6, 8), dtype=bool)
    inside[1:4, 2:7] = True
    (polygon,) = region_polygons(inside)
    assert polygon.tolist() == [[2, 1], [7, 1], [7, 4], [2, 4]]


def test_a_hole_costs_its_corners_and_a_bridge(winding: Fill) -> None:
    ring = picture("######", "######", "##..##", "######")
    (polygon,) = check(ring, winding)
    # The bridge leaves the left edge at height 2, and comes back along the top of the hole.
    assert polygon.tolist() == [[0, 0], [6, 0], [6, 4], [0, 4], [0, 2], [2, 2], [2, 3], [4, 3], [4, 2], [0, 2]]


def test_holes_in_a_row_and_inside_each_other(winding: Fill) -> None:
    assert len(check(picture("#######", "#.#.#.#", "#######"), winding)) == 1
    nested = picture("#######", "#.....#", "#.###.#", "#.#.#.#", "#.###.#", "#.....#", "#######")
    assert [polygon_area(polygon) for polygon in check(nested, winding)] == [24, 8]
    assert len(check(picture(".##", "#.#", "###"), winding)) == 1


def test_pixels_that_touch_at_a_corner_are_one_region(winding: Fill) -> None:
    (polygon,) = check(picture("#..", ".#.", "..#"), winding)
    assert polygon_area(polygon) == 3


def test_a_large_noisy_mask_is_traced_in_time() -> None:
    inside = np.random.default_rng(0).random((300, 300)) < 0.7
    assert sum(polygon_area(polygon) for polygon in region_polygons(inside)) == inside.sum()
