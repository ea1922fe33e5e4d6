"""A COCO annotation file read piece by piece: half a gigabyte of JSON never becomes Python objects all at once."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfc.errors import DataError

_SPACE = re.compile(r"[ \t\n\r]*")
_LISTS = ("images", "annotations", "categories")
_MARK = codecs.BOM_UTF8.decode("latin-1")


@dataclass(frozen=True)
class Item:
    """One element of a list of the file.

    Args:
        key: `images`, `annotations` or `categories`.
        value: the JSON object.
        start: its first byte in the file.
        stop: the byte after its last one.
    """

    key: str
    value: dict[str, Any]
    start: int
    stop: int


def iterate_items(path: Path) -> Iterator[Item]:
    """Every image, annotation and category in the order of the file, one at a time.

    Raises:
        DataError: missing, not JSON, truncated, or a list that holds something other than objects.
    """
    try:
        # One character a byte, so that positions in the text are positions in the file.
        with path.open(encoding="latin-1", newline="") as file:
            text = file.read()
    except FileNotFoundError as error:
        raise DataError(path, "there is no such annotation file") from error
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})") from error
    try:
        yield from _items(text)
    except (ValueError, RecursionError) as error:
        raise DataError(path, f"is not a COCO annotation file ({error})") from error


def read_item(path: Path, start: int, stop: int) -> dict[str, Any]:
    """The object between two bytes of the file, as `iterate_items` found it.

    Raises:
        DataError: the file is gone or has changed.
    """
    try:
        with path.open("rb") as file:
            file.seek(start)
            value = json.loads(file.read(stop - start))
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise DataError(path, "has changed since it was read") from error
    if not isinstance(value, dict):
        raise DataError(path, "has changed since it was read")
    return value


def _items(text: str) -> Iterator[Item]:
    """Walks over the keys of the outer object; raises ValueError where the text is no such JSON."""
    decode = json.JSONDecoder().raw_decode
    position = _expect(text, len(_MARK) if text.startswith(_MARK) else 0, "{")
    while True:
        key, position = decode(text, _skip(text, position))
        position = _expect(text, position, ":")
        if key in _LISTS:
            position = _expect(text, position, "[")
            while text[position : position + 1] != "]":
                value, stop = decode(text, position)
                yield Item(key, _object(text, key, value, position, stop), position, stop)
                position = _skip(text, stop)
                if text[position : position + 1] != "]":
                    position = _expect(text, position, ",")
            position += 1
        else:
            _, position = decode(text, position)
        position = _skip(text, position)
        if text[position : position + 1] == "}":
            return
        position = _expect(text, position, ",")


def _object(text: str, key: str, value: Any, start: int, stop: int) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{key} must hold objects")  # noqa: TRY004 - one kind for all that is wrong with the text
    raw = text[start:stop]
    fixed: dict[str, Any] = value if raw.isascii() else json.loads(raw.encode("latin-1"))
    return fixed


def _skip(text: str, position: int) -> int:
    """The next position that is not white space."""
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _expect(text: str, position: int, character: str) -> int:
    """The position after `character` and the white space around it."""
    position = _skip(text, position)
    if text[position : position + 1] != character:
        raise ValueError(f"expected '{character}' at byte {position}")
    return _skip(text, position + 1)
