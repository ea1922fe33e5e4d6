"""Prototype CAMs whose prototypes compete: ours, for pretrained features on real photographs (docs/method.md).

A prototype CAM of the paper asks of each class alone how like a position is to the mean of its seeds. With features
that share a large common part every position is like every prototype, and the map is broad. Here each position is given
to the prototypes of the image's classes **and of its background** by a softmax over likenesses, so that what all of
them share cancels. The CAM itself is the prior of that softmax: without it a small object takes along what surrounds
it, whose features are still more like the object's than like those of the background far away.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sfc.classify.cam import unit_length

FOREGROUND_SEED, BACKGROUND_SEED = 0.5, 0.2
"""Of the peak-normalised CAM: a position is a seed of its strongest class above the one, of the background below the
other."""
TEMPERATURE = 0.1
"""Of the softmax over cosines; between 0.07 and 0.2 it made no difference before there was a prior (docs/log.md)."""
PRIOR_FLOOR = 0.05
"""Added to the CAM where it is the prior, so that likeness can still win where the CAM is 0."""
NEVER = -1e4


def stage_feature(stages: list[Tensor], grid: tuple[int, int]) -> Tensor:
    """All stages, each centred over the image and of unit length, without gradient; [N, sum of channels, h, w]."""
    parts = []
    for stage in stages:
        feature = unit_length(stage.detach().float(), centre=True)
        if tuple(feature.shape[2:]) != grid:
            feature = F.interpolate(feature, size=grid, mode="bilinear", align_corners=False)
        parts.append(feature)
    return torch.cat(parts, dim=1)


def competing_seeds(cam: Tensor, valid_mask: Tensor) -> Tensor:
    """Which positions the prototypes average, for classes that the image shows.

    Args:
        cam: [N, K, h, w], background first; only the foreground matters.
        valid_mask: [N, K, h, w], 1 inside the real pixels, foreground times the image's label.

    Returns:
        float [N, K, h, w] of 0 and 1, without gradient; a position is a seed of one channel at most.
    """
    foreground = cam.detach()[:, 1:] * valid_mask[:, 1:]
    best, index = foreground.max(dim=1, keepdim=True)
    background = (best < BACKGROUND_SEED).to(cam.dtype)
    strongest = torch.zeros_like(foreground).scatter_(1, index, (best > FOREGROUND_SEED).to(cam.dtype))
    return torch.cat([background, strongest], dim=1) * valid_mask


def log_prior(cam: Tensor, valid_mask: Tensor) -> Tensor:
    """Logarithm of how likely each channel is at each position before its features are looked at; [N, K, h, w].

    For a class its CAM, for the background what the strongest class that the image shows leaves, each + 0.05.
    """
    foreground = cam[:, 1:] * valid_mask[:, 1:]
    background = 1 - foreground.amax(dim=1, keepdim=True)
    return torch.log(torch.cat([background, foreground], dim=1) + PRIOR_FLOOR)


def competing_prototype_cam(cam: Tensor, feature: Tensor, valid_mask: Tensor) -> Tensor:
    """Prototype CAM by competition of the prototypes of an image: softmax over K of cosine / temperature + log prior.

    Args:
        cam: float [N, K, h, w], background first, foreground peak-normalised.
        feature: float [N, D, h, w], see `stage_feature`.
        valid_mask: [N, K, h, w], 1 inside the real pixels, foreground times the image's label.

    Returns:
        [N, K, h, w] in [0, 1], without gradient: at each real position sums to 1 over the channels that have seeds; a
        channel without seeds is all zero, and so is all of an image without any.

    Raises:
        ValueError: the shapes do not belong together.
    """
    if cam.shape != valid_mask.shape or feature.shape[0] != cam.shape[0] or feature.shape[2:] != cam.shape[2:]:
        raise ValueError(
            f"cam {tuple(cam.shape)}, feature {tuple(feature.shape)} and valid_mask {tuple(valid_mask.shape)} "
            "must agree in images and grid, and cam and valid_mask in channels"
        )
    with torch.no_grad():
        seed = competing_seeds(cam, valid_mask).flatten(2)
        flat = feature.flatten(2)
        prototype = F.normalize(torch.bmm(seed, flat.transpose(1, 2)), dim=2)
        likeness = torch.bmm(prototype, F.normalize(flat, dim=1)) / TEMPERATURE
        competes = seed.sum(dim=2, keepdim=True) > 0
        share = (likeness + log_prior(cam, valid_mask).flatten(2)).masked_fill(~competes, NEVER).softmax(dim=1)
        share = share * competes
        return share.view(cam.shape) * valid_mask
