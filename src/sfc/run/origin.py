"""What files were made from: a note beside them, and the refusal to go on with files of another origin."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sfc.errors import ConfigError
from sfc.run.files import write_json

NOTE = "origin.json"


def differences(old: Any, new: Any, name: str = "") -> list[str]:
    """Names and values of the settings that differ between two nested mappings."""
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return [] if old == new else [f"{name} was {old!r} and is {new!r}"]
    keys = (*old, *(key for key in new if key not in old))
    return [line for key in keys for line in differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)]


def require_same(
    path: Path,
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    *,
    advice: str = "Choose another run folder, or delete this one to begin again",
) -> None:
    """Refuses to go on with work that was begun with other settings.

    Args:
        path: what holds that work.
        old: its settings.
        new: the settings of now.
        advice: what to do about it.

    Raises:
        ConfigError: names the file and every setting that differs.
    """
    changed = differences(old, new)
    if changed:
        raise ConfigError(
            f"{path} was begun with other settings: {'; '.join(changed[:5])}"
            f"{' and more' if len(changed) > 5 else ''}. {advice}"
        )


def require_inputs(
    path: Path, old: Mapping[str, Any], new: Mapping[str, Any], advice: str, explain: Callable[[], str] = lambda: ""
) -> None:
    """Refuses to go on with files that were made from others than there are now.

    Args:
        path: their folder.
        old: what they were made from.
        new: what there is now.
        advice: what to do about it.
        explain: what changed, in words; asked only where something did.

    Raises:
        ConfigError: names the folder and what changed.
    """
    changed = [name for name in (*new, *(name for name in old if name not in new)) if old.get(name) != new.get(name)]
    if changed:
        raise ConfigError(
            f"{path} was made from something else ({', '.join(changed)} changed since{explain()}): {advice}"
        )


def read_note(folder: Path) -> dict[str, Any] | None:
    """The note in a folder; None where nothing was made yet.

    Raises:
        ConfigError: it is damaged.
    """
    path = folder / NOTE
    if not path.exists():
        return None
    note = _read(path, str(folder))
    if not all(isinstance(note.get(key), dict) for key in ("settings", "inputs")):
        raise ConfigError(f"{path}: damaged; delete {folder} and make its files again")
    return note


def require_file(path: Path, expected: Mapping[str, Any], files: str) -> bool:
    """Refuses to go on with files that a JSON file says were made from something else; False if there is none.

    Args:
        path: the JSON file.
        expected: what they would be made from now.
        files: which they are, for the advice to delete them; something else may lie beside them.

    Raises:
        ConfigError: names what differs, or the file is damaged.
    """
    if not path.exists():
        return False
    advice = f"Choose another folder, or delete {files} to make its files again"
    require_same(path, _read(path, files), expected, advice=advice)
    return True


def _read(path: Path, files: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: damaged; delete {files} and make its files again") from error
    return content if isinstance(content, dict) else {}


def write_note(folder: Path, note: Mapping[str, Any]) -> None:
    """Writes the note of a folder, atomically."""
    write_json(folder / NOTE, dict(note))


def note_digest(note: Mapping[str, Any]) -> str:
    """Identifies what a note says its files were made from, in hexadecimal."""
    content = json.dumps([note["settings"], note["inputs"]], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(content.encode()).hexdigest()
