"""What is quick on a CPU: the same values and gradients as torch's own, and used where it should be."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers.padding import pad_same as timm_pad_same
from torch import Tensor, nn

from sfc.networks import convolution
from sfc.networks.activation import LeanReLU6
from sfc.networks.backbone import Backbone
from sfc.networks.convolution import QuickConv2d, pad_same, weight_gradient
from sfc.networks.quickening import quicken


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of the inputs whose weights' gradients were computed here."""
    found: list[tuple[int, ...]] = []

    def listening(x: Tensor, *rest: object) -> Tensor:
        found.append(tuple(x.shape))
        return weight_gradient(x, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(convolution, "weight_gradient", listening)
    return found


def random(*shape: int, seed: int = 0) -> Tensor:
    made = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return made.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else made


def gradients(module: nn.Module, x: Tensor) -> list[Tensor]:
    """Output, and gradients of input and parameters, of a loss that weighs every cell differently."""
    module.zero_grad()
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    y = module(x)
    (y * random(*y.shape, seed=9).to(y.dtype)).sum().backward()
    assert x.grad is not None
    return [y.detach(), x.grad, *(parameter.grad for parameter in module.parameters() if parameter.grad is not None)]


@settings(max_examples=60)
@given(
    images=st.integers(1, 3),
    channels=st.sampled_from([2, 7, 8, 24, 64, 89]),
    size=st.tuples(st.integers(1, 13), st.integers(1, 13)),
    side=st.sampled_from([3, 5, 7]),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 3),
    padding=st.integers(0, 8),
    bias=st.booleans(),
)
def test_a_depthwise_convolution_has_the_gradients_of_torch(
    images: int,
    channels: int,
    size: tuple[int, int],
    side: int,
    stride: int,
    dilation: int,
    padding: int,
    bias: bool,
) -> None:
    if min(size) + 2 * padding < dilation * (side - 1) + 1:
        return  # torch refuses these: the weights are larger than the image
    torch.manual_seed(0)
    plain = nn.Conv2d(channels, channels, side, stride, padding, dilation, channels, bias=bias)
    quick = QuickConv2d(plain)
    x = random(images, channels, *size)
    ours = gradients(quick, x)
    expected = gradients(copy.deepcopy(plain).double(), x.double())
    assert len(ours) == len(expected) == 3 + bias
    for found, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(found.double(), other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("side", "dilation", "ours"), [(3, 1, False), (3, 2, True), (5, 1, True), (5, 2, True), (7, 1, True), (1, 1, False)]
)
def test_torch_keeps_what_it_is_quick_at(side: int, dilation: int, ours: bool, calls: list[tuple[int, ...]]) -> None:
    plain = nn.Conv2d(8, 8, side, 1, side // 2 * dilation, dilation, 8)
    gradients(QuickConv2d(plain), random(2, 8, 9, 9))
    assert len(calls) == ours


def test_where_it_is_of_no_use_torch_does_it(calls: list[tuple[int, ...]]) -> None:
    quick, x = QuickConv2d(nn.Conv2d(8, 8, 5, padding=2, groups=8)), random(2, 8, 9, 9)
    with torch.no_grad():
        assert not quick(x).requires_grad
    with torch.autocast("cpu", torch.bfloat16):
        assert quick(x).dtype == torch.bfloat16
        gradients(quick, x)
    gradients(quick, x.contiguous())
    gradients(copy.deepcopy(quick).double(), x.double())
    quick.requires_grad_(False)
    quick(x)
    for other in (nn.Conv2d(8, 8, 5), nn.Conv2d(8, 8, 5, groups=4), nn.Conv2d(8, 16, 5, groups=8)):
        gradients(QuickConv2d(other), x)
    for other in (
        nn.Conv2d(8, 8, (5, 3), groups=8),
        nn.Conv2d(8, 8, 5, padding="same", groups=8),
        nn.Conv2d(8, 8, 5, padding=2, groups=8, padding_mode="reflect"),
    ):
        gradients(QuickConv2d(other), x)
    assert calls == []
    quick.requires_grad_(True)
    gradients(quick, x)
    assert calls == [(2, 8, 9, 9)]


@pytest.fixture
def onednn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of the inputs of convolutions that oneDNN was asked for, past torch's own choice."""
    found: list[tuple[int, ...]] = []
    convolve = torch.mkldnn_convolution

    def listening(x: Tensor, *rest: object) -> Tensor:
        found.append(tuple(x.shape))
        return convolve(x, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(torch, "mkldnn_convolution", listening)
    return found


@settings(max_examples=40)
@given(
    images=st.integers(1, 17),
    channels=st.tuples(st.sampled_from([1, 3, 8, 40]), st.sampled_from([1, 2, 7, 24])),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    stride=st.integers(1, 2),
    grouped=st.booleans(),
    bias=st.booleans(),
)
def test_a_pointwise_convolution_is_that_of_torch(
    images: int, channels: tuple[int, int], size: tuple[int, int], stride: int, grouped: bool, bias: bool
) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(2 * channels[0], 2 * channels[1], 1, stride, groups=1 + grouped, bias=bias)
    x = random(images, 2 * channels[0], *size)
    with torch.inference_mode():
        found = QuickConv2d(plain)(x)
        expected = copy.deepcopy(plain).double()(x.double())
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
def test_pointwise_convolutions_of_inference_are_those_of_onednn(onednn: list[tuple[int, ...]]) -> None:
    quick, x = QuickConv2d(nn.Conv2d(8, 4, 1)), random(2, 8, 9, 9)
    gradients(quick, x)
    with torch.no_grad():
        quick(x.contiguous())
        copy.deepcopy(quick).double()(x.double())
        with torch.autocast("cpu", torch.bfloat16):
            assert quick(x).dtype == torch.bfloat16
        for other in (nn.Conv2d(8, 4, 3), nn.Conv2d(8, 4, 1, padding=1), nn.Conv2d(8, 4, 1, padding="same")):
            torch.testing.assert_close(QuickConv2d(other)(x), other(x))
        assert onednn == []
        quick(x)
    assert onednn == [(2, 8, 9, 9)]


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
@pytest.mark.parametrize(("name", "frozen_norm"), [("tf_efficientnet_lite0", True), ("resnet18", False)])
def test_networks_use_it(name: str, frozen_norm: bool, onednn: list[tuple[int, ...]], threads: None) -> None:
    torch.manual_seed(0)
    quick = Backbone(name, frozen_norm=frozen_norm).to(memory_format=torch.channels_last).eval()
    pointwise = sum(isinstance(each, nn.Conv2d) and each.kernel_size == (1, 1) for each in quick.modules())
    torch.set_num_threads(1)
    with torch.inference_mode():
        found = quick(random(1, 3, 64, 96))
    assert len(onednn) == pointwise > 2
    expected = quick(random(1, 3, 64, 96).requires_grad_())
    assert len(onednn) == pointwise
    for ours, torchs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, torchs.detach(), rtol=1e-3, atol=1e-4)


def test_threads_do_not_change_a_bit(threads: None) -> None:
    x, gradient = random(3, 200, 9, 11), random(3, 200, 9, 11, seed=1)
    results = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        results.append(weight_gradient(x, gradient, 5, 1, 2, 1))
    assert all(torch.equal(result, results[0]) for result in results)
    assert results[0].abs().min() > 0


def relu6_results(module: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, list[int], int]:
    """Output, gradient of the input, where what is kept for it lies in memory, and where the output does."""
    start, kept = x.clone().requires_grad_(), []
    before = start * torch.ones(())

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        y = module(before)
    place = y.data_ptr()
    (y * torch.arange(1.0, 8.0)).sum().backward()
    assert start.grad is not None
    return y.detach(), start.grad, kept, place


def test_relu6_keeps_its_output_alone_and_has_the_gradient_of_torch() -> None:
    x = torch.tensor([-1.0, 0.0, 1e-30, 3.0, 6.0, 7.0, float("nan")]).repeat(2, 1)
    y, gradient, kept, place = relu6_results(LeanReLU6(nn.ReLU6(inplace=True)), x)
    expected, expected_gradient, kept_by_torch, torch_place = relu6_results(nn.ReLU6(inplace=True), x)
    torch.testing.assert_close(y, expected, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=0, equal_nan=True)
    assert kept == [place]
    assert torch_place not in kept_by_torch


@pytest.mark.parametrize("size", [(1, 1), (7, 10), (8, 8), (9, 5)])
@pytest.mark.parametrize(("side", "stride", "dilation"), [(3, 2, 1), (5, 2, 1), (5, 1, 2), (7, 4, 1), (1, 2, 1)])
@pytest.mark.parametrize("learns", [True, False])
def test_same_padding_is_that_of_timm(
    size: tuple[int, int], side: int, stride: int, dilation: int, learns: bool
) -> None:
    x = random(2, 3, *size).requires_grad_(learns)
    expected = timm_pad_same(x, [side] * 2, [stride] * 2, [dilation] * 2)
    padded = pad_same(x, nn.Conv2d(3, 3, side, stride, dilation=dilation))
    torch.testing.assert_close(padded, expected, rtol=0, atol=0)
    assert padded.requires_grad == learns


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "mobilenetv3_small_050", "convnext_atto", "mobilenetv2_035"])
@pytest.mark.parametrize("frozen_norm", [True, False])
def test_whole_networks_have_the_gradients_of_torch(
    name: str, frozen_norm: bool, monkeypatch: pytest.MonkeyPatch, calls: list[tuple[int, ...]]
) -> None:
    torch.manual_seed(0)
    quick = Backbone(name, trained_from=1, frozen_norm=frozen_norm).to(memory_format=torch.channels_last).train()
    for module in quick.modules():
        if isinstance(module, nn.Dropout) or "DropPath" in type(module).__name__:
            module.eval()
    plain = copy.deepcopy(quick)
    for parent in list(plain.modules()):
        for key, module in list(parent.named_children()):
            if isinstance(module, LeanReLU6):
                setattr(parent, key, nn.ReLU6())
    x = random(2, 3, 64, 96)
    results = []
    for net in (quick, plain):
        if net is plain:
            monkeypatch.setattr(QuickConv2d, "is_slow_in_torch", lambda _: False)
            calls_of_quick = len(calls)
        features = net(x)
        sum((feature * random(*feature.shape, seed=3)).sum() for feature in features).backward()  # type: ignore[union-attr]
        results.append({key: p.grad for key, p in net.named_parameters() if p.grad is not None})
    assert len(calls) == calls_of_quick
    assert (calls_of_quick > 0) == (name != "mobilenetv2_035")
    assert results[0].keys() == results[1].keys()
    if frozen_norm:
        for key, found in results[0].items():
            assert float((found - results[1][key]).norm()) <= 1e-3 * float(results[1][key].norm()) + 1e-6, key
    # Norms that learn take the gradient of some biases away but for its rounding: only all together can be compared.
    found, expected = (torch.cat([each.flatten() for each in result.values()]) for result in results)
    assert float((found - expected).norm()) <= 1e-3 * float(expected.norm())


def test_modules_that_stand_in_keep_names_parameters_and_listeners() -> None:
    model = nn.Sequential(
        nn.Conv2d(4, 4, 5, groups=4), nn.ReLU6(inplace=True), nn.Conv2d(4, 2, 1), nn.ReLU6(), nn.Conv2d(1, 1, 3)
    )
    heard = []
    for module in list(model)[:2]:
        module.register_forward_hook(lambda module, _, __: heard.append(type(module)))
    before = dict(model.named_parameters())
    x = random(1, 4, 9, 9)
    expected = F.relu6(model[0](x))
    heard.clear()
    quicken(model)
    assert [type(module) for module in model] == [QuickConv2d, LeanReLU6, QuickConv2d, nn.ReLU6, nn.Conv2d]
    assert all(parameter is before[key] for key, parameter in model.named_parameters())
    torch.testing.assert_close(model[1](model[0](x)), expected)
    assert heard == [QuickConv2d, LeanReLU6]
