"""Augmentation against a plain Pillow and NumPy pipeline that makes the same draws."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sfc.data.transforms import augment, augment_with_labels

ROUNDING = 8


def plain_augment(
    image: np.ndarray, generator: np.random.Generator, long_side: tuple[int, int] | None, crop: int, flip: bool
) -> tuple[np.ndarray, list[int]]:
    """The released code's steps one after the other: resize, mirror, place or cut."""
    picture = Image.fromarray(image)
    if long_side is not None:
        target = int(generator.integers(long_side[0], long_side[1] + 1))
        width, height = picture.size
        if width < height:
            shape = (max(1, round(width * target / height)), target)
        else:
            shape = (target, max(1, round(height * target / width)))
        picture = picture.resize(shape, Image.Resampling.BICUBIC)
    mirror = generator.random() < 0.5
    pixels = np.asarray(picture)
    container = np.zeros((crop, crop, 3), dtype=np.uint8)
    corners, cuts = [], []
    for length in pixels.shape[:2]:
        free = crop - length
        offset = int(generator.integers(0, abs(free) + 1))
        corners.append(offset if free >= 0 else 0)
        cuts.append(0 if free >= 0 else offset)
    cut = pixels[cuts[0] : cuts[0] + crop, cuts[1] : cuts[1] + crop]
    if mirror and flip:
        cut = cut[:, ::-1]
    (top, left), (height, width) = corners, cut.shape[:2]
    container[top : top + height, left : left + width] = cut
    return container, [top, left, top + height, left + width]


@settings(max_examples=120)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    long_side=st.none() | st.tuples(st.integers(20, 40), st.integers(40, 90)),
    crop=st.integers(1, 64),
    flip=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_equals_the_plain_pipeline(
    height: int, width: int, long_side: tuple[int, int] | None, crop: int, flip: bool, seed: int
) -> None:
    height = min(height, 2 * width)  # Taller ones are filtered in another order by recent versions of Pillow.
    noise = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    image = np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BILINEAR))
    expected, corners = plain_augment(image, np.random.default_rng(seed), long_side, crop, flip)
    cut, rectangle = augment(Image.fromarray(image), np.random.default_rng(seed), long_side, crop, flip)
    assert cut.dtype == np.uint8
    assert rectangle.dtype == np.int64
    assert rectangle.tolist() == corners
    # Pillow takes the edges of the box as float32, so a resized part may differ by rounding; unresized ones may not.
    assert np.abs(cut.astype(int) - expected).max(initial=0) <= (0 if long_side is None else ROUNDING)


def test_settings_of_the_method() -> None:
    image = np.random.default_rng(0).integers(0, 256, (375, 500, 3), dtype=np.uint8)
    for seed in range(8):
        cut, rectangle = augment(Image.fromarray(image), np.random.default_rng(seed))
        expected, corners = plain_augment(image, np.random.default_rng(seed), (320, 640), 512, True)
        assert np.abs(cut.astype(int) - expected).mean() < 0.01
        assert rectangle.tolist() == corners


def test_draws_cover_their_ranges_evenly() -> None:
    image = np.zeros((2, 3, 3), dtype=np.uint8)
    image[:, 0] = 9
    image[:, 1:] = 5
    sides, tops, lefts, mirrored = Counter(), Counter(), Counter(), 0
    for seed in range(600):
        cut, (top, left, bottom, right) = augment(Image.fromarray(image), np.random.default_rng(seed), (3, 5), 6)
        sides[int(right - left)] += 1
        mirrored += int(cut[top, left, 0] < cut[top, right - 1, 0])
        if right - left == 3:
            tops[int(top)] += 1
            lefts[int(left)] += 1
            assert bottom - top == 2
    assert set(sides) == {3, 4, 5}
    assert min(sides.values()) > 150
    assert set(tops) == {0, 1, 2, 3, 4}
    assert set(lefts) == {0, 1, 2, 3}
    assert 250 < mirrored < 350


@pytest.mark.parametrize("seed", range(20))
def test_no_flip_never_mirrors(seed: int) -> None:
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    cut, (top, left, bottom, right) = augment(Image.fromarray(image), np.random.default_rng(seed), None, 4, flip=False)
    np.testing.assert_array_equal(cut[top:bottom, left:right], image)


def test_a_needle_keeps_one_pixel() -> None:
    image = np.full((500, 1, 3), 200, dtype=np.uint8)
    cut, (top, left, bottom, right) = augment(Image.fromarray(image), np.random.default_rng(0), (32, 32), 40)
    assert (bottom - top, right - left) == (32, 1)
    assert (cut[top:bottom, left] == 200).all()


@settings(max_examples=60)
@given(
    height=st.integers(1, 50),
    width=st.integers(1, 50),
    scale=st.tuples(st.floats(0.3, 1.0), st.floats(1.0, 2.0)),
    crop=st.integers(1, 64),
    seed=st.integers(0, 2**32 - 1),
)
def test_labels_go_where_their_pixels_go(
    height: int, width: int, scale: tuple[float, float], crop: int, seed: int
) -> None:
    labels = np.random.default_rng(seed).integers(0, 3, (height, width), dtype=np.uint8)
    cut, cut_labels, rectangle = augment_with_labels(
        Image.fromarray(np.repeat(labels[:, :, None], 3, axis=2)), labels, np.random.default_rng(seed), scale, crop
    )
    generator = np.random.default_rng(seed)
    factor = generator.uniform(*scale)
    size = max(1, round(height * factor)), max(1, round(width * factor))
    # The pixel under the centre of each resized one, in whole numbers: Pillow adds up rounding errors along a row.
    resized = np.array(
        [
            [
                labels[(2 * y + 1) * height // (2 * size[0]), (2 * x + 1) * width // (2 * size[1])]
                for x in range(size[1])
            ]
            for y in range(size[0])
        ]
    )
    mirrored = generator.random() < 0.5
    corners, cuts = [], []
    for length in size:
        offset = int(generator.integers(0, abs(crop - length) + 1))
        corners.append(offset if length <= crop else 0)
        cuts.append(0 if length <= crop else offset)
    part = resized[cuts[0] : cuts[0] + crop, cuts[1] : cuts[1] + crop]
    expected = np.full((crop, crop), 255, dtype=np.uint8)
    expected[corners[0] : corners[0] + part.shape[0], corners[1] : corners[1] + part.shape[1]] = (
        part[:, ::-1] if mirrored else part
    )
    np.testing.assert_array_equal(cut_labels, expected)
    top, left, bottom, right = rectangle
    assert (top, left, bottom - top, right - left) == (*corners, *part.shape)
    if size == (height, width):
        np.testing.assert_array_equal(cut[top:bottom, left:right, 0], cut_labels[top:bottom, left:right])
    outside = np.ones((crop, crop), dtype=bool)
    outside[top:bottom, left:right] = False
    assert (cut[outside] == 0).all()
