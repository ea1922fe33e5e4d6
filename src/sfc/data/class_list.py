"""The foreground classes of a data set; mask value k + 1 is class k."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from sfc.data.records import IGNORE
from sfc.errors import DataError

BACKGROUND = "background"
"""Not a class: the mask value 0."""
MEANS_NOTHING = frozenset(("nan", "none", "null", "nil", "na", "n/a", "#n/a", "-", "--", "?", "undefined"))
"""What programs write into an empty cell."""
SEPARATORS = ";,|"
"""What stands between tags, where it is not what the settings say."""


def is_background(name: str) -> bool:
    """Whether a name is one of those that the background goes by, such as `_background_` or `Background`."""
    return re.sub(r"[\W_]", "", name.casefold()) in (BACKGROUND, "bg")


def spelling(name: str) -> str:
    """What is left of a name without case, invisible characters, and kinds of blanks, dashes and underscores."""
    visible = "".join(c for c in unicodedata.normalize("NFKC", name) if unicodedata.category(c) != "Cf")
    return re.sub(r"[\s_-]+", " ", visible).strip().casefold()


def require_one_tag(tag: str, place: str | Path, separator: str) -> None:
    """Refuses a tag that became a class by a mistake of the table.

    Args:
        tag: as the table has it; it may be a class whatever it looks like if a class list names it.
        place: for the message.
        separator: what stands between tags, by the settings.

    Raises:
        DataError: it means nothing, looks like several, or holds characters that nobody sees.
    """
    listed = "list it in classes.txt if it is a class"
    if tag.casefold() in MEANS_NOTHING:
        raise DataError(
            place, f"the label '{tag}' looks like an empty cell: leave it empty for a negative, or {listed}"
        )
    other = next((c for c in SEPARATORS if c in tag and c != separator), None)
    if other is not None:
        raise DataError(
            place, f"the label '{tag}' looks like several: set data.table.label_separator to '{other}', or {listed}"
        )
    if any(unicodedata.category(c) in ("Cf", "Cc") for c in tag):
        raise DataError(place, f"the label {tag!a} holds a character that cannot be seen: type it again, or {listed}")


def require_different(tags: Sequence[tuple[str, str]], source: str | Path) -> None:
    """Refuses tags that are one class in two spellings.

    Args:
        tags: each with the place where it was first seen.
        source: where the class list would lie, for the message.

    Raises:
        DataError: two of them have the same `spelling`.
    """
    first: dict[str, tuple[str, str]] = {}
    for tag, place in tags:
        earlier, where = first.setdefault(spelling(tag), (tag, place))
        if earlier != tag:
            raise DataError(
                place, f"the label '{tag}' is '{earlier}' in another spelling ({where}); list both in {source} if not"
            )


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
    return check_classes(lines[1:] if lines and is_background(lines[0]) else lines, path)


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
    background = next((name for name in names if is_background(name)), None)
    if background is not None:
        raise DataError(source, f"names the class '{background}', which stands for no class: leave the labels empty")
    return tuple(names)
