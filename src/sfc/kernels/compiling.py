"""How the numba kernels are compiled: once a machine, cached on disk, said in one line, before workers are forked."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numba
from numba.core import event

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class _CompileNotice(event.Listener):
    """Says that kernels are being compiled; numba sends no event where it finds them in its cache."""

    def __init__(self) -> None:
        self._said = False

    def on_start(self, event: Any) -> None:
        module = event.data["dispatcher"].py_func.__module__
        if not self._said and module.startswith("sfc."):
            self._said = True
            sys.stderr.write("sfc: compiling the kernels, once on this machine\n")

    def on_end(self, event: Any) -> None:
        pass


event.register("numba:compile", _CompileNotice())


def kernel(function: Callable[..., Any]) -> Any:
    """Decorator: compiles a function when it is first called, serial and without the GIL, and keeps it on disk.

    The cache lies beside the module or, where that folder cannot be written, in the user's cache folder. Without
    either the function is compiled again in each process.
    """
    try:
        compiled = numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # numba found no folder that it may write
        return numba.njit(nogil=True, error_model="numpy")(function)
    _watch_parts(compiled)
    return compiled


@cache
def parts_digest() -> str:
    """SHA-256 of the sources that kernels are made of beside their own module."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()


def _watch_parts(compiled: Any) -> None:
    """Makes the cache notice changes of what is inlined: numba looks at the kernel's own file alone.

    It keeps a stamp of that file in the index of the cache and compiles again where the stamp differs; ours has the
    parts as well. There is no public way to say so; where numba keeps it elsewhere one day, a test fails.
    """
    index = getattr(getattr(compiled, "_cache", None), "_cache_file", None)
    if index is not None:
        index._source_stamp = (index._source_stamp, parts_digest())  # noqa: SLF001


def inlined(function: Callable[..., Any]) -> Any:
    """Decorator: a part of kernels, which becomes code of each kernel that calls it.

    A call costs more than a small part: every array is handed over as seven values.
    """
    return numba.njit(nogil=True, error_model="numpy", forceinline=True)(function)


def compile_once(fabric: Fabric, *compilers: Callable[[], None]) -> None:
    """Compiles kernels, or loads them from the cache; call it before workers are forked.

    One process of each machine does, since those that meet in an empty cache would all compile. Takes a part of a
    second where the kernels are cached and about a minute where they are not.

    Args:
        fabric: every process calls this.
        compilers: each calls all kernels of a module on tiny inputs.
    """
    if fabric.local_rank == 0:
        for compiler in compilers:
            compiler()
    fabric.barrier()
