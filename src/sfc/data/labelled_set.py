"""Training samples with a label map, as a pure function of (seed, epoch, index)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from sfc.data.images import image_size, mask_path, open_image, read_mask
from sfc.data.pixels import resize_labels
from sfc.data.records import DataSet, Record
from sfc.data.transforms import augment_with_labels
from sfc.errors import DataError
from sfc.settings.shared import MaskedInputConfig

LabelSource = Callable[[Record], np.ndarray]
"""Gives an image's label map: uint8 [H, W], 0 background, 1 + class, 255 ignored. Raises DataError."""


@dataclass(frozen=True)
class PngLabels:
    """Label maps that lie as palette PNGs in a folder, one for each image id.

    Args:
        folder: where they lie.
        num_classes: foreground classes.
    """

    folder: Path
    num_classes: int

    def __call__(self, record: Record) -> np.ndarray:
        """uint8 [H, W] of `record`. Raises DataError."""
        return read_mask(mask_path(self.folder, record.id), self.num_classes)


def true_labels(record: Record) -> np.ndarray:
    """uint8 [H, W], the ground truth of an image that has one. Raises DataError."""
    if record.mask is None:
        raise DataError(record.image, "has no ground-truth mask")
    return record.mask.load()


class LabelledSet(Dataset[dict[str, Tensor] | DataError]):
    """Augmented images and their label maps by (epoch, index): a pure function of it and the seed.

    Args:
        dataset: the training split.
        labels: label maps; called in worker processes.
        config: augmentation.
        seed: of the training.
    """

    def __init__(self, dataset: DataSet, labels: LabelSource, config: MaskedInputConfig, seed: int) -> None:
        self.records, self.labels, self.config, self.seed = dataset.records, labels, config, seed

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor] | DataError:
        """One sample; the error in its place if a file cannot be read.

        Returns:
            `image` uint8 [3, crop, crop], zero in the padding; `rectangle` int64 [4], its real pixels; `label` uint8
            [crop, crop], 255 in the padding.
        """
        epoch, index = key
        record = self.records[index]
        try:
            image = open_image(record.image, record.longest)
            labels = self.labels(record)
            height, width = image_size(record.image)
        except DataError as error:
            return error
        if labels.shape != (height, width):
            size = "x".join(map(str, reversed(labels.shape)))
            return DataError(record.image, f"is {width}x{height}, but its labels are {size}")
        labels = resize_labels(labels, (image.height, image.width))
        generator = np.random.default_rng([self.seed, epoch, index])
        config = self.config
        pixels, labels, rectangle = augment_with_labels(image, labels, generator, config.scale, config.crop)
        return {
            "image": torch.from_numpy(pixels.transpose(2, 0, 1)),
            "rectangle": torch.from_numpy(rectangle),
            "label": torch.from_numpy(labels),
        }
