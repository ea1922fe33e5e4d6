"""What may not change within a run folder once work in it has begun."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sfc.config import RunConfig
from sfc.errors import ConfigError
from sfc.run.folder import RunFolder
from sfc.settings import plain_values, read_plain

FREE = {
    "data": ("root", "val", "train_masks", "head_share", "tail_share"),
    "classify.training": ("checkpoint_every", "picture_every"),
}
"""Settings that may change within a run: a data set may move, and be scored in other ways."""


def require_same_run(config: RunConfig, folder: RunFolder) -> None:
    """Refuses settings other than those of the work in a run folder, before anything in it is touched.

    Each stage checks its own input too; this comes before the synthetic set or the saved settings are replaced.

    Raises:
        ConfigError: names every setting that differs.
    """
    roots = [folder.variant(name) for name in ("plain", "sfc")]
    sections = ["data", "classify"] if any((root.classify / "checkpoint.pt").exists() for root in roots) else []
    if any((root.cams(split) / "cams.json").exists() for root in roots for split in ("train", "val")):
        sections.append("localize")
    if sections and folder.config.is_file():
        old, new = (_binding(values, sections) for values in (read_plain(folder.config), plain_values(asdict(config))))
        require_same(folder.config, old, new)


def _binding(settings: Mapping[str, Any], sections: Sequence[str]) -> dict[str, Any]:
    """The settings of some sections that may not change within a run."""

    def kept(name: str, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        free = FREE.get(name, ())
        return {key: kept(f"{name}.{key}", value) for key, value in values.items() if key not in free}

    return {name: kept(name, settings.get(name)) for name in sections}


def differences(old: Any, new: Any, defaults: Any = None, name: str = "") -> list[str]:
    """Names and values of the settings that differ between two nested mappings.

    Args:
        old: of earlier work.
        new: of this.
        defaults: nested like them; what `old` lacks and `new` has at its default is no difference, since a setting
            that a new version brings computes at its default what earlier versions did.
        name: of the section, for the messages.
    """
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return [] if old == new else [f"{name} was {old!r} and is {new!r}"]
    known = defaults if isinstance(defaults, Mapping) else {}
    found = []
    for key in (*old, *(key for key in new if key not in old)):
        if key in old or key not in known or new[key] != known[key]:
            path = f"{name}.{key}" if name else key
            found += differences(old.get(key), new.get(key), known.get(key), path)
    return found


def require_same(
    path: Path,
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    *,
    defaults: Mapping[str, Any] | None = None,
    advice: str = "Choose another run folder, or delete this one to begin again",
) -> None:
    """Refuses to go on with work that was begun with other settings.

    Args:
        path: what holds that work, or says what it was made from.
        old: its settings.
        new: the settings of now.
        defaults: see `differences`; those of a whole run where none are given.
        advice: what to do about it.

    Raises:
        ConfigError: names the file and every setting that differs.
    """
    if defaults is None:
        settings = plain_values(asdict(RunConfig()))
        # Sections of refinement stand on their own in what its files were made from.
        defaults = {**settings, **settings["refine"]}
    changed = differences(old, new, defaults)
    if changed:
        raise ConfigError(
            f"{path} was begun with other settings: {'; '.join(changed[:5])}"
            f"{' and more' if len(changed) > 5 else ''}. {advice}"
        )


def require_origin(path: Path, expected: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> bool:
    """Refuses to go on with files that were made from something else; False if nothing was made yet.

    Args:
        path: JSON file beside those files that says what they were made from.
        expected: what they should have been made from, plain values.
        defaults: see `require_same`.

    Raises:
        ConfigError: names what differs, or the file is damaged.
    """
    if not path.exists():
        return False
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: damaged; delete {path.parent} and make its files again") from error
    advice = f"Choose another folder, or delete {path.parent} to make its files again"
    require_same(path, found, expected, defaults=defaults, advice=advice)
    return True
