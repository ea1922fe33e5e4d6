"""What timm, and what builds on it, raises and calls things."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sfc.errors import CheckpointError, ConfigError

FAILURES = (
    TypeError,
    AssertionError,
    LookupError,
    ValueError,
    AttributeError,
    NotImplementedError,
    RuntimeError,
    OSError,
)
"""What timm, and what builds on it, raises for what a model cannot do and for weights that do not fit."""


def flat_name(name: str) -> str:
    """Feature networks write `stages_0.1` where the plain network has `stages.0.1`."""
    return name.replace(".", "_")


def sentence(error: Exception) -> str:
    """The most telling line of a library's error, short."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1 if lines[0].endswith(":") else 0].strip()[:200]


@contextmanager
def naming_settings(section: str) -> Iterator[None]:
    """A network is built on trial: errors get the full name of the setting at fault, and no random number is used up.

    Raises:
        CheckpointError, ConfigError: those of the building.
    """
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    except CheckpointError as error:
        raise CheckpointError(f"{section}.network.weights: {error}") from error
    except ConfigError as error:
        is_bare = str(error).startswith("network.")
        raise ConfigError(f"{section}.{error}" if is_bare else str(error)) from error
