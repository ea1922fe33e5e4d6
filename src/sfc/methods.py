"""Methods by name: what a run trains on the same data, with the same network and the same number of epochs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sfc.classify.config import LossSection
from sfc.classify.losses import LOSSES

if TYPE_CHECKING:
    from sfc.classify.config import ClassifyConfig, LossConfig

PAPER_SEEDS = 0.5
"""Threshold of the paper's seeds; its value is not published: ours."""


@dataclass(frozen=True)
class Method:
    """A way to train the classifier.

    Args:
        title: what tables and pages call it.
        text: what it is.
        change: settings of the classifier to those of the method.
        fusion_lambda: λ of W + λP (see `RefineConfig`), where the method says; None: as the settings say.
    """

    title: str
    text: str
    change: Callable[[ClassifyConfig], ClassifyConfig]
    fusion_lambda: Any = None


def _plain(config: ClassifyConfig) -> ClassifyConfig:
    """Every part of SFC off; settings that act through those parts alone have one value, whatever SFC's are."""
    network = replace(config.network, pixel_correlation=False, prototypes="cosine", consistency_gradient=1.0)
    off = {name: _of_weight(name, 0.0) for name in LOSSES}
    loss: LossConfig = LossSection(half_size_pass=False, coefficient="off", **off)
    return replace(config, network=network, loss=loss, bank_draws=0)


def _plain_competing(config: ClassifyConfig) -> ClassifyConfig:
    plain = _plain(config)
    return replace(plain, network=replace(plain.network, prototypes="competing"))


def _plain_half_size(config: ClassifyConfig) -> ClassifyConfig:
    plain = _plain(config)
    return replace(plain, loss=replace(plain.loss, half_size_pass=True))


def _released(config: ClassifyConfig) -> ClassifyConfig:
    """What the released code computes."""
    network = replace(
        config.network,
        pixel_correlation=True,
        centre_features=False,
        prototypes="cosine",
        seed_threshold=None,
        consistency_gradient=1.0,
    )
    return replace(config, network=network, loss=LossSection(coefficient="official"), bank_draws=4)


def _paper(config: ClassifyConfig) -> ClassifyConfig:
    """What the paper's text says where the released code differs: no pixel correlation, seeds by threshold."""
    released = _released(config)
    network = replace(released.network, pixel_correlation=False, seed_threshold=PAPER_SEEDS)
    return replace(released, network=network, loss=replace(released.loss, coefficient="exact"))


def _of_weight(loss: str, weight: float) -> Any:
    settings: Any = LOSSES[loss].settings
    return settings(weight=weight)


METHODS: dict[str, Method] = {
    "cam": Method("plain CAM", "class activation maps of a classifier, every part of SFC off", _plain),
    "cam-half": Method(
        "plain CAM, half size too", "plain CAM that also classifies every image at half its size", _plain_half_size
    ),
    "cam-competing": Method(
        "plain CAM, competing prototypes", "plain CAM, trained alike; prototype CAMs by competition", _plain_competing
    ),
    "sfc": Method("SFC", "shared feature calibration as the settings say", lambda config: config),
    "sfc-released": Method("SFC, released", "the arithmetic of the authors' released code", _released, "released"),
    "sfc-paper": Method("SFC, paper", "the paper's text where the released code differs", _paper, 1.0),
}
"""By the name that `methods` gives and their folder has in a run."""
