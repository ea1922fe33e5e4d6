"""The released relation network's checkpoint, as the golden figures were computed with it."""

from __future__ import annotations

import zlib
from math import prod

import pytest
import torch
import torchvision
from torch import Tensor

HEADS = {
    **{f"fc_edge{i + 1}.0.weight": (32, count, 1, 1) for i, count in enumerate((64, 256, 512, 1024, 2048))},
    "fc_edge6.weight": (1, 160, 1, 1),
    "fc_dp1.0.weight": (64, 64, 1, 1),
    "fc_dp2.0.weight": (128, 256, 1, 1),
    **{f"fc_dp{i + 3}.0.weight": (256, count, 1, 1) for i, count in enumerate((512, 1024, 2048, 768, 448))},
    "fc_dp7.3.weight": (2, 256, 1, 1),
}
"""Convolutions by their names in the released code; all but two are followed by a group norm under `.1`."""


def _tensor(name: str, shape: tuple[int, ...]) -> Tensor:
    """A tensor from its own generator, seeded by its name."""
    kind = name.rpartition(".")[2]
    random = torch.Generator().manual_seed(zlib.crc32(f"1:{name}".encode()))
    if kind == "num_batches_tracked":
        return torch.zeros(shape, dtype=torch.int64)
    if kind == "running_var":
        return 0.75 + 0.5 * torch.rand(shape, generator=random)
    if name.startswith("resnet50.") and kind in {"bias", "running_mean"}:
        return torch.zeros(shape)
    if kind in {"bias", "running_mean"}:
        return torch.randn(shape, generator=random) * (0.1 if kind == "running_mean" else 0.05)
    if len(shape) == 1:
        return 0.3 + 0.4 * torch.rand(shape, generator=random)
    return torch.randn(shape, generator=random) * (2 / prod(shape[1:])) ** 0.5


@pytest.fixture(scope="session")
def released_relation_state() -> dict[str, Tensor]:
    """What the released training saves: a state dict with most tensors under two names, and index buffers."""
    with torch.device("meta"):
        resnet = torchvision.models.resnet50()
    state = {
        f"resnet50.{name}": _tensor(f"resnet50.{name}", tuple(value.shape))
        for name, value in resnet.state_dict().items()
        if not name.startswith("fc.")
    }
    for name, shape in HEADS.items():
        state[name] = _tensor(name, shape)
        norm = name.replace(".0.weight", ".1")
        if norm != name:
            state |= {f"{norm}.{kind}": _tensor(f"{norm}.{kind}", shape[:1]) for kind in ("weight", "bias")}
    state["fc_edge6.bias"] = _tensor("fc_edge6.bias", (1,))
    state["mean_shift.running_mean"] = _tensor("mean_shift.running_mean", (2,))
    copies = {
        "stage1.0.weight": state["resnet50.conv1.weight"],
        "edge_layers.0.0.weight": state["fc_edge1.0.weight"],
        "fc_dp7.4.running_mean": state["mean_shift.running_mean"],
        "path_indices0": torch.zeros(2, 2, 2, dtype=torch.int64),
        "disp_target": torch.zeros(1, 2, 3, 1),
    }
    return {**state, **copies}
