"""Pixels as the weights of each network want them, wherever a network sees an image."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
import timm
import torch

from sfc.classify.inference import infer_cams
from sfc.classify.network import SFCNetwork
from sfc.data.pixels import IMAGENET_PIXELS, PixelValues
from sfc.networks.backbone import Backbone
from sfc.refine.relation.network import RelationNetwork
from sfc.segment.networks import SegmenterSection, build_segmenter
from sfc.segment.probabilities import ImageLogits

HALF = PixelValues((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("compact", IMAGENET_PIXELS),
        ("resnet50.tv_in1k", IMAGENET_PIXELS),
        ("tf_efficientnet_lite0", HALF),
        ("mobilenetv3_small_050", IMAGENET_PIXELS),
        ("vit_tiny_patch16_224.augreg_in21k_ft_in1k", HALF),
    ],
)
def test_a_backbone_says_what_its_weights_want(name: str, expected: PixelValues) -> None:
    assert Backbone(name, trained_from=0).pixels == expected
    if name != "compact":
        published = timm.get_pretrained_cfg(name)
        assert (published.mean, published.std) == (expected.mean, expected.std)


def test_normalisation_is_that_of_plain_arithmetic() -> None:
    image = torch.arange(0, 240, 5, dtype=torch.uint8).reshape(1, 3, 4, 4)
    found = PixelValues((0.1, 0.2, 0.3), (0.5, 0.25, 2.0)).normalise(image)
    for channel, (mean, std) in enumerate(((0.1, 0.5), (0.2, 0.25), (0.3, 2.0))):
        expected = (image[0, channel].numpy() / 255 - mean) / std
        np.testing.assert_allclose(found[0, channel].numpy(), expected, atol=1e-6)


def seen_by(net: torch.nn.Module, look) -> torch.Tensor:
    """The first image that a backbone gets."""
    seen = []
    backbone = next(module for module in net.modules() if isinstance(module, Backbone))
    handle = backbone.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach().clone()))
    look()
    handle.remove()
    return seen[0]


def test_cams_and_segmenters_see_pixels_as_their_backbone_wants_them() -> None:
    image = np.full((64, 64, 3), 255, dtype=np.uint8)
    classifier = SFCNetwork("tf_efficientnet_lite0", 2, pixel_correlation=False)
    seen = seen_by(classifier, lambda: infer_cams(classifier, image, [1, 0], (1.0,)))
    assert torch.allclose(seen, torch.ones_like(seen))
    segmenter = build_segmenter(SegmenterSection(backbone="tf_efficientnet_lite0", weights="none"), 3).eval()
    seen = seen_by(segmenter, lambda: ImageLogits(segmenter, image).probabilities())
    assert torch.allclose(seen, torch.ones_like(seen))
    assert RelationNetwork(classifier.backbone).stages.backbone.pixels == HALF


@pytest.mark.parametrize(
    ("encoder", "expected"), [("resnet18", IMAGENET_PIXELS), ("tu-tf_efficientnet_lite0", HALF), ("xception", HALF)]
)
def test_library_encoders(encoder: str, expected: PixelValues) -> None:
    config = SegmenterSection(architecture="Unet", backbone=encoder, weights="none")
    assert build_segmenter(config, 3).pixels == expected


def test_values_are_plain() -> None:
    assert HALF.plain() == {name: list(values) for name, values in asdict(HALF).items()}
