"""The splits of a run: what training sees, what gets CAMs, what is scored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sfc.config import RunConfig
from sfc.run.folder import RunFolder

if TYPE_CHECKING:
    from sfc.data.records import DataSet


@dataclass(frozen=True)
class Data:
    """The splits of a run.

    Attributes:
        train: training images with labels, masks removed: what training sees.
        scoring: training images with masks, for scores only; None without masks.
        val: validation images; None where the settings name none.
    """

    train: DataSet
    scoring: DataSet | None
    val: DataSet | None

    def splits(self) -> Iterator[tuple[str, DataSet]]:
        """The splits that get CAMs, by name."""
        yield "train", self.train
        if self.val is not None:
            yield "val", self.val

    def scored(self) -> Iterator[tuple[str, DataSet]]:
        """The splits that have masks to score against."""
        if self.scoring is not None:
            yield "train", self.scoring
        if self.val is not None and len(self.val.with_masks()):
            yield "val", self.val.with_masks()


def read_data(config: RunConfig, run: RunFolder) -> Data:
    """Reads every split that the settings name; writes the synthetic set first if that is what they name.

    Raises:
        DataError, ConfigError: see the readers.
    """
    from sfc.data.readers.read import read_dataset, read_training_masks

    data = config.data
    if data.format == "synthetic":
        from sfc.data.synthetic.benchmark import write_synthetic

        write_synthetic(run.synthetic_data, data.synthetic_seed, data.synthetic_images)
        data = replace(data, root=str(run.synthetic_data))
    train = read_dataset(data, "train")
    scoring = read_training_masks(data, train)
    val = read_dataset(data, "val") if data.val else None
    without_masks = replace(train, records=tuple(replace(record, mask=None) for record in train.records))
    return Data(without_masks, scoring if scoring is not None and len(scoring) else None, val)
