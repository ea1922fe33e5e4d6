"""Which reader reads a data set."""

from __future__ import annotations

import hashlib
from typing import Literal

from sfc.config import DataConfig
from sfc.data.records import DataSet
from sfc.data.table import read_table


def read_dataset(config: DataConfig, split: Literal["train", "val"]) -> DataSet:
    """Reads a split with the reader that `data.format` names.

    Raises:
        DataError: a file of the data set is missing or wrong.
        ConfigError: a setting does not fit the format.
    """
    if config.format in ("table", "synthetic"):
        return read_table(config, split)
    raise NotImplementedError(config.format)


def read_training_masks(config: DataConfig) -> DataSet | None:
    """The training split with masks, which only scores may look at; None where there is none."""
    if config.format == "synthetic" or config.train_masks:
        return read_table(config, "train", masks=True)
    return None


def input_hash(dataset: DataSet) -> str:
    """sha256 over ids, labels and file sizes: changes when the images or labels of a data set do."""
    digest = hashlib.sha256()
    for record in dataset.records:
        digest.update(f"{record.id}\t{record.labels}\t{record.image.stat().st_size}\n".encode())
    return digest.hexdigest()
