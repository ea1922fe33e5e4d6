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


def scale_maps(net: SFCNetwork, image: Tensor) -> ScaleMaps:
    """One scale: the image and its mirror through the backbone as one batch, then merged.

    Class maps of the two are added before the ReLU, hierarchical features likewise, and image and last stage before
    the pixel correlation. Background is 1 − the maximum over **all** classes; seeds compete over all of them.

    Args:
        net: in evaluation mode.
        image: float [1, 3, H, W], normalised.
    """
    pair = torch.cat([image, image.flip(3)])
    stages = net.backbone(pair)
    grid = (stages[2].shape[2], stages[2].shape[3])

    def merge(maps: Tensor) -> Tensor:
        return maps[:1] + maps[1:].flip(3)

    class_map = net.class_map(stages[3])
    score = class_map.mean(dim=(0, 2, 3))
    feature = merge(net.hierarchical_feature(stages))
    correlation = None
    if net.correlation is not None:
        correlation = net.correlation_feature(merge(pair), merge(stages[3]), grid)
        if torch.is_autocast_enabled(image.device.type):
            # Half of the time of a large scale goes into fᵀf, whose rounding averages out over thousands of positions.
            correlation = correlation.to(torch.get_autocast_dtype(image.device.type))
    with torch.autocast(image.device.type, enabled=False):
        cam, refined = net.maps(merge(class_map), grid, correlation, None)
    return ScaleMaps(score, cam[0], refined[0], feature)


@torch.inference_mode()
def infer_cams(
    net: SFCNetwork,
    image_uint8_HW3: np.ndarray,
    label: np.ndarray | Tensor | Sequence[float] | None,
    scales: Sequence[float] = SCALES,
    *,
    threshold: float = 0.5,
    precision: str = "fp32",
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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
    image = np.ascontiguousarray(image_uint8_HW3)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"image must be uint8 [H, W, 3], not {image.dtype} {image.shape}")
    given = None if label is None else torch.as_tensor(label).cpu() > 0
    if given is not None and given.shape != (net.num_classes,):
        raise ValueError(f"label has shape {tuple(given.shape)}, the network {net.num_classes} classes")
    size = (image.shape[0], image.shape[1])
    device = next(net.parameters()).device
    training = net.training
    net.eval()
    try:
        maps = []
        for scale in scales:
            scaled = resize_image(image, (max(1, round(scale * size[0])), max(1, round(scale * size[1]))))
            tensor = torch.from_numpy(scaled.copy()).to(device).permute(2, 0, 1)[None]
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                maps.append(
                    scale_maps(net, net.backbone.pixels.normalise(tensor).contiguous(memory_format=torch.channels_last))
                )
    finally:
        net.train(training)
    present = _predicted(maps, threshold) if given is None else given
    keys = torch.cat([torch.zeros(1, dtype=torch.long), 1 + present.nonzero()[:, 0]])
    weight = _merge_scales([m.refined_cam[keys] for m in maps], size)
    prototype = _merge_scales([m.prototype_cam(net, keys.to(device)) for m in maps], size)
    return keys.numpy(), weight.cpu().numpy(), prototype.cpu().numpy()


def _predicted(maps: list[ScaleMaps], threshold: float) -> Tensor:
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
