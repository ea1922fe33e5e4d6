"""The yardstick: SFC's released arithmetic computed the plain way, without thought for time or memory.

Frozen norms are operations of their own, autograd records every stage, both passes compute prototypes, and these are
made by broadcasting to [N, K, D, h, w]. It gives the same numbers as `sfc` (training_step.py and cam_inference.py
compare them), so a ratio of their costs is a ratio of implementations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

SIDE_CHANNELS = {256: 128, 512: 128, 1024: 256, 2048: 256}
SCALES = (1.0, 0.5, 1.5, 2.0)


@dataclass(frozen=True)
class PlainOutput:
    """Scores [N, C] and CAMs [N, K, h, w] of one pass."""

    score: Tensor
    classifier_cam: Tensor
    refined_cam: Tensor
    prototype_cam: Tensor


class PlainSFC(nn.Module):
    """ResNet-50 with strides 4, 8, 16, 16 and the heads of SFC; state dict as that of `sfc.SFCNetwork`.

    Args:
        num_classes: foreground classes C.
        cut: detach after stage 2. Without, the gradient of stages 1 and 2 is computed too, and then discarded, for
            only stages 3 and 4 learn.
    """

    def __init__(self, num_classes: int, cut: bool = False) -> None:
        super().__init__()
        self.cut = cut
        resnet: Any = timm.create_model("resnet50", output_stride=16, num_classes=0)
        for module in resnet.modules():
            if isinstance(module, nn.Conv2d) and module.dilation != (1, 1):
                module.dilation = module.padding = (1, 1)
        self.backbone = nn.ModuleDict({"model": resnet})
        for parameter in [*resnet.conv1.parameters(), *resnet.bn1.parameters()]:
            parameter.requires_grad_(False)
        self.classifier = nn.Conv2d(2048, num_classes, 1, bias=False)
        self.correlation = nn.Conv2d(3 + 2048, 2048, 1, bias=False)
        self.side = nn.ModuleList(nn.Conv2d(i, o, 1, bias=False) for i, o in SIDE_CHANNELS.items())
        self.eval()

    def learning(self) -> list[nn.Parameter]:
        """Stages 3 and 4 and the heads."""
        stages = ("backbone.model.layer3", "backbone.model.layer4", "classifier", "correlation", "side")
        return [parameter for name, parameter in self.named_parameters() if name.startswith(stages)]

    def stages(self, image: Tensor) -> list[Tensor]:
        """Outputs of the four stages."""
        resnet: Any = self.backbone["model"]
        x = resnet.maxpool(resnet.act1(resnet.bn1(resnet.conv1(image))))
        one = resnet.layer1(x)
        two = resnet.layer2(one)
        if self.cut:
            two = two.detach()
        three = resnet.layer3(two)
        return [one, two, three, resnet.layer4(three)]

    def hierarchical_feature(self, stages: list[Tensor]) -> Tensor:
        """[N, 768, h, w] on the grid of stage 3."""
        parts = []
        for side, stage in zip(self.side, stages, strict=True):
            feature = side(stage.detach())
            feature = feature / (feature.norm(dim=1, keepdim=True) + 1e-5)
            parts.append(F.interpolate(feature, size=stages[2].shape[2:], mode="bilinear", align_corners=False))
        return torch.cat(parts, dim=1)

    def correlate(self, cam: Tensor, image: Tensor, last: Tensor) -> Tensor:
        """Pixel correlation with the whole normalised affinity matrix."""
        small = F.interpolate(image, size=last.shape[2:], mode="bilinear", align_corners=True)
        feature = self.correlation(torch.cat([small, last], dim=1)).flatten(2)
        feature = feature / (feature.norm(dim=1, keepdim=True) + 1e-5)
        affinity = F.relu(torch.matmul(feature.transpose(1, 2), feature))
        affinity = affinity / (affinity.sum(dim=1, keepdim=True) + 1e-5)
        refined = torch.matmul(torch.matmul(cam.flatten(2), affinity), affinity)
        return refined.view_as(cam)

    def classifier_cam(self, class_map: Tensor, grid: torch.Size) -> Tensor:
        """Peak-normalised maps behind a background, on the grid."""
        foreground = F.relu(class_map)
        foreground = foreground / (foreground.amax(dim=(2, 3), keepdim=True) + 1e-5)
        cam = torch.cat([1 - foreground.amax(dim=1, keepdim=True), foreground], dim=1)
        return F.interpolate(cam, size=grid, mode="bilinear", align_corners=True)

    def forward(self, image: Tensor, valid_mask: Tensor) -> PlainOutput:
        """One pass; `image` [N, 3, H, W], `valid_mask` [N, K, H, W]."""
        stages = self.stages(image)
        class_map = self.classifier(stages[3])
        score = class_map.mean(dim=(2, 3))
        mask = F.interpolate(valid_mask, size=stages[2].shape[2:], mode="nearest")
        cam = self.classifier_cam(class_map, stages[2].shape[2:]) * mask
        refined = self.correlate(cam, image, stages[3])
        prototype = plain_prototype_cam(refined, self.hierarchical_feature(stages), mask)
        return PlainOutput(score, cam, refined, prototype)


def plain_prototype_cam(cam: Tensor, feature: Tensor, valid_mask: Tensor, background_scale: float = 0.3) -> Tensor:
    """Prototype CAM by tensors of [N, K, D, h, w]."""
    scaled = torch.cat([cam[:, :1] * background_scale, cam[:, 1:]], dim=1).detach()
    seed = F.one_hot(scaled.argmax(dim=1), cam.shape[1]).permute(0, 3, 1, 2) * valid_mask
    prototype = (seed[:, :, None] * feature[:, None]).mean(dim=(3, 4), keepdim=True)
    return F.relu(F.cosine_similarity(feature[:, None], prototype, dim=2, eps=1e-8))


@dataclass(frozen=True)
class PlainLosses:
    """The three terms of a step, weighted."""

    classification: Tensor
    prototype: Tensor
    scale: Tensor

    @property
    def total(self) -> Tensor:
        """Their sum."""
        return self.classification + self.prototype + self.scale


def plain_losses(net: PlainSFC, image: Tensor, label: Tensor, valid_mask: Tensor, coefficient: Tensor) -> PlainLosses:
    """Two whole passes and their losses; `valid_mask` [N, K, H, W], `coefficient` [C]."""
    full = net(image, valid_mask)
    half_size = (image.shape[2] // 2, image.shape[3] // 2)
    half_image = F.interpolate(image, size=half_size, mode="bilinear", align_corners=True)
    half = net(half_image, valid_mask)
    classification = F.multilabel_soft_margin_loss(full.score, label)
    classification = (classification + F.multilabel_soft_margin_loss(half.score, label)) / 2
    weight = torch.cat([torch.ones(1), coefficient])[None, :, None, None]
    peak = full.prototype_cam.amax(dim=(2, 3), keepdim=True)
    prototype = (weight * (full.refined_cam - full.prototype_cam / (peak + 1e-5)).abs()).mean()
    shrunk = F.interpolate(full.refined_cam, size=half.refined_cam.shape[2:], mode="bilinear", align_corners=True)
    difference = (shrunk - half.refined_cam)[:, 1:].abs()
    scale = (coefficient[None, :, None, None] * label[:, :, None, None] * difference).mean()
    return PlainLosses(classification, 1.6 * prototype, 0.8 * scale)


def plain_step(
    net: PlainSFC,
    optimiser: torch.optim.Optimizer,
    image: Tensor,
    label: Tensor,
    valid_mask: Tensor,
    coefficient: Tensor,
) -> PlainLosses:
    """One optimiser step; the optimiser holds `net.learning()`."""
    net.zero_grad(set_to_none=True)
    losses = plain_losses(net, image, label, valid_mask, coefficient)
    losses.total.backward()
    torch.nn.utils.clip_grad_norm_(net.learning(), 1.0)
    optimiser.step()
    return losses


@torch.no_grad()
def plain_infer_cams(
    net: PlainSFC, image: np.ndarray, label: np.ndarray, scales: Sequence[float] = SCALES
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`sfc.infer_cams` the plain way: scales one after the other, each a batch of the image and its mirror."""
    height, width = image.shape[:2]
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    totals = [torch.zeros(1), torch.zeros(1)]
    for scale in scales:
        size = (round(scale * width), round(scale * height))
        resized = np.array(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
        one = ((torch.from_numpy(resized).float() / 255 - mean) / std).permute(2, 0, 1)[None].contiguous()
        pair = torch.cat([one, one.flip(3)])
        stages = net.stages(pair)
        class_map, feature = net.classifier(stages[3]), net.hierarchical_feature(stages)
        both = [maps[:1] + maps[1:].flip(3) for maps in (class_map, feature, pair, stages[3])]
        cam = net.classifier_cam(both[0], stages[2].shape[2:])
        refined = net.correlate(cam, both[2], both[3])
        prototype = plain_prototype_cam(refined, both[1], torch.ones_like(refined))
        for index, maps in enumerate((refined, prototype)):
            totals[index] = totals[index] + F.interpolate(maps, size=(height, width), mode="bilinear")[0]
    keys = np.flatnonzero(np.concatenate([[1], label]))
    for total in totals:
        total.div_(total.amax(dim=(1, 2), keepdim=True) + 1e-5)
        total[1:].mul_(2)
        total[0].add_(0.4)
    return keys, totals[0][keys].numpy(), totals[1][keys].numpy()
