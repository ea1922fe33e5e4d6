"""The foreground classes of a data set; mask value k + 1 is class k."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sfc.data.records import IGNORE
from sfc.errors import DataError

BACKGROUND = "background"
"""Not a class: the mask value 0."""


def read_class_file(path: Path) -> tuple[str, ...]:
    """One class name a line, the first one `background` or not.

    Raises:
        DataError: missing, not text, empty, a blank line between names (it would shift the mask values), or a name
            that `check_classes` refuses.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except FileNotFoundError as error:
        raise DataError(path, "there is no such class list") from error
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise DataError(path, f"the class list cannot be read ({reason})") from error
    while lines and not lines[-1]:
        lines.pop()
    if "" in lines:
        raise DataError(path, f"line {lines.index('') + 1} of the class list is blank")
    return check_classes(lines[1:] if lines[:1] == [BACKGROUND] else lines, path)


def check_classes(names: Sequence[str], source: str | Path) -> tuple[str, ...]:
    """The names, if they can be a class list.

    Raises:
        DataError: none, too many for 8-bit masks, one twice, or one named `background`; names `source`.
    """
    if not names:
        raise DataError(source, "names no class")
    if len(names) >= IGNORE:
        raise DataError(source, f"names {len(names)} classes, but masks of 8 bits hold at most {IGNORE - 1}")
    repeated = {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else set()
    if repeated:
        raise DataError(source, f"names the class '{min(repeated)}' twice")
    if BACKGROUND in names:
        raise DataError(source, f"names the class '{BACKGROUND}', which stands for no class: leave the labels empty")
    return tuple(names)
