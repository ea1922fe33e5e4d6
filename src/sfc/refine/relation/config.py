"""Settings of the relation network, its training and the walk over its edges."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from sfc.settings.limits import Limits, NaturalNumber, Weight
from sfc.settings.shared import MaskedInputConfig, TrainingConfig

OF_THE_WALK = ("fusion_lambda", "steps", "background")
"""Settings that the network does not depend on."""


@dataclass(frozen=True)
class RelationConfig:
    """The inter-pixel relation network (`sfc.RelationNetwork`) and the random walk (`sfc.random_walk`) over its edges.

    Its frozen backbone is the classifier's: as it was before training where it had weights, otherwise as trained.

    Args:
        radius: pairs of cells that training looks at are closer than this.
        input: augmentation. The released code draws scales from 0.5 to 1, IRN's own up to 1.5.
        training: optimiser and length.
        fusion_lambda: weight λ of the prototype CAM in the maps W + λP that are walked. null: as for the relation
            labels, or with `released` as the released code.
        steps: of the walk.
        background: score of the background after it.
    """

    radius: Annotated[int, Limits(2)] = 10
    input: MaskedInputConfig = field(default_factory=MaskedInputConfig)
    training: TrainingConfig = field(default_factory=lambda: TrainingConfig(batch=32, epochs=3))
    fusion_lambda: Weight | None = None
    steps: NaturalNumber = 256
    background: Weight = 0.25
