"""What timm, and what builds on it, raises and calls things."""

from __future__ import annotations

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
