"""Frozen batch norms folded into the convolutions before them, at every forward, exactly and differentiably."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import TypeGuard

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

from sfc.networks.convolution import QuickConv2d, pad_same
from sfc.networks.probing import probe
from sfc.networks.stand_in import take_place


class FoldedNorm(nn.BatchNorm2d):
    """A frozen batch norm whose work the convolution before it does; holds the same parameters and buffers.

    Args:
        norm: the one that it stands in for.
    """

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        # On the meta device nothing is drawn or allocated: everything is taken over.
        super().__init__(norm.num_features, norm.eps, norm.momentum, device="meta")
        self.weight, self.bias = norm.weight, norm.bias
        self.running_mean, self.running_var = norm.running_mean, norm.running_var
        self.num_batches_tracked = norm.num_batches_tracked
        take_place(self, norm)

    def forward(self, x: Tensor) -> Tensor:
        """Its input."""
        return x


class FoldedNormAct(FoldedNorm):
    """The same of timm's batch norm with an activation: what stays behind is that, and its drop.

    Args:
        norm: the one that it stands in for.
    """

    def __init__(self, norm: BatchNormAct2d) -> None:
        super().__init__(norm)
        self.drop, self.act = norm.drop, norm.act

    def forward(self, x: Tensor) -> Tensor:
        """Drop and activation."""
        return self.act(self.drop(x))


class FoldedConv2d(QuickConv2d):
    """A convolution that applies the frozen batch norm behind it by scaling its own weights; exact.

    Saves a pass over the output and the copy of it that the norm would keep for its gradient.

    Args:
        convolution: the one that it stands in for; its weight is shared.
        norm: what stands in for the norm.
    """

    def __init__(self, convolution: nn.Conv2d, norm: FoldedNorm) -> None:
        super().__init__(convolution)
        self.same_padding = isinstance(convolution, Conv2dSame)
        # In a tuple, so that the norm is not registered twice; a deep copy keeps the pair together.
        self.folded = (norm,)

    def forward(self, x: Tensor) -> Tensor:
        """Convolution and norm."""
        norm = self.folded[0]
        assert norm.running_var is not None
        assert norm.running_mean is not None
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        if self.same_padding:
            x = pad_same(x, self)
        return self._conv_forward(x, self.weight * scale[:, None, None, None], norm.bias - norm.running_mean * scale)


def fold_norms(model: nn.Module, side: int = 64) -> None:
    """Folds every frozen batch norm that directly follows a bias-free convolution among its siblings.

    Modules are replaced by others that hold the same parameters and buffers under the same names, so checkpoints do
    not change; affine parameters keep training. A network in which the order of siblings is not that of the forward
    pass stays as it was.

    Args:
        model: gives a list of maps; changed in place.
        side: of the square image that it is tried with.
    """
    replaced: list[tuple[nn.Module, str, nn.Module]] = []
    with _random_norms(model), torch.no_grad():
        before = probe(model, side, side)
        for parent in list(model.modules()):
            for (name, convolution), (norm_name, norm) in pairwise(list(parent.named_children())):
                if _is_plain(convolution) and _is_plain_norm(norm) and _fit(convolution, norm):
                    stand_in = FoldedNormAct(norm) if isinstance(norm, BatchNormAct2d) else FoldedNorm(norm)
                    setattr(parent, norm_name, stand_in)
                    setattr(parent, name, FoldedConv2d(convolution, stand_in))
                    replaced += [(parent, norm_name, norm), (parent, name, convolution)]
        after = probe(model, side, side)
        if not all(float((a - b).norm()) < 1e-4 * float(b.norm()) for a, b in zip(after, before, strict=True)):
            for parent, name, module in replaced:
                setattr(parent, name, module)


def _is_plain(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether it convolves and does nothing else; classes derived from these may."""
    return type(module) in (nn.Conv2d, Conv2dSame)


def _is_plain_norm(module: nn.Module) -> TypeGuard[nn.BatchNorm2d]:
    return type(module) in (nn.BatchNorm2d, BatchNormAct2d)


def _fit(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> bool:
    same_width = convolution.out_channels == norm.num_features
    return convolution.bias is None and same_width and norm.affine and norm.track_running_stats


@contextmanager
def _random_norms(model: nn.Module) -> Iterator[None]:
    """For a while, norms that change what they get: fresh ones are the identity, which folded anywhere stays exact."""
    random = torch.Generator().manual_seed(0)
    kept: list[tuple[Tensor, Tensor]] = []
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d) and norm.affine and norm.track_running_stats:
            for name, low in (("weight", 0.3), ("bias", -0.5), ("running_mean", -0.5), ("running_var", 0.5)):
                tensor = getattr(norm, name).data
                kept.append((tensor, tensor.clone()))
                tensor.copy_(low + 0.5 * torch.rand(tensor.shape, generator=random))
    try:
        yield
    finally:
        for tensor, value in kept:
            tensor.copy_(value)
