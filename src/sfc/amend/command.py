"""`sfc amend`: its options, and what it prints."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from jsonargparse import ArgumentParser

from sfc.amend.amend import amend
from sfc.config import checked, load_config
from sfc.errors import ConfigError
from sfc.run.folder import RunFolder
from sfc.settings.read import parse

MOST_LINES = 20
"""Of changed images."""


def amend_command(parser: ArgumentParser, arguments: list[str]) -> int:
    """Runs `sfc amend`; prints what changed and what has to be made again."""
    parser.add_argument("run", type=str, help="run folder")
    parser.add_argument(
        "--exclude", type=str, help="table of images that take no part from now on, such as the gallery's exclude.csv"
    )
    parsed = parse(parser, arguments)
    folder = RunFolder(Path(parsed.run))
    if not folder.config.is_file():
        raise ConfigError(f"{folder.root}: no run here")
    config = load_config([folder.config])
    if parsed.exclude is not None:
        config = checked(replace(config, data=replace(config.data, exclude=_place(parsed.exclude, config.data.root))))
    done = amend(config, folder.root)
    if not done.changed and not done.removed:
        print("nothing changed since the classifiers were trained")  # noqa: T201
        return 0
    for name, words in list(done.changed.items())[:MOST_LINES]:
        print(f"{name}: {words}")  # noqa: T201
    if len(done.changed) > MOST_LINES:
        print(f"and {len(done.changed) - MOST_LINES:,} more")  # noqa: T201
    again = f", and trains again: {', '.join(done.removed)}" if done.removed else ""
    print(f"next: sfc run --run {folder.root} makes their maps and masks{again}; the classifier stays")  # noqa: T201
    return 0


def _place(table: str, root: str) -> str:
    """A table beside the data set, as the settings name it, or where the command is given."""
    return str(Path(table).resolve()) if table and not (Path(root) / table).exists() and Path(table).exists() else table
