"""ReLU6 that keeps its output alone for the gradient."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from sfc.networks.stand_in import take_place


class LeanReLU6(nn.ReLU6):
    """ReLU6 in place whose gradient is computed from the output, which the next convolution keeps anyway.

    torch keeps a copy of the input: in MobileNets and EfficientNet-Lite nearly every second large tensor of a training
    step, and a pass over memory to make it. The gradient is the same to the bit.

    Args:
        activation: the one that it stands in for.
    """

    def __init__(self, activation: nn.ReLU6) -> None:
        super().__init__(inplace=True)
        take_place(self, activation)

    def forward(self, x: Tensor) -> Tensor:
        """Values between 0 and 6, written over the input."""
        if not torch.is_grad_enabled() or not x.requires_grad or torch.compiler.is_compiling():
            return super().forward(x)
        y: Tensor = _ReLU6.apply(x)
        return y


class _ReLU6(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        F.relu6(x, inplace=True)
        ctx.save_for_backward(x)
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        of_x: Tensor = torch.ops.aten.hardtanh_backward(gradient, y, 0.0, 6.0)
        return of_x
