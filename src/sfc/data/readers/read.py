"""From the settings to a data set: which reader reads which files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from sfc.config import DataConfig
from sfc.data.faults import OnFault, refuse
from sfc.data.readers.coco import read_coco
from sfc.data.readers.folders import read_folders
from sfc.data.readers.table import read_table
from sfc.data.readers.voc import read_voc
from sfc.data.records import DataSet
from sfc.errors import ConfigError, DataError

Split = Literal["train", "val"]

_SYNTHETIC_FILES = {
    "train": "train.csv",
    "val": "val.csv",
    "train_masks": "train_with_masks.csv",
    "classes": "classes.txt",
}


def read_dataset(config: DataConfig, split: Split, on_fault: OnFault = refuse) -> DataSet:
    """Reads a split with the reader that `data.format` names.

    Cheap faults are found here: missing files, unknown labels, ids that are there twice. Pixels are not looked at.

    Args:
        config: the data set.
        split: which one to read.
        on_fault: gets the fault of an image, which is then left out; by default it is raised.

    Raises:
        DataError: a file of the data set is missing or wrong.
        ConfigError: a setting does not fit the format.
    """
    config = _resolved(config)
    if split == "val" and not config.val:
        raise ConfigError("data.val is empty; name a validation split")
    if config.format == "table":
        return read_table(config, split, on_fault)
    if config.format == "voc":
        return read_voc(config, split, on_fault)
    if config.format == "coco":
        return read_coco(config, split, on_fault)
    return read_folders(config, split, on_fault)


def read_training_masks(config: DataConfig, train: DataSet | None = None, on_fault: OnFault = refuse) -> DataSet | None:
    """The training images that have masks, which only scores may look at; None where no image has one.

    `data.train_masks` names a table (table) or a split (voc, coco: `train` for a training on `trainaug`); where it is
    empty, the training split's own masks are taken. With `data.limit`, only images of the limited training split count.

    Args:
        config: the data set.
        train: the training split, if it was read before.
        on_fault: as for `read_dataset`.

    Raises:
        DataError: as `read_dataset`; a mask's image is not in the training split; its classes are others.
    """
    config = _resolved(config)
    train = train or read_dataset(config, "train", on_fault)
    if not config.train_masks:
        scoring = train.with_masks()
        return scoring if len(scoring) else None
    if config.format == "table":
        scoring = read_table(replace(config, limit=0), "train", on_fault, masks=True)
    else:
        scoring = read_dataset(replace(config, train=config.train_masks, limit=0), "train", on_fault)
    known = {record.id for record in train.records}
    if config.limit:
        scoring = replace(scoring, records=tuple(record for record in scoring.records if record.id in known))
    stranger = next((record.id for record in scoring.records if record.id not in known), None)
    if stranger is not None:
        raise DataError(config.train_masks, f"lists '{stranger}', which is not among the training images")
    if scoring.classes != train.classes:
        raise DataError(config.train_masks, "has other classes than the training split")
    scoring = scoring.with_masks()
    return scoring if len(scoring) else None


def _resolved(config: DataConfig) -> DataConfig:
    """Settings that a reader understands; the synthetic set is a table with known file names."""
    if not Path(config.root).is_dir():
        raise DataError(config.root, "there is no such folder (data.root)")
    if config.limit < 0:
        raise ConfigError(f"data.limit is {config.limit}; it is a number of images, 0 for all")
    if config.format == "synthetic":
        return replace(config, format="table", **_SYNTHETIC_FILES)  # type: ignore[arg-type]
    return config
