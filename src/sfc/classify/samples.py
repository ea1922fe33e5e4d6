"""Training samples as a pure function of (seed, epoch, index): workers and resumed runs hold no state worth saving."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from sfc.classify.config import InputConfig
from sfc.data.images import open_image
from sfc.data.records import DataSet
from sfc.data.transforms import augment
from sfc.errors import DataError


class TrainingSet(Dataset[dict[str, Tensor] | DataError]):
    """Augmented images of a data set, by (epoch, index).

    Args:
        dataset: the training split.
        config: augmentation.
        seed: of the run.
    """

    def __init__(self, dataset: DataSet, config: InputConfig, seed: int) -> None:
        self.records, self.config, self.seed = dataset.records, config, seed
        self.labels = torch.from_numpy(dataset.label_matrix()).float()

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor] | DataError:
        """One sample; the error in its place if the image cannot be read, so that it crosses process borders whole.

        Returns:
            `image` uint8 [3, crop, crop], zero in the padding; `rectangle` int64 [4], see `augment`; `label` float32
            [C] of 0 and 1.
        """
        epoch, index = key
        try:
            image = open_image(self.records[index].image, self.records[index].longest)
        except DataError as error:
            return error
        generator = np.random.default_rng([self.seed, epoch, index])
        crop, rectangle = augment(image, generator, self.config.long_side, self.config.crop)
        return {
            "image": torch.from_numpy(crop.transpose(2, 0, 1)),
            "rectangle": torch.from_numpy(rectangle),
            "label": self.labels[index],
        }
