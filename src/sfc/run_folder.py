"""Where each artifact of a run lies, and how it is written: whole or not at all."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from sfc.errors import SFCError


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Opens a temporary file beside `path` that takes its name only when the block ends without an exception.

    A reader therefore sees the old file or the new one, and a kill, a full disk or an error leaves no half.

    Raises:
        SFCError: the folder cannot be written or the disk is full; the message names `path`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name[:20]}.", suffix=".tmp", dir=path.parent)
    except OSError as error:
        raise SFCError(f"{path}: cannot be written ({error.strerror})") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise SFCError(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented UTF-8 JSON, atomically; what is no finite number is written as null."""
    with atomic_write(path) as file:
        file.write((json.dumps(_finite(value), indent=1, ensure_ascii=False) + "\n").encode())


def file_hash(path: Path) -> str:
    """sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


@dataclass(frozen=True)
class VariantFolder:
    """One trained system of a run: SFC itself, or the plain-CAM baseline beside it."""

    root: Path

    @property
    def classify(self) -> Path:
        """checkpoint.pt, log.csv, TensorBoard events, pictures."""
        return self.root / "classify"

    def cams(self, split: str) -> Path:
        """The CAM store of a split."""
        return self.root / "cams" / split

    def masks(self, method: str) -> Path:
        """Masks of the training images by one method of refinement, a palette PNG each."""
        return self.root / "masks" / method

    @property
    def relation(self) -> Path:
        """The relation network: checkpoint.pt, log.csv, TensorBoard events."""
        return self.root / "relation"

    def segmenter(self, masks: str) -> Path:
        """The segmenter trained on masks of a method, or on `truth`: checkpoint.pt, log.csv, TensorBoard events."""
        return self.root / "segmenter" / masks

    def predictions(self, masks: str, split: str, way: str) -> Path:
        """That segmenter's masks of a split, predicted in one way (`PredictConfig.ways`), a palette PNG each."""
        return self.root / "predictions" / masks / split / way

    @property
    def scores(self) -> Path:
        """JSON with every score of this variant."""
        return self.root / "scores.json"


@dataclass(frozen=True)
class RunFolder:
    """A run: settings, manifest, one folder a variant, report."""

    root: Path

    @property
    def config(self) -> Path:
        """The resolved settings."""
        return self.root / "config.yaml"

    @property
    def manifest(self) -> Path:
        """What made this run: versions, commit, command, data."""
        return self.root / "manifest.json"

    @property
    def synthetic_data(self) -> Path:
        """Where the built-in benchmark is written."""
        return self.root / "synthetic"

    @property
    def report(self) -> Path:
        """Page and pictures."""
        return self.root / "report"

    def variant(self, name: str) -> VariantFolder:
        """The folder of `sfc` or `plain`."""
        return VariantFolder(self.root / name)


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
