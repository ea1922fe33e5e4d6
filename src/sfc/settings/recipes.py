"""Recipes: files of settings, by path, or by the name of one that comes with the package."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import get_loader

from sfc.errors import ConfigError

FOLDER = Path(__file__).parents[1] / "recipes"
SUFFIX = ".yaml"


@dataclass(frozen=True)
class Recipe:
    """One that comes with the package; `text` is what its first comment says."""

    name: str
    path: Path
    text: str


def built_in_recipes() -> list[Recipe]:
    """Every recipe of the package, by name."""
    return [Recipe(path.stem, path, _first_sentence(path)) for path in sorted(FOLDER.glob(f"*{SUFFIX}"))]


def _first_sentence(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    end = next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))
    text = " ".join(line.removeprefix("#").strip() for line in lines[:end])
    sentence, stop, _ = text.partition(". ")
    return sentence + stop.strip()


def find_recipe(name: str) -> Path:
    """The file that is meant by a path, or by the name of a recipe of the package.

    Raises:
        ConfigError: there is neither.
    """
    path = Path(name)
    if path.is_file():
        return path
    built_in = FOLDER / f"{name}{SUFFIX}"
    if path.name == name and built_in.is_file():
        return built_in
    known = ", ".join(recipe.name for recipe in built_in_recipes())
    raise ConfigError(f"{name}: there is no such recipe: neither a file nor one of {known}")


def read_recipe(path: Path) -> dict[str, Any]:
    """What a file of settings says, as plain values: an older version's settings need not fit this one's.

    Raises:
        ConfigError: the file cannot be read, is damaged, or holds no settings.
    """
    try:
        content = get_loader("yaml")(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: holds no settings")
    return content
