"""In what order a training sees its images: a pure function of the seed and the epoch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from sfc.errors import ConfigError
from sfc.settings.shared import TrainingConfig


def steps_per_epoch(images: int, config: TrainingConfig) -> int:
    """Whole batches in one pass; a data set smaller than a batch still makes one step."""
    return max(1, images // config.batch)


class StepBatches:
    """Keys (epoch, index) of every step's samples from `first_step` on: this process's share of the global batch.

    Each epoch is a permutation drawn from (seed, epoch); with weights, of as many draws as there are images. A data set
    smaller than a batch is repeated within it.

    Args:
        images: how many there are.
        config: batch and epochs.
        seed: of the order.
        first_step: counted from 0, over all epochs.
        rank: this process.
        world: processes.
        weights: float64 [images], see `draws`; None: an epoch shows each image once.

    Raises:
        ConfigError: the batch cannot be shared equally.
    """

    def __init__(
        self,
        images: int,
        config: TrainingConfig,
        seed: int,
        first_step: int = 0,
        rank: int = 0,
        world: int = 1,
        weights: NDArray[np.float64] | None = None,
    ) -> None:
        if config.batch % world:
            raise ConfigError(f"training.batch {config.batch} cannot be shared equally by {world} processes")
        self.images, self.config, self.seed = images, config, seed
        self.first_step, self.rank, self.world = first_step, rank, world
        self.weights = weights
        self.per_epoch = steps_per_epoch(images, config)

    def __len__(self) -> int:
        return self.config.epochs * self.per_epoch - self.first_step

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        size = self.config.batch // self.world
        for epoch in range(self.first_step // self.per_epoch, self.config.epochs):
            order = self._order(epoch)
            start = self.first_step - epoch * self.per_epoch if epoch == self.first_step // self.per_epoch else 0
            for position in range(start, self.per_epoch):
                first = position * self.config.batch + self.rank * size
                yield [(epoch, int(order[i % self.images])) for i in range(first, first + size)]

    def _order(self, epoch: int) -> NDArray[np.int64]:
        random = np.random.default_rng([self.seed, epoch])
        return random.permutation(self.images if self.weights is None else draws(self.weights, random))


def repeat_weights(labels: NDArray[np.floating], below: float) -> NDArray[np.float64] | None:
    """How often to show each image against one without a rare class (LVIS: Gupta, Dollár, Girshick, CVPR 2019).

    Args:
        labels: [images, C] of 0 and 1.
        below: share of the images, in [0, 1], below which a class is rare.

    Returns:
        float64 [images], the largest √(below / share) of the classes that an image shows, at least 1; None where no
        class is rare.
    """
    counts = labels.sum(axis=0)
    factor = np.sqrt(np.maximum(1.0, below * len(labels) / np.maximum(counts, 1.0)))
    weights: NDArray[np.float64] = np.maximum(1.0, ((labels > 0) * factor).max(axis=1, initial=0.0))
    return weights if (weights > 1).any() else None


def draws(weights: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.int64]:
    """As many indices as there are weights, in ascending order.

    Each occurs as often as its share of the sum says, rounded up or down by one shift that `random` draws (systematic
    sampling): an image whose share is 1 or more is in every epoch.
    """
    ends = np.cumsum(weights)
    ticks = (np.arange(len(weights)) + random.random()) * (ends[-1] / len(weights))
    return np.minimum(np.searchsorted(ends, ticks, side="right"), len(weights) - 1)
