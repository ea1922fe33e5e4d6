"""The losses on CAMs: one file each, and the table of them."""

from sfc.classify.losses.guide import GuideLoss
from sfc.classify.losses.loss import CamLoss as CamLoss
from sfc.classify.losses.prototype import PrototypeLoss
from sfc.classify.losses.scale import ScaleLoss

LOSSES: dict[str, CamLoss] = {
    "prototype": PrototypeLoss(),
    "scale": ScaleLoss(),
    "guide": GuideLoss(),
}
"""By the name of their section of `classify.loss` and of their column in log.csv, in the order in which they add up."""
