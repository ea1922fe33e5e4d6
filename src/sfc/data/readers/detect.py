"""Which reader a folder or file is for, told from what lies in it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from sfc.data.config import DataConfig
from sfc.data.readers import READERS, DataSection
from sfc.data.readers.folders import IMAGE_SUFFIXES
from sfc.data.readers.table import TABLE_SUFFIXES, table_with_neighbours
from sfc.errors import DataError

SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""Names of folders that hold a split, and which one."""
NO_CLASSES = frozenset((*SPLITS, "images", "labels", "masks", "annotations", "img_dir", "ann_dir", "jpegimages"))
"""Names of folders that are hardly classes."""
ROBOFLOW_COCO = "_annotations.coco.json"


def detect(path: Path, config: DataConfig | None = None) -> DataConfig:
    """The settings for a data set at `path`: a table, or a folder that one of the readers knows, asked in turn.

    Args:
        path: a table file or a folder.
        config: settings; what differs from the defaults in it stays as it is. With the format `folders` a folder is
            taken for class folders whatever else lies in it.

    Raises:
        DataError: nothing there that a reader knows; a layout of another program, with what to do.
    """
    config = config or DataSection()
    found: dict[str, Any] | None = None
    if path.is_file() and path.suffix.lower() in TABLE_SUFFIXES:
        found = table_with_neighbours(path)
    elif path.is_dir():
        found = next((settings for reader in READERS.values() if (settings := reader.detect(path))), None)
        if (found is None or found["format"] == "folders") and config.format != "folders":
            _refuse_other_layouts(path)
    else:
        raise DataError(path, "is neither a folder nor a table" if path.exists() else "there is no such file or folder")
    if found is None:
        raise DataError(path, "holds no train.csv, no VOC or COCO layout and no class folders; name a recipe instead")
    default = DataSection()
    free = {key: value for key, value in found.items() if getattr(config, key) == getattr(default, key)}
    return replace(config, **free)


def foreign_layout(folder: Path) -> str:
    """Whose layout a folder has: `YOLO`, `Roboflow COCO`, `LabelMe`, `CVAT`, `mmsegmentation`; empty: none of these."""
    if any((folder / name).is_file() for name in ("data.yaml", "dataset.yaml")) or any(
        (folder / name / "labels").is_dir() for name in SPLITS
    ):
        return "YOLO"
    if any((folder / name / ROBOFLOW_COCO).is_file() for name in (".", *SPLITS)):
        return "Roboflow COCO"
    if (folder / "annotations.xml").is_file():
        return "CVAT"
    if (folder / "img_dir").is_dir() and (folder / "ann_dir").is_dir():
        return "mmsegmentation"
    return "LabelMe" if any(is_labelme(path) for path in sorted(folder.rglob("*.json"))[:3]) else ""


def is_labelme(path: Path) -> bool:
    """Whether a file is one that LabelMe wrote."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and {"shapes", "imagePath"} <= content.keys()


def _refuse_other_layouts(folder: Path) -> None:
    """Refuses what would be taken for class folders, or for nothing.

    Raises:
        DataError: says what it is, and the command that helps.
    """
    layout = foreign_layout(folder)
    if layout:
        raise DataError(folder, f"is an export of {layout}: `sfc prepare tags {folder}` makes a table of it")
    tables = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in TABLE_SUFFIXES)
    if tables:
        raise DataError(folder, f"holds no train.csv, but {tables[0]}: name the table, {folder / tables[0]}")
    children = [path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    odd = [name for name in children if name.lower() in NO_CLASSES]
    if odd and not any(_classes_below(folder / name) for name in odd):
        raise DataError(folder, f"has folders such as '{odd[0]}', which are no classes: write a table, train.csv")
    if any(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.iterdir()):
        raise DataError(folder, "holds photographs, but no table of their tags: write train.csv (image, labels)")


def _classes_below(folder: Path) -> bool:
    return folder.name.lower() in SPLITS and any(path.is_dir() for path in folder.iterdir())
