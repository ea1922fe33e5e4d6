"""What every loss on CAMs is to training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from sfc.settings.parts import Part

if TYPE_CHECKING:
    from sfc.classify.network import SFCOutput


class CamLoss(Part, Protocol):
    """One loss on the CAMs of a batch. Its settings have a field `weight`; 0 switches it off.

    Attributes:
        needs_prototypes: whether it looks at prototype CAMs.
        needs_half_size: whether it looks at the batch at half size.
    """

    needs_prototypes: bool
    needs_half_size: bool

    def __call__(
        self, full: SFCOutput, half: SFCOutput | None, label: Tensor, coefficient: Tensor, settings: Any
    ) -> Tensor:
        """The loss, a scalar, not yet weighted.

        Args:
            full: maps of the batch; `prototype_cam` is there where the loss needs it.
            half: maps of the batch at half size, where the loss needs them.
            label: float [N, C] of 0 and 1.
            coefficient: float32 [C], distribution coefficient of every class; ones where it is off.
            settings: its section.
        """
        ...
