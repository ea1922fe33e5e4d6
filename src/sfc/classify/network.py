"""The SFC network: backbone, classifier, pixel correlation, hierarchical feature, prototypes (SFC, section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfc.classify.cam import correlate_pixels, prototype_cam, unit_length, with_background
from sfc.classify.competing import competing_prototype_cam, stage_feature
from sfc.classify.official import official_state
from sfc.errors import CheckpointError
from sfc.networks.backbone import Backbone

OFFICIAL_SIDE_CHANNELS = (128, 128, 256, 256)
COMPACT_SIDE_CHANNELS = (32, 32, 48, 48)
"""For a backbone whose own stages have few."""


@dataclass(frozen=True)
class SFCOutput:
    """What a pass gives.

    Attributes:
        score: [N, C] logits.
        classifier_cam: [N, K, h, w] in [0, 1], background first.
        refined_cam: [N, K, h, w], after pixel correlation (the same as `classifier_cam` without it).
        prototype_cam: [N, K, h, w] in [0, 1]; None where it was not asked for.
    """

    score: Tensor
    classifier_cam: Tensor
    refined_cam: Tensor
    prototype_cam: Tensor | None


class SFCNetwork(nn.Module):
    """Multi-label classifier with classifier CAMs and prototype CAMs.

    Args:
        backbone: `compact` or the name of a timm model, see `Backbone`.
        num_classes: foreground classes C.
        pretrained: load timm's published backbone weights.
        weights: local file with backbone weights.
        output_stride: stride of the last stage.
        frozen_norm: keep batch-norm statistics.
        trained_from: first stage that learns (released code: 3).
        side_channels: channels that each stage gives to the hierarchical feature; None: the released code's, or fewer
            for `compact`.
        pixel_correlation: refine CAMs with pixel correlation (released code; the paper does not mention it).
        centre_features: subtract each image's mean feature before cosines (ours; needed when training from scratch,
            where all features are positive and cosines are flat).
        prototypes: `cosine`: the paper's prototype CAMs; `competing`: see `sfc.classify.competing` (no side layers).
        background_scale: factor on the background CAM before the argmax that makes seeds.
        seed_threshold: seeds by threshold instead of argmax (the paper's rule), see `cam.seeds`.
        consistency_gradient: factor on the gradient that losses on CAMs send into the backbone; classification always
            sends all of its own (ours; 1 in the released code).
    """

    def __init__(
        self,
        backbone: str = "resnet50",
        num_classes: int = 20,
        *,
        pretrained: bool = False,
        weights: str = "",
        output_stride: int = 16,
        frozen_norm: bool = True,
        trained_from: int = 3,
        side_channels: tuple[int, int, int, int] | None = None,
        pixel_correlation: bool = True,
        centre_features: bool = False,
        prototypes: str = "cosine",
        background_scale: float = 0.3,
        seed_threshold: float | None = None,
        consistency_gradient: float = 1.0,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.pixel_correlation = pixel_correlation
        self.centre_features = centre_features
        self.competing = prototypes == "competing"
        self.background_scale = background_scale
        self.seed_threshold = seed_threshold
        self.consistency_gradient = consistency_gradient
        self.backbone = Backbone(
            backbone,
            pretrained=pretrained,
            weights=weights,
            output_stride=output_stride,
            frozen_norm=frozen_norm,
            trained_from=trained_from,
        )
        channels = self.backbone.channels
        sides = side_channels or (COMPACT_SIDE_CHANNELS if backbone == "compact" else OFFICIAL_SIDE_CHANNELS)
        self.classifier = nn.Conv2d(channels[3], num_classes, 1, bias=False)
        self.correlation = nn.Conv2d(3 + channels[3], channels[3], 1, bias=False) if pixel_correlation else None
        self.side = nn.ModuleList(
            nn.Conv2d(stage, side, 1, bias=False)
            for stage, side in zip(channels, sides, strict=True)
            if not self.competing
        )
        for head in self.heads():
            nn.init.kaiming_uniform_(head.weight, a=5**0.5)
        self._grids: dict[tuple[int, int], tuple[int, int]] = {}

    def heads(self) -> list[nn.Conv2d]:
        """The new layers, which learn at a higher rate than the backbone."""
        heads = [self.classifier, *self.side]
        if self.correlation is not None:
            heads.append(self.correlation)
        return heads

    def grid_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the feature grid (stage 3) for an image of that size."""
        if (height, width) not in self._grids:
            training = self.training
            self.eval()
            with torch.no_grad():
                image = next(self.parameters()).new_zeros(1, 3, height, width)
                self._grids[height, width] = tuple(self.backbone(image)[2].shape[2:])
            self.train(training)
        return self._grids[height, width]

    def class_map(self, last: Tensor) -> Tensor:
        """Class maps [N, C, h, w] of the last stage, of any sign; never in bfloat16, whose rounding peaks show."""
        with torch.autocast(last.device.type, enabled=False):
            class_map: Tensor = self.classifier(last.to(self.classifier.weight.dtype))
        return class_map

    def hierarchical_feature(self, stages: list[Tensor]) -> Tensor:
        """Side maps of the detached stages, unit length, on the stage-3 grid; [N, sum of side_channels, h, w].

        With competing prototypes the stages themselves, centred.
        """
        if self.competing:
            return stage_feature(stages, (stages[2].shape[2], stages[2].shape[3]))
        parts = []
        for side, stage in zip(self.side, stages, strict=True):
            feature = unit_length(side(stage.detach()).float(), self.centre_features)
            if feature.shape[2:] != stages[2].shape[2:]:
                feature = F.interpolate(feature, size=stages[2].shape[2:], mode="bilinear", align_corners=False)
            parts.append(feature)
        return torch.cat(parts, dim=1)

    def correlation_feature(self, image: Tensor, last: Tensor, grid: tuple[int, int]) -> Tensor:
        """Feature whose likeness spreads CAMs: 1×1 convolution of the shrunk image and the last stage."""
        assert self.correlation is not None
        small = F.interpolate(image, size=grid, mode="bilinear", align_corners=True)
        if last.shape[2:] != grid:
            last = F.interpolate(last, size=grid, mode="bilinear", align_corners=True)
        feature: Tensor = self.correlation(torch.cat([small.to(last.dtype), last], dim=1)).float()
        return feature - feature.mean(dim=(2, 3), keepdim=True) if self.centre_features else feature

    def maps(
        self, class_map: Tensor, grid: tuple[int, int], correlation: Tensor | None, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Classifier CAM on the grid, times the mask, and the refined CAM."""
        cam = with_background(class_map)
        if cam.shape[2:] != grid:
            cam = F.interpolate(cam, size=grid, mode="bilinear", align_corners=True)
        if mask is not None:
            cam = cam * mask
        return cam, cam if correlation is None else correlate_pixels(cam, correlation)

    def prototypes(self, cam: Tensor, feature: Tensor, mask: Tensor) -> Tensor:
        """Prototype CAM by this network's rules."""
        if self.competing:
            return competing_prototype_cam(cam, feature, mask)
        return prototype_cam(cam, feature, mask, self.background_scale, self.seed_threshold)

    def forward(self, image: Tensor, valid_mask: Tensor, prototypes: bool = True, correlate: bool = True) -> SFCOutput:
        """One pass.

        Args:
            image: float [N, 3, H, W], normalised; zero outside the real pixels.
            valid_mask: [N, K, h, w] on the feature grid (`grid_size`), see `cam.valid_mask`.
            prototypes: compute prototype CAMs; the half-size pass never needs them.
            correlate: refine by pixel correlation; a pass whose refined CAM is not used can leave it out.

        Raises:
            ValueError: the mask is not on the feature grid.
        """
        stages = self.backbone(image)
        grid = (stages[2].shape[2], stages[2].shape[3])
        if tuple(valid_mask.shape[2:]) != grid:
            raise ValueError(f"valid_mask is {tuple(valid_mask.shape[2:])}, the feature grid {grid}")
        class_map = self.class_map(stages[3])
        score = class_map.mean(dim=(2, 3))
        last = stages[3]
        if self.consistency_gradient != 1 and torch.is_grad_enabled():
            # Same values; what the CAMs' losses send back into the backbone is scaled.
            last = torch.lerp(last.detach(), last, self.consistency_gradient)
            class_map = self.class_map(last)
        correlation = None
        if self.correlation is not None and correlate:
            correlation = self.correlation_feature(image, last, grid)
        # CAM arithmetic stays in float32: peaks and argmaxes do not survive bfloat16.
        with torch.autocast(image.device.type, enabled=False):
            cam, refined = self.maps(class_map, grid, correlation, valid_mask)
        if not prototypes:
            return SFCOutput(score, cam, refined, None)
        feature = self.hierarchical_feature(stages)
        with torch.autocast(image.device.type, enabled=False):
            prototype = self.prototypes(refined, feature, valid_mask)
        return SFCOutput(score, cam, refined, prototype)

    @classmethod
    def from_official(cls, checkpoint: str | Path | dict[str, Any]) -> SFCNetwork:
        """Loads a checkpoint of the authors' released code.

        Args:
            checkpoint: file, or what loading it gave: a state dict, alone or under `net`. The released modules
                register parameters several times; the canonical names are used and the copies ignored.

        Returns:
            The network, in evaluation mode.

        Raises:
            CheckpointError: not such a checkpoint, or a damaged file.
        """
        state = official_state(checkpoint)
        where = "" if isinstance(checkpoint, dict) else f"{checkpoint}: "
        net = cls("resnet50", num_classes=state["classifier.weight"].shape[0])
        try:
            missing, unexpected = net.load_state_dict(state, strict=False)
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise CheckpointError(f"{where}not an SFC checkpoint: {reason}") from error
        missing = [name for name in missing if not name.endswith("num_batches_tracked")]
        if missing or unexpected:
            raise CheckpointError(f"{where}not an SFC checkpoint: {(missing + unexpected)[0]} does not fit")
        return net.eval()
