"""One command at a time in a run folder."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from sfc.errors import SFCError
from sfc.run.files import write_json

LOCK, HOLDER = ".lock", ".lock.json"
PATIENCE = 1.0
"""Seconds: a command that is just ending may have the folder to itself."""


@contextmanager
def only_command(folder: Path) -> Iterator[None]:
    """Holds a run folder; the system gives it back when this process ends, however it ends.

    Raises:
        SFCError: another command is at work in it, and which; or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        lock.acquire(timeout=PATIENCE)
    except Timeout:
        raise SFCError(f"{folder}: in use by {_holder(folder)}; wait for it or stop it") from None
    except OSError as error:
        raise SFCError(f"{folder}: cannot be written ({error.strerror})") from error
    try:
        write_json(folder / HOLDER, {"process": os.getpid(), "machine": platform.node(), "command": sys.argv})
        yield
    finally:
        with suppress(OSError):
            (folder / HOLDER).unlink()
        with suppress(OSError):  # a command that was refused before it made anything leaves no folder
            if [path.name for path in folder.iterdir()] == [LOCK]:
                (folder / LOCK).unlink()
                folder.rmdir()
        lock.release()


def _holder(folder: Path) -> str:
    try:
        holder = json.loads((folder / HOLDER).read_text(encoding="utf-8"))
        command = " ".join(map(str, holder["command"][1:]))
        return f"process {holder['process']} on {holder['machine']} (sfc {command})"
    except (OSError, ValueError, LookupError, TypeError):
        return "another command"
