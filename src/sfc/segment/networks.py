"""Segmentation networks by name."""

from __future__ import annotations

from sfc.config import SegmenterConfig
from sfc.errors import ConfigError
from sfc.networks.backbone import Backbone
from sfc.segment.deeplab import DEEPLAB_V2, DeepLabV2
from sfc.segment.segmenter import FROM_CLASSIFIER, Segmenter


def build_segmenter(config: SegmenterConfig, num_classes: int, classifier: Backbone | None = None) -> Segmenter:
    """The network that the settings describe; weights of new layers from torch's global generator.

    Args:
        config: settings.
        num_classes: channels of the logits, background included.
        classifier: the trained classifier's backbone, which `backbone: classifier` asks for; its weights are copied.

    Raises:
        ConfigError: the architecture or backbone is unknown or they do not fit together, or the classifier's backbone
            is asked for but not given.
        CheckpointError: the weights are missing or do not fit.
    """
    if config.architecture != DEEPLAB_V2:
        from sfc.segment.library import LibrarySegmenter

        return LibrarySegmenter(config, num_classes)
    if config.backbone == FROM_CLASSIFIER:
        if classifier is None:
            raise ConfigError("segment.network.backbone is 'classifier', but no classifier's backbone is given")
        backbone = _atrous(config, classifier.name)
        backbone.load_state_dict(classifier.state_dict())
    else:
        backbone = _atrous(config, config.backbone, pretrained=config.pretrained, weights=config.weights)
    return DeepLabV2(backbone, num_classes, config.atrous_rates, config.frozen_norm)


def _atrous(config: SegmenterConfig, name: str, *, pretrained: bool = False, weights: str = "") -> Backbone:
    return Backbone(
        name,
        pretrained=pretrained,
        weights=weights,
        output_stride=config.output_stride,
        dilated=True,
        frozen_norm=config.frozen_norm,
        trained_from=0,
    )
