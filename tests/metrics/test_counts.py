"""Metrics against plain loops over pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfc.metrics.counts import (
    BACKGROUND_SCORE,
    Areas,
    ConfusionMatrix,
    ThresholdCurve,
    best_foreground,
    group_means,
    mean_of_present,
)

seeds = st.integers(0, 2**32 - 1)


def random_maps(rng: np.random.Generator, classes: int) -> tuple[np.ndarray, np.ndarray]:
    shape = tuple(rng.integers(1, 9, size=2))
    truth = rng.integers(0, classes, size=shape).astype(np.uint8)
    truth[rng.random(shape) < 0.2] = 255
    return truth, rng.integers(0, classes, size=shape).astype(np.uint8)


def random_cam(rng: np.random.Generator, classes: int, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Keys and maps as inference makes them; coarse values, so that ties and margins on the grid occur."""
    present = 1 + np.flatnonzero(rng.random(classes - 1) < 0.5)
    keys = np.concatenate([[0], present]).astype(np.int64)
    cam = np.round(rng.random((len(keys), *shape)), 1).astype(np.float32)
    cam[1:] *= 2
    cam[0] += np.float32(BACKGROUND_SCORE)
    return keys, cam


def plain_counts(pairs: list[tuple[np.ndarray, np.ndarray]], classes: int) -> list[tuple[int, int, int]]:
    """Per class: true positives, false positives, false negatives."""
    result = []
    for k in range(classes):
        tp = fp = fn = 0
        for truth, prediction in pairs:
            for t, p in zip(truth.ravel().tolist(), prediction.ravel().tolist(), strict=True):
                if t == 255:
                    continue
                tp += t == k and p == k
                fp += t != k and p == k
                fn += t == k and p != k
        result.append((tp, fp, fn))
    return result


def same(actual: float, expected: float) -> bool:
    return math.isclose(actual, expected, rel_tol=1e-12) or (math.isnan(actual) and math.isnan(expected))


@given(seeds, st.integers(2, 6), st.integers(1, 4))
@settings(max_examples=60)
def test_scores_equal_a_loop_over_pixels(seed: int, classes: int, images: int) -> None:
    rng = np.random.default_rng(seed)
    pairs = [random_maps(rng, classes) for _ in range(images)]
    matrix = ConfusionMatrix(classes)
    for truth, prediction in pairs:
        matrix.update(truth, prediction)
    areas = matrix.areas()
    plain = plain_counts(pairs, classes)
    ious = []
    for k, (tp, fp, fn) in enumerate(plain):
        iou = tp / (tp + fp + fn) if tp + fp + fn else math.nan
        ious.append(iou)
        assert same(areas.iou()[k], iou)
        assert same(areas.over_activation()[k], fp / (tp + fn) if tp + fn else math.nan)
        assert same(areas.under_activation()[k], fn / (tp + fn) if tp + fn else math.nan)
    seen = [iou for iou in ious if not math.isnan(iou)]
    assert same(float(areas.mean_iou()), sum(seen) / len(seen) if seen else math.nan)
    total = sum(tp + fn for tp, _, fn in plain)
    assert same(float(areas.pixel_accuracy()), sum(tp for tp, _, _ in plain) / total if total else math.nan)


@given(seeds, st.integers(2, 6), st.integers(1, 6), st.integers(1, 4))
@settings(max_examples=30)
def test_shards_merge_to_the_same_counts(seed: int, classes: int, images: int, shards: int) -> None:
    rng = np.random.default_rng(seed)
    whole, whole_curve = ConfusionMatrix(classes), ThresholdCurve(classes)
    parts = [(ConfusionMatrix(classes), ThresholdCurve(classes)) for _ in range(shards)]
    for index in range(images):
        truth, prediction = random_maps(rng, classes)
        best, margin = best_foreground(*random_cam(rng, classes, truth.shape))
        part, part_curve = parts[index % shards]
        for matrix in (whole, part):
            matrix.update(truth, prediction)
        for curve in (whole_curve, part_curve):
            curve.update(truth, best, margin)
    merged, merged_curve = ConfusionMatrix(classes), ThresholdCurve(classes)
    for part, part_curve in reversed(parts):
        merged.merge(part)
        merged_curve.merge(part_curve)
    np.testing.assert_array_equal(merged.counts, whole.counts)
    for name in ("intersection", "truth", "prediction"):
        np.testing.assert_array_equal(getattr(merged_curve.areas(), name), getattr(whole_curve.areas(), name))


def test_confusion_matrix_takes_runs_over_row_ends_any_layout_and_dtype() -> None:
    truth = np.repeat(np.array([[2, 2, 2, 255, 1], [1, 1, 0, 0, 0]], np.uint8), 3, axis=1)
    prediction = np.where(truth == 255, 77, 2 - np.minimum(truth, 2)).astype(np.int64)
    expected = [[0, 0, 9], [0, 9, 0], [9, 0, 0]]
    matrix = ConfusionMatrix(3)
    matrix.update(truth, prediction)
    assert matrix.counts.tolist() == expected
    matrix.update(truth.T[::-1], prediction.T[::-1])
    assert matrix.counts.tolist() == (2 * np.array(expected)).tolist()


def test_image_without_pixels_adds_nothing() -> None:
    matrix = ConfusionMatrix(2)
    matrix.update(np.zeros((0, 4), np.uint8), np.zeros((0, 4), np.uint8))
    assert not matrix.counts.any()


@given(seeds, st.integers(2, 5), st.sampled_from([1.0, 1.3, 1.7, 2.0]))
@settings(max_examples=40)
def test_curve_equals_an_argmax_at_every_threshold(seed: int, classes: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    curve = ThresholdCurve(classes, scale)
    matrices = [ConfusionMatrix(classes) for _ in curve.thresholds]
    for _ in range(2):
        truth, _ = random_maps(rng, classes)
        keys, cam = random_cam(rng, classes, truth.shape)
        # Off the grid by a third of its step, so that rounding decides nothing; the next test is about ties.
        cam[1:] += np.float32(0.003)
        cam *= np.float32(scale)
        curve.update(truth, *best_foreground(keys, cam))
        for matrix, threshold in zip(matrices, curve.thresholds, strict=True):
            shifted = cam.astype(np.float64)
            shifted[0] += threshold - scale * BACKGROUND_SCORE
            matrix.update(truth, keys[shifted.argmax(axis=0)])
    areas = curve.areas()
    for index, matrix in enumerate(matrices):
        for name in ("intersection", "truth", "prediction"):
            np.testing.assert_array_equal(getattr(areas[index], name), getattr(matrix.areas(), name))
    assert curve.thresholds[curve.fixed_index] == pytest.approx(scale * BACKGROUND_SCORE, abs=1e-12)
    assert areas.mean_iou().shape == curve.thresholds.shape


@given(seeds, st.integers(2, 5))
@settings(max_examples=40)
def test_fixed_rule_on_the_curve_is_the_plain_argmax(seed: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    truth, _ = random_maps(rng, classes)
    keys, cam = random_cam(rng, classes, truth.shape)
    best, margin = best_foreground(keys, cam)
    labels = keys[cam.argmax(axis=0)]
    np.testing.assert_array_equal(np.where(margin > 0, best, 0), labels)
    curve, matrix = ThresholdCurve(classes), ConfusionMatrix(classes)
    curve.update(truth, best, margin)
    matrix.update(truth, labels)
    np.testing.assert_array_equal(curve.areas()[curve.fixed_index].prediction, matrix.areas().prediction)
    np.testing.assert_array_equal(curve.areas()[curve.fixed_index].intersection, matrix.areas().intersection)


def test_ends_of_the_curve_are_all_foreground_and_all_background() -> None:
    curve = ThresholdCurve(3)
    keys = np.array([0, 2])
    cam = np.stack([np.full((2, 2), 0.9, np.float32), np.full((2, 2), 1.2, np.float32)])
    curve.update(np.array([[0, 1], [2, 255]], np.uint8), *best_foreground(keys, cam))
    areas = curve.areas()
    assert areas[0].prediction.tolist() == [0, 0, 3]
    assert areas[-1].prediction.tolist() == [3, 0, 0]
    assert areas[-1].intersection.tolist() == [1, 0, 0]
    # Normalised background 0.5, foreground 1.2: the switch lies at t = 0.7.
    switch = np.flatnonzero(areas.prediction[:, 0])[0]
    assert curve.thresholds[switch] == pytest.approx(0.7, abs=0.011)


def test_image_without_present_classes_is_background_at_every_threshold() -> None:
    curve = ThresholdCurve(2)
    best, margin = best_foreground(np.array([0]), np.full((1, 2, 2), 0.4, np.float32))
    curve.update(np.array([[0, 1], [0, 255]], np.uint8), best, margin)
    assert (curve.areas().prediction == [3, 0]).all()
    assert (curve.areas().intersection == [2, 0]).all()


def test_absent_class_has_no_score_and_no_part_in_the_mean() -> None:
    matrix = ConfusionMatrix(4)
    matrix.update(np.array([0, 0, 1, 1, 255]), np.array([0, 1, 1, 1, 3]))
    areas = matrix.areas()
    assert areas.iou()[:2] == pytest.approx([1 / 2, 2 / 3])
    assert np.isnan(areas.iou()[2:]).all()
    assert areas.mean_iou() == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_class_only_predicted_counts_as_zero() -> None:
    matrix = ConfusionMatrix(3)
    matrix.update(np.array([0, 0]), np.array([0, 2]))
    areas = matrix.areas()
    assert areas.iou()[2] == 0
    assert areas.mean_iou() == pytest.approx(0.25)
    assert math.isnan(areas.over_activation()[2])


def test_nothing_seen_is_nan_not_a_crash() -> None:
    areas = ConfusionMatrix(3).areas()
    assert math.isnan(areas.mean_iou())
    assert math.isnan(areas.pixel_accuracy())


@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        ([0, 3], [0, 0], "holds 3"),
        ([0, -1], [0, 0], "holds -1"),
        ([0, 1], [0, 3], "prediction holds 0 to 3"),
        ([0, 1], [0, 255], "prediction holds 0 to 255"),
        ([0, 1], [0], "truth is"),
    ],
)
def test_values_that_are_no_class_are_refused(truth: list[int], prediction: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ConfusionMatrix(3).update(np.array(truth), np.array(prediction))


def test_prediction_under_ignored_pixels_may_be_anything() -> None:
    matrix = ConfusionMatrix(2)
    matrix.update(np.array([255, 1], np.uint8), np.array([77, 1], np.uint8))
    assert matrix.counts.tolist() == [[0, 0], [0, 1]]


def test_shards_of_different_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="classes"):
        ConfusionMatrix(2).merge(ConfusionMatrix(3))
    with pytest.raises(ValueError, match="thresholds"):
        ThresholdCurve(2).merge(ThresholdCurve(2, scale=1.5))


def test_group_means_leave_out_classes_without_score() -> None:
    means = group_means(np.array([0.2, np.nan, 0.6, 0.9, 0.1]), ["head", "head", "tail", "absent", "tail"])
    assert list(means) == ["head", "medium", "tail"]
    assert means["head"] == pytest.approx(0.2)
    assert math.isnan(means["medium"])
    assert means["tail"] == pytest.approx(0.35)
    with pytest.raises(ValueError, match="group names"):
        group_means(np.zeros(2), ["head"])


def test_mean_of_present_keeps_leading_axes() -> None:
    values = np.array([[1.0, np.nan, 3.0], [np.nan, np.nan, np.nan]])
    np.testing.assert_array_equal(mean_of_present(values), [2.0, np.nan])


def test_areas_index_the_leading_axis() -> None:
    areas = Areas(np.array([[1, 2], [3, 4]]), np.array([[5, 6], [7, 8]]), np.array([[1, 2], [3, 4]]))
    assert areas[1].truth.tolist() == [7, 8]
