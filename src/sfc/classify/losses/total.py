"""The loss of the classifier: classification, and weighted losses on CAMs (SFC, AAAI 2024, eq. 4 to 10)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor, nn

from sfc.classify.losses import LOSSES

if TYPE_CHECKING:
    from sfc.classify.network import SFCOutput


@dataclass(frozen=True)
class Losses:
    """The terms of one step, scalars; `total` is their sum and carries the gradient.

    Attributes:
        classification: of the tags.
        terms: losses on CAMs by name, already weighted.
    """

    classification: Tensor
    terms: dict[str, Tensor]

    @property
    def total(self) -> Tensor:
        """What is minimised."""
        total = self.classification
        for term in self.terms.values():
            total = total + term
        return total


class ClassifierLoss(nn.Module):
    """Classification, and losses on CAMs.

    Args:
        coefficient: [C], distribution coefficient of every class; ones switch it off.
        settings: of each loss by its name in `sfc.classify.losses.LOSSES`; those of weight 0 are left out.
        start: share of the training that is over before losses on CAMs count.
    """

    coefficient: Tensor

    def __init__(self, coefficient: Tensor, settings: Mapping[str, Any], start: float = 0.0) -> None:
        super().__init__()
        self.start = start
        self.register_buffer("coefficient", coefficient.float(), persistent=False)
        self.settings = {name: settings[name] for name in LOSSES if name in settings and settings[name].weight}

    @property
    def needs_prototypes(self) -> bool:
        """Whether some loss looks at prototype CAMs."""
        return any(LOSSES[name].needs_prototypes for name in self.settings)

    @property
    def needs_half_size(self) -> bool:
        """Whether some loss looks at the batch at half size."""
        return any(LOSSES[name].needs_half_size for name in self.settings)

    def forward(self, full: SFCOutput, half: SFCOutput | None, label: Tensor, share: Tensor | None = None) -> Losses:
        """Computes the terms.

        Args:
            full: output for the batch, with prototypes where a loss needs them.
            half: output for the batch at half size; None switches that pass off (plain CAM).
            label: float [N, C] of 0 and 1.
            share: scalar, share of the training that is over; None: the losses on CAMs count.

        Returns:
            Scalar terms, already weighted; zero, with a gradient of zero, before they count.

        Raises:
            ValueError: a term has a weight but its maps are missing.
        """
        terms = {
            name: settings.weight * LOSSES[name](full, half, label, self.coefficient, settings)
            for name, settings in self.settings.items()
        }
        if share is not None:
            counts = (share >= self.start).to(full.score.dtype)
            terms = {name: counts * term for name, term in terms.items()}
        return Losses(self.classification(full, half, label), terms)

    def classification(self, full: SFCOutput, half: SFCOutput | None, label: Tensor) -> Tensor:
        """Multi-label soft margin loss, mean of the passes."""
        loss = F.multilabel_soft_margin_loss(full.score, label)
        return loss if half is None else (loss + F.multilabel_soft_margin_loss(half.score, label)) / 2


class MSDWLoss(ClassifierLoss):
    """The multi-scaled distribution-weighted consistency loss of SFC.

    Args:
        coefficient: [C], distribution coefficient of every class; ones switch it off.
        prototype_weight: weight of the loss between classifier CAM and prototype CAM (L_DW^P).
        scale_weight: weight of the loss between the two sizes (L_DW^W).
    """

    def __init__(self, coefficient: Tensor, prototype_weight: float = 1.6, scale_weight: float = 0.8) -> None:
        weights = {"prototype": prototype_weight, "scale": scale_weight}
        super().__init__(coefficient, {name: LOSSES[name].settings(weight=weights[name]) for name in weights})  # type: ignore[misc]
