"""Pixels on their way into a network and maps on their way out: resizing, normalisation, doubt."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

RIVAL = 0.5
"""Share of the strongest class's strength from which another class is a rival."""


@dataclass(frozen=True)
class PixelValues:
    """What the weights of a network want pixels to be: (value / 255 − mean) / std, by channel.

    Args:
        mean: of red, green and blue, in [0, 1].
        std: likewise, above 0.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def normalise(self, image: Tensor) -> Tensor:
        """uint8 [N, 3, H, W] to float32; keeps the memory layout."""
        mean = torch.tensor(self.mean, device=image.device)[:, None, None] * 255
        std = torch.tensor(self.std, device=image.device)[:, None, None] * 255
        return (image.float() - mean) / std

    def normalise_crops(self, image: Tensor, rectangle: Tensor) -> Tensor:
        """uint8 [N, 3, H, W] to float32, zero outside the real pixels (int64 [N, 4], see `rectangle_mask`)."""
        size = (image.shape[2], image.shape[3])
        return self.normalise(image) * rectangle_mask(rectangle, size, size)

    def plain(self) -> dict[str, list[float]]:
        """As plain values, for checkpoints and model folders."""
        return {"mean": list(self.mean), "std": list(self.std)}


IMAGENET_PIXELS = PixelValues((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of ImageNet: what torchvision's weights want, and most others."""


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pillow bicubic on uint8 [H, W, 3]; `size` is height and width."""
    if image.shape[:2] == size:
        return image
    return np.array(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BICUBIC))


def doubt(maps: NDArray[np.floating]) -> float:
    """Share of the pixels on which a second class has at least half of the strength of the strongest, 0 to 1.

    Args:
        maps: [K, H, W], not negative: probabilities, or CAMs with the background among them.
    """
    if len(maps) < 2:
        return 0.0
    rivals = (maps >= RIVAL * maps.max(axis=0)).sum(axis=0)
    return float((rivals > 1).mean())


def resize_labels(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Nearest on a label map [H, W], at the centres of the new pixels; `size` is height and width."""
    if labels.shape == size:
        return labels
    rows, columns = ((2 * np.arange(new) + 1) * old // (2 * new) for old, new in zip(labels.shape, size, strict=True))
    resized: np.ndarray = labels[rows[:, None], columns]
    return resized


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
