"""Which files exist: one scan a folder instead of one look-up a file, which matters on network disks."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

from sfc.errors import DataError


class Listing:
    """Remembers the files of every folder it was asked about."""

    def __init__(self) -> None:
        self._folders: dict[Path, dict[str, str]] = {}

    def find(self, path: Path) -> Path | None:
        """The file on disk, or None. A name whose accents are encoded otherwise (as macOS does) is found too.

        Raises:
            DataError: the folder cannot be read.
        """
        names = self._folders.get(path.parent)
        if names is None:
            names = self._folders[path.parent] = _scan(path.parent)
        name = names.get(path.name) or names.get(unicodedata.normalize("NFC", path.name))
        return path.with_name(name) if name else None


def _scan(folder: Path) -> dict[str, str]:
    """Names of the files, under themselves and under their composed (NFC) form."""
    try:
        with os.scandir(folder) as entries:
            # A link is not followed: one that leads nowhere or in circles must not hide the others.
            files = [entry.name for entry in entries if entry.is_symlink() or not entry.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except ValueError:  # a name that no file can have, such as one with a zero byte
        return {}
    except OSError as error:
        raise DataError(folder, f"cannot be read ({error.strerror})") from error
    composed = {unicodedata.normalize("NFC", name): name for name in files}
    return composed | {name: name for name in files}


def record_id(root: Path, image: Path) -> str:
    """An image's path without suffix, relative to `root` where it lies below it; otherwise its whole path.

    Never starts with a slash or climbs with `..`, since it names files in the run folder.
    """
    absolute = Path(os.path.abspath(image))
    base = Path(os.path.abspath(root))
    inside = absolute.relative_to(base) if absolute.is_relative_to(base) else absolute.relative_to(absolute.anchor)
    return inside.with_suffix("").as_posix()
