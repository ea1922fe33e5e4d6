"""Checkpoints of the authors' released code, under the names of this package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from sfc.engine.checkpoint import read_state
from sfc.errors import CheckpointError

_HEADS = {
    "classifier.weight": "classifier.weight",
    "f9.weight": "correlation.weight",
    "side1.weight": "side.0.weight",
    "side2.weight": "side.1.weight",
    "side3.weight": "side.2.weight",
    "side4.weight": "side.3.weight",
}


def official_state(checkpoint: str | Path | dict[str, Any]) -> dict[str, Tensor]:
    """The state dict of a released checkpoint under the names of `SFCNetwork`.

    The released modules register most tensors several times; the canonical names are used and the copies left out.

    Args:
        checkpoint: a file, or what loading it gave: a state dict, alone or under `net`.

    Raises:
        CheckpointError: missing, damaged, or without the tensors of an SFC network.
    """
    state, where = read_state(checkpoint, "an SFC checkpoint")
    mapped = {}
    for theirs, ours in _HEADS.items():
        if theirs not in state or state[theirs].ndim != 4:
            raise CheckpointError(f"{where}not an SFC checkpoint: it has no {theirs}")
        mapped[ours] = state[theirs]
    for name, value in state.items():
        if name.startswith("resnet50.") and not name.startswith("resnet50.fc."):
            mapped["backbone.model." + name.removeprefix("resnet50.")] = value
    return mapped
