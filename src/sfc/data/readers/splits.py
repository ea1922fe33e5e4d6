"""The splits of a run: what training sees, what gets CAMs, what is scored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sfc.data.config import DataConfig
from sfc.data.readers import READERS
from sfc.data.readers.read import read_dataset, read_training_masks

if TYPE_CHECKING:
    from sfc.data.records import DataSet


@dataclass(frozen=True)
class Data:
    """The splits of a run.

    Attributes:
        train: training images with labels, masks removed: what training sees.
        scoring: training images with masks, for scores only; None without masks.
        val: validation images; None where the settings name none.
        mapped: training images that get CAMs and masks; None: all.
    """

    train: DataSet
    scoring: DataSet | None
    val: DataSet | None
    mapped: DataSet | None = None

    def at_most(self, longest: int | None) -> Data:
        """The same, photographs worked on at a long side of at most `longest` pixels."""
        train, scoring, val, mapped = (
            None if split is None else split.at_most(longest)
            for split in (self.train, self.scoring, self.val, self.mapped)
        )
        assert train is not None
        return Data(train, scoring, val, mapped)

    def splits(self) -> Iterator[tuple[str, DataSet]]:
        """The splits that get CAMs, by name."""
        yield "train", self.train if self.mapped is None else self.mapped
        if self.val is not None:
            yield "val", self.val

    def split(self, name: str) -> DataSet:
        """One of `splits`, by its name."""
        return dict(self.splits())[name]

    def only_scored(self) -> Data:
        """The same, but of the training images only those with a mask to score against get CAMs and masks."""
        scored = {record.id for record in self.scoring.records} if self.scoring is not None else set()
        records = tuple(record for record in self.train.records if record.id in scored)
        return replace(self, mapped=replace(self.train, records=records))

    def scored(self) -> Iterator[tuple[str, DataSet]]:
        """The splits that have masks to score against."""
        if self.scoring is not None:
            yield "train", self.scoring
        if self.val is not None and len(self.val.with_masks()):
            yield "val", self.val.with_masks()


def read_data(config: DataConfig, own: Path, seed: int = 0) -> Data:
    """Reads every split that the settings name.

    Args:
        config: the data set.
        own: folder for what a reader makes itself, such as the built-in benchmark.
        seed: of what it makes.

    Raises:
        DataError, ConfigError: see the readers.
    """
    data = READERS[config.format].located(config, own, seed)
    train = read_dataset(data, "train")
    scoring = read_training_masks(data, train)
    val = read_dataset(data, "val") if data.val else None
    without_masks = replace(train, records=tuple(replace(record, mask=None) for record in train.records))
    return Data(without_masks, scoring if scoring is not None and len(scoring) else None, val)
