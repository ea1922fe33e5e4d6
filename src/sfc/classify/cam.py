"""Class activation maps as pure functions: normalisation, pixel correlation, prototypes, valid masks.

Shapes: N images, C foreground classes, K = C + 1 channels with background first, D feature channels, h × w grid.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from sfc.data.pixels import rectangle_mask

EPSILON = 1e-5
COSINE_EPSILON = 1e-8
DENSE_AFFINITY = 2**27
"""Entries of the affinity matrix (512 MB) above which inference computes it block by block, twice: the matrix of a
photograph of 12 megapixels at twice its size would take 140 GB."""


def normalise_peak(cam: Tensor) -> Tensor:
    """Divides each map by its spatial maximum + 1e-5; [N, K, h, w] to [N, K, h, w]."""
    return cam / (cam.amax(dim=(2, 3), keepdim=True) + EPSILON)


def with_background(class_map: Tensor) -> Tensor:
    """Classifier CAM with a background channel (SFC, section 3.2; SEAM).

    Args:
        class_map: [N, C, h, w] output of the classifier convolution, any sign.

    Returns:
        [N, C + 1, h, w] in [0, 1]: background = 1 - the largest foreground value, then the peak-normalised foreground.
    """
    foreground = normalise_peak(F.relu(class_map))
    background = 1 - foreground.amax(dim=1, keepdim=True)
    return torch.cat([background, foreground], dim=1)


def unit_length(feature: Tensor, centre: bool = False) -> Tensor:
    """Divides every position's feature by its norm + 1e-5, after removing each image's spatial mean if `centre`."""
    if centre:
        feature = feature - feature.mean(dim=(2, 3), keepdim=True)
    return feature / (torch.linalg.vector_norm(feature, dim=1, keepdim=True) + EPSILON)


def correlate_pixels(cam: Tensor, feature: Tensor) -> Tensor:
    """Spreads a CAM over positions with like features, twice (pixel correlation module; SEAM, CVPR 2020, eq. 5).

    A = ReLU(fᵀf) of the unit-length features, each column divided by its sum + 1e-5; the result is CAM · A · A.

    Args:
        cam: float [N, K, h, w].
        feature: float [N, D, h, w], not yet normalised; in bfloat16 only the product fᵀf is computed that way.

    Returns:
        Refined CAM [N, K, h, w].
    """
    shape = cam.shape
    unit = unit_length(feature.to(cam.dtype)).flatten(2).to(feature.dtype)
    if unit.shape[0] * unit.shape[2] ** 2 > DENSE_AFFINITY and not torch.is_grad_enabled():
        flat = cam.flatten(2)
        return _spread_in_blocks(_spread_in_blocks(flat, unit), unit).view(shape)
    affinity = torch.bmm(unit.transpose(1, 2), unit).to(cam.dtype).relu_()
    # A column's divisor scales a column of the product, so the affinity itself is never normalised (or copied).
    weight = 1 / (affinity.sum(dim=1, keepdim=True) + EPSILON)
    spread = torch.bmm(cam.flatten(2), affinity) * weight
    return (torch.bmm(spread, affinity) * weight).view(shape)


def _spread_in_blocks(cam: Tensor, unit: Tensor) -> Tensor:
    """CAM · A for [N, K, P] and unit-length features [N, D, P], some columns of A at a time."""
    block = max(1, DENSE_AFFINITY // (unit.shape[0] * unit.shape[2]))
    spread = torch.empty_like(cam)
    for start in range(0, unit.shape[2], block):
        affinity = torch.bmm(unit.transpose(1, 2), unit[:, :, start : start + block]).to(cam.dtype).relu_()
        weight = 1 / (affinity.sum(dim=1, keepdim=True) + EPSILON)
        spread[:, :, start : start + block] = torch.bmm(cam, affinity) * weight
    return spread


class _PrototypeCosine(torch.autograd.Function):
    """ReLU(cosine(feature, prototype)), prototypes being seed averages of the same feature.

    Written out so that nothing larger than the feature map is ever allocated: forward keeps its inputs and two small
    norms, backward builds one gradient in place. Seeds are weights [N, K, P], or the one class of each position
    int64 [N, 1, P] (K for none), which costs the same for any number of classes.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, feature: Tensor, seed: Tensor, channels: int) -> Tensor:
        """feature [N, D, P] and seed to [N, K, P]."""
        prototype = _collect(feature, seed, channels).div_(feature.shape[2])
        feature_scale = 1 / torch.linalg.vector_norm(feature, dim=1, keepdim=True).clamp_min_(COSINE_EPSILON)
        prototype_scale = 1 / torch.linalg.vector_norm(prototype, dim=2, keepdim=True).clamp_min_(COSINE_EPSILON)
        cosine = torch.bmm(prototype * prototype_scale, feature).mul_(feature_scale).relu_()
        ctx.save_for_backward(feature, seed, prototype, feature_scale, prototype_scale, cosine)
        return cosine

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        feature, seed, prototype, feature_scale, prototype_scale, cosine = ctx.saved_tensors
        # Where the ReLU cut, cosine is 0; there the gradient of every term below must vanish.
        active = grad * (cosine > 0)
        along = active * cosine
        feature_pull = along.sum(dim=1, keepdim=True).mul_(feature_scale).mul_(feature_scale).neg_()
        prototype_pull = along.sum(dim=2, keepdim=True).mul_(prototype_scale).mul_(prototype_scale).neg_()
        dot_grad = active.mul_(feature_scale).mul_(prototype_scale)
        # Somebody may call backward under autocast, which knows bmm and not its in-place kin.
        with torch.autocast(feature.device.type, enabled=False):
            prototype_grad = torch.bmm(dot_grad, feature.transpose(1, 2)).addcmul_(prototype, prototype_pull)
            feature_grad = _hand_out(prototype_grad.div_(feature.shape[2]), seed).addcmul_(feature, feature_pull)
            return feature_grad.baddbmm_(prototype.transpose(1, 2), dot_grad), None, None


def _collect(feature: Tensor, seed: Tensor, channels: int) -> Tensor:
    """What the seeds of each class add up to: [N, D, P] to [N, K, D]."""
    if seed.is_floating_point():
        return torch.bmm(seed, feature.transpose(1, 2))
    total = feature.new_zeros(feature.shape[0], feature.shape[1], channels + 1)
    total.scatter_add_(2, seed.expand_as(feature), feature)
    return total[:, :, :channels].transpose(1, 2)


def _hand_out(value: Tensor, seed: Tensor) -> Tensor:
    """Each position gets what its class's prototype got, the transpose of `_collect`: [N, K, D] to [N, D, P]."""
    value = value.transpose(1, 2)
    if seed.is_floating_point():
        return torch.bmm(value, seed)
    return F.pad(value, (0, 1)).gather(2, seed.expand(-1, value.shape[1], -1))


def _strongest(cam: Tensor, background_scale: float) -> Tensor:
    """The strongest class of every position, int64 [N, 1, h, w]; ties go to the lower index, as argmax does."""
    best, index = cam[:, 1:].max(dim=1, keepdim=True)
    return torch.where(cam[:, :1] * background_scale >= best, 0, index + 1)


def seeds(cam: Tensor, valid_mask: Tensor, background_scale: float = 0.3, threshold: float | None = None) -> Tensor:
    """Which positions a prototype averages.

    Args:
        cam: [N, K, h, w], background first.
        valid_mask: [N, K, h, w]; multiplies the result.
        background_scale: factor on the background before the argmax.
        threshold: None: each position is a seed of its strongest class (released code). A number in [0, 1): a position
            is a seed of every class whose peak-normalised CAM exceeds it (the paper's rule; its value is ours).

    Returns:
        [N, K, h, w] of the dtype of `cam`, without gradient.
    """
    cam = cam.detach()
    if threshold is not None:
        return (normalise_peak(cam) > threshold).to(cam.dtype) * valid_mask
    index = _strongest(cam, background_scale)
    return torch.zeros_like(cam).scatter_(1, index, valid_mask.gather(1, index).to(cam.dtype))


def _single_seeds(cam: Tensor, valid_mask: Tensor, background_scale: float) -> Tensor | None:
    """Seeds as the class of each position, K for none; None where the valid mask is not of 0 and 1."""
    index = _strongest(cam.detach(), background_scale)
    weight = valid_mask.gather(1, index)
    valid = weight > 0
    return torch.where(valid, index, cam.shape[1]) if torch.equal(weight, valid.to(weight.dtype)) else None


def prototype_cam(
    cam: Tensor,
    feature: Tensor,
    valid_mask: Tensor,
    background_scale: float = 0.3,
    threshold: float | None = None,
) -> Tensor:
    """Prototype CAM: cosine of every position with the mean feature of each class's seeds (SFC, eq. 1 to 3).

    The gradient flows through the feature and the prototypes, not through the seeds.

    Args:
        cam: float [N, K, h, w], background first; only its argmax (or threshold) matters.
        feature: float [N, D, h, w].
        valid_mask: [N, K, h, w], 1 inside the real pixels, foreground times the image's label.
        background_scale: factor on the background CAM before the argmax.
        threshold: see `seeds`.

    Returns:
        [N, K, h, w] in [0, 1]; a class without seeds has an all-zero map.

    Raises:
        ValueError: the shapes do not belong together.
    """
    if cam.shape != valid_mask.shape or feature.shape[0] != cam.shape[0] or feature.shape[2:] != cam.shape[2:]:
        raise ValueError(
            f"cam {tuple(cam.shape)}, feature {tuple(feature.shape)} and valid_mask {tuple(valid_mask.shape)} "
            "must agree in images and grid, and cam and valid_mask in channels"
        )
    seed = None
    # Elsewhere the sum over single seeds is not deterministic, and matrix products are cheap.
    if threshold is None and feature.device.type == "cpu" and not torch.compiler.is_compiling():
        seed = _single_seeds(cam, valid_mask, background_scale)
    if seed is None:
        seed = seeds(cam, valid_mask, background_scale, threshold).to(feature.dtype)
    return _PrototypeCosine.apply(feature.flatten(2), seed.flatten(2), cam.shape[1]).view(cam.shape)


def valid_mask(rectangle: Tensor, label: Tensor, image_size: tuple[int, int], grid_size: tuple[int, int]) -> Tensor:
    """Valid mask on the feature grid: rectangle of real pixels; foreground channels times the label.

    Args:
        rectangle: int64 [N, 4], see `rectangle_mask`.
        label: float [N, C] of 0 and 1.
        image_size: height and width of the crop.
        grid_size: height and width of the grid.

    Returns:
        float32 [N, C + 1, h, w].
    """
    channels = torch.cat([torch.ones_like(label[:, :1]), label], dim=1).float()
    return rectangle_mask(rectangle, image_size, grid_size) * channels[:, :, None, None]
