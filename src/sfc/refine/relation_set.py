"""Training samples of the relation network: augmented images with their label maps on the network's grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from sfc.config import MaskedInputConfig
from sfc.data.images import open_image, read_mask
from sfc.data.records import DataSet, Record
from sfc.data.transforms import augment_with_labels
from sfc.errors import DataError

LabelSource = Callable[[Record], np.ndarray]
"""Gives an image's relation labels: uint8 [H, W], 0 background, 1 + class, 255 uncertain. Raises DataError."""


@dataclass(frozen=True)
class PngLabels:
    """Relation labels that lie as palette PNGs in a folder, one for each image id.

    Args:
        folder: where they lie.
        num_classes: foreground classes.
    """

    folder: Path
    num_classes: int

    def __call__(self, record: Record) -> np.ndarray:
        """uint8 [H, W] of `record`. Raises DataError."""
        return read_mask(self.folder / f"{record.id}.png", self.num_classes)


class RelationSet(Dataset[dict[str, Tensor] | DataError]):
    """Augmented images and relation labels by (epoch, index): a pure function of it and the seed.

    Args:
        dataset: the training split.
        labels: relation labels; called in worker processes.
        config: augmentation.
        stride: of the network's grid.
        seed: of the training.
    """

    def __init__(
        self, dataset: DataSet, labels: LabelSource, config: MaskedInputConfig, stride: int, seed: int
    ) -> None:
        self.records, self.labels, self.config = dataset.records, labels, config
        self.stride, self.seed = stride, seed

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor] | DataError:
        """One sample; the error in its place if a file cannot be read.

        Returns:
            `image` uint8 [3, crop, crop], zero in the padding; `rectangle` int64 [4], its real pixels; `label` uint8
            [h, w] on the grid, 255 in the padding.
        """
        epoch, index = key
        record = self.records[index]
        try:
            image = open_image(record.image)
            labels = self.labels(record)
        except DataError as error:
            return error
        if labels.shape != (image.height, image.width):
            size = "x".join(map(str, reversed(labels.shape)))
            return DataError(record.image, f"is {image.width}x{image.height}, but its relation labels are {size}")
        generator = np.random.default_rng([self.seed, epoch, index])
        config = self.config
        pixels, labels, rectangle = augment_with_labels(
            image, labels, generator, config.scale, config.crop, config.flip
        )
        return {
            "image": torch.from_numpy(pixels.transpose(2, 0, 1)),
            "rectangle": torch.from_numpy(rectangle),
            "label": torch.from_numpy(shrink_labels(labels, self.stride)),
        }


def shrink_labels(labels: np.ndarray, stride: int) -> np.ndarray:
    """Every stride-th label, taken at the centres of the cells, as Pillow's nearest resizing does (released code).

    Args:
        labels: [H, W].
        stride: pixels to a cell.

    Returns:
        [⌈H / stride⌉, ⌈W / stride⌉].
    """
    rows, columns = (np.minimum(np.arange(0, size, stride) + stride // 2, size - 1) for size in labels.shape)
    return labels[rows[:, None], columns]


class CornerCrops(Dataset[dict[str, Tensor] | DataError]):
    """Images as they are, cut at the bottom and on the right, or padded there with zeros, to a square; by index.

    Args:
        dataset: the training split.
        crop: side of the square in pixels.
    """

    def __init__(self, dataset: DataSet, crop: int) -> None:
        self.records, self.crop = dataset.records, crop

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, Tensor] | DataError:
        """`image` uint8 [3, crop, crop] and `rectangle` int64 [4]; or the error in its place."""
        try:
            image = open_image(self.records[index].image)
        except DataError as error:
            return error
        part = np.asarray(image)[: self.crop, : self.crop]
        square = np.zeros((self.crop, self.crop, 3), dtype=np.uint8)
        square[: part.shape[0], : part.shape[1]] = part
        rectangle = np.array([0, 0, *part.shape[:2]], dtype=np.int64)
        return {"image": torch.from_numpy(square.transpose(2, 0, 1)), "rectangle": torch.from_numpy(rectangle)}
