"""How far workers may run ahead: what they hand over lies in shared memory, of which containers often have 64 MB."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Linux keeps it
AHEAD = 4
"""Batches that each worker may have ready."""
SHARE = 0.5
"""Of the free shared memory; other programs and trainings want some too."""
IN_USE = 2
"""Batches that have been handed over and are still held."""


class Ahead(NamedTuple):
    """Workers, and batches that each may have ready."""

    workers: int
    batches: int


def free_shared_memory() -> int | None:
    """Bytes; None where tensors are passed in another way."""
    if sys.platform != "linux" or not SHARED_MEMORY.is_dir():
        return None
    return shutil.disk_usage(SHARED_MEMORY).free


def run_ahead(workers: int, batch_bytes: int, free: int | None) -> Ahead:
    """As many workers and batches as wanted, or as few as the shared memory takes; no workers where it takes none.

    Args:
        workers: wanted.
        batch_bytes: of one batch.
        free: bytes of shared memory; None: as much as one likes.
    """
    if free is None or not workers:
        return Ahead(workers, AHEAD if workers else 0)
    room = int(SHARE * free / max(1, batch_bytes)) - IN_USE
    workers = min(workers, max(0, room))
    return Ahead(workers, min(AHEAD, room // workers) if workers else 0)


def affordable(samples: Any, batch: int, workers: int, speak: bool) -> Ahead:
    """What a training may let its workers do; says so where that is less than wanted.

    Args:
        samples: of the training; the first one of the first epoch is made to see how large it is.
        batch: samples of a step, over all processes of this machine.
        workers: wanted, of each process.
        speak: whether this process says it.
    """
    free = free_shared_memory()
    if not workers or free is None:
        return run_ahead(workers, 0, None)
    ahead = run_ahead(workers, sample_bytes(samples[(0, 0)]) * batch, free)
    if ahead.workers < workers and speak:
        sys.stderr.write(
            f"shared memory has {free / 2**20:.0f} MB free, too little for machine.workers {workers}: "
            f"{ahead.workers or 'none'} prepare{'s' if ahead.workers == 1 else ''} images (`docker run --shm-size 1g` "
            "gives more)\n"
        )
    return ahead


def sample_bytes(sample: Any) -> int:
    """Bytes of the tensors of one sample; 0 for one that could not be read."""
    values = sample.values() if isinstance(sample, dict) else ()
    return sum(value.numel() * value.element_size() for value in values if isinstance(value, Tensor))
