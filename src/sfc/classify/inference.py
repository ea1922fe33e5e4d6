"""Multi-scale CAM inference with mirror (METHOD: SFC released code, `official`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sfc.classify.cam import EPSILON
from sfc.data.pixels import resize_image

if TYPE_CHECKING:
    from sfc.classify.network import SFCNetwork

SCALES = (1.0, 0.5, 1.5, 2.0)
BACKGROUND_SCORE = 0.4
"""Added to the background after normalisation, against foreground that counts twice (released code)."""


Label = np.ndarray | Tensor | Sequence[float] | None
Cams = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class ScaleMaps:
    """Maps of one image at one scale, image and mirror together, all classes.

    Attributes:
        score: [C] logits.
        classifier_cam: float32 [K, h, w].
        refined_cam: float32 [K, h, w].
        feature: [1, D, h, w], what prototypes are made of.
    """

    score: Tensor
    classifier_cam: Tensor
    refined_cam: Tensor
    feature: Tensor

    def prototype_cam(self, net: SFCNetwork, keys: Tensor) -> Tensor:
        """Prototype CAMs of the present channels, float32 [M, h, w].

        In the released code seeds compete over all classes, and only then the label counts; competing prototypes are
        those of present classes alone.
        """
        cam = self.refined_cam[None]
        mask = torch.ones_like(cam)
        if net.competing:
            mask = torch.zeros_like(cam)
            mask[:, keys] = 1
        return net.prototypes(cam, self.feature, mask)[0, keys]


def scale_maps(net: SFCNetwork, images: Tensor) -> list[ScaleMaps]:
    """One scale of images of one size: they and their mirrors through the backbone as one batch, then merged.

    Class maps of the two are added before the ReLU, hierarchical features likewise, and image and last stage before
    the pixel correlation. Background is 1 − the maximum over **all** classes; seeds compete over all of them.

    Args:
        net: in evaluation mode.
        images: float [N, 3, H, W], normalised.
    """
    count = len(images)
    pairs = torch.cat([images, images.flip(3)])
    stages = net.backbone(pairs)
    grid = (stages[2].shape[2], stages[2].shape[3])

    def merge(maps: Tensor) -> Tensor:
        return maps[:count] + maps[count:].flip(3)

    class_map = net.class_map(stages[3])
    score = class_map.unflatten(0, (2, count)).mean(dim=(0, 3, 4))
    feature = merge(net.hierarchical_feature(stages))
    correlation = None
    if net.correlation is not None:
        correlation = net.correlation_feature(merge(pairs), merge(stages[3]), grid)
        if torch.is_autocast_enabled(images.device.type):
            # Half of the time of a large scale goes into fᵀf, whose rounding averages out over thousands of positions.
            correlation = correlation.to(torch.get_autocast_dtype(images.device.type))
    with torch.autocast(images.device.type, enabled=False):
        cam, refined = net.maps(merge(class_map), grid, correlation, None)
    return [ScaleMaps(score[i], cam[i], refined[i], feature[i : i + 1]) for i in range(count)]


def infer_cams(
    net: SFCNetwork,
    image_uint8_HW3: np.ndarray,
    label: Label,
    scales: Sequence[float] = SCALES,
    *,
    threshold: float = 0.5,
    precision: str = "fp32",
) -> Cams:
    """CAMs of one image at its own size (METHOD section 6).

    Args:
        net: the network; put into evaluation mode for the call.
        image_uint8_HW3: uint8 [H, W, 3].
        label: [C] of 0 and 1; None: the classes whose predicted probability (mean over scales) reaches `threshold`.
        scales: of the image.
        threshold: probability from which a class counts as present where no label is given.
        precision: `fp32` or `bf16` (autocast of the convolutions; the CAM arithmetic stays in float32).

    Returns:
        keys: int64 [M], 0 for background, then 1 + class index of the present classes, ascending.
        weight_cam: float32 [M, H, W], refined classifier CAM: per channel sum over scales / its maximum; foreground
            then doubled, 0.4 added to background.
        prototype_cam: float32 [M, H, W], likewise; a class without seeds is all zero.

    Raises:
        ValueError: the label has another number of classes, or the image is not uint8 [H, W, 3].
    """
    return infer_cams_of_several(net, [image_uint8_HW3], [label], scales, threshold=threshold, precision=precision)[0]


@torch.inference_mode()
def infer_cams_of_several(
    net: SFCNetwork,
    images_uint8_HW3: Sequence[np.ndarray],
    labels: Sequence[Label],
    scales: Sequence[float] = SCALES,
    *,
    threshold: float = 0.5,
    precision: str = "fp32",
) -> list[Cams]:
    """CAMs of images of one size, as `infer_cams` makes them one by one: quicker where they are small, or on a GPU.

    Args:
        net: the network; put into evaluation mode for the call.
        images_uint8_HW3: at least one, each uint8 [H, W, 3].
        labels: of each image, as in `infer_cams`.
        scales: of the images.
        threshold: probability from which a class counts as present where no label is given.
        precision: `fp32` or `bf16`.

    Returns:
        Keys and CAMs of each image. A network may round otherwise than for one image alone.

    Raises:
        ValueError: as `infer_cams`; or the sizes differ.
    """
    images = [_checked(image) for image in images_uint8_HW3]
    given = [_given(label, net.num_classes) for label in labels]
    height, width = images[0].shape[:2]
    if any(image.shape != images[0].shape for image in images):
        raise ValueError(f"images must have one size, not {sorted({image.shape[:2] for image in images})}")
    device = next(net.parameters()).device
    training = net.training
    net.eval()
    maps: list[list[ScaleMaps]] = []
    try:
        for scale in scales:
            size = (max(1, round(scale * height)), max(1, round(scale * width)))
            stacked = torch.from_numpy(np.stack([resize_image(image, size) for image in images]))
            pixels = net.backbone.pixels.normalise(stacked.to(device).permute(0, 3, 1, 2))
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                maps.append(scale_maps(net, pixels.contiguous(memory_format=torch.channels_last)))
    finally:
        net.train(training)
    results = []
    for known, own in zip(given, zip(*maps, strict=True), strict=True):
        present = _predicted(own, threshold) if known is None else known
        keys = torch.cat([torch.zeros(1, dtype=torch.long), 1 + present.nonzero()[:, 0]])
        weight = _merge_scales([m.refined_cam[keys] for m in own], (height, width))
        prototype = _merge_scales([m.prototype_cam(net, keys.to(device)) for m in own], (height, width))
        results.append((keys.numpy(), weight.cpu().numpy(), prototype.cpu().numpy()))
    return results


def _checked(image: np.ndarray) -> np.ndarray:
    image = np.ascontiguousarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"image must be uint8 [H, W, 3], not {image.dtype} {image.shape}")
    return image


def _given(label: Label, num_classes: int) -> Tensor | None:
    given = None if label is None else torch.as_tensor(label).cpu() > 0
    if given is not None and given.shape != (num_classes,):
        raise ValueError(f"label has shape {tuple(given.shape)}, the network {num_classes} classes")
    return given


def _predicted(maps: Sequence[ScaleMaps], threshold: float) -> Tensor:
    return torch.stack([torch.sigmoid(m.score) for m in maps]).mean(dim=0).cpu() >= threshold


def _merge_scales(maps: list[Tensor], size: tuple[int, int]) -> Tensor:
    """Sum over scales at image size, peak 1 a channel, then the background rule; maps [M, h, w] to [M, H, W]."""
    total = torch.zeros(maps[0].shape[0], *size, device=maps[0].device)
    for scale_map in maps:
        total += F.interpolate(scale_map[None].float(), size=size, mode="bilinear", align_corners=False)[0]
    total /= total.amax(dim=(1, 2), keepdim=True) + EPSILON
    total[1:] *= 2
    total[0] += BACKGROUND_SCORE
    return total
