"""A checkpoint's bytes depend on what is in it and on nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from sfc.engine.checkpoint import load_checkpoint, save_checkpoint


def test_the_same_content_is_the_same_bytes(tmp_path: Path) -> None:
    """Texts that are equal and not one object, as those of a loaded state are."""
    loaded = json.loads('"step"')
    assert loaded is not next(iter({"step": 1}))
    for name, key in (("a", "step"), ("b", loaded)):
        state = {0: {"step": 1.0, "names": ("step", ["step"])}, 1: {key: 2.0}}
        save_checkpoint(tmp_path / name, {"state": state, "model": {"step": torch.ones(2)}})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert load_checkpoint(tmp_path / "b")["state"][1] == {"step": 2.0}
