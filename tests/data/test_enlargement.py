"""Masks of shrunk photographs at full size: the arithmetic against plain loops, edges where the photograph has its."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from sfc.data import enlargement
from sfc.data.enlargement import EPSILON, enlarged, enlarged_labels
from sfc.data.pixels import resize_image, resize_labels


def regression(map_: np.ndarray, colours: np.ndarray, row: int, column: int) -> np.ndarray:
    """Slope of red, green and blue, and offset, of a map in the window around a pixel; ridge of `EPSILON`."""
    window = (slice(max(0, row - 1), row + 2), slice(max(0, column - 1), column + 2))
    x, y = colours[window].reshape(-1, 3), map_[window].ravel()
    centred = x - x.mean(axis=0)
    slope = np.linalg.solve(centred.T @ centred / len(y) + EPSILON * np.eye(3), centred.T @ (y - y.mean()) / len(y))
    return np.append(slope, y.mean() - slope @ x.mean(axis=0))


@settings(max_examples=20)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_coefficients_are_regressions_averaged_over_the_windows_of_a_pixel(height: int, width: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    maps = draw.random((2, height, width), np.float32)
    image = draw.integers(0, 256, (height, width, 3), np.uint8)
    (_, answer), *more = enlarged(maps, image, image)
    assert not more
    for map_, found in zip(maps, answer, strict=True):
        lines = np.array(
            [[regression(map_, image / 255, row, column) for column in range(width)] for row in range(height)]
        )
        for row in range(height):
            for column in range(width):
                around = lines[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2].reshape(-1, 4).mean(axis=0)
                expected = around @ np.append(image[row, column] / 255, 1)
                assert found[row, column] == pytest.approx(expected, abs=2e-3)


def test_coefficients_are_interpolated_between_cell_centres(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a grey photograph of one colour the answer is the smoothed map, enlarged; strips join without a seam."""
    maps = np.random.default_rng(0).random((3, 9, 7), np.float32)
    small, image = np.full((9, 7, 3), 90, np.uint8), np.full((50, 31, 3), 90, np.uint8)
    smooth = torch.from_numpy(maps)[None]
    for _ in range(2):
        smooth = F.avg_pool2d(smooth, 3, 1, 1, count_include_pad=False)
    expected = F.interpolate(smooth, (50, 31), mode="bilinear", align_corners=False)[0].numpy()
    for rows in (64, 16):
        monkeypatch.setattr(enlargement, "ROWS", rows)
        strips = list(enlarged(maps, small, image))
        assert [top for top, _ in strips] == list(range(0, 50, rows))
        np.testing.assert_allclose(np.concatenate([strip for _, strip in strips], axis=1), expected, atol=1e-5)


def test_labels_end_where_the_photograph_has_its_edge() -> None:
    rows, columns = np.mgrid[:120, :160]
    truth = np.where((rows - 60) ** 2 + (columns - 83) ** 2 < 41**2, 7, 255).astype(np.uint8)
    image = np.where(truth[..., None] == 7, [200, 60, 40], [40, 120, 90]).astype(np.uint8)
    small = resize_image(image, (15, 20))
    labels = resize_labels(truth, (15, 20))
    whole = np.concatenate([strip for _, strip in enlarged((labels == 7)[None].astype(np.float32), small, image)], 1)
    assert np.array_equal(enlarged_labels(labels, small, image) == 7, whole[0] > 0.5)
    wrong = (enlarged_labels(labels, small, image) != truth).mean()
    assert set(np.unique(enlarged_labels(labels, small, image))) == {7, 255}
    assert wrong < 0.002 < 0.02 < (resize_labels(labels, truth.shape) != truth).mean()


def test_labels_of_the_photographs_own_size_are_left_alone() -> None:
    draw = np.random.default_rng(1)
    image, labels = draw.integers(0, 256, (9, 8, 3), np.uint8), draw.integers(0, 4, (9, 8), np.uint8)
    assert enlarged_labels(labels, image, image) is labels
