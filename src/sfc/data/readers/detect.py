"""Which reader a folder or file is for, told from what lies in it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from sfc.data.config import DataConfig
from sfc.data.readers import READERS, DataSection
from sfc.data.readers.table import TABLE_SUFFIXES, table_with_neighbours
from sfc.errors import DataError


def detect(path: Path, config: DataConfig | None = None) -> DataConfig:
    """The settings for a data set at `path`: a table, or a folder that one of the readers knows, asked in turn.

    Args:
        path: a table file or a folder.
        config: settings; what differs from the defaults in it stays as it is.

    Raises:
        DataError: nothing there that a reader knows.
    """
    config = config or DataSection()
    found: dict[str, Any] | None = None
    if path.is_file() and path.suffix.lower() in TABLE_SUFFIXES:
        found = table_with_neighbours(path)
    elif path.is_dir():
        found = next((settings for reader in READERS.values() if (settings := reader.detect(path))), None)
    else:
        raise DataError(path, "is neither a folder nor a table" if path.exists() else "there is no such file or folder")
    if found is None:
        raise DataError(path, "holds no train.csv, no VOC or COCO layout and no class folders; name a recipe instead")
    default = DataSection()
    free = {key: value for key, value in found.items() if getattr(config, key) == getattr(default, key)}
    return replace(config, **free)
