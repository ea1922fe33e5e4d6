"""Memory that a process keeps between the steps of a training on a CPU."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt."""
KEPT = 2**30
USUAL = 32 * 2**20
"""The most that glibc raises its own threshold to; once it was set by hand it does not move any more."""


@contextmanager
def memory_kept() -> Iterator[None]:
    """For a while, memory that is freed stays with the process, and is given back at the end; glibc only.

    Left alone, it returns each tensor above 32 MiB to the system and asks for the same again in the next step, page by
    page and filled with zeros: a sixth of a training step (docs/speed.md).
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(MMAP_THRESHOLD, KEPT)
    libc.mallopt(TRIM_THRESHOLD, KEPT)
    try:
        yield
    finally:
        libc.mallopt(MMAP_THRESHOLD, USUAL)
        libc.mallopt(TRIM_THRESHOLD, 2 * USUAL)
        libc.malloc_trim(0)
