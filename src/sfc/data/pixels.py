"""Pixels on their way into a network: resizing and normalisation, the same in training and inference."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)
"""Of ImageNet, in units of 1; what published backbones expect."""


def normalise(image: Tensor) -> Tensor:
    """uint8 [N, 3, H, W] to float32, ImageNet-normalised; keeps the memory layout."""
    mean = torch.tensor(IMAGE_MEAN, device=image.device)[:, None, None] * 255
    std = torch.tensor(IMAGE_STD, device=image.device)[:, None, None] * 255
    return (image.float() - mean) / std


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pillow bicubic on uint8 [H, W, 3]; `size` is height and width."""
    if image.shape[:2] == size:
        return image
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BICUBIC))


def rectangle_mask(rectangle: Tensor, image_size: tuple[int, int], grid_size: tuple[int, int]) -> Tensor:
    """The real pixels of padded crops, seen on a grid (as nearest-resizing the full-size mask would give it).

    Args:
        rectangle: int64 [N, 4]: top, left, bottom, right of the real pixels; bottom and right excluded.
        image_size: height and width of the crop.
        grid_size: height and width of the grid.

    Returns:
        float32 [N, 1, h, w] of 0 and 1.
    """
    inside = []
    for axis in (0, 1):
        position = torch.arange(grid_size[axis], device=rectangle.device) * image_size[axis] // grid_size[axis]
        inside.append((position >= rectangle[:, axis, None]) & (position < rectangle[:, axis + 2, None]))
    return (inside[0][:, None, :, None] & inside[1][:, None, None, :]).float()
