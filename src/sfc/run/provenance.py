"""Which versions and which commit made something."""

from __future__ import annotations

import platform
import subprocess
from contextlib import suppress
from importlib import metadata
from pathlib import Path


def versions() -> dict[str, str]:
    """Versions of this package and of what its numbers depend on, and the commit of its source where that is known."""
    names = ("sfc-wsss", "torch", "torchvision", "timm", "lightning-fabric", "numba", "numpy", "pillow", "scipy")
    found = {"python": platform.python_version()}
    for name in names:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    with suppress(OSError, subprocess.CalledProcessError):
        # An installed copy may lie in a folder of somebody else's repository, whose commit says nothing about it.
        _git("ls-files", "--error-unmatch", Path(__file__).name)
        found["commit"] = _git("describe", "--always", "--dirty", "--abbrev=12")
    return found


def _git(*arguments: str) -> str:
    folder = Path(__file__).parent
    command = ["git", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
