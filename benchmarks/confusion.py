"""Confusion matrix of masks beside a NumPy loop over classes, at 375×500: time an image, and memory.

The yardstick adds up intersections and unions class by class from boolean masks, as evaluation scripts of the field
do. A second one counts its booleans with `count_nonzero`, the fastest way to write that loop. Masks are smooth blobs
with an ignored contour; noise, where no two neighbours agree, is what ours likes least.
"""

from __future__ import annotations

import argparse
import tracemalloc
from collections.abc import Callable
from functools import partial

import numpy as np
from scipy import ndimage

from measure import Figure, begin, finish, interleaved
from sfc.metrics.counts import ConfusionMatrix

SHAPE = (375, 500)
OBJECTS = 3
Pair = tuple[np.ndarray, np.ndarray]


def smooth_pair(random: np.random.Generator, num_classes: int) -> Pair:
    """uint8 truth, its contours ignored, and the same objects a few pixels off."""
    mask = np.zeros(SHAPE, np.uint8)
    for k in random.choice(np.arange(1, num_classes), OBJECTS, replace=False):
        field = ndimage.gaussian_filter(random.standard_normal(SHAPE), 25)
        mask[field > np.quantile(field, 0.8)] = k
    contour = ndimage.grey_dilation(mask, 5) != ndimage.grey_erosion(mask, 5)
    return np.where(contour, np.uint8(255), mask), np.roll(mask, (4, 5), (0, 1))


def random_mask(random: np.random.Generator, num_classes: int) -> np.ndarray:
    """uint8, a class for every pixel by itself."""
    return random.integers(0, num_classes, SHAPE, dtype=np.uint8)


def loop(pair: Pair, num_classes: int, count: Callable[[np.ndarray], int]) -> tuple[np.ndarray, np.ndarray]:
    """Intersection and union of every class; `count` is how the booleans are added."""
    truth, prediction = pair
    valid = truth != 255
    intersection, union = np.zeros(num_classes, np.int64), np.zeros(num_classes, np.int64)
    for k in range(num_classes):
        is_truth, is_prediction = (truth == k) & valid, (prediction == k) & valid
        intersection[k] = count(is_truth & is_prediction)
        union[k] = count(is_truth | is_prediction)
    return intersection, union


def peak_bytes(pair: Pair, num_classes: int, images: int) -> int:
    """The most memory that Python held at one time while some images were counted."""
    tracemalloc.start()
    matrix = ConfusionMatrix(num_classes)
    for _ in range(images):
        matrix.update(*pair)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def compare(num_classes: int, rounds: int) -> list[Figure]:
    """Figures for one number of classes."""
    random = np.random.default_rng(0)
    pair = smooth_pair(random, num_classes)
    matrix = ConfusionMatrix(num_classes)
    matrix.update(*pair)
    areas = matrix.areas()
    ours = areas.intersection, areas.truth + areas.prediction - areas.intersection
    np.testing.assert_array_equal(ours, loop(pair, num_classes, np.sum))
    noise = (random_mask(random, num_classes), random_mask(random, num_classes))
    seconds = interleaved(
        {
            "ours": partial(matrix.update, *pair),
            "loop": partial(loop, pair, num_classes, np.sum),
            "tuned": partial(loop, pair, num_classes, np.count_nonzero),
            "ours, noise": partial(matrix.update, *noise),
            "loop, noise": partial(loop, noise, num_classes, np.sum),
        },
        rounds,
    )
    name = f"K={num_classes}"
    return [
        Figure(f"{name}: milliseconds an image", 1000 * seconds["ours"], "ms"),
        Figure(f"{name}: time, loop over classes / ours", seconds["loop"] / seconds["ours"], at_least=5),
        Figure(f"{name}: time, loop with count_nonzero / ours", seconds["tuned"] / seconds["ours"]),
        Figure(f"{name}: time on noise, loop over classes / ours", seconds["loop, noise"] / seconds["ours, noise"]),
        Figure(
            f"{name}: memory, 200 images / 1 image",
            peak_bytes(pair, num_classes, 200) / peak_bytes(pair, num_classes, 1),
            at_most=1.1,
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    arguments = parser.parse_args()
    header = begin("confusion matrix")
    finish(header, [figure for num_classes in (21, 81) for figure in compare(num_classes, arguments.rounds)])


if __name__ == "__main__":
    main()
