"""Segmentation networks behind one interface: image in, class logits out."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from sfc.backbone import BATCH_NORMS, Backbone
from sfc.config import SegmenterConfig
from sfc.errors import ConfigError

FROM_CLASSIFIER = "classifier"
DEEPLAB_V2 = "deeplab_v2"


class Segmenter(nn.Module):
    """What every segmentation network is to training and prediction.

    `forward` takes a normalised image [N, 3, H, W] of any size and returns logits [N, K, h, w]; channel 0 is the
    background and 1 + c is class c. Cell (i, j) of the h × w grid stands for the same part of the image as pixel
    (i, j) of an image shrunk to h × w.

    Args:
        frozen_norm: the backbone's batch norms neither learn nor update their statistics.

    Attributes:
        stride: pixels of the image to a cell of the logits; sizes are rounded up.
    """

    stride: int

    def __init__(self, frozen_norm: bool) -> None:
        super().__init__()
        self.frozen_norm = frozen_norm

    @property
    def encoder(self) -> nn.Module:
        """The part that published weights exist for."""
        raise NotImplementedError

    def head_parameters(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Weights, and biases, of the layers that no published weights exist for."""
        known = {id(parameter) for parameter in self.encoder.parameters()}
        head = [(name, p) for name, p in self.named_parameters() if id(p) not in known]
        biases = [parameter for name, parameter in head if name.endswith("bias")]
        return [parameter for name, parameter in head if not name.endswith("bias")], biases

    def freeze_norms(self) -> None:
        """Takes the backbone's batch norms out of training, if that is wanted."""
        if self.frozen_norm:
            for module in self.encoder.modules():
                if isinstance(module, BATCH_NORMS):
                    module.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Segmenter:
        """Training mode, save that frozen norms stay as in evaluation."""
        super().train(mode)
        self.freeze_norms()
        return self


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
