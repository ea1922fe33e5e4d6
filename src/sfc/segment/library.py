"""Architectures of segmentation-models-pytorch, with any of its encoders, for images of any size."""

from __future__ import annotations

from inspect import signature
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from sfc.data.pixels import IMAGENET_PIXELS, PixelValues
from sfc.engine.checkpoint import read_state
from sfc.errors import CheckpointError, ConfigError
from sfc.networks.backbone import Backbone
from sfc.networks.quickening import quicken
from sfc.networks.timm_models import FAILURES, cached_or_fetched, flat_name, pixel_values, sentence
from sfc.segment.segmenter import Segmenter, SegmenterConfig
from sfc.settings.shared import FROM_CLASSIFIER, NONE, PUBLISHED

IMAGENET = "imagenet"
OTHER_PIXELS = {
    "inception": PixelValues((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "xception": PixelValues((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "dpn": PixelValues((124 / 255, 117 / 255, 104 / 255), (0.23482, 0.23482, 0.23482)),
}
"""Encoders, by how their names begin, whose weights want other pixels than ImageNet's (pretrained-models.pytorch); the
library itself would ask a hub."""
MULTIPLES = (1, 32, 64, 128)
"""What image sizes may have to be a multiple of."""


class LibrarySegmenter(Segmenter):
    """An architecture of segmentation-models-pytorch by name; logits have the size of the image.

    Args:
        config: settings.
        num_classes: background included.
        blank: the weights will be loaded; nothing is fetched.

    Attributes:
        multiple: what image sizes are padded to a multiple of, with zeros at the right and bottom.

    Raises:
        ConfigError: the architecture or encoder is unknown, or they do not fit together.
        CheckpointError: the encoder's weights are missing or do not fit.
    """

    def __init__(self, config: SegmenterConfig, num_classes: int, blank: bool = False) -> None:
        super().__init__(config.weights != NONE)
        if config.backbone == FROM_CLASSIFIER:
            raise ConfigError("segment.network.backbone: only deeplab_v2 can start from the classifier's backbone")
        self.model = _blank(config, num_classes)
        start = NONE if blank else config.weights
        if start == PUBLISHED:
            self.model = _published(config, num_classes)
        elif start != NONE:
            load_encoder(self.encoder, Path(start), config.backbone)
        self.stride, self.pixels = 1, _pixels(config.backbone)
        self.multiple = self._find_multiple(config)
        self.freeze_norms()
        quicken(self.model)

    @property
    def encoder(self) -> nn.Module:
        """The library's encoder."""
        encoder: nn.Module = self.model.encoder  # type: ignore[assignment]
        return encoder

    def forward(self, image: Tensor) -> Tensor:
        """Normalised image [N, 3, H, W] to logits [N, K, H, W]."""
        height, width = image.shape[2:]
        padded = F.pad(image, (0, -width % self.multiple, 0, -height % self.multiple))
        logits: Tensor = self.model(padded)
        return logits[:, :, :height, :width]

    def _find_multiple(self, config: SegmenterConfig) -> int:
        """The least multiple that the network's input needs, found by trying."""
        self.eval()
        found = next((m for m in MULTIPLES if self._takes(m, m) and self._takes(3 * m, 5 * m)), 0)
        self.train()
        if not found:
            raise ConfigError(f"{_named(config)} does not take images of every size")
        return found

    def _takes(self, height: int, width: int) -> bool:
        try:
            with torch.no_grad():
                logits = self.model(torch.zeros(1, 3, height, width))
        except FAILURES:
            return False
        return tuple(logits.shape[2:]) == (height, width)


def _pixels(encoder: str) -> PixelValues:
    """What pixels the encoder's published weights want."""
    if encoder.startswith("tu-"):
        return pixel_values(encoder.removeprefix("tu-"))
    family = next((prefix for prefix in OTHER_PIXELS if encoder.startswith(prefix)), None)
    return OTHER_PIXELS[family] if family else IMAGENET_PIXELS


class LibraryArchitecture:
    """Builds any architecture of the library."""

    settings = None

    def build(
        self, config: SegmenterConfig, num_classes: int, classifier: Backbone | None, *, blank: bool
    ) -> Segmenter:
        """See `Architecture`."""
        del classifier  # its features are of another layout than the library's encoders give
        return LibrarySegmenter(config, num_classes, blank)


def _named(config: SegmenterConfig) -> str:
    return f"segment.network: {config.architecture} with {config.backbone}"


def _create(config: SegmenterConfig, num_classes: int, published: bool = False) -> nn.Module:
    """The library's model, its encoder with published weights if wanted."""
    architecture = smp.MODEL_ARCHITECTURES_MAPPING.get(config.architecture.lower())
    if architecture is None:
        known = ", ".join(each.__name__ for each in smp.MODEL_ARCHITECTURES_MAPPING.values())
        raise ConfigError(f"segment.network.architecture: '{config.architecture}' is none of deeplab_v2, {known}")
    options: dict[str, Any] = {}
    if "encoder_output_stride" in signature(architecture).parameters:
        least = 16 if architecture is smp.PAN else 8
        options["encoder_output_stride"] = max(config.output_stride, least)
    if architecture is smp.DPT:
        options["dynamic_img_size"] = True
    weights: str | bool | None = None
    if published:
        weights = True if config.backbone.startswith("tu-") else IMAGENET
    model: nn.Module = smp.create_model(config.architecture, config.backbone, weights, classes=num_classes, **options)
    return model


def _blank(config: SegmenterConfig, num_classes: int) -> nn.Module:
    try:
        return _create(config, num_classes)
    except FAILURES as error:
        raise ConfigError(f"{_named(config)} cannot be built ({sentence(error)})") from error


def _published(config: SegmenterConfig, num_classes: int) -> nn.Module:
    """The model with its encoder's published weights."""
    name = config.backbone
    wanted = f"the weights of {name.removeprefix('tu-')} from timm's hub"
    if not name.startswith("tu-"):
        settings = smp.encoders.encoders[name]["pretrained_settings"]
        if IMAGENET not in settings:
            raise CheckpointError(f"{name}: the library publishes no ImageNet weights of it")
        wanted = f"model.safetensors of {settings[IMAGENET]['repo_id']} from the hub"
    return cached_or_fetched(lambda: _create(config, num_classes, published=True), name, wanted)


def load_encoder(encoder: nn.Module, path: Path, name: str) -> None:
    """Loads a file of backbone weights, of the library's layout or of timm's, into an encoder.

    Args:
        encoder: takes the weights; what the file holds beyond it, such as a classifier's head, is left out.
        path: .safetensors, or what torch.save wrote.
        name: of the encoder, for messages.

    Raises:
        CheckpointError: missing, damaged, or not weights of this encoder.
    """
    if path.suffix == ".safetensors":
        try:
            state = load_file(path)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path}: missing, damaged, or not a safetensors file") from error
    else:
        state, _ = read_state(path, f"weights of {name}")
    by_name = {_key(key): value for key, value in state.items()}
    wanted = encoder.state_dict()
    for key, value in wanted.items():
        found = by_name.get(_key(key))
        if found is None and key.endswith("num_batches_tracked"):
            continue
        if found is None or found.shape != value.shape:
            reason = "it has no" if found is None else "of another shape is"
            raise CheckpointError(f"{path}: not weights of {name} ({reason} {key})")
        with torch.no_grad():
            value.copy_(found)


def _key(name: str) -> str:
    return flat_name(name.removeprefix("model."))
