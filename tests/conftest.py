"""Golden figures, and the checkpoint that those of the network were computed with."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from math import prod
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor

Golden = Callable[[str], dict[str, np.ndarray]]


@pytest.fixture(scope="session")
def golden() -> Golden:
    """Reads one file of tests/golden; see the README there for what is in it and where it comes from."""

    def read(name: str) -> dict[str, np.ndarray]:
        with np.load(Path(__file__).parent / "golden" / f"{name}.npz", allow_pickle=False) as arrays:
            return dict(arrays)

    return read


def reference_tensor(name: str, shape: tuple[int, ...]) -> Tensor:
    """The weights behind the golden figures: each tensor from its own generator, seeded by its name."""
    kind = name.rpartition(".")[2]
    random = torch.Generator().manual_seed(zlib.crc32(f"1:{name}".encode()))
    if kind == "num_batches_tracked":
        return torch.zeros(shape, dtype=torch.int64)
    if kind == "running_var":
        return 0.75 + 0.5 * torch.rand(shape, generator=random)
    if kind in {"bias", "running_mean"}:
        return torch.zeros(shape)
    if len(shape) == 1:
        return 0.3 + 0.4 * torch.rand(shape, generator=random)
    weight = torch.randn(shape, generator=random) * (2 / prod(shape[1:])) ** 0.5
    if name in {"classifier.weight", "f9.weight"}:
        weight = weight - weight.mean(dim=1, keepdim=True)
    if name == "f9.weight":
        weight[:, :3] *= 30
    return weight


def released_layout() -> dict[str, dict[str, Tensor]]:
    """What the released training saves: a state dict under `net`, in which most tensors have up to three names."""
    with torch.device("meta"):
        resnet = torchvision.models.resnet50()
    shapes = {f"resnet50.{name}": value.shape for name, value in resnet.state_dict().items() if name[:3] != "fc."}
    heads = {
        "classifier.weight": (20, 2048, 1, 1),
        "f9.weight": (2048, 2048 + 3, 1, 1),
        "side1.weight": (128, 256, 1, 1),
        "side2.weight": (128, 512, 1, 1),
        "side3.weight": (256, 1024, 1, 1),
        "side4.weight": (256, 2048, 1, 1),
    }
    state = {name: reference_tensor(name, tuple(shape)) for name, shape in {**shapes, **heads}.items()}
    aliases = {}
    for name, value in state.items():
        parts = name.split(".")
        if name in heads:
            aliases[f"newly_added.{list(heads).index(name)}.weight"] = value
            continue
        if parts[1] in {"conv1", "bn1"}:
            rest = ".".join(["0" if parts[1] == "conv1" else "1", *parts[2:]])
            stage = 0
        else:
            rest = ".".join(["0", *parts[2:]])
            stage = int(parts[1].removeprefix("layer"))
        aliases[f"stage{stage}.{rest}"] = value
        aliases[f"backbone.{stage}.{rest}"] = value
    return {"net": {**state, **aliases}}


@pytest.fixture(scope="session")
def official_checkpoint() -> dict[str, dict[str, Tensor]]:
    """The checkpoint of the golden figures; not to be changed by a test."""
    return released_layout()
