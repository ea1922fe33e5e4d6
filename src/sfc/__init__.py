"""Shared Feature Calibration: image-level labels in, class activation maps and segmentation masks out.

The public names; each is imported when it is first used, so that `import sfc` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sfc.classify.bank import ImageBank as ImageBank
    from sfc.classify.cam import correlate_pixels as correlate_pixels
    from sfc.classify.cam import prototype_cam as prototype_cam
    from sfc.classify.distribution import distribution_coefficient as distribution_coefficient
    from sfc.classify.distribution import expected_resampling as expected_resampling
    from sfc.classify.inference import infer_cams as infer_cams
    from sfc.classify.losses.total import MSDWLoss as MSDWLoss
    from sfc.classify.network import SFCNetwork as SFCNetwork
    from sfc.refine.crf.dense import dense_crf as dense_crf
    from sfc.refine.relation.network import RelationNetwork as RelationNetwork
    from sfc.refine.walk.walk import random_walk as random_walk
    from sfc.segment.model import Model as Model
    from sfc.segment.model import load as load

_MODULES = {
    "ImageBank": "sfc.classify.bank",
    "MSDWLoss": "sfc.classify.losses.total",
    "Model": "sfc.segment.model",
    "RelationNetwork": "sfc.refine.relation.network",
    "SFCNetwork": "sfc.classify.network",
    "correlate_pixels": "sfc.classify.cam",
    "dense_crf": "sfc.refine.crf.dense",
    "distribution_coefficient": "sfc.classify.distribution",
    "expected_resampling": "sfc.classify.distribution",
    "infer_cams": "sfc.classify.inference",
    "load": "sfc.segment.model",
    "prototype_cam": "sfc.classify.cam",
    "random_walk": "sfc.refine.walk.walk",
}

__all__ = sorted(_MODULES)  # noqa: PLE0605 - a list of strings, made from the table


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'sfc' has no attribute '{name}'")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_MODULES]
