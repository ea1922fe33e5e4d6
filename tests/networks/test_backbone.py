"""Backbones of every kind: strides, sizes, what learns, published weights and their errors."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from sfc.errors import CheckpointError, ConfigError
from sfc.networks import backbone, timm_models
from sfc.networks.backbone import Backbone
from sfc.networks.compact import CompactNetwork


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


# --- Stages and strides -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "channels", "strides"),
    [
        ("compact", (32, 48, 64, 96), (4, 8, 8, 8)),
        ("resnet18", (64, 128, 256, 512), (4, 8, 16, 16)),
        ("mobilenetv3_small_050", (8, 16, 24, 288), (4, 8, 16, 16)),
        ("efficientnet_b0", (24, 40, 112, 320), (4, 8, 16, 16)),
        ("regnety_002", (24, 56, 152, 368), (4, 8, 16, 16)),
        ("convnext_atto", (40, 80, 160, 320), (4, 8, 16, 16)),
        ("hrnet_w18_small", (128, 256, 512, 1024), (4, 8, 16, 32)),
        ("swin_tiny_patch4_window7_224", (96, 192, 384, 768), (4, 8, 16, 32)),
        ("pvt_v2_b0", (32, 64, 160, 256), (4, 8, 16, 32)),
        ("vit_tiny_patch16_224", (192,) * 4, (16,) * 4),
        ("deit_tiny_distilled_patch16_224", (192,) * 4, (16,) * 4),
        ("xcit_nano_12_p8_224", (128,) * 4, (8,) * 4),
    ],
)
def test_families(name: str, channels: tuple[int, ...], strides: tuple[int, ...]) -> None:
    net = Backbone(name).train()
    assert net.channels == channels
    # One pixel, odd sizes, sizes that are no multiple of patch, window or stride.
    for height, width in ((64, 64), (50, 77), (1, 1)):
        features = net(image(height, width))
        sizes = [tuple(f.shape) for f in features]
        assert sizes == [(1, c, -(-height // s), -(-width // s)) for c, s in zip(channels, strides, strict=True)]
        assert all(f.isfinite().all() for f in features)
    trained = [p for p in net.parameters() if p.requires_grad]
    assert 0 < len(trained) < len(list(net.parameters()))
    sum(f.square().sum() for f in net(image())).backward()
    assert all((p.grad is not None) <= p.requires_grad for p in net.parameters())
    assert sum(p.grad is not None for p in trained) > len(trained) / 2


def test_resnet50_has_the_strides_and_no_dilation_of_the_released_network() -> None:
    net = Backbone("resnet50").eval()
    plain = timm.create_model("resnet50", num_classes=0)
    plain.load_state_dict(net.model.state_dict())
    disturb_norms(plain)
    net.model.load_state_dict(plain.state_dict())
    plain.eval()
    plain.layer4[0].conv2.stride = (1, 1)
    plain.layer4[0].downsample[0].stride = (1, 1)
    x = image(70, 90)
    with torch.no_grad():
        expected = [plain.maxpool(plain.act1(plain.bn1(plain.conv1(x))))]
        for layer in (plain.layer1, plain.layer2, plain.layer3, plain.layer4):
            expected.append(layer(expected[-1]))
        features = net(x)
    assert [tuple(f.shape[1:]) for f in features] == [(256, 18, 23), (512, 9, 12), (1024, 5, 6), (2048, 5, 6)]
    assert all(close(a, b) for a, b in zip(features, expected[1:], strict=True))


@pytest.mark.parametrize(
    "name",
    [
        "tf_efficientnetv2_b0",
        "tf_mobilenetv3_large_minimal_100",
        "tf_efficientnet_lite0",
        "tf_efficientnet_b0",
        "tf_mobilenetv3_small_100",
        "dm_nfnet_f0",
        "resnet50",
    ],
)
def test_every_cell_that_is_begun_is_there(name: str) -> None:
    """TensorFlow's "same" padding is dynamic beside a stride and static where the stride was taken out."""
    net = Backbone(name).eval()
    assert net.strides == (4, 8, 16, 16)
    assert net.multiple == 1
    for height, width in ((224, 96), (33, 47), (101, 65), (97, 31)):
        with torch.no_grad():
            sizes = [tuple(feature.shape[2:]) for feature in net(image(height, width))]
        assert sizes == [(-(-height // s), -(-width // s)) for s in net.strides]


def test_undone_dilation_sees_what_the_network_at_its_own_stride_does() -> None:
    """The last stage beside timm's dilated one, with the dilation taken out: the same weights, the same grid."""
    ours = Backbone("tf_efficientnet_lite0").eval()
    dilated = Backbone("tf_efficientnet_lite0", dilated=True).eval()
    last = {id(m) for m in ours.model.blocks[5:].modules()}
    for one, other in zip(ours.modules(), dilated.modules(), strict=True):
        if isinstance(one, nn.Conv2d):
            kernel = other.kernel_size[0]
            assert max(one.dilation) == 1
            if id(one) in last:
                assert one.padding == (kernel // 2, kernel // 2)
            assert other.padding[0] == one.padding[0] * other.dilation[0]


@pytest.mark.parametrize("name", ["vit_small_patch14_dinov2", "eva02_tiny_patch14_224"])
def test_patches_of_14_pixels(name: str) -> None:
    net = Backbone(name).eval()
    assert net.strides == (14,) * 4
    for height, width in ((140, 70), (50, 77), (1, 1)):
        with torch.no_grad():
            sizes = {tuple(feature.shape[2:]) for feature in net(image(height, width))}
        assert sizes == {(-(-height // 14), -(-width // 14))}


@pytest.mark.parametrize(("stride", "last"), [(8, (8, 8)), (16, (16, 16)), (32, (16, 32))])
def test_output_stride(stride: int, last: tuple[int, int]) -> None:
    net = Backbone("resnet18", output_stride=stride)
    sizes = [f.shape[2] for f in net(image(64, 64))]
    assert sizes == [16, 8, 64 // last[0], 64 // last[1]]
    assert all(max(m.dilation) == 1 for m in net.modules() if isinstance(m, nn.Conv2d))


def test_dilation_that_belongs_to_a_network_stays() -> None:
    """Selective kernels see two scales by a dilated branch, whatever the stride."""
    net, plain = Backbone("skresnet18"), timm.create_model("skresnet18")
    ours = [m.dilation for m in net.modules() if isinstance(m, nn.Conv2d)]
    own = [m.dilation for m in plain.modules() if isinstance(m, nn.Conv2d)]
    assert (2, 2) in own
    assert ours == own


def test_vit_gives_four_evenly_spaced_blocks() -> None:
    net = Backbone("vit_tiny_patch16_224", trained_from=0).eval()
    plain = net.model.model
    x = image(48, 80)
    with torch.no_grad():
        blocks = plain.forward_intermediates(x, indices=[2, 5, 8, 11], intermediates_only=True)
        features = net(x)
    assert all(torch.equal(a, b) for a, b in zip(features, blocks, strict=True))


def test_padding_ends_where_the_image_does() -> None:
    """Cells of the cropped features are those of the image with zeros around it."""
    net = Backbone("convnext_atto").eval()
    assert net.multiple == 32
    x = image(40, 70)
    with torch.no_grad():
        features, padded = net(x), net(F.pad(x, (0, 26, 0, 24)))
    for feature, whole in zip(features, padded, strict=True):
        assert torch.equal(feature, whole[:, :, : feature.shape[2], : feature.shape[3]])


# --- What learns ------------------------------------------------------------------------------------------------------


def frozen(name: str, trained_from: int) -> set[str]:
    net = Backbone(name, trained_from=trained_from)
    return {key.removeprefix("model.") for key, p in net.named_parameters() if not p.requires_grad}


def test_trained_from_freezes_resnet_stages() -> None:
    keys = {key for key, _ in timm.create_model("test_resnet", num_classes=0).named_parameters()}
    parts = [("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",)]
    below: tuple[str, ...] = ()
    assert frozen("test_resnet", 0) == set()
    for trained_from, part in enumerate(parts, start=1):
        below += part
        assert frozen("test_resnet", trained_from) == {key for key in keys if key.split(".")[0] in below}


def test_trained_from_freezes_vit_blocks() -> None:
    embedding = {"cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"}
    assert {key.removeprefix("model.") for key in frozen("vit_tiny_patch16_224", 1)} == embedding
    for trained_from, blocks in ((2, 3), (3, 6), (4, 9)):
        keys = {key.removeprefix("model.") for key in frozen("vit_tiny_patch16_224", trained_from)}
        assert {int(key.split(".")[1]) for key in keys - embedding} == set(range(blocks))
        assert embedding < keys


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("compact", {"stem.weight", "stem_norm.weight", "stem_norm.bias"}),
        ("mobilenetv3_small_050", {"conv_stem.weight", "bn1.weight", "bn1.bias"}),
        ("convnext_atto", {"stem_0.weight", "stem_0.bias", "stem_1.weight", "stem_1.bias"}),
        ("regnety_002", {"stem.conv.weight", "stem.bn.weight", "stem.bn.bias"}),
    ],
)
def test_from_stage_1_on_only_the_stem_is_frozen(name: str, stem: set[str]) -> None:
    assert frozen(name, 1) == stem


def test_frozen_stages_build_no_graph() -> None:
    features = Backbone("resnet18", trained_from=3).train()(image())
    assert [f.requires_grad for f in features] == [False, False, True, True]


def test_trained_from_out_of_range_is_refused(monkeypatch) -> None:
    for value in (-1, 5):
        with pytest.raises(ConfigError, match=r"network\.trained_from must be 0 to 4"):
            Backbone("compact", trained_from=value)
    monkeypatch.setattr(backbone, "_is_stem", lambda name: False)
    with pytest.raises(ConfigError, match="the stem of 'compact' is not known"):
        Backbone("compact", trained_from=1)


# --- Refusals, and published weights ----------------------------------------------------------------------------------


def one_sentence(error: BaseException) -> bool:
    return "\n" not in str(error) and len(str(error)) < 400


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet5000", "timm knows no model 'resnet5000'"),
        ("", "timm knows no model ''"),
        ("resnet50.nonsense", r"'resnet50\.nonsense' cannot be built \(Invalid pretrained tag"),
        ("levit_128s", "'levit_128s' cannot give stage features"),
        ("mixer_s32_224", "'mixer_s32_224' takes images of one size only"),
    ],
)
def test_networks_that_cannot_serve_are_refused(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        Backbone(name)
    assert one_sentence(caught.value)


def test_published_weights_without_a_network(tmp_path: Path, monkeypatch) -> None:
    """The hub's client would retry for most of a minute."""
    monkeypatch.setattr(timm_models.hub, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(timm_models.hub, "HF_HUB_OFFLINE", True)
    start = time.monotonic()
    with pytest.raises(
        CheckpointError, match=r"HF_HUB_OFFLINE is set.*model\.safetensors of timm/test_resnet"
    ) as caught:
        Backbone("test_resnet", pretrained=True)
    assert one_sentence(caught.value)

    # Not told that there is no network: asks once. A port that nobody listens on stands for the hub.
    monkeypatch.setattr(timm_models.hub, "HF_HUB_OFFLINE", False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setattr(timm_models.hub, "ENDPOINT", f"http://127.0.0.1:{port}")
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    with pytest.raises(CheckpointError, match=r"cannot be fetched \(the hub does not answer\)") as caught:
        Backbone("test_resnet", pretrained=True)
    assert one_sentence(caught.value)
    assert not timm_models.hub.HF_HUB_OFFLINE
    assert time.monotonic() - start < 15


def test_published_weights_from_the_cache_need_no_network(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(timm_models.hub, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(timm_models, "_hub_answers", lambda: pytest.fail("asked for the network"))
    state = timm.create_model("test_resnet").state_dict()
    revision = "0123456789" * 4
    folder = tmp_path / "models--timm--test_resnet.r160_in1k"
    (folder / "snapshots" / revision).mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(revision)
    save_file(state, folder / "snapshots" / revision / "model.safetensors")
    net = Backbone("test_resnet", pretrained=True)
    assert all(torch.equal(value, state[key]) for key, value in net.model.state_dict().items())


def test_a_hub_that_never_answers_is_given_up(monkeypatch) -> None:
    monkeypatch.setattr(timm_models, "HUB_PATIENCE", 0.3)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setattr(timm_models.hub, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        assert not timm_models._hub_answers()
        assert time.monotonic() - start < 3


def test_models_that_were_never_published() -> None:
    with pytest.raises(CheckpointError, match="lcnet_035: timm publishes no weights of this network"):
        Backbone("lcnet_035", pretrained=True)


# --- The compact network ----------------------------------------------------------------------------------------------


def test_compact_network_is_compact() -> None:
    net = CompactNetwork()
    assert 155_000 < sum(p.numel() for p in net.parameters()) < 165_000
    assert [f.shape[2:] for f in net(image(33, 70))] == [(9, 18), (5, 9), (5, 9), (5, 9)]
