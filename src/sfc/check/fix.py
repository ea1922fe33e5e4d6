"""`sfc check TABLE --fix NEW`: what is safe to mend in a table, into a new one; the user's own is never written."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Sequence
from pathlib import Path

from sfc.data.readers.table import DELIMITERS
from sfc.errors import DataError, SFCError
from sfc.run.files import atomic_write

_TRIED = ",;\t|"


def fix_table(path: Path, new: Path, separator: str = ";") -> list[str]:
    """Writes a table as the reader wants it: UTF-8, its suffix's separator, cells as many as columns, no row twice.

    Nothing that could be meant otherwise is touched: tags stay as they are, and an image that is listed twice with
    different tags is refused by `sfc check` as before.

    Args:
        path: the table, .csv or .tsv.
        new: gets the mended one: .csv with commas, .tsv with tabs.
        separator: between the labels of an image, as the settings say.

    Returns:
        What was mended, a sentence each; empty where there was nothing.

    Raises:
        DataError: it cannot be read, or has no columns image and labels whatever is tried.
        SFCError: the new table is there already, has another suffix, or cannot be written.
    """
    if new.suffix.lower() not in DELIMITERS:
        raise SFCError(f"{new}: the name of a mended table ends in {' or '.join(DELIMITERS)}")
    if new.exists() or new.resolve() == path.resolve():
        raise SFCError(f"{new}: is there already, and is not overwritten")
    text, mended = _decoded(path)
    delimiter = _delimiter(path, text)
    if delimiter != DELIMITERS.get(path.suffix.lower()):
        mended.append(f"cells were separated by {'a tab' if delimiter == chr(9) else repr(delimiter)}")
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True) if any(row)]
    except csv.Error as error:
        raise DataError(path, f"is damaged ({error})") from error
    header = [name.strip().lower() for name in rows[0]]
    if header != rows[0]:
        mended.append("names of columns had capitals or blanks")
    while header and not header[-1]:
        header.pop()
    width = len(header)
    longer = [row for row in rows[1:] if len(row) > width and not any(cell.strip() for cell in row[width:])]
    if longer or len(rows[0]) > width:
        mended.append(f"{len(longer):,} rows ended in separators")
    # What a row has beyond its columns is left out where it is blank; where not, it is refused as before.
    cut = [row if any(map(str.strip, row[width:])) else row[:width] for row in rows[1:]]
    body = [[cell.strip() for cell in row] for row in cut]
    if any(before[: len(after)] != after for before, after in zip(rows[1:], body, strict=True)):
        mended.append("cells had blanks around them")
    unique = list(dict.fromkeys(map(tuple, body)))
    if len(unique) < len(body):
        mended.append(f"{len(body) - len(unique):,} rows were there twice")
    tidy = [_tidy(row, header, separator) for row in unique]
    if tidy != [list(row) for row in unique]:
        mended.append("labels had separators at their ends, or one twice")
    if mended:
        _write(new, [header, *tidy])
    return mended


def _decoded(path: Path) -> tuple[str, list[str]]:
    """The text, and what was odd about its encoding."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})") from error
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            return content.decode("utf-16"), ["it was UTF-16"]
        except UnicodeDecodeError as error:
            raise DataError(path, "is damaged UTF-16") from error
    marked = ["it began with a byte order mark"] if content.startswith(codecs.BOM_UTF8) else []
    try:
        return content.decode("utf-8-sig"), marked
    except UnicodeDecodeError:
        pass
    try:
        return content.decode("cp1252"), ["it was Windows-1252: look at names with accents"]
    except UnicodeDecodeError as error:
        raise DataError(path, "is neither UTF-8 nor UTF-16 nor Windows-1252") from error


def _delimiter(path: Path, text: str) -> str:
    """What separates the columns image and labels in the first line.

    Raises:
        DataError: nothing does.
    """
    first = next((line for line in text.splitlines() if line.strip()), "")
    for delimiter in _TRIED:
        names = {name.strip().strip('"').lower() for name in first.split(delimiter)}
        if {"image", "labels"} <= names:
            return delimiter
    raise DataError(path, f"has no columns image and labels in its first line, whatever separates them: {first[:60]!r}")


def _tidy(row: Sequence[str], header: Sequence[str], separator: str) -> list[str]:
    """A row whose labels have no separator at an end and none twice."""
    found = list(row)
    if "labels" in header and len(found) == len(header):
        place = header.index("labels")
        names = [name.strip() for name in found[place].split(separator)]
        found[place] = separator.join(dict.fromkeys(filter(None, names)))
    return found


def _write(path: Path, rows: Sequence[Sequence[str]]) -> None:
    text = io.StringIO()
    csv.writer(text, delimiter=DELIMITERS[path.suffix.lower()], lineterminator="\n").writerows(rows)
    with atomic_write(path) as file:
        file.write(text.getvalue().encode())
