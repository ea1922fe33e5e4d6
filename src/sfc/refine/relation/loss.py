"""The losses on pairs of cells that train the relation network (IRN, CVPR 2019, eq. 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sfc.data.records import IGNORE
from sfc.refine.relation.affinity import PathMaxima
from sfc.refine.walk.paths import half_plane_offsets

EPSILON = 1e-5
BACKGROUND, FOREGROUND, NEGATIVE = 0, 1, 2


@dataclass(frozen=True)
class RelationLosses:
    """Scalars of one batch. `total` carries the gradient, the terms are values only.

    Attributes:
        background: −log affinity, mean of the pairs within the background.
        foreground: the same of the pairs within one class.
        negative: −log(1 − affinity), mean of the pairs of different classes.
        total: ((background + foreground) / 2 + negative) / 2.
    """

    background: Tensor
    foreground: Tensor
    negative: Tensor
    total: Tensor


@torch.compiler.disable  # hundreds of small views: minutes to compile, nothing to gain
def relation_loss(edge: Tensor, label: Tensor, radius: int = 10, counts: Tensor | None = None) -> RelationLosses:
    """Losses of all pairs that are nearer than `radius` and whose every path from the source lies in the image.

    A pair counts where both cells have a label. Affinity = 1 − largest sigmoid(edge) on the path between them; where
    cells tie, the gradient goes to one of them. Maps without a source (at most radius − 1 rows, or 2·(radius − 1)
    columns) have no pairs; terms without pairs are 0.

    Args:
        edge: logits [N, 1, h, w].
        label: uint8 [N, h, w]: 0 background, 1 + class, 255 uncertain or padding.
        radius: in cells, at least 1.
        counts: what to divide by in place of this batch's `pair_counts`: their mean over processes, so that the mean
            of the losses over processes is the loss of the whole batch.

    Raises:
        ValueError: shapes that do not fit, or labels of another type.
    """
    grid = (label.shape[0], *label.shape[-2:])
    if [tuple(tensor.shape) for tensor in (label, edge)] != [grid, (grid[0], 1, *grid[1:])]:
        raise ValueError(f"edge [N, 1, h, w] and label [N, h, w] do not fit: {list(edge.shape)}, {list(label.shape)}")
    if counts is None:
        counts = pair_counts(label, radius)
    dtype = torch.promote_types(edge.dtype, torch.float32)  # half precision does not carry sums over pairs
    total, terms = _PairLosses.apply(torch.sigmoid(edge[:, 0].to(dtype)), label, radius, counts.to(dtype))
    background, foreground, negative = terms.unbind()
    return RelationLosses(background, foreground, negative, total)


def pair_counts(label: Tensor, radius: int = 10) -> Tensor:
    """float32 [3]: how many pairs lie within the background, within one class, and across classes.

    Args:
        label: uint8 [N, h, w], as for `relation_loss`.
        radius: in cells.

    Raises:
        ValueError: labels of another type.
    """
    pairs = _Pairs(label, radius)
    counts = torch.zeros(3, device=label.device)
    for index in range(len(pairs.offsets)):
        counts += torch.stack([mask.sum() for mask in pairs.masks(index)])
    return counts


class _Pairs:
    """Views of maps at the two ends of all pairs, and which kind each pair is of.

    Masks are floats: comparisons that write floats, and products of them, are several times faster than bool tensors.
    """

    def __init__(self, label: Tensor, radius: int, dtype: torch.dtype = torch.float32) -> None:
        if label.dtype != torch.uint8:
            raise ValueError(f"relation labels are uint8, not {label.dtype}")
        self.reach = radius - 1
        self.offsets: list[tuple[int, int]] = [(dy, dx) for dy, dx in half_plane_offsets(radius).tolist()]
        self.height, self.width = label.shape[1] - self.reach, label.shape[2] - 2 * self.reach
        if self.height <= 0 or self.width <= 0:
            self.offsets = []  # there is no source
            return
        self.label = label.to(dtype)
        self.valid = (label != IGNORE).to(dtype)
        self.source = self.ends(self.label, (0, 0)).contiguous()
        self.source_valid = self.ends(self.valid, (0, 0)).contiguous()
        self.in_background = (self.source == 0).to(dtype)
        self.in_foreground = self.source_valid - self.in_background

    def ends(self, maps: Tensor, offset: tuple[int, int]) -> Tensor:
        """View [..., h − reach, w − 2·reach] of [..., h, w]: the cells at an offset from the sources."""
        top, left = offset[0], self.reach + offset[1]
        return maps[..., top : top + self.height, left : left + self.width]

    def masks(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """Each [N, h − reach, w − 2·reach] of 0 and 1: pairs of an offset within background, within a class, across."""
        offset = self.offsets[index]
        same = torch.eq(self.ends(self.label, offset), self.source, out=torch.empty_like(self.source))
        background, foreground = same * self.in_background, same * self.in_foreground
        both_valid = self.source_valid * self.ends(self.valid, offset)
        return background, foreground, both_valid - background - foreground


class _PairLosses(torch.autograd.Function):
    """Sums over pairs offset by offset, with the gradient of the total in the same pass: nothing is kept by pair."""

    @staticmethod
    def forward(ctx: Any, edge: Tensor, label: Tensor, radius: int, counts: Tensor) -> tuple[Tensor, Tensor]:
        pairs, maxima = _Pairs(label, radius, edge.dtype), PathMaxima(edge, radius)
        divisor = counts + EPSILON
        share = counts.new_tensor([0.25, 0.25, 0.5])
        weight = share / divisor
        sums = torch.zeros_like(weight)
        for index in reversed(range(len(pairs.offsets))):
            losses, slope = _affinity_sums(maxima.maximum(index), pairs.masks(index), weight)
            maxima.send_back(index, slope)
            sums += torch.stack(losses)
        terms = sums / divisor
        ctx.save_for_backward(maxima.edge_gradient)
        ctx.mark_non_differentiable(terms)
        return (terms * share).sum(), terms

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        (edge,) = ctx.saved_tensors
        return gradient * edge, None, None, None


Masks = tuple[Tensor, Tensor, Tensor]


def _affinity_sums(maximum: Tensor, masks: Masks, weight: Tensor) -> tuple[list[Tensor], Tensor]:
    """Three sums of −log over the pairs of one offset, and the gradient of the maximum."""
    background, foreground, negative = masks
    # 1 − maximum for pairs that belong together, the maximum itself for negative ones.
    likelihood = (1 - negative).sub_(maximum).abs_().add_(EPSILON)
    slope = weight[BACKGROUND] * background + weight[FOREGROUND] * foreground - weight[NEGATIVE] * negative
    slope /= likelihood
    loss = likelihood.log_().neg_()
    return [(loss * mask).sum() for mask in masks], slope
