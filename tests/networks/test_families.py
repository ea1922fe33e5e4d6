"""Families of timm's networks, one small model each: sizes, a step, where maps are bright, and what is built on them.

A few run always; all of them, which write docs/backbones.md anew, as that page says.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sfc.classify.inference import infer_cams
from sfc.classify.network import SFCNetwork
from sfc.errors import ConfigError
from sfc.networks.backbone import BATCH_NORMS, Backbone
from sfc.refine.relation.network import RelationNetwork
from sfc.segment.deeplab import DeepLabV2

PAGE = Path(__file__).parents[2] / "docs" / "backbones.md"
EVERY = os.environ.get("SFC_FAMILIES") == "all"
QUICK = (
    *("regnetx_002", "tf_efficientnet_lite0", "mobilenetv4_conv_small_050", "convnextv2_atto", "hrnet_w18_small"),
    *("pvt_v2_b0", "vit_tiny_patch16_224", "eva02_tiny_patch14_224", "maxvit_rmlp_pico_rw_256", "crossvit_tiny_240"),
)
FAMILIES = (
    *("resnet18", "resnext26ts", "res2net50_26w_4s", "seresnet18", "resnest14d", "resnet50_clip", "regnetx_002"),
    *("regnety_002", "efficientnet_b0", "tf_efficientnet_b0", "tf_efficientnet_lite0", "tf_efficientnetv2_b0"),
    *("mobilenetv2_050", "mobilenetv3_small_050", "tf_mobilenetv3_small_minimal_100", "mobilenetv4_conv_small_050"),
    *("mnasnet_small", "lcnet_050", "ghostnet_050", "hardcorenas_a", "repvgg_a0", "repvit_m0_9", "starnet_s1"),
    *(
        "convnext_atto",
        "convnextv2_atto",
        "nfnet_f0",
        "nf_regnet_b0",
        "densenet121",
        "rdnet_tiny",
        "dpn48b",
        "vgg11_bn",
    ),
    *("xception41", "inception_v3", "darknet53", "cspresnet50", "dla34", "hrnet_w18_small", "edgenext_xx_small"),
    *("fastvit_t8", "poolformer_s12", "mambaout_femto", "efficientvit_b0", "efficientformerv2_s0", "tiny_vit_5m_224"),
    *("swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256", "swinv2_cr_tiny_224", "focalnet_tiny_srf"),
    *("davit_tiny", "maxvit_rmlp_pico_rw_256", "coatnet_nano_rw_224", "pvt_v2_b0", "twins_svt_small", "hiera_tiny_224"),
    *("vit_tiny_patch16_224", "deit_tiny_patch16_224", "deit3_small_patch16_224", "vit_small_patch14_dinov2"),
    *("vit_small_patch14_reg4_dinov2", "eva02_tiny_patch14_224", "vit_base_patch32_clip_224", "samvit_base_patch16"),
    *("beit_base_patch16_224", "levit_128s", "visformer_tiny", "crossvit_tiny_240"),
)
SIZES = ((65, 97), (111, 84), (130, 71))
HEAD = """# Backbones
What `classify.network.backbone` (and `segment.network.backbone` of `deeplab_v2`) may be: any timm model that gives four
stages of features of images of any size. One small model of each family was built with random weights and held to:
stages of ⌈size / stride⌉ cells at 65 × 97, 111 × 84 and 130 × 71 pixels; finite gradients, and batch norms that stay
as they are; features that are brightest where the image changed; CAMs, a relation network and DeepLab-v2 on top of it.
What is refused is refused with these words. Sizes that are no multiple of "padded to" are padded with zeros inside and
cropped again. `sfc` asks for an output stride of 16, which not every family can have.

Written by `SFC_FAMILIES=all make test ARGS=tests/networks/test_families.py`.

| timm model | strides of the stages | channels | padded to | pixels: mean, std |
|---|---|---|---|---|
"""


def row_of(name: str) -> str:
    """The table's row of a network that holds what is asked of it. Raises AssertionError where it does not."""
    torch.manual_seed(0)
    try:
        net = SFCNetwork(name, 2, frozen_norm=True, side_channels=(4, 4, 4, 4))
    except ConfigError as error:
        return f"| `{name}` | refused: {str(error).removeprefix('network.backbone: ')} | | | |"
    backbone = net.backbone
    holds_sizes(backbone)
    holds_training(backbone)
    holds_places(backbone)
    holds_what_is_built_on_it(net)
    mean, std = (", ".join(f"{value:.3g}" for value in values) for values in backbone.pixels.plain().values())
    strides, channels = (", ".join(map(str, values)) for values in (backbone.strides, backbone.channels))
    return f"| `{name}` | {strides} | {channels} | {backbone.multiple} | {mean}; {std} |"


def holds_sizes(backbone: Backbone) -> None:
    with torch.no_grad():
        for height, width in SIZES:
            for feature, stride in zip(backbone(torch.randn(1, 3, height, width)), backbone.strides, strict=True):
                assert tuple(feature.shape[2:]) == (-(-height // stride), -(-width // stride))


def holds_training(backbone: Backbone) -> None:
    statistics = {name: value.clone() for name, value in backbone.named_buffers()}
    backbone.train()
    assert not any(module.training for module in backbone.modules() if isinstance(module, BATCH_NORMS))
    last = backbone(torch.randn(2, 3, 96, 80))[-1]
    last.square().mean().backward()
    gradients = [p.grad for p in backbone.parameters() if p.grad is not None]
    assert any(gradient.any() for gradient in gradients)
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert all(torch.equal(value, statistics[name]) for name, value in backbone.named_buffers())
    backbone.zero_grad()


def holds_places(backbone: Backbone) -> None:
    """The last stage changes most where the image does; where attention at random spreads it, an earlier one does."""
    backbone.eval()
    for name, parameter in backbone.named_parameters():
        if name.endswith("weight") and not parameter.any():
            nn.init.ones_(parameter)  # branches that begin at zero
    backbone.double()  # deep networks at random make numbers so small that they would be rounding
    for corner in ((32, 48), (176, 144)):
        image = torch.randn(1, 3, 256, 256).double().repeat(2, 1, 1, 1)
        image[1, :, corner[0] : corner[0] + 48, corner[1] : corner[1] + 48] = 2 * torch.randn(3, 48, 48)
        with torch.no_grad():
            stages = backbone(image)
        changes = [(changed - plain).abs().sum(dim=0) for plain, changed in reversed(stages)]
        strides = reversed(backbone.strides)
        change, stride = next(
            (change, stride)
            for change, stride in zip(changes, strides, strict=True)
            if change.median() < change.max() / 2
        )
        bright = (change > change.max() / 2).nonzero().float()
        centre = (bright.mean(dim=0) + 0.5) * stride
        assert (centre - torch.tensor(corner) - 24).abs().max() <= 48
    backbone.float()


def holds_what_is_built_on_it(net: SFCNetwork) -> None:
    image, backbone = np.random.default_rng(0).integers(0, 256, (75, 90, 3), np.uint8), net.backbone
    keys, weight, prototype = infer_cams(net, image, [1, 0], (1.0, 0.5))
    assert keys.tolist() == [0, 1]
    assert weight.shape == prototype.shape == (2, 75, 90)
    assert np.isfinite(weight).all()
    assert np.isfinite(prototype).all()
    edge = RelationNetwork(backbone).infer(torch.randn(3, 75, 90))
    assert edge.shape == (-(-75 // backbone.strides[0]), -(-90 // backbone.strides[0]))
    segmenter = DeepLabV2(backbone, 3, (2, 4), frozen_norm=True).eval()
    with torch.no_grad():
        logits = segmenter(torch.randn(1, 3, 75, 90))
    assert logits.shape == (1, 3, -(-75 // backbone.strides[-1]), -(-90 // backbone.strides[-1]))
    assert torch.isfinite(logits).all()


@pytest.fixture(scope="module")
def rows() -> Iterator[dict[str, str]]:
    """Rows by name; they become the page where all were asked for."""
    found: dict[str, str] = {}
    yield found
    if len(found) == len(FAMILIES):
        PAGE.write_text(HEAD + "\n".join(found.values()) + "\n")


@pytest.mark.parametrize("name", FAMILIES if EVERY else QUICK)
def test_a_family_holds_or_is_refused_as_the_page_says(name: str, rows: dict[str, str]) -> None:
    rows[name] = row_of(name)
    if not EVERY:
        assert rows[name] in PAGE.read_text().splitlines()


def test_the_page_has_every_family() -> None:
    if not EVERY:
        assert [line.split("`")[1] for line in PAGE.read_text().splitlines() if line.startswith("| `")] == list(
            FAMILIES
        )
