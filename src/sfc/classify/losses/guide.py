"""Classifier CAMs drawn towards competing prototype CAMs (ours)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from sfc.classify.cam import normalise_peak
from sfc.settings.limits import Weight

if TYPE_CHECKING:
    from sfc.classify.network import SFCOutput


@dataclass(frozen=True)
class GuideSettings:
    """Classifier CAMs drawn towards prototype CAMs, which stay as they are (ours).

    Args:
        weight: of the loss; 0 switches it off.
    """

    weight: Weight = 0.0


class GuideLoss:
    """Mean over the maps of **present** classes of |refined CAM − peak-normalised prototype CAM|, no gradient into P.

    Unlike the paper's loss it does not shrink as the number of classes grows, leaves the background channel out (which
    follows from the others), and cannot be met by broadening the prototype CAM. Classes without seeds take no part.
    """

    settings = GuideSettings
    needs_prototypes, needs_half_size = True, False

    def __call__(
        self, full: SFCOutput, half: SFCOutput | None, label: Tensor, coefficient: Tensor, settings: GuideSettings
    ) -> Tensor:
        """See `CamLoss`. Raises ValueError without prototype CAMs."""
        del half, settings
        if full.prototype_cam is None:
            raise ValueError("the guide loss needs prototype CAMs: call the network with prototypes=True")
        target = normalise_peak(full.prototype_cam.detach())[:, 1:]
        weight = label * (target.amax(dim=(2, 3)) > 0)
        distance = (full.refined_cam[:, 1:] - target).abs().mean(dim=(2, 3))
        return (weight * coefficient * distance).sum() / weight.sum().clamp(min=1)
