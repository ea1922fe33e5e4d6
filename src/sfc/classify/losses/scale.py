"""Consistency of classifier CAMs at two sizes of the image (SFC, AAAI 2024, eq. 9)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor

from sfc.settings.limits import Weight

if TYPE_CHECKING:
    from sfc.classify.network import SFCOutput


@dataclass(frozen=True)
class ScaleSettings:
    """Consistency of classifier CAMs at two sizes of the image (L_DW^W).

    Args:
        weight: of the loss; 0 switches it off.
    """

    weight: Weight = 0.8


class ScaleLoss:
    """Mean over N, C, h/2, w/2 of coefficient · label · |refined CAM shrunk − refined CAM of the small image|."""

    settings = ScaleSettings
    needs_prototypes, needs_half_size = False, True

    def __call__(
        self, full: SFCOutput, half: SFCOutput | None, label: Tensor, coefficient: Tensor, settings: ScaleSettings
    ) -> Tensor:
        """See `CamLoss`. Raises ValueError without the half-size pass."""
        del settings
        if half is None:
            raise ValueError("the scale loss needs the half-size pass")
        weight = (label * coefficient)[:, :, None, None]
        shrunk = F.interpolate(
            full.refined_cam[:, 1:], size=half.refined_cam.shape[2:], mode="bilinear", align_corners=True
        )
        return (weight * (shrunk - half.refined_cam[:, 1:]).abs()).mean()
