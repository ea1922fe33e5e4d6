"""Checkpoints: written whole or not at all, loaded without running code, refused when made for something else."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sfc.errors import CheckpointError
from sfc.run_folder import atomic_write

FORMAT = 1


def save_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Writes tensors and plain values to `path`, atomically.

    Raises:
        SFCError: the folder cannot be written or the disk is full.
    """
    with atomic_write(path) as file:
        try:
            torch.save({"format": FORMAT, **content}, file)
        except RuntimeError as error:  # torch's zip writer reports a failed write (a full disk) as RuntimeError
            raise OSError(0, str(error).splitlines()[0]) from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads what `save_checkpoint` wrote, to the CPU.

    Raises:
        CheckpointError: missing, damaged, or written by another program.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: the checkpoint is damaged; delete it to train again") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{path}: not a checkpoint of this version of sfc")
    return content
