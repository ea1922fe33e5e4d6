"""The reader of the built-in benchmark, which it writes first: a table with known file names."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sfc.data.config import DataConfig, Split
from sfc.data.faults import OnFault
from sfc.data.readers.reader import Reader
from sfc.data.readers.table import read_table
from sfc.data.records import DataSet
from sfc.settings.limits import Count

FILES: dict[str, Any] = {"train": "train.csv", "train_masks": "train_with_masks.csv", "classes": "classes.txt"}


@dataclass(frozen=True)
class SyntheticSettings:
    """The built-in benchmark.

    Args:
        images: of the most frequent class. The pictures are drawn from the seed of the run.
    """

    images: Count = 480


class SyntheticReader(Reader):
    """Writes the built-in long-tail benchmark into the run folder, and reads it."""

    settings = SyntheticSettings

    def located(self, config: DataConfig, own: Path, seed: int) -> DataConfig:
        """See `Reader`."""
        from sfc.data.synthetic.benchmark import write_synthetic

        settings: SyntheticSettings = config.synthetic  # type: ignore[attr-defined]
        write_synthetic(own, seed, settings.images)
        return replace(config, root=str(own), **FILES)

    def read(self, config: DataConfig, split: Split, on_fault: OnFault) -> DataSet:
        """See `Reader`."""
        return read_table(replace(config, **FILES), split, on_fault)
