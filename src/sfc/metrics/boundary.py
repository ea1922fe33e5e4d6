"""Scores of contours from integer counts: boundary IoU and boundary F-score.

Both take two label maps and count for all classes at once, so their cost does not grow with the number of classes in
a data set; sums over images merge over shards in any order with the same result.

Pixels whose truth is 255 have no class, and data sets put them exactly where the contours are. Taken as a region of
their own, they would draw the same contour into truth and prediction wherever the true one is in doubt, and a mask
that is much too large would be right along it. So each of these pixels takes the class of the nearest pixel that has
one, in the truth and in the prediction alike: contours lie along the middle of the strip, a perfect prediction is
perfect, and what is predicted below 255 changes nothing.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sfc.data.records import IGNORE
from sfc.metrics.counts import Areas, ratio

REGION_SHARE = 0.02
"""Width of the region of boundary IoU, relative to the image diagonal (Cheng et al.)."""

TOLERANCE_SHARE = 0.0075
"""How far matching contours may be apart, relative to the image diagonal (Csurka et al.)."""


class BoundaryCounts:
    """Counts along the contours of every class, over any number of images.

    Boundary IoU (Cheng et al., CVPR 2021): the IoU of the pixels of a class that lie within d of its
    contour, d = 2 % of the image diagonal, at least one pixel. As in the authors' code, within d means what an erosion
    by a square of 2d + 1 pixels takes away, and the border of the image is a contour. Pixels with truth 255 do not
    count.

    Boundary F-score (Csurka et al., BMVC 2013): harmonic mean of the shares of predicted and of true contour pixels
    that have one of the other within 0.75 % of the diagonal, at least one pixel. A contour pixel has another class
    above, below, left or right; the border of the image is no contour.

    Both papers take the score of an image, or of an object, and average; here counts are summed over images first, as
    for mIoU, so a class has one score however its pixels are spread.

    Args:
        num_classes: K, background included; at most 255.

    Raises:
        ValueError: more classes than that.
    """

    def __init__(self, num_classes: int) -> None:
        if not 0 < num_classes <= IGNORE:
            raise ValueError(f"num_classes is {num_classes}, not 1 to {IGNORE}")
        self.num_classes = num_classes
        self.regions: NDArray[np.int64] = np.zeros((3, num_classes), dtype=np.int64)
        """int64 [3, K]: pixels near a contour in both, in the truth, in the prediction."""
        self.contours: NDArray[np.int64] = np.zeros((4, num_classes), dtype=np.int64)
        """int64 [4, K]: contour pixels of the truth, those of them that are matched; the same of the prediction."""

    def update(self, truth: NDArray[np.integer], prediction: NDArray[np.integer]) -> None:
        """Adds one image.

        Args:
            truth: integers [H, W], in [0, K) or 255 (no class).
            prediction: integers [H, W], in [0, K) wherever the truth is not 255.

        Raises:
            ValueError: shapes differ, are not [H, W], or a value is not a class.
        """
        if truth.ndim != 2 or truth.shape != prediction.shape:
            raise ValueError(f"truth is {truth.shape}, prediction is {prediction.shape}; both must be [H, W]")
        known = truth != IGNORE
        if not known.any():
            return
        self._check(truth[known], "truth")
        self._check(prediction[known], "prediction")
        true, predicted = _filled(known, truth, prediction)
        diagonal = math.hypot(*truth.shape)
        self._add_regions(true, predicted, known, max(1, round(REGION_SHARE * diagonal)))
        self._add_contours(true, predicted, max(1.0, TOLERANCE_SHARE * diagonal))

    def merge(self, other: BoundaryCounts) -> None:
        """Adds the counts of another shard."""
        if other.num_classes != self.num_classes:
            raise ValueError(f"{other.num_classes} classes cannot be merged into {self.num_classes}")
        self.regions += other.regions
        self.contours += other.contours

    def iou(self) -> NDArray[np.float64]:
        """Boundary IoU, float64 [K] in [0, 1]; NaN for a class that occurs neither in truth nor in prediction."""
        return Areas(*self.regions).iou()

    def f_score(self) -> NDArray[np.float64]:
        """Boundary F-score, float64 [K] in [0, 1]; 0 for a contour in one map only, NaN for one in neither."""
        true, true_matched, predicted, predicted_matched = self.contours
        precision, recall = ratio(predicted_matched, predicted), ratio(true_matched, true)
        score = ratio(2 * precision * recall, precision + recall)
        return np.where((true + predicted > 0) & np.isnan(score), 0.0, score)

    def _check(self, values: NDArray[np.integer], name: str) -> None:
        low, high = values.min(), values.max()
        if low < 0 or high >= self.num_classes:
            raise ValueError(f"{name} holds {low} to {high}, not 0 to {self.num_classes - 1}")

    def _add_regions(
        self, true: NDArray[np.uint8], predicted: NDArray[np.uint8], known: NDArray[np.bool_], distance: int
    ) -> None:
        near_true, near_predicted = _near_contour(true, distance) & known, _near_contour(predicted, distance) & known
        both = near_true & near_predicted & (true == predicted)
        for row, labels in enumerate((true[both], true[near_true], predicted[near_predicted])):
            self.regions[row] += self._count(labels)

    def _add_contours(self, true: NDArray[np.uint8], predicted: NDArray[np.uint8], tolerance: float) -> None:
        contours = [(labels, _contour(labels)) for labels in (true, predicted)]
        for row, (labels, contour) in zip((0, 2), contours, strict=True):
            self.contours[row] += self._count(labels[contour])
        present = np.unique(np.concatenate([labels[contour] for labels, contour in contours]))
        for start in range(0, len(present), 8):
            # A bit a class: eight are dilated at once.
            bit_of: NDArray[np.uint8] = np.zeros(self.num_classes, dtype=np.uint8)
            group = present[start : start + 8]
            bit_of[group] = 1 << np.arange(len(group))
            true_bits, predicted_bits = (np.where(contour, bit_of[labels], np.uint8(0)) for labels, contour in contours)
            self.contours[1] += self._count(true[(true_bits & _dilated(predicted_bits, tolerance)) > 0])
            self.contours[3] += self._count(predicted[(predicted_bits & _dilated(true_bits, tolerance)) > 0])

    def _count(self, labels: NDArray[np.uint8]) -> NDArray[np.int64]:
        return np.bincount(labels, minlength=self.num_classes)


def _filled(known: NDArray[np.bool_], *maps: NDArray[np.integer]) -> list[NDArray[np.uint8]]:
    """The maps as uint8 [H, W], unknown pixels with the value of the nearest known one."""
    filled = [values.astype(np.uint8) for values in maps]
    unknown = ~known
    if unknown.any():
        nearest = ndimage.distance_transform_edt(unknown, return_distances=False, return_indices=True)
        rows, columns = nearest[:, unknown]
        for values in filled:
            values[unknown] = values[rows, columns]
    return filled


def _near_contour(labels: NDArray[np.uint8], distance: int) -> NDArray[np.bool_]:
    """Where a square of 2·distance + 1 pixels holds another class or reaches out of the image.

    For each class, this is what its erosion by that square takes away.
    """
    height, width = labels.shape
    padded: NDArray[np.uint8] = np.full((height + 2 * distance, width + 2 * distance), IGNORE, dtype=np.uint8)
    padded[distance:-distance, distance:-distance] = labels
    size = 2 * distance + 1
    return np.asarray(_over_squares(np.maximum, padded, size) != _over_squares(np.minimum, padded, size))


def _over_squares(extreme: np.ufunc, values: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """[H - size + 1, W - size + 1]: the extreme value of every square, from windows that double until they fit."""
    for _ in range(2):
        length = 1
        while length < size:
            step = min(length, size - length)
            values = extreme(values[step:], values[:-step])
            length += step
        values = values.T
    return values


def _contour(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where one of the four neighbours has another class."""
    result: NDArray[np.bool_] = np.zeros(labels.shape, dtype=np.bool_)
    for values, found in ((labels, result), (labels.T, result.T)):
        differs = values[1:] != values[:-1]
        found[1:] |= differs
        found[:-1] |= differs
    return result


def _dilated(bits: NDArray[np.uint8], radius: float) -> NDArray[np.uint8]:
    """Every bit set wherever one like it lies within `radius` pixels: bitwise or over a disk, row by row of it."""
    result: NDArray[np.uint8] = np.zeros_like(bits)
    row, reach = bits.copy(), 0
    for offset in range(int(radius), -1, -1):
        while (reach + 1) ** 2 + offset**2 <= radius**2:
            reach += 1
            row[:, reach:] |= bits[:, :-reach]
            row[:, :-reach] |= bits[:, reach:]
        height = max(len(bits) - offset, 0)
        result[offset:] |= row[:height]
        result[:height] |= row[len(bits) - height :]
    return result
