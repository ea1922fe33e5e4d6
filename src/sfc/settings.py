"""Settings: read strictly, written whole, and compared with those that earlier work was done with."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace

from sfc.config import RunConfig
from sfc.errors import ConfigError
from sfc.run_folder import atomic_write


def add_settings(parser: ArgumentParser) -> None:
    """Adds `--config FILE` (several: later ones win) and an option for every setting to a parser."""
    parser.add_argument("--config", action="config", help="recipe (YAML); give it before options that override it")
    parser.add_class_arguments(RunConfig, nested_key=None, as_group=False)


def settings_of(parser: ArgumentParser, parsed: Namespace) -> RunConfig:
    """The settings among parsed arguments."""
    names = RunConfig.__dataclass_fields__
    instantiated = parser.instantiate(parsed)
    return RunConfig(**{name: instantiated[name] for name in names})


def load_config(paths: Sequence[Path], overrides: Sequence[str] = ()) -> RunConfig:
    """Settings from files and `--section.field=value` overrides; defaults for the rest.

    Raises:
        ConfigError: a file is missing or not YAML, a key is unknown, or a value has the wrong type.
    """
    parser = ArgumentParser(exit_on_error=False)
    add_settings(parser)
    arguments = [*(f"--config={path}" for path in paths), *overrides]
    try:
        with redirect_stderr(io.StringIO()):
            return settings_of(parser, parser.parse_args(arguments))
    except Exception as error:  # jsonargparse raises its own, argparse's and YAML's errors
        raise ConfigError(f"settings: {str(error).strip()}") from error


def write_config(path: Path, config: RunConfig) -> None:
    """Writes every setting, defaults included."""
    text = yaml.safe_dump(plain_values(asdict(config)), sort_keys=False, allow_unicode=True)
    with atomic_write(path) as file:
        file.write(text.encode())


def plain_values(value: Any) -> Any:
    """Tuples as lists, so that settings compare equal after a trip through a file."""
    if isinstance(value, Mapping):
        return {key: plain_values(item) for key, item in value.items()}
    return [plain_values(item) for item in value] if isinstance(value, list | tuple) else value


def differences(old: Any, new: Any, name: str = "") -> list[str]:
    """Names and values of the settings that differ between two nested mappings."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = [*old, *(key for key in new if key not in old)]
        return [d for key in keys for d in differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)]
    return [] if old == new else [f"{name} was {old!r} and is {new!r}"]


def require_same(path: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Refuses to go on with work that was begun with other settings.

    Raises:
        ConfigError: names the file and every setting that differs.
    """
    changed = differences(old, new)
    if changed:
        raise ConfigError(
            f"{path} was begun with other settings: {'; '.join(changed[:5])}"
            f"{' and more' if len(changed) > 5 else ''}. Choose another run folder, or delete this one to begin again"
        )
