"""Segmentation networks: the published head and strides, architectures by name, weights, frozen norms, any size."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from sfc.errors import CheckpointError, ConfigError
from sfc.networks.backbone import Backbone
from sfc.segment.deeplab import DeepLabV2, DeepLabV2Settings
from sfc.segment.networks import SegmenterSection, build_segmenter
from sfc.segment.segmenter import SegmenterConfig, log_shares

SMALL = SegmenterSection(backbone="resnet18")
UNET = SegmenterSection(architecture="Unet", backbone="resnet18")


def picture(height: int, width: int, count: int = 1) -> torch.Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(height))


def test_deeplab_v2_is_a_sum_of_atrous_branches_over_a_dilated_backbone() -> None:
    net = build_segmenter(SMALL, 5, blank=True).eval()
    assert isinstance(net, DeepLabV2)
    x = picture(65, 97)
    plain = timm.create_model("resnet18", features_only=True, output_stride=8, out_indices=(4,)).eval()
    plain.load_state_dict(net.backbone.model.state_dict())
    features = plain(x)[-1]
    expected = sum(
        F.conv2d(features, branch.weight, branch.bias, padding=rate, dilation=rate)
        for rate, branch in zip((6, 12, 18, 24), net.branches, strict=True)
    )
    assert net(x).shape == (1, 5, 9, 13)
    assert net.stride == 8
    torch.testing.assert_close(net(x), expected, rtol=1e-4, atol=1e-4)


def test_shares_are_of_images_against_the_most_frequent_class() -> None:
    labels = np.array([[1, 1, 0], [1, 0, 0], [1, 0, 0], [1, 0, 0], [0, 1, 0]], dtype=np.float32)
    found = log_shares(labels)
    # Shown by 4, 2 and no images; one that no image shows counts as shown by one. The background counts as the first.
    assert found.dtype == torch.float32
    assert found.tolist() == pytest.approx([0, 0, math.log(2 / 4), math.log(1 / 4)])
    assert log_shares(np.zeros((3, 2))).tolist() == [0, 0, 0]


def test_a_network_is_used_to_no_class_before_its_training() -> None:
    net = build_segmenter(SegmenterSection(backbone="compact", weights="none"), 4)
    assert net.state_dict()["log_share"].tolist() == [0, 0, 0, 0]


def test_published_crop_has_the_published_grid() -> None:
    with torch.no_grad():
        assert build_segmenter(SMALL, 21, blank=True)(picture(321, 321)).shape == (1, 21, 41, 41)


def test_head_starts_from_a_normal_distribution_of_001_and_no_bias() -> None:
    torch.manual_seed(0)
    net = build_segmenter(SMALL, 21, blank=True)
    weights, biases = net.head_parameters()
    assert len(weights) == len(biases) == 4
    assert all(not bias.any() for bias in biases)
    assert torch.cat([weight.flatten() for weight in weights]).std().item() == pytest.approx(0.01, rel=0.01)


@pytest.mark.parametrize("config", [SMALL, UNET], ids=["deeplab_v2", "Unet"])
def test_norms_with_weights_neither_learn_nor_update_and_all_else_learns(config: SegmenterConfig) -> None:
    net = build_segmenter(config, 3, blank=True).train()
    before = {name: value.clone() for name, value in net.encoder.named_buffers()}
    net(picture(64, 64, 2)).square().mean().backward()
    assert all(torch.equal(before[name], value) for name, value in net.encoder.named_buffers())
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            assert module.weight.grad is not None
    norms = [module for module in net.encoder.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert all(module.weight.grad is None and not module.training for module in norms)


@pytest.mark.parametrize("config", [SMALL, UNET], ids=["deeplab_v2", "Unet"])
def test_norms_from_scratch_learn_and_update(config: SegmenterConfig) -> None:
    net = build_segmenter(replace(config, weights="none"), 3).train()
    net(picture(64, 64, 2)).square().mean().backward()
    norms = [module for module in net.encoder.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(module.weight.grad is not None and module.running_mean.any() for module in norms)


def test_compact_network_for_small_images() -> None:
    config = SegmenterSection(backbone="compact", weights="none", deeplab_v2=DeepLabV2Settings(atrous_rates=(1, 2)))
    net = build_segmenter(config, 4)
    assert net(picture(96, 80, 2)).shape == (2, 4, 12, 10)
    assert sum(p.numel() for p in net.parameters()) < 400_000


@pytest.mark.parametrize(
    ("architecture", "backbone"),
    [
        ("Unet", "resnet18"),
        ("fpn", "mobilenet_v2"),
        ("DeepLabV3Plus", "tu-resnet18"),
        ("PAN", "resnet18"),
        ("Segformer", "mit_b0"),
        ("DPT", "tu-vit_tiny_patch16_224"),
    ],
)
@pytest.mark.parametrize("size", [(64, 96), (33, 50)])
def test_architectures_of_the_library_take_any_size(architecture: str, backbone: str, size: tuple[int, int]) -> None:
    net = build_segmenter(replace(UNET, architecture=architecture, backbone=backbone), 4, blank=True).eval()
    with torch.no_grad():
        assert net(picture(*size)).shape == (1, 4, *size)
    assert net.stride == 1


def test_padding_ends_where_the_image_does() -> None:
    """A network that sees one pixel only gives the same logits with and without what lies beside the image."""
    net = build_segmenter(replace(UNET, architecture="FPN"), 3, blank=True).eval()
    assert net.multiple == 32
    net.model = nn.Conv2d(3, 3, 1)
    x = picture(33, 50)
    assert torch.equal(net(x), net.model(F.pad(x, (0, 14, 0, 31)))[:, :, :33, :50])


@pytest.mark.parametrize(
    ("architecture", "stride", "side"),
    [
        ("deeplab_v2", 8, 8),
        ("deeplab_v2", 16, 4),
        ("deeplab_v2", 32, 2),
        ("DeepLabV3", 8, 8),
        ("DeepLabV3Plus", 8, 8),
        ("DeepLabV3Plus", 16, 4),
        ("PAN", 8, 4),  # it has none of 8
        ("Unet", 8, 2),
    ],
)
def test_output_stride_is_as_wanted_where_the_architecture_can_have_it(
    architecture: str, stride: int, side: int
) -> None:
    config = replace(SMALL if architecture == "deeplab_v2" else UNET, architecture=architecture, output_stride=stride)
    net = build_segmenter(config, 2, blank=True).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        assert net.encoder(picture(64, 64))[-1].shape[2] == side


def test_an_output_stride_that_the_library_has_not_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"DeepLabV3 with resnet18 cannot be built .*32"):
        build_segmenter(replace(UNET, architecture="DeepLabV3", output_stride=32), 2, blank=True)


def test_classifiers_backbone_is_copied_and_dilated() -> None:
    torch.manual_seed(3)
    classifier = Backbone("resnet18", trained_from=3)
    config = replace(SMALL, backbone="classifier")
    net = build_segmenter(config, 3, classifier)
    assert isinstance(net, DeepLabV2)
    for name, value in classifier.state_dict().items():
        assert torch.equal(net.backbone.state_dict()[name], value)
    assert net.stride == 8
    assert net.backbone.model.layer4[1].conv1.dilation == (4, 4)
    assert net.backbone.model.conv1.weight.requires_grad
    net.backbone.model.conv1.weight.data.zero_()
    assert classifier.model.conv1.weight.any()
    with pytest.raises(ConfigError, match="no classifier's backbone is given"):
        build_segmenter(config, 3)
    with pytest.raises(ConfigError, match="only deeplab_v2 can start from the classifier"):
        build_segmenter(replace(UNET, backbone="classifier"), 3)


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize(
    ("architecture", "backbone"), [("deeplab_v2", "resnet18"), ("Unet", "resnet18"), ("Unet", "tu-convnext_atto")]
)
def test_backbone_weights_from_a_local_file(tmp_path: Path, architecture: str, backbone: str, suffix: str) -> None:
    source = timm.create_model(backbone.removeprefix("tu-"))
    path = tmp_path / f"weights.{suffix}"
    if suffix == "pth":
        torch.save(source.state_dict(), path)
    else:
        save_file(source.state_dict(), path)
    config = SegmenterSection(architecture=architecture, backbone=backbone, weights=str(path))
    net = build_segmenter(config, 3)
    first = next(module for module in net.encoder.modules() if isinstance(module, nn.Conv2d))
    assert torch.equal(first.weight, next(m for m in source.modules() if isinstance(m, nn.Conv2d)).weight)
    last = [
        value for name, value in source.named_parameters() if "layer4.1.conv2" in name or "stages.3.blocks.1" in name
    ]
    ours = {value.sum().item() for value in net.encoder.state_dict().values()}
    assert last
    assert all(value.sum().item() in ours for value in last)


def test_local_weights_that_do_not_serve(tmp_path: Path) -> None:
    other, cut, text = tmp_path / "other.safetensors", tmp_path / "cut.safetensors", tmp_path / "text.pth"
    save_file(timm.create_model("resnet50").state_dict(), other)
    cut.write_bytes(other.read_bytes()[:1000])
    text.write_text("no weights")
    for path in (other, cut, text, tmp_path / "none.safetensors", tmp_path / "none.pth"):
        for config in (SMALL, UNET):
            with pytest.raises(CheckpointError, match=path.name) as caught:
                build_segmenter(replace(config, weights=str(path)), 3)
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (replace(UNET, architecture="Vnet"), "'Vnet' is none of deeplab_v2, Unet, "),
        (replace(UNET, backbone="resnet19"), "Unet with resnet19 cannot be built"),
        (replace(UNET, backbone="tu-resnet19"), "Unet with tu-resnet19 cannot be built"),
        (replace(UNET, architecture="DPT"), "DPT with resnet18 cannot be built"),
        (replace(SMALL, backbone="resnet19"), "timm knows no model 'resnet19'"),
    ],
)
def test_networks_that_do_not_exist(config: SegmenterConfig, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        build_segmenter(config, 3, blank=True)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 350


@pytest.mark.parametrize("backbone", ["resnet18", "tu-resnet18"])
def test_published_weights_that_cannot_be_had(backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match=r"not in the cache and cannot be fetched \(HF_HUB_OFFLINE is set\)"):
        build_segmenter(replace(UNET, backbone=backbone), 3)
