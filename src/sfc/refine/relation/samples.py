"""Training samples of the relation network: augmented images with their label maps on the network's grid."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sfc.data.labelled_set import LabelledSet, LabelSource
from sfc.data.records import DataSet
from sfc.errors import DataError
from sfc.settings.shared import MaskedInputConfig


class RelationSet(LabelledSet):
    """Augmented images and relation labels by (epoch, index): a pure function of it and the seed.

    Args:
        dataset: the training split.
        labels: relation labels, 255 where uncertain; called in worker processes.
        config: augmentation.
        stride: of the network's grid.
        seed: of the training.
    """

    def __init__(
        self, dataset: DataSet, labels: LabelSource, config: MaskedInputConfig, stride: int, seed: int
    ) -> None:
        super().__init__(dataset, labels, config, seed)
        self.stride = stride

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor] | DataError:
        """As `LabelledSet`, with `label` uint8 [h, w] on the grid."""
        sample = super().__getitem__(key)
        if isinstance(sample, dict):
            sample["label"] = torch.from_numpy(shrink_labels(sample["label"].numpy(), self.stride))
        return sample


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
