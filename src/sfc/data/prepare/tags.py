"""Tables of tags from what other programs export: YOLO, Roboflow, LabelMe, CVAT, mmsegmentation.

Masks and boxes become tags alone.
"""

from __future__ import annotations

import csv
import io
import json
import os
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import yaml

from sfc.data.class_list import read_class_file
from sfc.data.images import read_mask
from sfc.data.readers.detect import ROBOFLOW_COCO, SPLITS, foreign_layout, is_labelme
from sfc.data.readers.folders import images_below
from sfc.data.records import IGNORE
from sfc.errors import DataError
from sfc.run.files import atomic_write

Tagged = tuple[str, Path, set[str]]
"""Split, photograph, tags."""
SEPARATOR = ";"
CLASS_LIST = "classes.txt"


def prepare_tags(folder: Path) -> list[Path]:
    """Writes train.csv, and val.csv where there is a validation split, into the folder of an export.

    Args:
        folder: of the export; nothing in it is changed.

    Returns:
        The tables.

    Raises:
        DataError: it is no export that is known; a file of it is damaged; a table is there already; a class name holds
            what stands between tags.
        SFCError: a table cannot be written.
    """
    if not folder.is_dir():
        raise DataError(folder, "there is no such folder")
    layout = foreign_layout(folder)
    if layout not in EXPORTS:
        raise DataError(folder, f"is no export of {', '.join(EXPORTS)}")
    tables: dict[str, dict[Path, set[str]]] = {}
    for split, image, tags in EXPORTS[layout](folder):
        if split != "test":
            tables.setdefault(split, {}).setdefault(image, set()).update(tags)
    if not tables.get("train"):
        raise DataError(folder, "has no training photographs")
    written = []
    for split, rows in tables.items():
        path = folder / f"{split}.csv"
        if path.exists():
            raise DataError(path, "is there already, and is not overwritten")
        _write(path, folder, rows)
        written.append(path)
    return written


def _write(path: Path, folder: Path, rows: Mapping[Path, set[str]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("image", "labels"))
    for image, tags in sorted(rows.items()):
        bad = next((tag for tag in tags if SEPARATOR in tag), None)
        if bad is not None:
            raise DataError(folder, f"the class '{bad}' holds '{SEPARATOR}', which stands between tags: rename it")
        writer.writerow((image.relative_to(folder).as_posix(), SEPARATOR.join(sorted(tags))))
    with atomic_write(path) as file:
        file.write(text.getvalue().encode())


def _yolo(folder: Path) -> Iterator[Tagged]:
    """The splits are those that data.yaml names; where it names none that is there, those of the folders' names."""
    path, settings = _yolo_settings(folder)
    names, splits = _yolo_names(path, settings), _yolo_splits(folder, settings)
    for image in images_below(folder):
        parts = list(image.relative_to(folder).parts)
        if "images" not in parts:
            continue
        if "train" in splits.values():
            split = next((splits[place] for place in (image, *image.parents) if place in splits), "")
        else:
            split = next((SPLITS[part] for part in parts if part in SPLITS), "train")
        if not split:
            continue
        parts[parts.index("images")] = "labels"
        label = folder.joinpath(*parts).with_suffix(".txt")
        lines = _text(label).splitlines() if label.is_file() else []
        tags = set()
        for number, line in enumerate(lines, start=1):
            if line.strip():
                index = line.split()[0]
                if not index.isdigit() or int(index) not in names:
                    raise DataError(f"{label}, line {number}", f"begins with '{index}', which is no class of data.yaml")
                tags.add(names[int(index)])
        yield split, image, tags


def _yolo_settings(folder: Path) -> tuple[Path, dict[str, Any]]:
    path = next((folder / name for name in ("data.yaml", "dataset.yaml") if (folder / name).is_file()), None)
    if path is None:
        raise DataError(folder, "looks like YOLO's, but has no data.yaml, which names the classes")
    try:
        content = yaml.safe_load(_text(path))
    except (yaml.YAMLError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise DataError(path, "is damaged: it is no YAML") from error
    return path, content if isinstance(content, dict) else {}


def _yolo_names(path: Path, settings: Mapping[str, Any]) -> dict[int, str]:
    names: Any = settings.get("names")
    try:
        return {int(k): str(name) for k, name in (names.items() if isinstance(names, dict) else enumerate(names))}
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(path, "has no list of class names under the key names") from error


def _yolo_splits(folder: Path, settings: Mapping[str, Any]) -> dict[Path, str]:
    """The split of each folder, and of each photograph of a list, that data.yaml names and that is there.

    What two splits name is the first one's: photographs that train are none to validate with.
    """
    found: dict[Path, str] = {}
    root = str(settings.get("path") or "")
    for key, split in SPLITS.items():
        entry = settings.get(key)
        for name in entry if isinstance(entry, list) else [entry]:
            place = _yolo_place(folder, root, name) if name and isinstance(name, str) else None
            if place is not None:
                for one in _yolo_list(folder, place) if place.suffix.lower() == ".txt" else [place]:
                    found.setdefault(one, split)
    return found


def _yolo_list(folder: Path, path: Path) -> Iterator[Path]:
    root = path.parent.relative_to(folder).as_posix()
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if name := line.strip():
            image = _yolo_place(folder, root, name, least=1)
            if image is None:
                raise DataError(f"{path}, line {number}", f"names the photograph '{name}', which is not there")
            yield image


def _yolo_place(folder: Path, root: str, name: str, least: int = 0) -> Path | None:
    """What a path of an export means here, which was made in another place: its longest end that is in the folder.

    Args:
        folder: of the export.
        root: what a relative path begins from.
        name: the path.
        least: how many parts of it must be in the folder; 0: all of a relative one.
    """
    given, beginning = (PurePosixPath(text.replace("\\", "/")) for text in (name, root))
    parts, own = ([part for part in path.parts if part not in ("/", "..")] for path in (beginning / given, given))
    least = least or (1 if given.is_absolute() else len(own))
    ends = (folder.joinpath(*parts[start:]) for start in range(len(parts) - least + 1))
    return next((place for place in ends if os.path.exists(place)), None)


def _roboflow_coco(folder: Path) -> Iterator[Tagged]:
    for name in (".", *SPLITS):
        path = folder / name / ROBOFLOW_COCO
        if not path.is_file():
            continue
        content = _json(path)
        try:
            names = {entry["id"]: str(entry["name"]) for entry in content["categories"]}
            images = {entry["id"]: path.parent / entry["file_name"] for entry in content["images"]}
            tags: dict[Any, set[str]] = {identity: set() for identity in images}
            for annotation in content["annotations"]:
                tags[annotation["image_id"]].add(names[annotation["category_id"]])
        except (KeyError, TypeError) as error:
            raise DataError(path, f"is no COCO file: {error} is missing") from error
        for identity, image in images.items():
            yield SPLITS.get(name, "train"), image, tags[identity]


def _labelme(folder: Path) -> Iterator[Tagged]:
    for path in sorted(folder.rglob("*.json")):
        if not is_labelme(path):
            continue
        content = _json(path)
        image = path.parent / str(content["imagePath"]).replace("\\", "/")
        if not image.is_file() or not image.resolve().is_relative_to(folder.resolve()):
            raise DataError(path, f"names the photograph '{content['imagePath']}', which is not there")
        try:
            tags = {str(shape["label"]) for shape in content["shapes"]}
        except (KeyError, TypeError) as error:
            raise DataError(path, "has a shape without a label") from error
        split = next((SPLITS[part] for part in path.relative_to(folder).parts if part in SPLITS), "train")
        yield split, image, tags


def _cvat(folder: Path) -> Iterator[Tagged]:
    path = folder / "annotations.xml"
    try:
        root = ET.fromstring(_text(path))  # noqa: S314 - expat itself limits entity expansion
    except ET.ParseError as error:
        raise DataError(path, f"is damaged ({error})") from error
    for entry in root.iter("image"):
        name = entry.get("name", "")
        found = [place for place in (folder / name, folder / "images" / name) if name and place.is_file()]
        if not found:
            raise DataError(path, f"names the photograph '{name}', which is not there")
        yield "train", found[0], {label for shape in entry if (label := shape.get("label"))}


def _mmsegmentation(folder: Path) -> Iterator[Tagged]:
    names = folder / CLASS_LIST
    if not names.is_file():
        raise DataError(
            folder,
            f"has masks of mmsegmentation, which keeps their classes in its code: write {names}, a class name a line "
            "in the order of the masks' values, the first one background",
        )
    classes = read_class_file(names)
    for image in images_below(folder / "img_dir"):
        place = image.relative_to(folder / "img_dir")
        mask = (folder / "ann_dir" / place).with_suffix(".png")
        if not mask.is_file():
            raise DataError(image, f"has no mask {mask}")
        values = np.unique(read_mask(mask, len(classes)))
        tags = {classes[value - 1] for value in values.tolist() if 0 < value < IGNORE}
        yield next((SPLITS[part] for part in place.parts if part in SPLITS), "train"), image, tags


EXPORTS: dict[str, Callable[[Path], Iterator[Tagged]]] = {
    "YOLO": _yolo,
    "Roboflow COCO": _roboflow_coco,
    "LabelMe": _labelme,
    "CVAT": _cvat,
    "mmsegmentation": _mmsegmentation,
}
"""By the name that `foreign_layout` gives."""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise DataError(path, f"cannot be read ({reason})") from error


def _json(path: Path) -> Any:
    try:
        return json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise DataError(path, f"is not JSON ({error})") from error
