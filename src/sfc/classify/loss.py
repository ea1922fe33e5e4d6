"""The multi-scaled distribution-weighted (MSDW) consistency loss (SFC, AAAI 2024, eq. 4 to 10)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfc.classify.cam import normalise_peak

if TYPE_CHECKING:
    from sfc.classify.network import SFCOutput


@dataclass(frozen=True)
class Losses:
    """The terms of one step, scalars; `total` is their sum and carries the gradient."""

    classification: Tensor
    prototype: Tensor
    scale: Tensor

    @property
    def total(self) -> Tensor:
        """What is minimised."""
        return self.classification + self.prototype + self.scale


class MSDWLoss(nn.Module):
    """Classification, and consistency of classifier CAMs with prototype CAMs and with themselves at half size.

    Args:
        coefficient: [C], distribution coefficient of every class; ones switch it off.
        prototype_weight: weight of the loss between classifier CAM and prototype CAM (L_DW^P).
        scale_weight: weight of the loss between the two sizes (L_DW^W).
    """

    coefficient: Tensor

    def __init__(self, coefficient: Tensor, prototype_weight: float = 1.6, scale_weight: float = 0.8) -> None:
        super().__init__()
        self.register_buffer("coefficient", coefficient.float(), persistent=False)
        self.prototype_weight = prototype_weight
        self.scale_weight = scale_weight

    def forward(self, full: SFCOutput, half: SFCOutput | None, label: Tensor) -> Losses:
        """Computes the terms.

        Args:
            full: output for the batch, with prototypes unless their weight is 0.
            half: output for the batch at half size; None switches that pass off (plain CAM).
            label: float [N, C] of 0 and 1.

        Returns:
            Scalar terms, already weighted.

        Raises:
            ValueError: a term has a weight but its maps are missing.
        """
        classification = self.classification(full, half, label)
        zero = classification.new_zeros(())
        prototype = self._prototype(full) if self.prototype_weight else zero
        scale = self._scale(full, half, label) if self.scale_weight else zero
        return Losses(classification, self.prototype_weight * prototype, self.scale_weight * scale)

    def classification(self, full: SFCOutput, half: SFCOutput | None, label: Tensor) -> Tensor:
        """Multi-label soft margin loss, mean of the passes."""
        loss = F.multilabel_soft_margin_loss(full.score, label)
        return loss if half is None else (loss + F.multilabel_soft_margin_loss(half.score, label)) / 2

    def _prototype(self, full: SFCOutput) -> Tensor:
        """Eq. 8: mean over N, K, h, w of w_k |refined − peak-normalised prototype CAM|, w_0 = 1."""
        if full.prototype_cam is None:
            raise ValueError("the prototype loss needs prototype CAMs: call the network with prototypes=True")
        weight = torch.cat([self.coefficient.new_ones(1), self.coefficient])[:, None, None]
        return (weight * (full.refined_cam - normalise_peak(full.prototype_cam)).abs()).mean()

    def _scale(self, full: SFCOutput, half: SFCOutput | None, label: Tensor) -> Tensor:
        """Eq. 9: mean over N, C, h/2, w/2 of DC_c · label · |refined CAM shrunk − refined CAM of the small image|."""
        if half is None:
            raise ValueError("the scale loss needs the half-size pass")
        weight = (label * self.coefficient)[:, :, None, None]
        shrunk = F.interpolate(
            full.refined_cam[:, 1:], size=half.refined_cam.shape[2:], mode="bilinear", align_corners=True
        )
        return (weight * (shrunk - half.refined_cam[:, 1:]).abs()).mean()
