"""Random walk of two maps against 256 sparse products and against squaring a dense matrix: time, memory, labels.

One thread. The sparse and the dense matrix are built beforehand and do not count; ours starts from the edges.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import scipy.ndimage
import scipy.sparse
import torch
import torch.nn.functional as F

from measure import Figure, begin, finish, in_fresh_process, interleaved, memory_bytes
from sfc.refine.walk.mask import walk_scores
from sfc.refine.walk.paths import half_plane_offsets, path_cells
from sfc.refine.walk.walk import random_walk

RADIUS, BETA, STEPS = 5, 10, 256
GRID, SMALL_GRID = (94, 125), (48, 64)


def make_task(grid: tuple[int, int], seed: int, classes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Maps and an edge: blobs, and the borders of about 20 regions with doubt in them, as networks give them."""
    random = np.random.default_rng(seed)
    places = np.argwhere(np.ones(grid))
    centres = random.random((20, 2)) * grid
    distance = np.sort(np.linalg.norm(places[:, None] - centres[None], axis=2), axis=1)
    border = np.exp(-((distance[:, 1] - distance[:, 0]) ** 2) / 4).reshape(grid)
    doubt = scipy.ndimage.gaussian_filter(random.normal(size=grid), 2)
    edge = 1 / (1 + np.exp(-(6 * border - 4 + 3 * doubt / doubt.std())))
    maps = scipy.ndimage.gaussian_filter(random.normal(size=(classes, *grid)), (0, 8, 8)).clip(0)
    return (maps / maps.max(axis=(1, 2), keepdims=True)).astype(np.float32), edge.astype(np.float32)


def transition(edge: np.ndarray) -> scipy.sparse.csr_array:
    """float64 matrix whose product with a column of cells is one step."""
    height, width = edge.shape
    number = np.arange(edge.size).reshape(edge.shape)
    rows, columns, values = [number.ravel()], [number.ravel()], [np.ones(edge.size)]
    reach = RADIUS - 1
    padded = np.pad(edge.astype(np.float64), reach, constant_values=1)
    for dy, dx in half_plane_offsets(RADIUS).tolist():
        shifted = [
            padded[reach + y : reach + y + height, reach + x : reach + x + width]
            for y, x in path_cells(dy, dx).tolist()
        ]
        affinity = (1 - np.max(shifted, axis=0)) ** BETA
        inside = (slice(0, height - dy), slice(max(0, -dx), width - max(0, dx)))
        source = number[inside].ravel()
        rows += [source, source + dy * width + dx]
        columns += [source + dy * width + dx, source]
        values += [affinity[inside].ravel()] * 2
    matrix = scipy.sparse.csr_array((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))))
    return scipy.sparse.csr_array(matrix.multiply(1 / matrix.sum(axis=1)[:, None]))


def walk_exactly(cam: np.ndarray, edge: np.ndarray, matrix: scipy.sparse.csr_array) -> np.ndarray:
    """256 products for each map, in the precision of the matrix; both maps at once take more than twice the time."""
    walked = []
    for cells in (cam * (1 - edge)).reshape(len(cam), -1).astype(matrix.dtype):
        moved = cells
        for _ in range(STEPS):
            moved = matrix @ moved
        walked.append(moved)
    return np.reshape(walked, cam.shape)


def square_densely(cam: np.ndarray, edge: np.ndarray, matrix: torch.Tensor) -> torch.Tensor:
    """The released way: eight squarings in float32, then one product."""
    for _ in range(8):
        matrix = matrix @ matrix
    return matrix @ torch.from_numpy((cam * (1 - edge)).reshape(len(cam), -1).T.copy())


def label_difference(images: int) -> float:
    """Per cent of the pixels of 376 × 500 images whose label is not that of the float64 walk."""
    different = 0
    size = (4 * GRID[0], 4 * GRID[1])
    for seed in range(images):
        cam, edge = make_task(GRID, seed)
        with_background = np.concatenate([np.zeros((1, *GRID), np.float32), cam])
        ours = walk_scores(with_background, edge, size, power=1).argmax(axis=0)
        exact = torch.from_numpy(walk_exactly(cam, edge, transition(edge)))
        enlarged = F.interpolate(exact[None], scale_factor=4, mode="bilinear")[0].numpy()
        scores = np.concatenate([np.full((1, *size), 0.25), enlarged / enlarged.max()])
        different += int((ours != scores.argmax(axis=0)).sum())
    return 100 * different / (images * size[0] * size[1])


def extra_memory() -> None:
    """Prints how much this process grew at most during one walk."""
    cam, edge = make_task(GRID, 0)
    random_walk(cam[:, :2, :2], edge[:2, :2])
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is used now
    before = memory_bytes("VmHWM")
    random_walk(cam, edge)
    sys.stdout.write(json.dumps({"bytes": memory_bytes("VmHWM") - before}) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--images", type=int, default=20, help="how many images the labels are compared on")
    parser.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.memory:
        extra_memory()
        return
    header = begin("random walk")
    cam, edge = make_task(GRID, 0)
    sparse = transition(edge).astype(np.float32)
    seconds = interleaved(
        {
            "ours": lambda: random_walk(cam, edge),
            "one map": lambda: random_walk(cam[:1], edge),
            "plain steps": lambda: random_walk(cam, edge, tolerance=0),
            "sparse": lambda: walk_exactly(cam, edge, sparse),
        },
        arguments.rounds,
    )
    small_cam, small_edge = make_task(SMALL_GRID, 0)
    dense = torch.from_numpy(transition(small_edge).toarray().astype(np.float32))
    torch.set_flush_denormal(True)
    dense_seconds = interleaved({"dense": lambda: square_densely(small_cam, small_edge, dense)}, 2, warm_up=0)["dense"]
    torch.set_flush_denormal(False)
    small = interleaved({"ours": lambda: random_walk(small_cam, small_edge)}, arguments.rounds)["ours"]
    finish(
        header,
        [
            Figure("94 x 125: ours / 256 sparse products", seconds["ours"] / seconds["sparse"], at_most=0.1),
            Figure("94 x 125: milliseconds", seconds["ours"] * 1000, "ms"),
            Figure("94 x 125: milliseconds, one map", seconds["one map"] * 1000, "ms"),
            Figure("94 x 125: milliseconds, tolerance 0", seconds["plain steps"] * 1000, "ms"),
            Figure("94 x 125: milliseconds of 256 sparse products", seconds["sparse"] * 1000, "ms"),
            Figure("94 x 125: memory", in_fresh_process("--memory")["bytes"] / 1e6, "MB", at_most=5),
            Figure("48 x 64: ours / dense squaring", small / dense_seconds, at_most=0.001),
            Figure("48 x 64: milliseconds", small * 1000, "ms"),
            Figure("labels that differ from float64", label_difference(arguments.images), "%", at_most=0.01),
        ],
    )


if __name__ == "__main__":
    main()
