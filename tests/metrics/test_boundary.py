"""Boundary scores against plain loops over pixels, and what must hold for any masks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from sfc.metrics.boundary import BoundaryCounts

seeds = st.integers(0, 2**32 - 1)


def random_labels(random: np.random.Generator, classes: int, shape: tuple[int, ...]) -> np.ndarray:
    """Patches of a few pixels, so that there are contours and insides."""
    coarse = random.integers(0, classes, tuple(-(-length // 3) for length in shape), dtype=np.uint8)
    return np.kron(coarse, np.ones((3, 3), np.uint8))[: shape[0], : shape[1]]


def random_pair(random: np.random.Generator, classes: int) -> tuple[np.ndarray, np.ndarray]:
    shape = tuple(random.integers(1, 16, 2))
    return random_labels(random, classes, shape), random_labels(random, classes, shape)


def at(labels: np.ndarray, y: int, x: int) -> int | None:
    inside = 0 <= y < labels.shape[0] and 0 <= x < labels.shape[1]
    return int(labels[y, x]) if inside else None


def plain_region(labels: np.ndarray, distance: int) -> set[tuple[int, int, int]]:
    """(class, y, x) of the pixels that an erosion by a square takes from their class."""
    steps = range(-distance, distance + 1)
    return {
        (int(labels[y, x]), y, x)
        for y, x in np.ndindex(*labels.shape)
        if any(at(labels, y + dy, x + dx) != labels[y, x] for dy in steps for dx in steps)
    }


def plain_contour(labels: np.ndarray) -> set[tuple[int, int, int]]:
    neighbours = ((0, 1), (0, -1), (1, 0), (-1, 0))
    return {
        (int(labels[y, x]), y, x)
        for y, x in np.ndindex(*labels.shape)
        if any(at(labels, y + dy, x + dx) not in (None, labels[y, x]) for dy, dx in neighbours)
    }


def plain_matched(
    ours: set[tuple[int, int, int]], others: set[tuple[int, int, int]], tolerance: float
) -> set[tuple[int, int, int]]:
    return {
        (k, y, x)
        for k, y, x in ours
        if any(k == other and math.hypot(y - v, x - u) <= tolerance for other, v, u in others)
    }


def per_class(pixels: set[tuple[int, int, int]], classes: int) -> list[int]:
    return [sum(pixel[0] == k for pixel in pixels) for k in range(classes)]


def counted(classes: int, *pairs: tuple[np.ndarray, np.ndarray]) -> BoundaryCounts:
    counts = BoundaryCounts(classes)
    for truth, prediction in pairs:
        counts.update(truth, prediction)
    return counts


@given(seeds, st.sampled_from([2, 4, 20]), st.sampled_from([0.02, 0.15]))
@settings(max_examples=40)
def test_counts_equal_loops_over_pixels(seed: int, classes: int, share: float) -> None:
    """20 classes need more than one byte of bits; the larger share makes squares and disks of several pixels."""
    truth, prediction = random_pair(np.random.default_rng(seed), classes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sfc.metrics.boundary.REGION_SHARE", share)
        patch.setattr("sfc.metrics.boundary.TOLERANCE_SHARE", share)
        counts = counted(classes, (truth, prediction))
    length = share * math.hypot(*truth.shape)
    true, predicted = (plain_region(labels, max(1, round(length))) for labels in (truth, prediction))
    assert counts.regions.tolist() == [per_class(pixels, classes) for pixels in (true & predicted, true, predicted)]
    true, predicted = plain_contour(truth), plain_contour(prediction)
    true_matched = plain_matched(true, predicted, max(1, length))
    predicted_matched = plain_matched(predicted, true, max(1, length))
    expected = [per_class(pixels, classes) for pixels in (true, true_matched, predicted, predicted_matched)]
    assert counts.contours.tolist() == expected


def test_region_and_tolerance_are_the_shares_of_the_papers() -> None:
    """A photograph of 375 × 500: 12 pixels in from contour and border, and contours up to 4.69 pixels apart."""
    truth = np.zeros((375, 500), np.uint8)
    truth[100:200, 100:300] = 1
    region = counted(2, (truth, truth)).regions[0]
    inside = (375 - 24) * (500 - 24) - 124 * 224
    assert region.tolist() == [375 * 500 - 100 * 200 - inside, 100 * 200 - 76 * 176]
    for shift, matched in ((4, True), (5, False)):
        prediction = np.roll(truth, shift, axis=1)
        true, true_matched, _, _ = counted(2, (truth, prediction)).contours[:, 1]
        sides = 98 if matched else 0
        assert true == 2 * 200 + 2 * 98
        # Top and bottom lie on each other but for the last pixels at one end.
        assert true_matched >= 2 * (200 - shift) + 2 * sides
        assert (true_matched == true) == matched


def test_region_is_what_the_erosion_of_each_class_takes_away() -> None:
    labels = random_labels(np.random.default_rng(3), 3, (60, 80))
    labels[10:40, 20:60] = 2
    square = np.ones((3, 3), bool)
    eroded = [ndimage.binary_erosion(labels == k, square, iterations=2, border_value=0) for k in range(3)]
    expected = [int((labels == k).sum() - inside.sum()) for k, inside in enumerate(eroded)]
    assert counted(3, (labels, labels)).regions[1].tolist() == expected


def test_scores_from_counts() -> None:
    counts = BoundaryCounts(5)
    counts.regions[:] = [[6, 0, 0, 0, 0], [8, 3, 0, 0, 0], [10, 0, 0, 2, 0]]
    counts.contours[:] = [[8, 5, 0, 4, 0], [6, 0, 0, 0, 0], [10, 0, 3, 4, 0], [5, 0, 0, 0, 0]]
    np.testing.assert_allclose(counts.iou(), [0.5, 0, np.nan, 0, np.nan])
    np.testing.assert_allclose(counts.f_score(), [0.6, 0, 0, 0, np.nan])


@given(seeds, st.integers(2, 12))
@settings(max_examples=40)
def test_a_perfect_prediction_scores_one_whatever_lies_under_255(seed: int, classes: int) -> None:
    random = np.random.default_rng(seed)
    truth, elsewhere = random_pair(random, classes)
    unknown = random.random(truth.shape) < 0.4
    counts = counted(classes, (np.where(unknown, 255, truth), np.where(unknown, elsewhere, truth)))
    for score in (counts.iou(), counts.f_score()):
        assert (score[~np.isnan(score)] == 1).all()
    assert (counts.regions[1] <= np.bincount(truth[~unknown], minlength=classes)).all()
    present = np.isin(np.arange(classes), truth[~unknown])
    assert np.isnan(counts.iou()[~present]).all()
    assert np.isnan(counts.f_score()[~present]).all()


@given(seeds, st.integers(2, 12))
@settings(max_examples=40)
def test_truth_and_prediction_can_change_places(seed: int, classes: int) -> None:
    truth, prediction = random_pair(np.random.default_rng(seed), classes)
    there, back = counted(classes, (truth, prediction)), counted(classes, (prediction, truth))
    np.testing.assert_array_equal(there.iou(), back.iou())
    np.testing.assert_array_equal(there.f_score(), back.f_score())


def disk(radius: int, unknown: int = 0) -> np.ndarray:
    """A class in the middle of 120 × 120; a strip of 255, so many pixels to both sides of its contour."""
    distance = np.hypot(*(np.mgrid[:120, :120] - 60))
    labels = (distance <= radius).astype(np.uint8)
    labels[np.abs(distance - radius) < unknown] = 255
    return labels


@pytest.mark.parametrize("unknown", [0, 2])
def test_scores_fall_as_the_contour_moves_away(unknown: int) -> None:
    truth = disk(30, unknown)
    for radii in ((30, 32, 36, 42, 50), (30, 28, 25, 20, 12)):
        counts = [counted(2, (truth, disk(radius))) for radius in radii]
        iou, f_score = [count.iou()[1] for count in counts], [count.f_score()[1] for count in counts]
        assert iou[0] == pytest.approx(1, abs=0.1)
        assert f_score[0] == 1
        assert iou == sorted(iou, reverse=True)
        assert f_score == sorted(f_score, reverse=True)
        assert f_score[-1] == 0


def test_a_strip_of_255_does_not_hide_that_an_object_is_too_large() -> None:
    """Taken as a region of its own, the strip would give truth and prediction the same contour."""
    counts = counted(2, (disk(30, 3), disk(50)))
    assert counts.contours[0, 1] > 0
    assert counts.f_score()[1] == 0
    # A strip whose middle is the contour moves it by less than the tolerance.
    assert counted(2, (disk(30, 3), disk(30))).f_score().tolist() == [1, 1]


def test_border_of_the_image_counts_for_the_region_alone() -> None:
    counts = counted(2, (np.ones((20, 30), np.uint8), np.ones((20, 30), np.uint8)))
    assert counts.regions[:, 1].tolist() == [20 * 30 - 18 * 28] * 3
    assert counts.iou()[1] == 1
    assert np.isnan(counts.f_score()).all()


def test_shards_merge_to_the_same_counts() -> None:
    random = np.random.default_rng(0)
    pairs = [random_pair(random, 5) for _ in range(7)]
    merged = BoundaryCounts(5)
    for shard in (2, 0, 1):
        merged.merge(counted(5, *pairs[shard::3]))
    whole = counted(5, *pairs)
    assert whole.regions.all()
    np.testing.assert_array_equal(merged.regions, whole.regions)
    np.testing.assert_array_equal(merged.contours, whole.contours)
    with pytest.raises(ValueError, match="4 classes cannot be merged into 5"):
        merged.merge(BoundaryCounts(4))


def test_image_without_known_pixels_adds_nothing() -> None:
    counts = counted(3, (np.full((4, 5), 255, np.uint8), np.zeros((4, 5), np.uint8)))
    assert not counts.regions.any()
    assert not counts.contours.any()


@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        ([[0, 3]], [[0, 0]], "truth holds 0 to 3"),
        ([[0, -1]], [[0, 0]], "truth holds -1 to 0"),
        ([[0, 1]], [[0, 255]], "prediction holds 0 to 255"),
        ([[0, 1]], [[-2, 1]], "prediction holds -2 to 1"),
        ([[0, 1]], [[0], [1]], "truth is"),
        ([0, 1], [0, 1], r"both must be \[H, W\]"),
    ],
)
def test_what_is_no_label_map_is_refused(truth: list[int], prediction: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BoundaryCounts(3).update(np.array(truth), np.array(prediction))


@pytest.mark.parametrize("classes", [0, 256])
def test_classes_that_a_mask_cannot_hold_are_refused(classes: int) -> None:
    with pytest.raises(ValueError, match=f"num_classes is {classes}"):
        BoundaryCounts(classes)
