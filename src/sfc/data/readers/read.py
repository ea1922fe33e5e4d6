"""From the settings to a data set: which reader reads which files."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

from sfc.data.config import DataConfig, Split
from sfc.data.faults import OnFault, refuse
from sfc.data.readers import READERS
from sfc.data.records import DataSet
from sfc.errors import ConfigError, DataError


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
    if not Path(config.root).is_dir():
        raise DataError(config.root, "there is no such folder (data.root)")
    if not config.named(split):
        raise ConfigError(f"data.{split} is empty; name the split")
    dataset = READERS[config.format].read(config, split, on_fault)
    return _without_excluded(dataset, config, split) if config.exclude and split != "val" else dataset


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
    train = train or read_dataset(config, "train", on_fault)
    scoring = train
    if config.train_masks:
        scoring = read_dataset(config, "train_masks", on_fault)
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


def _without_excluded(dataset: DataSet, config: DataConfig, split: Split) -> DataSet:
    """A training split without the images that a table excludes.

    Raises:
        DataError: the table is missing or damaged, names an image that is not there, or all of them.
    """
    path = Path(config.root) / config.exclude
    try:
        reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline=""), strict=True)
        if "image" not in (reader.fieldnames or ()):
            raise DataError(path, "the first line must name the column image")
        named = {row["image"].strip(): reader.line_num for row in reader if (row["image"] or "").strip()}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(path, f"the table of excluded images cannot be read ({reason})") from error
    by_name = {str(record.image): record.id for record in dataset.records} | {r.id: r.id for r in dataset.records}
    excluded = {by_name.get(name) or by_name.get(str(Path(config.root) / name)) for name in named}
    if split == "train":
        for name, line in named.items():
            if name not in by_name and str(Path(config.root) / name) not in by_name:
                raise DataError(f"{path}, line {line}", f"excludes '{name}', which is no training image")
    records = tuple(record for record in dataset.records if record.id not in excluded)
    if not records and split == "train":
        raise DataError(path, "excludes every training image")
    return replace(dataset, records=records)
