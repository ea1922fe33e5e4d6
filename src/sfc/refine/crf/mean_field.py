"""Compiled mean-field step of the dense CRF: slice, softmax and splat of a pixel while its values are in registers.

A pixel's labels lie side by side in `groups` vectors of `len(lanes)` numbers; what is left over is filled up with
lanes whose unary is LOWEST, so that they stay 0.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from sfc.kernels.compiling import inlined, kernel
from sfc.kernels.lanes import add, exp, fill, largest, load, maximum, multiply, multiply_add, store, total

LOWEST = np.float32(-1e30)


class Filter(NamedTuple):
    """One Gaussian of the CRF: its lattice, the blurred values to read and the sums to add to."""

    simplices: Any  # int32 [pixels, d + 1]
    weights: Any  # float32 [pixels, d + 1], normalised
    corners: Any  # a tuple of length d + 1: known when compiling, so that loops over corners are unrolled
    blurred: Any  # float32 [vertices · stride]
    sums: Any  # float32 [vertices · stride]
    compatibility: Any  # float32


@inlined
def _slice(
    simplices: Any, weights: Any, corners: Any, blurred: Any, p: Any, stride: Any, offset: Any, lanes: Any
) -> Any:
    """Reads one vector of pixel p's labels from the lattice."""
    message = fill(np.float32(0), lanes)
    for corner in range(len(corners)):
        start = np.int64(simplices[p, corner]) * stride + offset
        message = multiply_add(weights[p, corner], load(blurred, start, lanes), message)
    return message


@inlined
def _splat(
    simplices: Any, weights: Any, corners: Any, sums: Any, p: Any, stride: Any, offset: Any, lanes: Any, value: Any
) -> None:
    """Adds one vector of pixel p's labels to the lattice."""
    for corner in range(len(corners)):
        start = np.int64(simplices[p, corner]) * stride + offset
        store(sums, start, multiply_add(weights[p, corner], value, load(sums, start, lanes)))


@kernel
def update(
    score: Any,
    rows: Any,
    colour: Any,
    position: Any,
    lanes: Any,
    counts: Any,
    marginals: Any,
    written: Any,
    first: Any,
) -> None:
    """Softmax of score + messages at each pixel, splatted again or, the last time, written out.

    Args:
        score: float32 [rows · stride], minus the unary.
        rows: int32 [pixels], which row of `score` a pixel has; empty where row = pixel.
        colour: the bilateral `Filter`.
        position: the Gaussian `Filter`.
        lanes: a tuple of the vector's length.
        counts: float32 [stride], how many labels a lane stands for, 0 for one that fills up.
        marginals: float32 [labels, pixels], written if `written` is not empty.
        written: int32, the label for which each lane is written; empty where the marginals are to be splatted.
        first: whether there are no messages yet.
    """
    simplices_c, weights_c, corners_c, blurred_c, sums_c, compatibility_c = colour
    simplices_p, weights_p, corners_p, blurred_p, sums_p, compatibility_p = position
    width, stride = len(lanes), counts.size
    q = np.empty(stride, np.float32)
    for p in range(simplices_c.shape[0]):
        row = np.int64(rows[p]) if rows.size else np.int64(p)
        top = fill(LOWEST, lanes)
        for offset in range(0, stride, width):
            logit = load(score, row * stride + offset, lanes)
            if not first:
                message = _slice(simplices_c, weights_c, corners_c, blurred_c, p, stride, offset, lanes)
                logit = multiply_add(compatibility_c, message, logit)
                message = _slice(simplices_p, weights_p, corners_p, blurred_p, p, stride, offset, lanes)
                logit = multiply_add(compatibility_p, message, logit)
            store(q, offset, logit)
            top = maximum(top, logit)
        shift = fill(-largest(top), lanes)
        weighted = fill(np.float32(0), lanes)
        for offset in range(0, stride, width):
            power = exp(add(load(q, offset, lanes), shift))
            store(q, offset, power)
            weighted = add(weighted, multiply(power, load(counts, offset, lanes)))
        share = np.float32(1) / total(weighted)
        if written.size:
            for lane in range(written.size):
                marginals[written[lane], p] = q[lane] * share
            continue
        for offset in range(0, stride, width):
            value = multiply(fill(share, lanes), load(q, offset, lanes))
            _splat(simplices_c, weights_c, corners_c, sums_c, p, stride, offset, lanes, value)
            _splat(simplices_p, weights_p, corners_p, sums_p, p, stride, offset, lanes, value)
