"""Convolutions that do not take torch's slow ways on a CPU. Values are torch's but for the order of sums in float32.

- Depthwise ones in training. They are a few percent of a network's arithmetic, and their gradient was a third of a
  step: torch 2 has a quick one for 3 × 3 weights without dilation only.
- Those of 1 × 1 weights in inference with a thread an image. There torch 2 leaves oneDNN for MKL, which on processors
  of AMD takes twice as long; they are most of a network's arithmetic (docs/speed.md for both).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.padding import get_same_padding
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from sfc.networks.stand_in import take_place

QUICK_IN_TORCH = 3
"""Side of the weights whose gradient torch computes quickly, without dilation."""
BLOCK = 64
"""Channels that the kernel takes at once."""


class QuickConv2d(nn.Conv2d):
    """A convolution that stands in for another one, with its parameters, and takes the quick way.

    Args:
        convolution: the one that it stands in for; weight and bias are shared.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        # On the meta device nothing is drawn or allocated: everything is taken over.
        super().__init__(
            convolution.in_channels,
            convolution.out_channels,
            convolution.kernel_size,  # type: ignore[arg-type]
            convolution.stride,  # type: ignore[arg-type]
            convolution.padding,  # type: ignore[arg-type]
            convolution.dilation,  # type: ignore[arg-type]
            convolution.groups,
            bias=convolution.bias is not None,
            padding_mode=convolution.padding_mode,
            device="meta",
        )
        self.weight, self.bias = convolution.weight, convolution.bias
        take_place(self, convolution)

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.is_slow_in_torch() and _is_plain_training(x, weight):
            y: Tensor = _DepthwiseConvolution.apply(x, weight, bias, self.stride[0], self.padding[0], self.dilation[0])
            return y
        if self.is_pointwise() and _is_plain_inference(x, weight):
            return torch.mkldnn_convolution(x, weight, bias, (0, 0), self.stride, self.dilation, self.groups)
        return super()._conv_forward(x, weight, bias)

    def is_pointwise(self) -> bool:
        """Whether it only mixes the channels of each position."""
        return self.kernel_size == (1, 1) and self.padding == (0, 0)

    def is_slow_in_torch(self) -> bool:
        """Whether it is one whose gradient is computed here."""
        is_square = not isinstance(self.padding, str) and all(
            pair[0] == pair[1] for pair in (self.kernel_size, self.stride, self.padding, self.dilation)
        )
        is_depthwise = self.groups == self.in_channels == self.out_channels > 1
        is_quick = self.kernel_size[0] <= QUICK_IN_TORCH and self.dilation[0] == 1
        return is_depthwise and is_square and not is_quick and self.kernel_size[0] > 1 and self.padding_mode == "zeros"


def pad_same(x: Tensor, convolution: nn.Conv2d) -> Tensor:
    """Pads x [N, C, H, W] with zeros as TensorFlow's "same" padding does for a convolution."""
    lengths = zip(x.shape[2:], convolution.kernel_size, convolution.stride, convolution.dilation, strict=True)
    vertical, horizontal = (get_same_padding(*each) for each in lengths)
    left, top = horizontal // 2, vertical // 2
    if (torch.is_grad_enabled() and x.requires_grad) or torch.compiler.is_compiling():
        return F.pad(x, (left, horizontal - left, top, vertical - top))
    # torch fills all of the result with zeros first: for what is large a pass over memory too many.
    height, width = x.shape[2:]
    layout = torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    padded = torch.empty(
        (*x.shape[:2], height + vertical, width + horizontal), dtype=x.dtype, device=x.device, memory_format=layout
    )
    padded[:, :, top : top + height, left : left + width] = x
    padded[:, :, :top] = padded[:, :, top + height :] = 0
    padded[:, :, :, :left] = padded[:, :, :, left + width :] = 0
    return padded


def _is_plain_training(x: Tensor, weight: Tensor) -> bool:
    """Whether there will be a gradient on a CPU, in float32, of a tensor with its channels last in memory."""
    return torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad) and _is_plain(x)


def _is_plain_inference(x: Tensor, weight: Tensor) -> bool:
    """The same where there will be none, and oneDNN is there."""
    no_gradient = not (torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad))
    return no_gradient and _is_plain(x) and torch.backends.mkldnn.is_available()


def _is_plain(x: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and x.is_contiguous(memory_format=torch.channels_last)
    )


class _DepthwiseConvolution(torch.autograd.Function):
    """Depthwise convolution of x [N, C, H, W] by weight [C, 1, k, k]; stride, padding and dilation alike both ways."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, dilation: int
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = (stride, padding, dilation)
        return F.conv2d(x, weight, bias, stride, padding, dilation, x.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        wanted = ctx.needs_input_grad
        of_x = _input_gradient(x, weight, gradient, *ctx.geometry) if wanted[0] else None
        of_weight = weight_gradient(x, gradient, weight.shape[2], *ctx.geometry) if wanted[1] else None
        of_bias = gradient.sum(dim=(0, 2, 3)) if wanted[2] else None
        return of_x, of_weight, of_bias, None, None, None


def _input_gradient(x: Tensor, weight: Tensor, gradient: Tensor, stride: int, padding: int, dilation: int) -> Tensor:
    """The gradient of the input: with stride 1 a convolution by the mirrored weights, which torch computes quickly."""
    opposite = dilation * (weight.shape[2] - 1) - padding
    if stride == 1 and opposite >= 0:
        return F.conv2d(gradient, weight.flip(2, 3), None, 1, opposite, dilation, x.shape[1])
    of_x: Tensor = torch.ops.aten.convolution_backward(
        gradient,
        x,
        weight,
        None,
        [stride] * 2,
        [padding] * 2,
        [dilation] * 2,
        False,
        [0, 0],
        x.shape[1],
        [True, False, False],
    )[0]
    return of_x


def weight_gradient(x: Tensor, gradient: Tensor, side: int, stride: int, padding: int, dilation: int) -> Tensor:
    """The gradient of depthwise weights, on as many threads as torch has.

    Args:
        x: float32 [N, C, H, W], channels last in memory.
        gradient: float32 [N, C, h, w], of the convolution's output, channels last in memory.
        side: of the weights.
        stride: of the convolution.
        padding: of it.
        dilation: of it.

    Returns:
        float32 [C, 1, side, side].
    """
    from sfc.networks.convolution_kernels import depthwise_weight_gradient

    channels = x.shape[1]
    total = torch.zeros(side, side, channels)
    arrays = [tensor.detach().permute(0, 2, 3, 1).numpy() for tensor in (x, gradient)]

    def some(first: int, last: int) -> None:
        depthwise_weight_gradient(*arrays, total.numpy(), stride, padding, dilation, first, last)

    threads = torch.get_num_threads()
    share = -(-channels // (BLOCK * threads)) * BLOCK
    ranges = [(first, min(first + share, channels)) for first in range(0, channels, share)]
    others = [_pool(threads - 1).submit(some, *each) for each in ranges[1:]]
    some(*ranges[0])
    for other in others:
        other.result()
    return total.permute(2, 0, 1).unsqueeze(1)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)


def compile_kernels() -> None:
    """Compiles the kernel, or loads it, by calling it on something tiny."""
    tiny = torch.zeros(1, 1, 1, 1)
    weight_gradient(tiny, tiny, 1, 1, 0, 1)
