"""Which reader a folder or file is for, told from what lies in it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from sfc.config import DataConfig
from sfc.data.readers.folders import IMAGE_SUFFIXES
from sfc.data.readers.table import TABLE_SUFFIXES
from sfc.errors import DataError

_PREFIX, _SUFFIX = "instances_", ".json"


def detect(path: Path, config: DataConfig | None = None) -> DataConfig:
    """The settings for a data set at `path`: a table, or a folder that a reader knows.

    Tables are looked for first (train.csv, .tsv, .jsonl or .ndjson, with val, train_with_masks and classes.txt beside
    it), then VOC (ImageSets/Segmentation, also as VOCdevkit/VOC2012 below), COCO (instances_*.json, also in
    annotations/), class folders (also below train/ and val/).

    Args:
        path: a table file or a folder.
        config: settings; what differs from the defaults in it stays as it is.

    Raises:
        DataError: nothing there that a reader knows.
    """
    config = config or DataConfig()
    found: dict[str, Any] | None
    if path.is_file() and path.suffix.lower() in TABLE_SUFFIXES:
        found = _table(path.parent, path.name, path.suffix)
    elif path.is_dir():
        found = _find_table(path) or _find_voc(path) or _find_coco(path) or _find_folders(path)
    else:
        raise DataError(path, "is neither a folder nor a table" if path.exists() else "there is no such file or folder")
    if found is None:
        raise DataError(path, "holds no train.csv, no VOC or COCO layout and no class folders; name a recipe instead")
    default = DataConfig()
    free = {key: value for key, value in found.items() if getattr(config, key) == getattr(default, key)}
    return replace(config, **free)


def _table(folder: Path, train: str, suffix: str) -> dict[str, Any]:
    beside = {"val": f"val{suffix}", "train_masks": f"train_with_masks{suffix}", "classes": "classes.txt"}
    present = {key: name for key, name in beside.items() if (folder / name).is_file() and name != train}
    return {"format": "table", "root": str(folder), "train": train, **present}


def _find_table(folder: Path) -> dict[str, Any] | None:
    for suffix in TABLE_SUFFIXES:
        if (folder / f"train{suffix}").is_file():
            return _table(folder, f"train{suffix}", suffix)
    return None


def _find_voc(folder: Path) -> dict[str, Any] | None:
    for root in (folder, folder / "VOC2012", folder / "VOCdevkit" / "VOC2012"):
        lists = root / "ImageSets" / "Segmentation"
        if lists.is_dir():
            augmented = (lists / "trainaug.txt").is_file() or (root / "SegmentationClassAug").is_dir()
            splits = {"train": "trainaug", "train_masks": "train"} if augmented else {"train": "train"}
            val = {"val": "val"} if (lists / "val.txt").is_file() else {}
            return {"format": "voc", "root": str(root), **splits, **val}
    return None


def _find_coco(folder: Path) -> dict[str, Any] | None:
    files = [*(folder / "annotations").glob(f"{_PREFIX}*{_SUFFIX}"), *folder.glob(f"{_PREFIX}*{_SUFFIX}")]
    splits = sorted(file.name.removeprefix(_PREFIX).removesuffix(_SUFFIX) for file in files)
    train = next((split for split in splits if split.startswith("train")), splits[0] if splits else "")
    if not train:
        return None
    val = f"val{train.removeprefix('train')}"
    return {"format": "coco", "root": str(folder), "train": train, **({"val": val} if val in splits else {})}


def _find_folders(folder: Path) -> dict[str, Any] | None:
    for train in ("train", "."):
        if any(_has_image(child) for child in _children(folder / train)):
            val = {"val": "val"} if train == "train" and (folder / "val").is_dir() else {}
            return {"format": "folders", "root": str(folder), "train": train, **val}
    return None


def _children(folder: Path) -> list[Path]:
    return [child for child in folder.iterdir() if child.is_dir()] if folder.is_dir() else []


def _has_image(folder: Path) -> bool:
    return any(file.suffix.lower() in IMAGE_SUFFIXES for file in folder.rglob("*"))
