"""Filtering on a built permutohedral lattice, compiled: blurring along rows of vertices, and the normalisation."""

from __future__ import annotations

from typing import Any

import numpy as np

from sfc.kernels.compiling import kernel
from sfc.kernels.lanes import fill, load, multiply, multiply_add, store


@kernel
def blur(values: Any, chains: Any, starts: Any, lanes: Any, groups: Any) -> None:
    """Adds half of both neighbours to each vertex, along one axis after the other, in place.

    values: float32 [vertices · groups · len(lanes)]. Each row of vertices is walked once: the old value of the vertex
    before is at hand, and that of the vertex after is read ahead, also past the end of a row, where it counts nothing
    and is the first of the next row.
    """
    width = len(lanes)
    stride = width * groups
    half = np.float32(0.5)
    for axis in range(starts.size - 1):
        begin, end = starts[axis], starts[axis + 1]
        if begin == end:
            continue
        for offset in range(0, stride, width):
            entry = np.int64(chains[begin])
            before = fill(np.float32(0), lanes)
            current = load(values, entry * stride + offset, lanes)
            for place in range(begin, end):
                # The last row ends with a vertex that reads itself; it counts nothing either.
                ahead = np.int64(chains[min(place + 1, end - 1)])
                after = load(values, max(ahead, ~ahead) * stride + offset, lanes)
                inside = np.float32(entry >= 0)
                blurred = multiply_add(half, multiply_add(inside, after, before), current)
                store(values, max(entry, ~entry) * stride + offset, blurred)
                before = multiply(fill(inside, lanes), current)
                current = after
                entry = ahead


@kernel
def splat_ones(simplices: Any, weights: Any, values: Any) -> None:
    """Adds each pixel's weights to its vertices."""
    for p in range(simplices.shape[0]):
        for i in range(simplices.shape[1]):
            values[simplices[p, i]] += weights[p, i]


@kernel
def scale_weights(simplices: Any, weights: Any, blurred_ones: Any, alpha: Any) -> None:
    """Multiplies each pixel's weights by sqrt(alpha / filtered ones), alpha being the gain of blurring."""
    for p in range(simplices.shape[0]):
        ones = np.float32(0)
        for i in range(simplices.shape[1]):
            ones += weights[p, i] * blurred_ones[simplices[p, i]]
        factor = np.float32(np.sqrt(alpha) / np.sqrt(alpha * ones + np.float32(1e-20)))
        for i in range(simplices.shape[1]):
            weights[p, i] *= factor
