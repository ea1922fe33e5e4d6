"""Consistency of classifier CAMs with prototype CAMs (SFC, AAAI 2024, eq. 8)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sfc.classify.cam import normalise_peak
from sfc.settings.limits import Weight

if TYPE_CHECKING:
    from sfc.classify.network import SFCOutput


@dataclass(frozen=True)
class PrototypeSettings:
    """Consistency of classifier CAMs with prototype CAMs (L_DW^P).

    Args:
        weight: of the loss; 0 switches it off.
    """

    weight: Weight = 1.6


class PrototypeLoss:
    """Mean over N, K, h, w of w_k |refined CAM − peak-normalised prototype CAM|; w_0 = 1, w_k the coefficient."""

    settings = PrototypeSettings
    needs_prototypes, needs_half_size = True, False

    def __call__(
        self, full: SFCOutput, half: SFCOutput | None, label: Tensor, coefficient: Tensor, settings: PrototypeSettings
    ) -> Tensor:
        """See `CamLoss`. Raises ValueError without prototype CAMs."""
        del half, label, settings
        if full.prototype_cam is None:
            raise ValueError("the prototype loss needs prototype CAMs: call the network with prototypes=True")
        weight = torch.cat([coefficient.new_ones(1), coefficient])[:, None, None]
        return (weight * (full.refined_cam - normalise_peak(full.prototype_cam)).abs()).mean()
