"""Boundary IoU and boundary F-score of masks beside erosions and distance transforms a class, at 375×500.

The yardstick takes the classes of an image one by one, as the published code of both scores does: an erosion for
boundary IoU, a Euclidean distance transform for each contour. Three objects and background, a few pixels off; with
255 along the true contours, filling these is extra.
"""

from __future__ import annotations

import argparse
import math
from functools import partial

import numpy as np
from scipy import ndimage

from confusion import SHAPE, smooth_pair
from measure import Figure, begin, finish, interleaved
from sfc.metrics.boundary import REGION_SHARE, TOLERANCE_SHARE, BoundaryCounts

CLASSES = 21
CROSS = ndimage.generate_binary_structure(2, 1)
SQUARE = np.ones((3, 3), bool)


def class_by_class(truth: np.ndarray, prediction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The counts of `BoundaryCounts` for maps without 255."""
    diagonal = math.hypot(*truth.shape)
    regions, contours = np.zeros((3, CLASSES), np.int64), np.zeros((4, CLASSES), np.int64)
    for k in np.union1d(truth, prediction):
        masks = truth == k, prediction == k
        near = [mask & ~ndimage.binary_erosion(mask, SQUARE, round(REGION_SHARE * diagonal)) for mask in masks]
        regions[:, k] = (near[0] & near[1]).sum(), near[0].sum(), near[1].sum()
        edges = [mask & ~ndimage.binary_erosion(mask, CROSS, border_value=1) for mask in masks]
        close = [ndimage.distance_transform_edt(~edge) <= TOLERANCE_SHARE * diagonal for edge in edges]
        contours[:2, k] = edges[0].sum(), (edges[0] & close[1]).sum()
        contours[2:, k] = edges[1].sum(), (edges[1] & close[0]).sum()
    return regions, contours


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    header = begin(f"boundary scores, {SHAPE[0]}×{SHAPE[1]}")
    with_unknown, prediction = smooth_pair(np.random.default_rng(0), CLASSES)
    truth = np.where(with_unknown == 255, np.uint8(0), with_unknown)
    counts = BoundaryCounts(CLASSES)
    counts.update(truth, prediction)
    for ours, plain in zip((counts.regions, counts.contours), class_by_class(truth, prediction), strict=True):
        np.testing.assert_array_equal(ours, plain)
    seconds = interleaved(
        {
            "ours": partial(counts.update, truth, prediction),
            "with 255": partial(counts.update, with_unknown, prediction),
            "class by class": partial(class_by_class, truth, prediction),
        },
        arguments.rounds,
    )
    rows = [
        Figure("milliseconds an image", 1000 * seconds["ours"], "ms"),
        Figure("milliseconds an image with 255 along contours", 1000 * seconds["with 255"], "ms"),
        Figure("time, class by class / ours", seconds["class by class"] / seconds["ours"], at_least=5),
    ]
    finish(header, rows)


if __name__ == "__main__":
    main()
