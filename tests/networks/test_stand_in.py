"""Batch norms over several GPUs: those that learn are, and nothing else changes; a CPU stands in for the GPUs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sfc.networks.backbone import Backbone
from sfc.networks.folding import FoldedNorm
from sfc.networks.stand_in import synchronise_norms
from sfc.segment.library import LibrarySegmenter
from sfc.segment.segmenter import SegmenterConfig

TWO_GPUS: Any = SimpleNamespace(world_size=2, device=torch.device("cuda"), is_global_zero=True)
IMAGE = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def disturb_norms(net: nn.Module) -> None:
    """Statistics and affine parameters as after a training; fresh ones would hide faults."""
    random = torch.Generator().manual_seed(3)
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                tensor.data.copy_(0.5 + torch.rand(tensor.shape, generator=random))


@torch.no_grad()
def seen(net: nn.Module) -> list[Tensor]:
    """What a network gives in evaluation mode; it is in training mode before and after."""
    net.eval()
    outputs = net(IMAGE)
    net.train()
    return outputs if isinstance(outputs, list) else [outputs]


def stays_the_same(net: nn.Module) -> None:
    disturb_norms(net.train())
    before, state = seen(net), set(net.state_dict())
    synchronise_norms(TWO_GPUS, net)
    assert set(net.state_dict()) == state
    for found, expected in zip(seen(net), before, strict=True):
        torch.testing.assert_close(found, expected)


def norms(net: nn.Module) -> tuple[int, int]:
    """How many are those of all GPUs, and how many each one's own."""
    kinds = (nn.SyncBatchNorm, nn.BatchNorm2d)
    one, other = (sum(isinstance(module, kind) for module in net.modules()) for kind in kinds)
    return one, other


@pytest.mark.parametrize("name", ["compact", "resnet18", "mobilenetv3_small_050", "efficientnet_b0"])
def test_norms_that_learn_keep_their_activations(name: str) -> None:
    net = Backbone(name, frozen_norm=False)
    own = norms(net)[1]
    stays_the_same(net)
    assert norms(net) == (own, 0)


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_050"])
def test_frozen_norms_and_what_stands_in_for_them_stay(name: str) -> None:
    net = nn.ModuleDict({"backbone": Backbone(name), "head": nn.BatchNorm2d(3)})
    kept = {module for module in net["backbone"].modules() if isinstance(module, nn.BatchNorm2d)}
    assert any(isinstance(module, FoldedNorm) for module in kept)
    synchronise_norms(TWO_GPUS, net.train())
    assert {module for module in net["backbone"].modules() if isinstance(module, nn.BatchNorm2d)} == kept
    assert norms(net) == (1, len(kept))


def test_a_library_segmenter_with_a_frozen_encoder() -> None:
    config = SegmenterConfig(architecture="unet", backbone="tu-mobilenetv3_small_050", weights="published")
    net = LibrarySegmenter(config, 3, blank=True)
    assert net.frozen_norm
    encoder = norms(net.encoder)
    stays_the_same(net)
    assert norms(net.encoder) == encoder
    assert norms(net)[0] > 0
    assert norms(net)[1] == encoder[1]


def test_who_listens_to_a_norm_hears_the_one_in_its_place() -> None:
    heard = []
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    net[1].register_forward_hook(lambda *_: heard.append(True))
    synchronise_norms(TWO_GPUS, net)
    seen(net)
    assert isinstance(net[1], nn.SyncBatchNorm)
    assert heard == [True]
