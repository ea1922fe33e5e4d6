"""What every method of refinement is to the stage: CAMs of an image in, its pseudo mask out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from sfc.refine.crf.config import CRFConfig
from sfc.settings.limits import Weight
from sfc.settings.parts import Part
from sfc.settings.shared import MachineConfig

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from sfc.data.records import DataSet
    from sfc.refine.relation.train import MakeBackbone

RELEASED_LABELS, RELEASED_WALK = 0.7, 0.3
"""λ of the released code: for relation labels, and for the walk."""


@dataclass(frozen=True)
class RefineConfig:
    """Stage 3: pseudo masks of the training images.

    Args:
        method: `none`: argmax of the CAMs; `crf`: relation labels, uncertain pixels ignored; `irn`: random walk over
            the edges of a relation network trained on those; `irn+crf`: a dense CRF after the walk.
        fusion_lambda: weight λ of the prototype CAM in W + λP; 1 in the paper. `released`: what the released code does,
            0.7 for relation labels, 0.3 for the walk, and a second walk of all maps.
        crf: dense CRF on label maps.
    """

    method: str = "irn"
    fusion_lambda: Weight | Literal["released"] = "released"
    crf: CRFConfig = field(default_factory=CRFConfig)

    @property
    def is_released(self) -> bool:
        """Whether λ and walks are the released code's."""
        return self.fusion_lambda == "released"

    @property
    def scored_lambda(self) -> float:
        """λ of the sum that is scored and shown."""
        return 1.0 if isinstance(self.fusion_lambda, str) else self.fusion_lambda

    @property
    def label_lambda(self) -> float:
        """λ of the relation labels."""
        return RELEASED_LABELS if isinstance(self.fusion_lambda, str) else self.fusion_lambda

    @property
    def walk_lambda(self) -> float:
        """λ of the maps that are walked."""
        return RELEASED_WALK if isinstance(self.fusion_lambda, str) else self.fusion_lambda


class Maps(NamedTuple):
    """CAMs of one image, as the store keeps them.

    Attributes:
        keys: int64 [M]: 0 for background, then 1 + class index of the image's classes, ascending.
        weight: float32 [M, H, W], W.
        prototype: float32 [M, H, W], P.
    """

    keys: NDArray[np.int64]
    weight: NDArray[np.float32]
    prototype: NDArray[np.float32]

    def fused(self, fusion_lambda: float) -> NDArray[np.float32]:
        """W + λP, each with its own background channel; float32 [M, H, W]."""
        return self.weight + np.float32(fusion_lambda) * self.prototype


MakeMask = Callable[[NDArray[np.uint8], Maps], NDArray[np.uint8]]
"""Image uint8 [H, W, 3] and its CAMs to a mask uint8 [H, W]: values of `keys`, or 255 for undecided."""


@dataclass(frozen=True)
class RefineJob:
    """What a method works with.

    Args:
        fabric: devices and processes.
        config: settings of the stage.
        machine: precision, workers, checkpoints.
        seed: of every training.
        dataset: the training images.
        masks: where the masks of a method lie, by its name.
        relation: folder of the relation network.
        origin: plain values that say what the masks of a method are made from, by its name.
        backbone: gives the classifier's backbone, as trained or, where it started from weights, as it was before.
        title: of the trained system, for progress bars.
    """

    fabric: Fabric
    config: RefineConfig
    machine: MachineConfig
    seed: int
    dataset: DataSet
    masks: Callable[[str], Path]
    relation: Path
    origin: Callable[[str], Mapping[str, Any]]
    backbone: MakeBackbone
    title: str


class Refiner(Part, Protocol):
    """One method of refinement.

    Attributes:
        uses: names of the sections of `refine` whose settings its masks depend on, its own included.
        after: method whose masks of all training images must be there first; empty: none.
        words: what its masks are called beside a score; `{cam}` stands for the map that they are made from.
        undecided_words: what they are called where pixels that they leave open are not scored; empty: none are open.
    """

    uses: tuple[str, ...]
    after: str
    words: str
    undecided_words: str

    def start(self, job: RefineJob) -> MakeMask:
        """Does what comes before the first mask, such as training; gives what makes one. Called on every process.

        Args:
            job: what to work with.

        Raises:
            SFCError: it cannot be done; the message says why.
        """
        ...
