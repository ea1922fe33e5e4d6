"""Our bicubic resizing is Pillow's and a plain loop's, and a window of it is the window of the whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from sfc.data.resize import resize_bicubic, resize_into


def pillow(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BICUBIC))


def columns_first(before: tuple[int, int], after: tuple[int, int]) -> bool:
    """Where recent versions of Pillow filter in the other order."""
    return before[0] - after[0] > max(0, 2 * (before[1] - after[1]))


def plain_line(line: np.ndarray, resized: int) -> list[int]:
    """One line of one channel, as the published algorithm of Pillow reads, number by number."""
    scale = len(line) / resized
    stretch = max(scale, 1.0)
    result = []
    for i in range(resized):
        centre = (i + 0.5) * scale
        start = max(int(centre - 2 * stretch + 0.5), 0)
        stop = min(int(centre + 2 * stretch + 0.5), len(line))
        weights = []
        for position in range(start, stop):
            x = abs((position - centre + 0.5) * (1 / stretch))
            if x < 1:
                weights.append((1.5 * x - 2.5) * x * x + 1)
            else:
                weights.append((((x - 5) * x + 8) * x - 4) * -0.5 if x < 2 else 0.0)
        total = sum(weights)
        value = 1 << 21
        for weight, pixel in zip(weights, line[start:stop], strict=True):
            whole = weight / total * (1 << 22)
            value += int(whole + (0.5 if whole >= 0 else -0.5)) * int(pixel)
        result.append(min(max(value >> 22, 0), 255))
    return result


def plain(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    narrow = np.zeros((image.shape[0], size[1], 3), dtype=np.uint8)
    resized = np.zeros((*size, 3), dtype=np.uint8)
    for channel in range(3):
        for y in range(image.shape[0]):
            narrow[y, :, channel] = plain_line(image[y, :, channel], size[1])
        for x in range(size[1]):
            resized[:, x, channel] = plain_line(narrow[:, x, channel], size[0])
    return resized


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Black and white extremes between noise: over- and undershoot are where rounding and clipping show."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    image[rng.random((height, width)) < 0.3] = 0
    image[rng.random((height, width)) < 0.3] = 255
    return image


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((1, 1), (3, 2)),
        ((70, 9), (31, 5)),
        ((9, 70), (5, 31)),
        ((33, 40), (61, 90)),
        ((64, 20), (1, 1)),
        ((5, 5), (5, 5)),
    ],
)
def test_equals_a_plain_loop(before: tuple[int, int], after: tuple[int, int]) -> None:
    np.testing.assert_array_equal(resize_bicubic(noise(*before), after), plain(noise(*before), after))


@settings(max_examples=150, deadline=None)
@given(
    before=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    after=st.tuples(st.integers(1, 120), st.integers(1, 120)),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_size_equals_pillow(before: tuple[int, int], after: tuple[int, int], seed: int) -> None:
    assume(not columns_first(before, after))
    image = noise(*before, seed)
    resized = resize_bicubic(image, after)
    assert resized.dtype == np.uint8
    np.testing.assert_array_equal(resized, pillow(image, after))


@pytest.mark.parametrize("size", [(188, 250), (562, 750), (750, 1000), (240, 320), (480, 640), (375, 500)])
def test_sizes_of_the_method_equal_pillow(size: tuple[int, int]) -> None:
    image = noise(375, 500)
    np.testing.assert_array_equal(resize_bicubic(image, size), pillow(image, size))


@settings(max_examples=100, deadline=None)
@given(data=st.data(), mirror=st.booleans())
def test_a_window_is_cut_from_the_whole(data: st.DataObject, mirror: bool) -> None:
    image = noise(data.draw(st.integers(1, 70)), data.draw(st.integers(1, 70)))
    height, width = data.draw(st.integers(1, 90)), data.draw(st.integers(1, 90))
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    window = (top, left, data.draw(st.integers(1, height - top)), data.draw(st.integers(1, width - left)))
    corner = (data.draw(st.integers(0, 5)), data.draw(st.integers(0, 5)))
    planes = np.full((3, corner[0] + window[2] + 2, corner[1] + window[3] + 1), 7, dtype=np.uint8)
    expected = planes.copy()
    cut = resize_bicubic(image, (height, width))[top : top + window[2], left : left + window[3]]
    cut = cut[:, ::-1] if mirror else cut
    expected[:, corner[0] : corner[0] + window[2], corner[1] : corner[1] + window[3]] = cut.transpose(2, 0, 1)
    resize_into(planes, image, (height, width), window, corner, mirror)
    np.testing.assert_array_equal(planes, expected)


def test_views_are_read_as_they_look() -> None:
    image = noise(40, 30)[::-1, ::2]
    np.testing.assert_array_equal(resize_bicubic(image, (45, 55)), pillow(np.ascontiguousarray(image), (45, 55)))


@pytest.mark.parametrize(
    ("size", "window", "corner"),
    [
        ((0, 5), None, (0, 0)),
        ((5, 5), (0, 0, 6, 5), (0, 0)),
        ((5, 5), (-1, 0, 2, 2), (0, 0)),
        ((5, 5), (0, 0, 5, 5), (4, 0)),
        ((5, 5), (0, 0, 0, 5), (0, 0)),
        ((9, 9), None, (0, 0)),
    ],
)
def test_impossible_windows_are_refused(size: tuple, window: tuple | None, corner: tuple) -> None:
    with pytest.raises(ValueError, match=r"window|size"):
        resize_into(np.zeros((3, 8, 8), dtype=np.uint8), noise(4, 4), size, window, corner)


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)])
def test_other_arrays_are_refused(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8"):
        resize_bicubic(image, (2, 2))
