"""DeepLab-v2."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from sfc.networks.backbone import Backbone
from sfc.segment.segmenter import Segmenter

DEEPLAB_V2 = "deeplab_v2"


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
        self.stride = backbone.strides[-1]
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
