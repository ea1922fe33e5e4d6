"""Folding of frozen norms: exact for outputs and gradients, the same state, and only where it is right."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from sfc.networks.backbone import Backbone
from sfc.networks.folding import FoldedConv2d, FoldedNorm, FoldedNormAct, fold_norms


def image(height: int = 64, width: int = 64, seed: int = 0) -> Tensor:
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


def disturb_norms(module: nn.Module) -> None:
    """Statistics and affine parameters as after a training; fresh ones would hide faults."""
    random = torch.Generator().manual_seed(3)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor in (norm.weight, norm.running_var):
                tensor.data.copy_(0.5 + torch.rand(tensor.shape, generator=random))
            for tensor in (norm.bias, norm.running_mean):
                tensor.data.copy_(torch.randn(tensor.shape, generator=random) * 0.2)


def close(a: Tensor, b: Tensor, tolerance: float = 1e-4) -> bool:
    return a.shape == b.shape and float((a - b).detach().norm()) <= tolerance * float(b.detach().norm())


def pair_of(name: str) -> tuple[Backbone, Backbone]:
    """The same weights, norms frozen and folded, and frozen but applied as they are."""
    folded, plain = Backbone(name, trained_from=0), Backbone(name, trained_from=0, frozen_norm=False)
    disturb_norms(plain)
    folded.load_state_dict(plain.state_dict())
    plain.eval()
    return folded.train(), plain


@pytest.mark.parametrize(
    "name",
    [
        "compact",
        "test_resnet",
        "hrnet_w18_small",
        "mobilenetv3_small_050",  # hard swish
        "efficientnet_b0",  # SiLU, in place
        "tf_mobilenetv3_small_100",  # TensorFlow's padding
    ],
)
def test_folding_is_exact_for_outputs_and_gradients(name: str) -> None:
    folded, plain = pair_of(name)
    assert any(isinstance(m, FoldedConv2d) for m in folded.modules())
    assert folded.state_dict().keys() == plain.state_dict().keys()
    for net in (folded, plain):
        features = net.double()(image(48, 40).double())
        sum((f * torch.linspace(-1, 2, f.numel()).view(f.shape)).sum() for f in features).backward()
    with torch.no_grad():
        assert all(close(a, b, 1e-9) for a, b in zip(folded(image().double()), plain(image().double()), strict=True))
    reference = dict(plain.named_parameters())
    for key, parameter in folded.named_parameters():
        if reference[key].grad is None:
            assert parameter.grad is None, key
        else:
            # Where a ReLU hides a channel the gradient is rounding.
            assert torch.allclose(parameter.grad, reference[key].grad, rtol=1e-7, atol=1e-7), key


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "tf_efficientnet_lite0", "mobilenetv3_small_050"])
def test_every_norm_of_common_networks_is_folded(name: str) -> None:
    net = Backbone(name)
    assert not any(type(module) in (nn.BatchNorm2d, BatchNormAct2d) for module in net.modules())
    assert any(isinstance(module, FoldedNormAct) for module in net.modules()) == (name != "resnet18")


@pytest.mark.parametrize("name", ["compact", "mobilenetv3_small_050"])
def test_state_keeps_its_names_and_order_and_loads_both_ways(name: str) -> None:
    folded, plain = pair_of(name)
    assert list(folded.state_dict()) == list(plain.state_dict())
    names = [key for key, _ in folded.named_parameters()]
    assert names == [key for key, _ in plain.named_parameters()]
    parameters = list(folded.parameters())
    assert len({id(parameter) for parameter in parameters}) == len(names)
    assert not any(parameter.is_meta for parameter in [*parameters, *folded.buffers()])
    for net in (folded, plain):  # into the folded one, pair_of has loaded
        disturb_norms(net)
    torch.manual_seed(7)
    for parameter in folded.parameters():
        parameter.data += 0.01 * torch.randn_like(parameter)
    plain.load_state_dict(folded.state_dict())
    with torch.no_grad():
        assert all(close(a, b) for a, b in zip(folded(image()), plain(image()), strict=True))


def test_parameters_are_the_ones_that_were_there() -> None:
    model = timm.create_model("mobilenetv3_small_050", features_only=True, out_indices=(0, 1, 2, 3))
    before, buffers = dict(model.named_parameters()), dict(model.named_buffers())
    torch.manual_seed(3)
    fold_norms(model)
    drawn = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(1))  # training repeats bit for bit only if folding draws nothing
    assert any(isinstance(module, FoldedConv2d) for module in model.modules())
    assert all(parameter is before[key] for key, parameter in model.named_parameters())
    assert all(buffer is buffers[key] for key, buffer in model.named_buffers())


def test_distributed_training_steps_each_parameter_once() -> None:
    """One process; DDP broadcasts and reduces by the registered parameters and buffers."""
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        alone = Backbone("mobilenetv3_small_050", trained_from=0)
        disturb_norms(alone)
        wrapped = nn.parallel.DistributedDataParallel(copy.deepcopy(alone), find_unused_parameters=True)
        for net in (alone, wrapped):
            optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
            sum(f.square().mean() for f in net(image())).backward()
            optimiser.step()
        for (key, a), b in zip(alone.state_dict().items(), wrapped.module.state_dict().values(), strict=True):
            torch.testing.assert_close(a, b, msg=key)
    finally:
        torch.distributed.destroy_process_group()


def test_hooks_go_on_listening() -> None:
    net, heard = Misleading(between=False).eval(), []
    net.norm.register_forward_hook(lambda module, arguments, output: heard.append("norm"))
    net.conv.register_forward_hook(lambda module, arguments, output: heard.append("conv"))
    fold_norms(net)
    heard.clear()
    net(image(8, 8))
    assert heard == ["conv", "norm"]


def test_frozen_statistics_stay_in_training_and_affine_parameters_learn() -> None:
    net = Backbone("mobilenetv3_small_050", trained_from=0)
    buffers = {key: value.clone() for key, value in net.named_buffers()}
    net.train()
    assert net.training
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training for norm in norms)
    sum(f.sum() for f in net(image())).backward()
    assert all(torch.equal(buffers[key], value) for key, value in net.named_buffers())
    assert sum(norm.weight.grad is not None for norm in norms) > len(norms) / 2
    trained = Backbone("mobilenetv3_small_050", trained_from=0, frozen_norm=False).train()
    assert all(m.training for m in trained.modules())
    assert not any(isinstance(m, FoldedNorm) for m in trained.modules())


def test_a_copy_is_a_network_of_its_own() -> None:
    net = Backbone("compact", trained_from=0)
    disturb_norms(net)
    twin = copy.deepcopy(net)
    before = [f.detach().clone() for f in net(image())]
    assert all(torch.equal(a, b) for a, b in zip(before, twin(image()), strict=True))
    disturbed = next(m for m in twin.modules() if isinstance(m, FoldedConv2d))
    assert any(disturbed.folded[0] is module for module in twin.modules())
    with torch.no_grad():
        disturbed.folded[0].bias += 1
    assert all(torch.equal(a, b) for a, b in zip(before, net(image()), strict=True))
    assert not torch.equal(before[3], twin(image())[3])


class Misleading(nn.Module):
    """Convolution and norm are neighbours, but an activation lies between them."""

    def __init__(self, between: bool) -> None:
        super().__init__()
        self.between = between
        self.conv = nn.Conv2d(3, 4, 3, bias=False)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.conv(x)
        return [self.norm(F.relu(x) if self.between else x)]


@pytest.mark.parametrize("between", [True, False])
def test_norms_fold_only_where_that_is_exact(between: bool) -> None:
    """Fresh norms are the identity, so comparing outputs as they are would not notice."""
    net = Misleading(between).eval()
    state = {key: value.clone() for key, value in net.state_dict().items()}
    fold_norms(net)
    assert isinstance(net.norm, FoldedNorm) != between
    assert isinstance(net.conv, FoldedConv2d) != between
    assert all(torch.equal(state[key], value) for key, value in net.state_dict().items())
    disturb_norms(net)
    x = image(8, 8)
    raw = F.conv2d(x, net.conv.weight)
    norm = net.norm
    expected = F.batch_norm(
        F.relu(raw) if between else raw, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
    )
    assert torch.allclose(net(x)[0], expected, atol=1e-5)


def test_convolutions_with_a_bias_keep_their_norm() -> None:
    class Biased(Misleading):
        def __init__(self) -> None:
            super().__init__(between=False)
            self.conv = nn.Conv2d(3, 4, 3, bias=True)

    net = Biased()
    fold_norms(net)
    assert type(net.norm) is nn.BatchNorm2d


def test_building_leaves_no_trace_in_fresh_norms() -> None:
    for norm in Backbone("compact").modules():
        if isinstance(norm, nn.BatchNorm2d):
            assert norm.weight.eq(1).all()
            assert not norm.bias.any()
            assert not norm.running_mean.any()
            assert norm.running_var.eq(1).all()
