"""Pseudo masks by walking: reference figures, odd images and bad input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sfc.refine.walk.mask import walk_mask, walk_scores
from sfc.refine.walk.walk import random_walk


def relative(value: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(value - expected) / np.linalg.norm(expected))


def test_canonical_walk_gives_the_reference_scores_and_mask(golden) -> None:
    figures = golden("walk_scores")
    cam, edge = figures["cams"], figures["edge"]
    scores = walk_scores(cam, edge, cam.shape[1:])
    assert scores.dtype == np.float32
    assert relative(scores, figures["walk_foreground"]) < 5e-4
    mask = walk_mask(figures["keys"], cam, edge, cam.shape[1:])
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, figures["keys"][figures["walk_foreground"].argmax(axis=0)])


def test_second_walk_adds_the_reference_scores_and_gives_the_reference_mask(golden) -> None:
    figures = golden("walk_scores")
    cam, edge = figures["cams"], figures["edge"]
    first = walk_scores(cam, edge, cam.shape[1:])
    both = walk_scores(cam, edge, cam.shape[1:], second_walk=True)
    assert relative(both - first, figures["walk_all"]) < 5e-4
    mask = walk_mask(figures["keys"], cam, edge, cam.shape[1:], second_walk=True)
    np.testing.assert_array_equal(mask, figures["pseudo_label"])


def enlarge_slowly(grid: np.ndarray, stride: int, size: tuple[int, int]) -> np.ndarray:
    """Bilinear, pixel by pixel: centres of pixels fall between centres of cells, the border is repeated."""
    result = np.zeros(size)
    for y, x in np.ndindex(*size):
        weights = []
        for position, length in ((y, grid.shape[0]), (x, grid.shape[1])):
            centre = max((position + 0.5) / stride - 0.5, 0)
            low = int(centre)
            weights.append(((low, 1 - (centre - low)), (min(low + 1, length - 1), centre - low)))
        result[y, x] = sum(grid[j, i] * a * b for j, a in weights[0] for i, b in weights[1])
    return result


@pytest.mark.parametrize(("size", "stride"), [((9, 14), 4), ((8, 8), 4), ((1, 1), 4), ((7, 5), 2), ((6, 3), 1)])
def test_equals_plain_loops_at_sizes_that_no_stride_divides(size: tuple[int, int], stride: int) -> None:
    random = np.random.default_rng(0)
    grid = (-(-size[0] // stride), -(-size[1] // stride))
    cam, edge = random.random((3, *grid), dtype=np.float32), random.random(grid, dtype=np.float32)
    options: dict[str, Any] = {"power": 1.5, "radius": 3, "beta": 2, "steps": 8, "stride": stride}
    walked = [
        np.stack([enlarge_slowly(m, stride, size) for m in random_walk(maps, edge, 3, 2, 8)])
        for maps in (cam[1:] ** 1.5, (cam**1.5) ** 1.5)
    ]
    canonical = np.concatenate([np.full((1, *size), 0.4), walked[0] / walked[0].max()])
    both = canonical + walked[1] / walked[1].max()
    keys = np.array([0, 7, 254])
    for expected, second_walk in ((canonical, False), (both, True)):
        scores = walk_scores(cam, edge, size, background=0.4, second_walk=second_walk, **options)
        np.testing.assert_allclose(scores, expected, atol=1e-5)
        mask = walk_mask(keys, cam, edge, size, background=0.4, second_walk=second_walk, **options)
        np.testing.assert_array_equal(mask, keys[expected.argmax(axis=0)])


SIZE, GRID = (30, 21), (8, 6)


@pytest.mark.parametrize("second_walk", [False, True])
def test_an_image_without_classes_is_background(second_walk: bool) -> None:
    cam, edge = np.ones((1, *SIZE), dtype=np.float32), np.full(GRID, 0.2, dtype=np.float32)
    assert not walk_mask(np.array([0]), cam, edge, SIZE, second_walk=second_walk).any()


@pytest.mark.parametrize("second_walk", [False, True])
@pytest.mark.parametrize("edge", [0.3, 1])
def test_maps_of_zeros_and_closed_edges_are_background(edge: float, second_walk: bool) -> None:
    cam = np.zeros((3, *SIZE), dtype=np.float32)
    edges = np.full(GRID, edge, dtype=np.float32)
    scores = walk_scores(cam, edges, SIZE, second_walk=second_walk)
    assert scores[0].min() == scores[0].max() == np.float32(0.25)
    assert not scores[1:].any()
    assert not walk_mask(np.array([0, 3, 9]), cam, edges, SIZE, second_walk=second_walk).any()


def test_a_map_of_zeros_beside_another_changes_nothing() -> None:
    random = np.random.default_rng(1)
    cam, edge = random.random((3, *SIZE), dtype=np.float32), random.random(GRID, dtype=np.float32)
    cam[1] = 0
    both = walk_mask(np.array([0, 1, 2]), cam, edge, SIZE)
    one = walk_mask(np.array([0, 2]), cam[[0, 2]], edge, SIZE)
    np.testing.assert_array_equal(both, one)
    assert set(np.unique(one)) == {0, 2}


def test_254_classes() -> None:
    size, grid = (64, 1000), (16, 250)
    keys = np.arange(255)
    cam = np.zeros((255, *size), dtype=np.float32)
    for key in range(1, 251):
        cam[key, :, 4 * (key - 1) : 4 * key] = 1
    cam[0] = 1 - cam[1:].max(axis=0)
    edge = np.zeros(grid, dtype=np.float32)
    mask = walk_mask(keys, cam, edge, size, steps=0)
    np.testing.assert_array_equal(mask[0, 2::4], np.arange(1, 251))


GOOD: dict[str, Any] = {
    "keys": np.array([0, 3]),
    "cam": np.ones((2, *SIZE), dtype=np.float32),
    "edge": np.zeros(GRID, dtype=np.float32),
    "image_size": SIZE,
}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"keys": np.array([0, 3, 4])}, "one for each map"),
        ({"keys": np.array([1, 3])}, "keys must be 0, then"),
        ({"keys": np.array([0, 0])}, "ascending"),
        ({"keys": np.array([0, 255])}, "up to 254"),
        ({"keys": np.array([[0, 3]])}, "keys must be"),
        ({"keys": np.zeros(0, int), "cam": np.ones((0, *SIZE))}, "keys must be"),
        ({"cam": np.ones((2, 5))}, "with the background first"),
        ({"cam": -np.ones((2, *SIZE))}, "finite and not negative"),
        ({"cam": np.full((2, *SIZE), np.nan)}, "finite and not negative"),
        ({"edge": np.full(GRID, 1.5)}, "edge must lie in"),
        ({"edge": np.zeros((7, 6))}, r"\[7, 6\] does not belong to an image of \[30, 21\] at stride 4"),
        ({"edge": np.zeros((1, *GRID))}, r"\[1, 8, 6\] does not belong"),
        ({"image_size": (0, 21)}, "does not belong"),
        ({"stride": 0}, "at stride 0"),
        ({"stride": 2}, "at stride 2"),
        ({"power": 0}, "power must be above 0"),
        ({"background": -0.1}, "background at least 0"),
        ({"background": np.nan}, "background at least 0"),
        ({"radius": 0}, "radius must be"),
    ],
)
def test_refuses_what_does_not_fit(change: dict[str, Any], sentence: str) -> None:
    walk_mask(**GOOD)
    with pytest.raises(ValueError, match=sentence):
        walk_mask(**{**GOOD, **change})
