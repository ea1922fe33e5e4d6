"""Pixel scores from integer counts: confusion matrix, IoU, over- and under-activation, background-threshold curve.

Everything is a sum of integers over images, so shards can be merged in any order with the same result. Class 0 is the
background; pixels whose truth is 255 take no part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sfc.data.groups import GROUPS
from sfc.data.records import IGNORE

BACKGROUND_SCORE = 0.4
"""What METHOD adds to the background channel before the argmax: the fixed rule for W or P alone."""


@dataclass(frozen=True)
class Areas:
    """Pixel counts of every class, from which the scores follow.

    Args:
        intersection: int64 [..., K], pixels of class k that are predicted as k.
        truth: int64 [..., K], pixels of class k.
        prediction: int64 [..., K], pixels predicted as k.
    """

    intersection: NDArray[np.int64]
    truth: NDArray[np.int64]
    prediction: NDArray[np.int64]

    def iou(self) -> NDArray[np.float64]:
        """float64 [..., K] in [0, 1]; NaN for a class that occurs neither in truth nor in prediction."""
        return ratio(self.intersection, self.truth + self.prediction - self.intersection)

    def mean_iou(self) -> NDArray[np.float64]:
        """float64 [...]: mean over the classes that occur in truth or prediction, background included; else NaN."""
        return mean_of_present(self.iou())

    def over_activation(self) -> NDArray[np.float64]:
        """float64 [..., K] >= 0: false positives relative to the true area; NaN without true area."""
        return ratio(self.prediction - self.intersection, self.truth)

    def under_activation(self) -> NDArray[np.float64]:
        """float64 [..., K] in [0, 1]: false negatives relative to the true area; NaN without true area."""
        return ratio(self.truth - self.intersection, self.truth)

    def pixel_accuracy(self) -> NDArray[np.float64]:
        """float64 [...] in [0, 1]: share of the pixels whose class is right; NaN without pixels."""
        return ratio(self.intersection.sum(axis=-1), self.truth.sum(axis=-1))

    def __getitem__(self, index: int) -> Areas:
        """The counts at one position of the leading axis."""
        return Areas(self.intersection[index], self.truth[index], self.prediction[index])


class ConfusionMatrix:
    """Counts of (true class, predicted class) over any number of images.

    Args:
        num_classes: K, background included.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.counts: NDArray[np.int64] = np.zeros((num_classes, num_classes), dtype=np.int64)
        """int64 [K, K]: rows are the truth, columns the prediction."""

    def update(self, truth: NDArray[np.integer], prediction: NDArray[np.integer]) -> None:
        """Adds one image.

        Args:
            truth: integers of any shape, in [0, K) or 255 (ignored).
            prediction: integers of the same shape, in [0, K) wherever the truth is not 255.

        Raises:
            ValueError: shapes differ or a value is not a class.
        """
        _check_shape(truth, prediction.shape)
        # Neighbours are mostly alike, so it is runs of pixels that are checked and counted.
        truth, prediction = truth.ravel(), prediction.ravel()
        is_start: NDArray[np.bool_] = np.ones(truth.size, dtype=np.bool_)
        np.not_equal(truth[1:], truth[:-1], out=is_start[1:])
        is_start[1:] |= prediction[1:] != prediction[:-1]
        starts = is_start.nonzero()[0]
        lengths = np.diff(starts, append=truth.size)
        rows, columns = truth[starts], prediction[starts]
        _check_truth(rows, self.num_classes)
        valid = rows != IGNORE
        rows, columns = rows[valid].astype(np.int64), columns[valid]
        if columns.size and not 0 <= columns.min() <= columns.max() < self.num_classes:
            raise ValueError(f"prediction holds {columns.min()} to {columns.max()}, not 0 to {self.num_classes - 1}")
        # Sums in float64 are exact below 2^53 pixels.
        flat = np.bincount(rows * self.num_classes + columns, lengths[valid], minlength=self.num_classes**2)
        self.counts += flat.astype(np.int64).reshape(self.counts.shape)

    def merge(self, other: ConfusionMatrix) -> None:
        """Adds the counts of another shard."""
        if other.num_classes != self.num_classes:
            raise ValueError(f"{other.num_classes} classes cannot be merged into {self.num_classes}")
        self.counts += other.counts

    def areas(self) -> Areas:
        """The counts that the scores need, each [K]."""
        return Areas(self.counts.diagonal().copy(), self.counts.sum(axis=1), self.counts.sum(axis=0))


class ThresholdCurve:
    """What the CAM of every image would score at every background score of a grid, in one pass.

    A pixel becomes foreground where its best foreground value exceeds background + t. So a histogram of that margin
    for each best class, once over all pixels and once over those where the class is right, holds the counts for all t
    at once: 2·K·T integers, whatever the number of images, and exact at every t of the grid.

    Args:
        num_classes: K, background included.
        scale: 1 for W or P, 1 + λ for W + λP, whose values and background score are as much larger.
        background_score: the fixed rule at scale 1; the CAMs given to `update` already contain it, times `scale`.
    """

    STEP = 0.01

    def __init__(self, num_classes: int, scale: float = 1.0, background_score: float = BACKGROUND_SCORE) -> None:
        self.num_classes = num_classes
        # Values are 2·fg and bg + 0.4 with fg, bg in [0, 1], so t from -1 (nothing is background) to 2 (all is) says
        # it all. Thresholds are stored as offsets to the fixed rule: its offset is exactly 0, and a margin of 0 is
        # exact in floating point, so the curve passes through the fixed rule's score exactly.
        low, high = round((-1 - background_score) / self.STEP), round((2 - background_score) / self.STEP)
        steps = np.arange(low, high + 1)
        self.fixed_index = -low
        """Position of the fixed rule in `thresholds`."""
        self.thresholds: NDArray[np.float64] = np.asarray(scale * (background_score + steps * self.STEP), np.float64)
        """float64 [T], ascending: the background scores t of the grid."""
        self._offsets = (scale * self.STEP * steps).astype(np.float32)
        bins = len(steps) + 1
        self._truth = np.zeros(num_classes, dtype=np.int64)
        self._predicted = np.zeros((num_classes, bins), dtype=np.int64)
        self._correct = np.zeros((num_classes, bins), dtype=np.int64)

    def update(self, truth: NDArray[np.integer], best: NDArray[np.integer], margin: NDArray[np.float32]) -> None:
        """Adds one image.

        Args:
            truth: integers of any shape, in [0, K) or 255 (ignored).
            best: int64, same shape: the foreground class with the largest value, in [1, K); 0 where there is none.
            margin: float32, same shape: its value minus the background with the fixed score added (`-inf` if none).

        Raises:
            ValueError: shapes differ or a value is not a class.
        """
        _check_shape(truth, margin.shape)
        _check_truth(truth, self.num_classes)
        valid = truth != IGNORE
        truth, best = truth[valid].astype(np.int64), best[valid]
        # Bin b: foreground at the first b thresholds, background at the others.
        bins = np.searchsorted(self._offsets, margin[valid], side="left").astype(np.int64)
        right = truth == best
        self._truth += np.bincount(truth, minlength=self.num_classes)
        self._count(self._predicted, best, bins)
        self._count(self._correct, best[right], bins[right])
        # Row 0 instead: the pixels whose truth is background, which are right wherever they do not become foreground.
        self._correct[0] += np.bincount(bins[truth == 0], minlength=self._correct.shape[1])

    @staticmethod
    def _count(histogram: NDArray[np.int64], rows: NDArray[np.integer], bins: NDArray[np.integer]) -> None:
        width = histogram.shape[1]
        histogram += np.bincount(rows * width + bins, minlength=histogram.size).reshape(histogram.shape)

    def merge(self, other: ThresholdCurve) -> None:
        """Adds the counts of another shard, made with the same arguments."""
        if not np.array_equal(other._offsets, self._offsets) or other.num_classes != self.num_classes:
            raise ValueError("curves of different classes or thresholds cannot be merged")
        self._truth += other._truth
        self._predicted += other._predicted
        self._correct += other._correct

    def areas(self) -> Areas:
        """Counts [T, K] at every threshold."""
        foreground = _counts_above(self._predicted[1:])
        correct = _counts_above(self._correct[1:])
        background = self._truth.sum() - foreground.sum(axis=1)
        background_correct = self._truth[0] - _counts_above(self._correct[:1])[:, 0]
        return Areas(
            intersection=np.column_stack([background_correct, correct]),
            truth=np.broadcast_to(self._truth, (len(self.thresholds), self.num_classes)),
            prediction=np.column_stack([background, foreground]),
        )


def best_foreground(keys: NDArray[np.int64], cam: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The strongest present class of every pixel, and by how much it exceeds the background.

    `np.where(margin > 0, best, 0)` is `keys[cam.argmax(0)]`, ties included.

    Args:
        keys: int64 [M], 0 (background) first, then 1 + class index.
        cam: float32 [M, H, W].

    Returns:
        best: int64 [H, W], a foreground key; 0 where M is 1.
        margin: float32 [H, W], its value minus the background's; `-inf` where M is 1.
    """
    if len(keys) == 1:
        return np.zeros(cam.shape[1:], dtype=np.int64), np.full(cam.shape[1:], -np.inf, dtype=np.float32)
    winner = cam[1:].argmax(axis=0)
    value = np.take_along_axis(cam[1:], winner[None], axis=0)[0]
    return keys[1:][winner], value - cam[0]


def group_means(values: NDArray[np.float64], groups: Sequence[str]) -> dict[str, float]:
    """Mean of a score over the classes of each group that have it.

    Args:
        values: float64 [C], one score a foreground class, NaN where a class has none.
        groups: C names; classes of other groups than head, medium and tail take no part.

    Returns:
        head, medium and tail, in this order; NaN for a group without any score.
    """
    if len(values) != len(groups):
        raise ValueError(f"{len(values)} scores for {len(groups)} group names")
    names = np.asarray(groups)
    return {group: float(mean_of_present(values[names == group])) for group in GROUPS}


def mean_of_present(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the last axis without its NaNs; NaN where nothing is left."""
    present = ~np.isnan(values)
    return ratio(np.where(present, values, 0.0).sum(axis=-1), present.sum(axis=-1))


def ratio(numerator: NDArray[np.generic], denominator: NDArray[np.generic]) -> NDArray[np.float64]:
    """Quotient of counts; NaN where the denominator is 0."""
    top, bottom = np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    result: NDArray[np.float64] = np.full(np.broadcast(top, bottom).shape, np.nan)
    return np.divide(top, bottom, out=result, where=bottom > 0)


def _counts_above(histogram: NDArray[np.int64]) -> NDArray[np.int64]:
    """[K, T + 1] by bin to [T, K] by threshold: bins above a threshold's index are foreground there."""
    return histogram[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:].T


def _check_shape(truth: NDArray[np.integer], shape: tuple[int, ...]) -> None:
    if truth.shape != shape:
        raise ValueError(f"truth is {truth.shape}, prediction is {shape}")


def _check_truth(truth: NDArray[np.integer], num_classes: int) -> None:
    wrong = truth[((truth >= num_classes) & (truth != IGNORE)) | (truth < 0)]
    if wrong.size:
        raise ValueError(f"truth holds {int(wrong.flat[0])}, which is neither a class (0 to {num_classes - 1}) nor 255")
