"""The table reader: one image a row, as CSV, TSV or JSON lines."""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfc.data.class_list import check_classes, read_class_file, require_different, require_one_tag
from sfc.data.config import DataConfig, Split, kind_of
from sfc.data.faults import OnFault, refuse
from sfc.data.images import PngMask
from sfc.data.listing import Listing, record_id
from sfc.data.readers.reader import Reader
from sfc.data.records import DataSet, Record
from sfc.errors import ConfigError, DataError

DELIMITERS = {".csv": ",", ".tsv": "\t"}
"""What stands between the cells of a table, by its suffix."""
_JSON_LINES = (".jsonl", ".ndjson")

CLASS_FILE = "classes.txt"
"""Beside a table: the class list, if the settings name no other."""

TABLE_SUFFIXES = (*DELIMITERS, *_JSON_LINES)


@dataclass(frozen=True)
class TableSettings:
    """Tables.

    Args:
        label_separator: between the labels of one image.
    """

    label_separator: str = ";"


class TableReader(Reader):
    """Reads tables, see `read_table`."""

    settings = TableSettings

    def read(self, config: DataConfig, split: Split, on_fault: OnFault) -> DataSet:
        """See `Reader`."""
        return read_table(config, split, on_fault)

    def detect(self, folder: Path) -> dict[str, Any] | None:
        """train.csv, .tsv, .jsonl or .ndjson, with val, train_with_masks and classes.txt beside it."""
        names = [f"train{suffix}" for suffix in TABLE_SUFFIXES if (folder / f"train{suffix}").is_file()]
        return table_with_neighbours(folder / names[0]) if names else None


def table_with_neighbours(table: Path) -> dict[str, Any]:
    """Settings for a training table and the files of known names beside it."""
    folder, suffix = table.parent, table.suffix
    beside = {"val": f"val{suffix}", "train_masks": f"train_with_masks{suffix}", "classes": CLASS_FILE}
    present = {key: name for key, name in beside.items() if (folder / name).is_file() and name != table.name}
    return {"format": "table", "root": str(folder), "train": table.name, **present}


def unused_neighbours(config: DataConfig) -> dict[str, str]:
    """Files of known names beside the training table that the settings do not name, by the setting that would."""
    if config.format != "table":
        return {}
    beside = table_with_neighbours(Path(config.root) / config.train)
    return {key: beside[key] for key in ("val", "train_masks") if key in beside and not getattr(config, key)}


def read_table(config: DataConfig, split: Split, on_fault: OnFault = refuse, classes: tuple[str, ...] = ()) -> DataSet:
    """Reads one split of a table data set.

    Columns, or keys of each JSON object: `image`, a path from `data.root`; `labels`, joined by
    `data.table.label_separator` (in JSON also a list), empty for a negative; `mask`, optional, a PNG from `data.root`.
    Other columns are ignored. Ids are image paths without suffix, so `a.jpg` and `a.png` cannot lie in one folder.
    Classes come from the class file (`classes.txt` in `data.root` if the settings name none) or are the sorted labels
    of the training table. Without a class file several classes can have no masks, and labels that look like a mistake
    are refused.

    Args:
        config: where the tables lie.
        split: which one to read.
        on_fault: gets the fault of a row, which is then left out.
        classes: the classes, where they are known; then neither class file nor training table is asked.

    Raises:
        DataError: a table, image or mask is missing; the table is damaged or empty; a row names no image, an unknown
            label, one that looks like a mistake, or an id that was there before; masks without a class file. Names the
            file and the line.
        ConfigError: the table's suffix is unknown, or the label separator is empty.
    """
    root = Path(config.root)
    path = root / config.named(split)
    rows = _read_rows(path, separator_of(config), on_fault)
    if not rows:
        raise DataError(path, "has no images")
    own_rows = rows if split == "train" else None
    builder = _Builder(root, classes or read_table_classes(config, own_rows, on_fault))
    if not classes and not _class_file(config) and len(builder.classes) > 1:
        with_mask = next((row for row in rows if row.mask), None)
        if with_mask is not None:
            file = root / CLASS_FILE
            raise DataError(
                with_mask.place,
                f"names a mask, but which value is which class? Write their names into {file}, a line each",
            )
    records = []
    for row in rows[: (config.limit if split != "train_masks" else 0) or None]:
        try:
            records.append(builder.record(row))
        except DataError as fault:
            on_fault(fault)
    return DataSet(root.resolve().name, kind_of(split), builder.classes, tuple(records))


def separator_of(config: DataConfig) -> str:
    """What stands between two labels."""
    settings: TableSettings = config.table  # type: ignore[attr-defined]
    return settings.label_separator


@dataclass(frozen=True)
class _Row:
    """One row; `place` names its file and line."""

    place: str
    image: str
    labels: tuple[str, ...]
    mask: str


class _Builder:
    """Rows to records, with what must hold over all of them."""

    def __init__(self, root: Path, classes: tuple[str, ...]) -> None:
        self.root, self.classes = root, classes
        self.index = {name: position for position, name in enumerate(classes)}
        self.files = Listing()
        self.places: dict[str, tuple[str, str]] = {}

    def record(self, row: _Row) -> Record:
        image = self._file(row, row.image, "image")
        identity = record_id(self.root, self.root / row.image)
        if identity in self.places:
            place, other = self.places[identity]
            same = "is there already" if row.image == other else f"has the same path without suffix as '{other}'"
            raise DataError(row.place, f"the image '{row.image}' {same} ({place})")
        self.places[identity] = (row.place, row.image)
        unknown = [label for label in row.labels if label not in self.index]
        if unknown:
            raise DataError(row.place, f"the label '{unknown[0]}' is not in the class list")
        mask = None
        if row.mask:
            mask = PngMask(self._file(row, row.mask, "mask"), len(self.classes), image, bool(row.labels))
        return Record(identity, image, tuple(sorted({self.index[label] for label in row.labels})), mask)

    def _file(self, row: _Row, name: str, kind: str) -> Path:
        found = self.files.find(self.root / name)
        if found is None:
            raise DataError(self.root / name, f"there is no such {kind} ({row.place})")
        return found


def read_table_classes(
    config: DataConfig, rows: list[_Row] | None = None, on_fault: OnFault = refuse
) -> tuple[str, ...]:
    """The class file's names, or the sorted labels of the training table.

    Args:
        config: where the class file and the table lie.
        rows: the training table, if it was read before.
        on_fault: gets the fault of a row, which then names no class.

    Raises:
        DataError: no class is named, or one that cannot be; see `check_classes`.
    """
    root, separator = Path(config.root), separator_of(config)
    class_file = _class_file(config)
    if class_file is not None:
        return read_class_file(class_file)
    if rows is None:
        rows = _read_rows(root / config.train, separator, on_fault)
    places: dict[str, str] = {}
    for row in rows:
        for label in row.labels:
            places.setdefault(label, row.place)
    sound: list[tuple[str, str]] = []
    for label, place in places.items():
        try:
            require_one_tag(label, place, separator)
            require_different([*sound, (label, place)], root / CLASS_FILE)
        except DataError as fault:
            on_fault(fault)
            continue
        sound.append((label, place))
    return check_classes(sorted(label for label, _ in sound), root / config.train)


def _class_file(config: DataConfig) -> Path | None:
    """The class file that the settings name, or that lies in its usual place."""
    root = Path(config.root)
    if config.classes:
        return root / config.classes
    return root / CLASS_FILE if (root / CLASS_FILE).is_file() else None


def _read_rows(path: Path, separator: str, on_fault: OnFault = refuse) -> list[_Row]:
    if not separator:
        raise ConfigError("data.table.label_separator is empty; name what stands between two labels, such as ';'")
    if path.suffix.lower() not in TABLE_SUFFIXES:
        raise ConfigError(f"{path}: a table's name ends in {', '.join(TABLE_SUFFIXES[:-1])} or {TABLE_SUFFIXES[-1]}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        other = next((suffix for suffix in TABLE_SUFFIXES if path.with_suffix(suffix).is_file()), None)
        name = path.with_suffix(other).name if other else ""
        hint = f", but {name} is there: --data.{path.stem} {name}" if path.stem in ("train", "val") and name else ""
        raise DataError(path, f"there is no such table{hint}") from error
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"not UTF-8 text{_other_encoding(path)}"
        raise DataError(path, f"the table cannot be read ({reason})") from error
    delimiter = DELIMITERS.get(path.suffix.lower())
    items = _json_lines(path, text) if delimiter is None else _delimited(path, text, delimiter)
    rows, faults = [], []
    for place, item in items:
        try:
            rows.append(_row(place, item, separator))
        except DataError as fault:
            faults.append(fault)
            on_fault(fault)
    if faults and not rows:
        raise faults[0]
    return rows


def _other_encoding(path: Path) -> str:
    """What a text that is not UTF-8 probably is."""
    begins = path.read_bytes()[:4]
    utf16 = begins[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) or 0 in begins
    return ", but UTF-16: save it as UTF-8" if utf16 else ", perhaps Windows-1252: save it as UTF-8"


def _row(place: str, item: dict[str, Any] | DataError, separator: str) -> _Row:
    if isinstance(item, DataError):
        raise item
    image, labels, mask = item["image"], item["labels"], item.get("mask") or ""
    if not isinstance(image, str) or not image.strip():
        raise DataError(place, "names no image")
    if labels is None or isinstance(labels, str):
        labels = (labels or "").split(separator)
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise DataError(place, f"labels are a list of names, or names joined by '{separator}', not {labels!r}")
    if not isinstance(mask, str):
        raise DataError(place, f"a mask is a file name, not {mask!r}")
    names = tuple(label.strip() for label in labels)
    return _Row(place, image.strip(), tuple(name for name in names if name), mask.strip())


def _delimited(path: Path, text: str, delimiter: str) -> Iterator[tuple[str, dict[str, Any] | DataError]]:
    """Place and cells of every row, or what is wrong with it."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] = []
    try:
        for cells in reader:
            place = f"{path}, line {reader.line_num}"
            if not any(cell.strip() for cell in cells):
                continue
            if not header:
                header = [cell.strip().lower() for cell in cells]
                if not {"image", "labels"} <= set(header):
                    raise DataError(
                        place,
                        f"the first line must name the columns, image and labels among them{_seen(header, delimiter)}",
                    )
                continue
            while len(cells) > len(header) and not cells[-1].strip():
                cells.pop()  # separators at the end of a line, as spreadsheets write them
            if len(cells) != len(header):
                hint = "; quote cells that hold a comma" if delimiter == "," else ""
                yield place, DataError(place, f"has {len(cells)} cells where the first line has {len(header)}{hint}")
            else:
                yield place, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}", f"is damaged ({error})") from error


def _seen(header: list[str], delimiter: str) -> str:
    """What a line that should name the columns is instead."""
    other = next((c for c in (";", "\t", "|", ",") if c != delimiter and len(header) == 1 and c in header[0]), None)
    if other is None:
        return f"; it is {delimiter.join(header)[:60]!r}"
    name = {"\t": "tabs"}.get(other, f"'{other}'")
    return f"; this one is separated by {name}: save the table with {'tabs' if delimiter != ',' else 'commas'}"


def _json_lines(path: Path, text: str) -> Iterator[tuple[str, dict[str, Any] | DataError]]:
    """Place and keys of every row, or what is wrong with it."""
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            item = json.loads(line)
        except json.JSONDecodeError as error:
            yield place, DataError(place, f"is not JSON ({error.msg})")
            continue
        if isinstance(item, dict) and {"image", "labels"} <= item.keys():
            yield place, item
        else:
            yield place, DataError(place, "is not an object with the keys image and labels")
