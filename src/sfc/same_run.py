"""What may not change within a run folder once work in it has begun."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sfc.config import RunConfig
from sfc.run_folder import RunFolder
from sfc.settings import plain_values, read_plain, require_same

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
