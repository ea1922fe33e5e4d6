"""Checkpoints: written whole or not at all, loaded without running code, refused when made for something else."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sfc.errors import CheckpointError
from sfc.run_folder import atomic_write

FORMAT = 1
_DAMAGED = (
    RuntimeError,
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    struct.error,
)
"""What torch.load raises for files cut short or changed anywhere (found by trying)."""


def save_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Writes tensors and plain values to `path`, atomically.

    Raises:
        SFCError: the folder cannot be written or the disk is full.
    """
    with atomic_write(path) as file:
        try:
            torch.save({"format": FORMAT, **content}, file)
        except RuntimeError as error:  # torch's zip writer hides a failed write (a full disk) behind its own error
            hidden = error.__context__
            raise (hidden if isinstance(hidden, OSError) else OSError(0, str(error).splitlines()[0])) from error


def read_tensors(path: Path, advice: str = "") -> Any:
    """What `torch.save` wrote, to the CPU; runs no code that the file may hold.

    Args:
        path: the file.
        advice: end of the sentence about a damaged file.

    Raises:
        CheckpointError: missing, unreadable, damaged, or with more in it than tensors and plain values.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from error
    except _DAMAGED as error:
        raise CheckpointError(
            f"{path}: the checkpoint is damaged, or more than tensors and plain values{advice}"
        ) from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads what `save_checkpoint` wrote, to the CPU.

    Raises:
        CheckpointError: missing, damaged, or written by another program.
    """
    content = read_tensors(path, "; delete it to train again")
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{path}: not a checkpoint of this version of sfc")
    return content
