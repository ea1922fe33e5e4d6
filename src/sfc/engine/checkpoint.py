"""Checkpoints: written whole or not at all, loaded without running code, refused when made for something else."""

from __future__ import annotations

import pickle
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sfc.errors import CheckpointError
from sfc.run.files import atomic_write
from sfc.run.origin import require_same

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
    """Writes tensors and plain values to `path`, atomically; the same bytes for the same content.

    Raises:
        SFCError: the folder cannot be written or the disk is full.
    """
    with atomic_write(path) as file:
        try:
            torch.save(_interned({"format": FORMAT, **content}), file)
        except RuntimeError as error:  # torch's zip writer hides a failed write (a full disk) behind its own error
            hidden = error.__context__
            raise (hidden if isinstance(hidden, OSError) else OSError(0, str(error).splitlines()[0])) from error


def _interned(value: Any) -> Any:
    """The same value, each text in it one object.

    Pickle writes a text only once that it meets again, and the keys of a loaded optimiser state are other objects than
    those of a new one.
    """
    if type(value) is dict:
        return {_interned(key): _interned(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_interned(item) for item in value)
    return sys.intern(value) if type(value) is str else value


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


def load_finished(path: Path, expected: Mapping[str, Any]) -> dict[str, Any]:
    """The checkpoint of a training that took its last step with these settings.

    Args:
        path: the checkpoint.
        expected: entries that its fingerprint must have.

    Raises:
        CheckpointError: there is none, it is damaged, or its training is not finished.
        ConfigError: it was trained with other settings.
    """
    saved = load_checkpoint(path)
    fingerprint = saved.get("fingerprint", {})
    require_same(path, {name: fingerprint.get(name) for name in expected}, expected)
    if saved["step"] < saved["steps"]:
        raise CheckpointError(f"{path}: training stopped at step {saved['step']} of {saved['steps']}; finish it first")
    return saved


def read_state(checkpoint: str | Path | dict[str, Any], kind: str) -> tuple[dict[str, Tensor], str]:
    """The state dict in a checkpoint of other code, without the `module.` that DataParallel puts before names.

    Args:
        checkpoint: a file, or what loading it gave: a state dict, alone or under `net`.
        kind: what the file should be, with its article.

    Returns:
        The state dict; and the file's name as the beginning of a sentence about it (empty where there is none).

    Raises:
        CheckpointError: missing, damaged, or without a state dict.
    """
    if isinstance(checkpoint, dict):
        where, content = "", checkpoint
    else:
        where, content = f"{checkpoint}: ", read_tensors(Path(checkpoint))
    state = content.get("net", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{where}not {kind}: no state dict in it")
    return {name.removeprefix("module."): value for name, value in state.items()}, where
