"""What every reader of a data-set format is to the project."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from sfc.data.config import DataConfig, Split
from sfc.data.faults import OnFault
from sfc.data.records import DataSet
from sfc.settings.parts import Part


class Reader(Part, Protocol):
    """Files of one format to records."""

    def read(self, config: DataConfig, split: Split, on_fault: OnFault) -> DataSet:
        """One split. Cheap faults are found here, such as missing files; pixels are not looked at.

        Args:
            config: where the files lie; `config.named(split)` is what the settings call the split.
            split: which.
            on_fault: gets the fault of an image, which is then left out.

        Raises:
            DataError: a file of the data set is missing or wrong.
            ConfigError: a setting does not fit the format.
        """
        ...

    def detect(self, folder: Path) -> dict[str, Any] | None:
        """Settings (fields of `DataConfig`) for a folder that this reader knows by its layout; None for others."""
        del folder
        return None

    def located(self, config: DataConfig, own: Path, seed: int) -> DataConfig:
        """The settings with the files where they are; a reader that makes its data does so from the seed, in `own`."""
        del own, seed
        return config
