"""Segmentation networks by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from sfc.networks.backbone import Backbone
from sfc.segment.deeplab import DeepLabV2Architecture
from sfc.segment.segmenter import Architecture, Segmenter, SegmenterConfig
from sfc.settings.parts import with_parts

ARCHITECTURES: dict[str, Architecture] = {
    "deeplab_v2": DeepLabV2Architecture(),
}
"""By the name that `segment.network.architecture` gives; every other name is one of segmentation-models-pytorch."""

if TYPE_CHECKING:
    SegmenterSection = SegmenterConfig
else:
    SegmenterSection = with_parts(SegmenterConfig, ARCHITECTURES)


def build_segmenter(
    config: SegmenterConfig, num_classes: int, classifier: Backbone | None = None, *, blank: bool = False
) -> Segmenter:
    """The network that the settings describe; weights of new layers from torch's global generator.

    Args:
        config: settings.
        num_classes: channels of the logits, background included.
        classifier: the trained classifier's backbone, which `backbone: classifier` asks for; its weights are copied.
        blank: the weights will be loaded; nothing is fetched.

    Raises:
        ConfigError: the architecture or backbone is unknown or they do not fit together, or the classifier's backbone
            is asked for but not given.
        CheckpointError: the weights are missing or do not fit.
    """
    architecture = ARCHITECTURES.get(config.architecture)
    if architecture is None:
        from sfc.segment.library import LibraryArchitecture  # the library takes seconds to import

        architecture = LibraryArchitecture()
    net = architecture.build(config, num_classes, classifier, blank=blank)
    net.register_buffer("log_share", torch.zeros(num_classes))
    return net
