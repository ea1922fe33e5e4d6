"""The table reader: one row an image; CSV, TSV or JSON lines."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from sfc.config import DataConfig
from sfc.data.images import PngMask
from sfc.data.records import DataSet, Record
from sfc.errors import ConfigError, DataError

BACKGROUND = "background"
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")


def read_table(config: DataConfig, split: Literal["train", "val"], masks: bool = False) -> DataSet:
    """Reads a split of a table data set.

    Columns (or JSON keys): `image`, a path below `data.root`; `labels`, names joined by `data.label_separator` (or a
    JSON list), empty for a negative; `mask`, optional. Ids are the paths without suffix.

    Args:
        config: where the tables lie.
        split: which one.
        masks: read `data.train_masks` instead of `data.train`.

    Raises:
        DataError: a table or an image is missing, a row lacks an image, a label is not in the class list, or two rows
            have the same id; names the table and the line.
        ConfigError: the table's suffix is unknown.
    """
    root = Path(config.root)
    name = config.val if split == "val" else config.train_masks if masks else config.train
    path = root / name
    rows = [(line, row, _labels(row.get("labels"), config.label_separator)) for line, row in _rows(path)]
    classes = read_classes(config)
    index = {label: position for position, label in enumerate(classes)}
    present = _ImageFiles(root)
    lines: dict[str, int] = {}
    records = []
    for line, row, labels in rows[: config.limit or None]:
        where = f"{path}, line {line}"
        image = str(row.get("image") or "").strip()
        if not image:
            raise DataError(where, "no image is named")
        unknown = [label for label in labels if label not in index]
        if unknown:
            raise DataError(where, f"label '{unknown[0]}' is not in the class list")
        identity = str(PurePosixPath(image.replace("\\", "/")).with_suffix(""))
        if identity in lines:
            raise DataError(where, f"'{identity}' is already in line {lines[identity]}")
        lines[identity] = line
        if not present.has(image):
            raise DataError(root / image, f"no such image ({where})")
        mask = str(row.get("mask") or "").strip()
        source = PngMask(root / mask, len(classes), root / image) if mask else None
        records.append(Record(identity, root / image, tuple(sorted({index[label] for label in labels})), source))
    return DataSet(root.resolve().name, split, classes, tuple(records))


def read_classes(config: DataConfig) -> tuple[str, ...]:
    """The foreground class names: the class file's lines, or the sorted labels of the training table.

    Raises:
        DataError: the file is missing, empty, or names a class twice.
    """
    root = Path(config.root)
    if config.classes:
        path = root / config.classes
        try:
            names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(path, "the class list cannot be read") from error
        names = [name for name in names if name]
        names = names[1:] if names and names[0] == BACKGROUND else names
    else:
        path = root / config.train
        names = sorted({n for _, row in _rows(path) for n in _labels(row.get("labels"), config.label_separator)})
    if not names:
        raise DataError(path, "no class is named")
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise DataError(path, f"class '{repeated}' is named twice")
    if len(names) > 254:
        raise DataError(path, f"{len(names)} classes; masks of 8 bits hold at most 254")
    return tuple(names)


def _labels(value: Any, separator: str) -> list[str]:
    parts: Sequence[Any] = value if isinstance(value, list) else str(value or "").split(separator)
    return [str(part).strip() for part in parts if str(part).strip()]


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number (from 1) and columns of every row."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(path, "no such table" if not path.exists() else "the table cannot be read") from error
    except UnicodeDecodeError as error:
        raise DataError(path, "the table is not UTF-8 text") from error
    if path.suffix in _JSON_SUFFIXES:
        yield from _json_rows(path, text)
    elif path.suffix in _DELIMITERS:
        reader = csv.DictReader(text.splitlines(), delimiter=_DELIMITERS[path.suffix])
        missing = {"image", "labels"} - set(reader.fieldnames or ())
        if missing:
            raise DataError(path, f"the first line must name the columns image and labels, not {reader.fieldnames}")
        for row in reader:
            yield reader.line_num, row
    else:
        raise ConfigError(f"{path}: a table ends in .csv, .tsv, .jsonl, .ndjson or .json")


def _json_rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, content in enumerate(text.splitlines(), start=1):
        if not content.strip():
            continue
        try:
            row = json.loads(content)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}, line {line}", "not JSON; each line must hold one object") from error
        if not isinstance(row, dict) or "image" not in row:
            raise DataError(f"{path}, line {line}", "not an object with the key image")
        yield line, row


class _ImageFiles:
    """Which files exist, from one listing a folder instead of one look-up a file."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folders: dict[Path, frozenset[str]] = {}

    def has(self, relative: str) -> bool:
        path = self.root / relative
        if path.parent not in self.folders:
            files = (entry.name for entry in path.parent.iterdir()) if path.parent.is_dir() else ()
            self.folders[path.parent] = frozenset(files)
        return path.name in self.folders[path.parent]
