"""DeepLab-v2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from torch import Tensor, nn

from sfc.errors import ConfigError
from sfc.networks.backbone import Backbone
from sfc.segment.segmenter import Segmenter, SegmenterConfig
from sfc.settings.limits import Limits
from sfc.settings.shared import FROM_CLASSIFIER, NONE, weight_options


@dataclass(frozen=True)
class DeepLabV2Settings:
    """DeepLab-v2.

    Args:
        atrous_rates: dilations of the pyramid, in cells of the backbone's last stage.
    """

    atrous_rates: Annotated[tuple[int, ...], Limits(1)] = (6, 12, 18, 24)


class DeepLabV2Architecture:
    """Builds DeepLab-v2 on any backbone."""

    settings = DeepLabV2Settings

    def build(
        self, config: SegmenterConfig, num_classes: int, classifier: Backbone | None, *, blank: bool
    ) -> Segmenter:
        """See `Architecture`."""
        settings: DeepLabV2Settings = config.deeplab_v2  # type: ignore[attr-defined]
        if config.backbone == FROM_CLASSIFIER:
            if classifier is None:
                raise ConfigError("segment.network.backbone is 'classifier', but no classifier's backbone is given")
            backbone = _atrous(classifier.name, config.output_stride, classifier.frozen_norm)
            backbone.load_state_dict(classifier.state_dict())
        else:
            options = {} if blank else weight_options(config.weights)
            backbone = _atrous(config.backbone, config.output_stride, config.weights != NONE, **options)
        return DeepLabV2(backbone, num_classes, settings.atrous_rates, backbone.frozen_norm)


def _atrous(name: str, output_stride: int, frozen_norm: bool, **weights: Any) -> Backbone:
    return Backbone(name, output_stride=output_stride, dilated=True, frozen_norm=frozen_norm, trained_from=0, **weights)


class DeepLabV2(Segmenter):
    """DeepLab-v2 (Chen et al., TPAMI 2018, section 3.2): an atrous pyramid over the last stage, its branches summed.

    Args:
        backbone: all of it learns, save frozen norms; it becomes part of this module.
        num_classes: background included.
        rates: dilation of each branch's 3×3 convolution, in cells.
        frozen_norm: see `Segmenter`.
    """

    def __init__(self, backbone: Backbone, num_classes: int, rates: Sequence[int], frozen_norm: bool) -> None:
        super().__init__(frozen_norm)
        self.backbone = backbone
        self.stride, self.pixels = backbone.strides[-1], backbone.pixels
        self.branches = nn.ModuleList(
            nn.Conv2d(backbone.channels[-1], num_classes, 3, padding=rate, dilation=rate) for rate in rates
        )
        for branch in self.branches:
            assert isinstance(branch, nn.Conv2d)
            assert branch.bias is not None
            nn.init.normal_(branch.weight, std=0.01)
            nn.init.zeros_(branch.bias)
        self.freeze_norms()

    @property
    def encoder(self) -> nn.Module:
        """The backbone."""
        return self.backbone

    def forward(self, image: Tensor) -> Tensor:
        """Normalised image [N, 3, H, W] to logits [N, K, h, w]."""
        features = self.backbone(image)[-1]
        logits = self.branches[0](features)
        for branch in self.branches[1:]:
            logits = logits + branch(features)
        return logits
