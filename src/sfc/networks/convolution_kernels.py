"""The numba kernel of the gradient of depthwise weights."""

from __future__ import annotations

from typing import Any

from sfc.kernels.compiling import inlined, kernel
from sfc.kernels.lanes import accumulate, load, store

# The most that stays in vector registers, and what is left of channels that are no multiple of it.
LANES_64, LANES_16, LANES_8, LANES_1 = (0.0,) * 64, (0.0,) * 16, (0.0,) * 8, (0.0,)


@inlined
def _block(
    x: Any, gradient: Any, total: Any, geometry: Any, stride: int, padding: int, dilation: int, c: int, lanes: Any
) -> None:
    """Adds up len(lanes) channels from `c` on.

    For each image, row and weight the sum runs along the row in registers: a product of a row's pixels and the
    gradient's, shifted against each other.
    """
    images, height, width, channels, rows, columns, side = geometry
    for n in range(images):
        for row in range(rows):
            for i in range(side):
                y = row * stride + i * dilation - padding
                if y < 0 or y >= height:
                    continue
                for j in range(side):
                    shift = j * dilation - padding
                    first = max(0, (stride - 1 - shift) // stride)
                    last = min(columns, (width - 1 - shift) // stride + 1)
                    place = (i * side + j) * channels + c
                    at_gradient = ((n * rows + row) * columns + first) * channels + c
                    at_x = ((n * height + y) * width + first * stride + shift) * channels + c
                    value = load(total, place, lanes)
                    for _ in range(first, last):
                        value = accumulate(value, load(gradient, at_gradient, lanes), load(x, at_x, lanes))
                        at_gradient += channels
                        at_x += stride * channels
                    store(total, place, value)


@kernel
def depthwise_weight_gradient(
    x: Any, gradient: Any, total: Any, stride: int, padding: int, dilation: int, start: int, stop: int
) -> None:
    """Adds the gradient of the weights of some channels of a depthwise convolution to `total`.

    Args:
        x: float32 [N, H, W, C], its input.
        gradient: float32 [N, h, w, C], of its output.
        total: float32 [k, k, C].
        stride: of the convolution.
        padding: of it.
        dilation: of it.
        start: first channel.
        stop: the channel after the last one.
    """
    geometry = (x.shape[0], x.shape[1], x.shape[2], x.shape[3], gradient.shape[1], gradient.shape[2], total.shape[0])
    flat_x, flat_gradient, flat_total = x.reshape(-1), gradient.reshape(-1), total.reshape(-1)
    c = start
    while c + 64 <= stop:
        _block(flat_x, flat_gradient, flat_total, geometry, stride, padding, dilation, c, LANES_64)
        c += 64
    while c + 16 <= stop:
        _block(flat_x, flat_gradient, flat_total, geometry, stride, padding, dilation, c, LANES_16)
        c += 16
    while c + 8 <= stop:
        _block(flat_x, flat_gradient, flat_total, geometry, stride, padding, dilation, c, LANES_8)
        c += 8
    while c < stop:
        _block(flat_x, flat_gradient, flat_total, geometry, stride, padding, dilation, c, LANES_1)
        c += 1
