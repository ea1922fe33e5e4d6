"""Checkpoints of the authors' released code, under the names of this package."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sfc.errors import CheckpointError

_HEADS = {
    "classifier.weight": "classifier.weight",
    "f9.weight": "correlation.weight",
    "side1.weight": "side.0.weight",
    "side2.weight": "side.1.weight",
    "side3.weight": "side.2.weight",
    "side4.weight": "side.3.weight",
}


def read_checkpoint(checkpoint: str | Path | dict[str, Any]) -> dict[str, Tensor]:
    """The state dict in a released checkpoint: a file or a loaded dict, alone or under `net`.

    Raises:
        CheckpointError: missing, damaged, or not a state dict.
    """
    if not isinstance(checkpoint, dict):
        path = Path(checkpoint)
        if not path.is_file():
            raise CheckpointError(f"{path}: no such file")
        try:
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError) as error:
            raise CheckpointError(f"{path}: damaged, or not a checkpoint that can be loaded safely") from error
    state = checkpoint.get("net", checkpoint) if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError("not an SFC checkpoint: no state dict in it")
    # DataParallel, which the released training uses, puts `module.` before every name.
    return {name.removeprefix("module."): value for name, value in state.items()}


def official_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Renames the canonical entries of a released state dict; other copies of the same tensors are left out.

    Raises:
        CheckpointError: a head is missing.
    """
    mapped = {}
    for theirs, ours in _HEADS.items():
        if theirs not in state:
            raise CheckpointError(f"not an SFC checkpoint: it has no {theirs}")
        mapped[ours] = state[theirs]
    for name, value in state.items():
        if name.startswith("resnet50.") and not name.startswith("resnet50.fc."):
            mapped["backbone.model." + name.removeprefix("resnet50.")] = value
    return mapped
