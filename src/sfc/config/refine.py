"""Settings of the third stage: from CAMs to pseudo masks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from sfc.config.training import MaskedInputConfig, TrainingConfig


@dataclass(frozen=True)
class CRFConfig:
    """Dense CRF; see `sfc.dense_crf`. Published values for CAMs.

    Args:
        gaussian: standard deviation in pixels and compatibility of the smoothness term.
        bilateral: standard deviation in pixels, in grey levels, and compatibility of the appearance term.
        iterations: of mean field.
    """

    gaussian: tuple[float, float] = (3.0, 3.0)
    bilateral: tuple[float, float, float] = (50.0, 5.0, 10.0)
    iterations: int = 10


@dataclass(frozen=True)
class LabelCRFConfig(CRFConfig):
    """Dense CRF on a label map.

    Args:
        gt_prob: probability that a given label is right.
    """

    gt_prob: float = 0.7


@dataclass(frozen=True)
class SeedConfig:
    """Relation labels: CRF masks of the CAMs, and where they are not to be trusted.

    Args:
        fusion_lambda: weight of the prototype CAM in W + λP; 0.7 in the released code, 1 in the paper.
        uncertain_background: factor on the background of a second, more daring labelling; pixels that are background
            in the first and a class in this one are uncertain.
    """

    fusion_lambda: float = 0.7
    uncertain_background: float = 0.5


@dataclass(frozen=True)
class RelationConfig:
    """The inter-pixel relation network and its training; see `sfc.RelationNetwork`.

    Args:
        backbone: frozen; `classifier`: the trained classifier's (right where that learned from scratch); or any timm
            model with stage features.
        pretrained: load timm's published weights.
        weights: local file with backbone weights, instead of `pretrained`.
        radius: pairs of cells are closer than this.
        input: augmentation. The released code draws scales from 0.5 to 1, IRN's own up to 1.5.
        training: optimiser and schedule; `head_factor` is that of the displacement branches.
    """

    backbone: str = "resnet50.tv_in1k"
    pretrained: bool = True
    weights: str = ""
    radius: int = 10
    input: MaskedInputConfig = field(default_factory=MaskedInputConfig)
    training: TrainingConfig = field(default_factory=lambda: TrainingConfig(batch=32, epochs=3, clip=0.0))


@dataclass(frozen=True)
class WalkConfig:
    """Random walk over the relation network's edges; see `sfc.random_walk`.

    Args:
        fusion_lambda: weight of the prototype CAM in W + λP; 0.3 in the released code, 1 in the paper.
        radius: a step goes to cells closer than this.
        beta: power of the affinities.
        steps: of the walk.
        tolerance: bound on the error of the walked maps; 0: step by step.
        power: of the CAMs before the walk.
        background: score of the background after it.
        second_walk: add the released code's second walk.
    """

    fusion_lambda: float = 0.3
    radius: int = 5
    beta: float = 10.0
    steps: int = 256
    tolerance: float = 1e-4
    power: float = 1.3
    background: float = 0.25
    second_walk: bool = False


@dataclass(frozen=True)
class RefineConfig:
    """Stage 3: pseudo masks of the training images.

    Args:
        method: `none`: argmax of the CAMs; `crf`: relation labels, uncertain pixels ignored; `irn`: random walk over
            the edges of a relation network trained on those; `irn+crf`: a dense CRF after the walk.
        seeds: relation labels.
        crf: dense CRF.
        relation: relation network.
        walk: random walk.
    """

    method: Literal["none", "crf", "irn", "irn+crf"] = "irn"
    seeds: SeedConfig = field(default_factory=SeedConfig)
    crf: LabelCRFConfig = field(default_factory=LabelCRFConfig)
    relation: RelationConfig = field(default_factory=RelationConfig)
    walk: WalkConfig = field(default_factory=WalkConfig)
