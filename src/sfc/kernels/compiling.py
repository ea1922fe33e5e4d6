"""How the numba kernels are compiled: once a machine, cached on disk, said in one line, before workers are forked."""

from __future__ import annotations

import sys
from collections.abc import Callable
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
            sys.stderr.write("sfc: compiling the refinement kernels, once on this machine\n")

    def on_end(self, event: Any) -> None:
        pass


event.register("numba:compile", _CompileNotice())


def kernel(function: Callable[..., Any]) -> Any:
    """Decorator: compiles a function when it is first called, serial and without the GIL, and keeps it on disk.

    The cache lies beside the module or, where that folder cannot be written, in the user's cache folder. Without
    either the function is compiled again in each process.
    """
    try:
        return numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # numba found no folder that it may write
        return numba.njit(nogil=True, error_model="numpy")(function)


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
