"""Multi-scale CAM inference against the golden figures and against the method step by step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from sfc.classify.cam import correlate_pixels, prototype_cam, with_background
from sfc.classify.inference import SCALES, infer_cams, infer_cams_of_several, scale_maps
from sfc.classify.network import SFCNetwork
from sfc.data.pixels import IMAGENET_PIXELS


def small_network(seed: int = 0, **options: Any) -> SFCNetwork:
    torch.manual_seed(seed)
    options = {"side_channels": (4, 4, 6, 6), "frozen_norm": False, "trained_from": 0, **options}
    return SFCNetwork("compact", 3, **options)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Blobs of colour rather than noise, so that resizing keeps them."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def by_the_book(net: SFCNetwork, image: np.ndarray, label: list[int], scales: tuple[float, ...]) -> tuple[Tensor, ...]:
    """Section 6 of the method, one picture through the network at a time."""
    height, width = image.shape[:2]
    present = [0, *(1 + c for c, shown in enumerate(label) if shown)]
    weight, prototypes = torch.zeros(len(present), height, width), torch.zeros(len(present), height, width)
    for scale in scales:
        size = (round(scale * width), round(scale * height))
        pixels = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC), dtype=np.float32) / 255
        pixels = (pixels - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
        x = torch.from_numpy(pixels).permute(2, 0, 1)[None]
        passes = [net.backbone(x), [stage.flip(3) for stage in net.backbone(x.flip(3))]]
        grid = passes[0][2].shape[2:]
        class_map = sum(net.classifier(stages[3]) for stages in passes)
        cam = F.interpolate(with_background(class_map), size=grid, mode="bilinear", align_corners=True)
        if net.correlation is not None:
            # Image and mirror image, mirrored back, are the same pixels twice.
            both = F.interpolate(2 * x, size=grid, mode="bilinear", align_corners=True)
            last = F.interpolate(passes[0][3] + passes[1][3], size=grid, mode="bilinear", align_corners=True)
            cam = correlate_pixels(cam, net.correlation(torch.cat([both, last], dim=1)))
        feature = 0
        for stages in passes:
            parts = []
            for side, stage in zip(net.side, stages, strict=True):
                part = side(stage)
                part = part / (part.norm(dim=1, keepdim=True) + 1e-5)
                parts.append(F.interpolate(part, size=grid, mode="bilinear", align_corners=False))
            feature = feature + torch.cat(parts, dim=1)
        prototype = prototype_cam(cam, feature, torch.ones_like(cam))
        weight += F.interpolate(cam[:, present], size=(height, width), mode="bilinear", align_corners=False)[0]
        prototypes += F.interpolate(prototype[:, present], size=(height, width), mode="bilinear", align_corners=False)[
            0
        ]
    final = [total / (total.amax(dim=(1, 2), keepdim=True) + 1e-5) for total in (weight, prototypes)]
    for total in final:
        total[1:] += total[1:].clone()
        total[0] += 0.4
    return torch.tensor(present), *final


@pytest.fixture(scope="module")
def official_net(official_checkpoint) -> SFCNetwork:
    return SFCNetwork.from_official(official_checkpoint)


def test_figures_over_all_scales(official_net, golden) -> None:
    figures = golden("network_inference")
    keys, weight, prototype = infer_cams(official_net, figures["image_uint8"], figures["label"])
    assert keys.dtype == np.int64
    np.testing.assert_array_equal(keys, figures["keys"])
    for ours, name in ((weight, "weight_cam"), (prototype, "prototype_cam")):
        assert ours.dtype == np.float32
        reference = figures[name].astype(np.float32)
        assert ours.shape == reference.shape
        assert np.linalg.norm(ours - reference) / np.linalg.norm(reference) < 2e-3
        np.testing.assert_allclose(ours, reference, atol=4e-3)
    empty = ~figures["prototype_cam"].any(axis=(1, 2))
    np.testing.assert_array_equal(~prototype.any(axis=(1, 2)), empty)


def test_figures_at_scale_one(official_net, golden) -> None:
    figures = golden("network_inference")
    image = IMAGENET_PIXELS.normalise(torch.from_numpy(figures["image_uint8"]).permute(2, 0, 1)[None])
    with torch.inference_mode():
        (maps,) = scale_maps(official_net, image)
    # Absent classes win seeds, but have no prototypes there; here the label applies afterwards.
    present = torch.from_numpy(np.append(1, figures["label"]))[:, None, None]
    for ours, name in (
        (maps.classifier_cam, "scale1_classifier"),
        (maps.refined_cam, "scale1_refined"),
        (maps.prototype_cam(official_net, torch.arange(len(present))) * present, "scale1_prototype"),
    ):
        reference = torch.from_numpy(figures[name])
        assert ours.shape == reference.shape
        assert float((ours - reference).norm() / reference.norm()) < 1e-4, name


@pytest.mark.parametrize("options", [{}, {"pixel_correlation": False}])
@pytest.mark.parametrize("scales", [SCALES, (1.0,), (0.7, 1.3)])
def test_equals_the_method_step_by_step(options: dict[str, Any], scales: tuple[float, ...]) -> None:
    net = small_network(**options).eval()
    image = picture(37, 58)
    keys, weight, prototype = infer_cams(net, image, [1, 0, 1], scales)
    with torch.no_grad():
        expected_keys, expected_weight, expected_prototype = by_the_book(net, image, [1, 0, 1], scales)
    assert keys.tolist() == expected_keys.tolist() == [0, 1, 3]
    np.testing.assert_allclose(weight, expected_weight, atol=1e-4)
    np.testing.assert_allclose(prototype, expected_prototype, atol=1e-4)


def test_absent_classes_compete_before_the_label_applies() -> None:
    """Maps of a class do not depend on which other classes the label names."""
    net, image = small_network(), picture(40, 40)
    keys, weight, prototype = infer_cams(net, image, [1, 1, 1])
    for label in ([1, 0, 0], [0, 1, 1], [0, 0, 0]):
        some, some_weight, some_prototype = infer_cams(net, image, label)
        rows = np.searchsorted(keys, some)
        np.testing.assert_allclose(some_weight, weight[rows], atol=1e-6)
        np.testing.assert_allclose(some_prototype, prototype[rows], atol=1e-6)


def test_ranges_and_the_background_rule() -> None:
    net, image = small_network(), picture(50, 70)
    keys, weight, prototype = infer_cams(net, image, [1, 1, 0])
    assert keys.tolist() == [0, 1, 2]
    for maps in (weight, prototype):
        assert maps.shape == (3, 50, 70)
        assert 0.4 <= maps[0].min() <= maps[0].max() <= 1.4
        assert maps[1:].min() >= 0
        for channel in maps[1:]:
            assert channel.max() == pytest.approx(2, abs=1e-3) or not channel.any()


def test_mirrored_image_gives_mirrored_maps() -> None:
    net, image = small_network(), picture(48, 64)
    _, weight, prototype = infer_cams(net, image, [1, 0, 1], (1.0,))
    _, mirrored_weight, mirrored_prototype = infer_cams(net, image[:, ::-1], [1, 0, 1], (1.0,))
    np.testing.assert_allclose(mirrored_weight[:, :, ::-1], weight, atol=1e-4)
    np.testing.assert_allclose(mirrored_prototype[:, :, ::-1], prototype, atol=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (1, 60), (60, 1), (2, 3), (5, 300), (33, 31)])
@pytest.mark.parametrize("options", [{}, {"centre_features": True}])
def test_any_size_works(size: tuple[int, int], options: dict[str, Any]) -> None:
    keys, weight, prototype = infer_cams(small_network(**options), picture(*size), [0, 1, 0])
    assert keys.tolist() == [0, 2]
    for maps in (weight, prototype):
        assert maps.shape == (2, *size)
        assert np.isfinite(maps).all()


def test_official_network_takes_one_pixel(official_net) -> None:
    keys, weight, prototype = infer_cams(official_net, picture(1, 1), np.eye(20)[4])
    assert keys.tolist() == [0, 5]
    assert np.isfinite(weight).all()
    assert np.isfinite(prototype).all()


@pytest.mark.parametrize("form", [list, tuple, np.array, torch.tensor, lambda x: np.array(x, dtype=bool)])
def test_forms_of_the_label(form) -> None:
    net, image = small_network(), picture(16, 16)
    keys, weight, _ = infer_cams(net, image, form([0, 1, 1]), (1.0,))
    assert keys.tolist() == [0, 2, 3]
    assert weight.shape == (3, 16, 16)


def test_an_image_without_labels_has_background_only() -> None:
    keys, weight, prototype = infer_cams(small_network(), picture(20, 20), [0, 0, 0])
    assert keys.tolist() == [0]
    assert weight.shape == prototype.shape == (1, 20, 20)


def test_predicted_labels_are_the_probable_classes() -> None:
    net, image = small_network(), picture(40, 56)
    net.eval().classifier.weight.data *= 30  # probabilities that differ between scales
    scores = []
    with torch.no_grad():
        for scale in (1.0, 0.5):
            size = (round(scale * 56), round(scale * 40))
            pixels = torch.from_numpy(np.array(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)))
            x = IMAGENET_PIXELS.normalise(pixels.permute(2, 0, 1)[None])
            both = [net.classifier(net.backbone(view)[3]).mean(dim=(2, 3)) for view in (x, x.flip(3))]
            scores.append(torch.sigmoid(torch.cat(both).mean(dim=0)))
    probability = torch.stack(scores).mean(dim=0).tolist()
    order = sorted(range(3), key=lambda c: probability[c])
    between = (probability[order[0]] + probability[order[1]]) / 2
    keys, weight, _ = infer_cams(net, image, None, (1.0, 0.5), threshold=between)
    assert keys.tolist() == [0, *sorted(1 + c for c in order[1:])]
    given = infer_cams(net, image, [int(c in order[1:]) for c in range(3)], (1.0, 0.5))
    np.testing.assert_array_equal(keys, given[0])
    np.testing.assert_array_equal(weight, given[1])
    # The mean over scales decides: neither the surest scale nor the least sure one.
    for c in range(3):
        for threshold, there in ((probability[c] - 1e-5, True), (probability[c] + 1e-5, False)):
            predicted, _, _ = infer_cams(net, image, None, (1.0, 0.5), threshold=threshold)
            assert (1 + c in predicted) == there
    assert (torch.stack(scores).amax(dim=0) - torch.stack(scores).mean(dim=0)).min() > 1e-3
    assert infer_cams(net, image, None, (1.0,), threshold=1.01)[0].tolist() == [0]
    assert infer_cams(net, image, None, (1.0,), threshold=0.0)[0].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8, 3), dtype=np.float32),
        np.zeros((8, 8), dtype=np.uint8),
        np.zeros((8, 8, 4), dtype=np.uint8),
        np.zeros((3, 8, 8), dtype=np.uint8),
        np.zeros((0, 8, 3), dtype=np.uint8),
    ],
)
def test_other_arrays_are_refused(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"image must be uint8 \[H, W, 3\]"):
        infer_cams(small_network(), image, [0, 0, 1])


@pytest.mark.parametrize("label", [[1, 0], np.ones((1, 3)), torch.ones(4)])
def test_labels_of_other_classes_are_refused_before_any_work(label) -> None:
    net = small_network()
    net.backbone = torch.nn.Identity()  # would fail if it were called
    with pytest.raises(ValueError, match="the network 3 classes"):
        infer_cams(net, picture(8, 8), label)


@pytest.mark.parametrize("training", [True, False])
def test_leaves_the_network_as_it_was(training: bool, monkeypatch) -> None:
    net = small_network().train(training)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    infer_cams(net, picture(24, 24), [1, 0, 0])

    def unchanged() -> bool:
        modes = all(module.training == training for module in net.modules())
        return modes and all(torch.equal(before[name], value) for name, value in net.state_dict().items())

    assert unchanged()

    def fail(stages: list[Tensor]) -> Tensor:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(net, "hierarchical_feature", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        infer_cams(net, picture(24, 24), [1, 0, 0])
    assert unchanged()
    assert torch.is_grad_enabled()
    assert not torch.is_autocast_enabled("cpu")


def test_frozen_norms_stay_frozen_after_a_call_in_training() -> None:
    net = small_network(frozen_norm=True).train()
    infer_cams(net, picture(16, 16), [1, 0, 0], (1.0,))
    norms = [module for module in net.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training for norm in norms)
    assert net.training


def test_does_not_touch_the_image() -> None:
    image = picture(24, 30)
    image.flags.writeable = False
    copy = image.copy()
    infer_cams(small_network(), image, [1, 0, 0])
    np.testing.assert_array_equal(image, copy)


def test_bf16_is_close() -> None:
    net, image = small_network(), picture(64, 80)
    _, weight, prototype = infer_cams(net, image, [1, 1, 1])
    _, weight_bf16, prototype_bf16 = infer_cams(net, image, [1, 1, 1], precision="bf16")
    assert weight_bf16.dtype == prototype_bf16.dtype == np.float32
    assert not np.array_equal(weight, weight_bf16)
    assert np.abs(weight - weight_bf16).mean() < 0.03
    assert np.abs(prototype - prototype_bf16).mean() < 0.06
    assert (weight.argmax(axis=0) == weight_bf16.argmax(axis=0)).mean() > 0.95


def test_works_after_training_steps_in_either_memory_layout() -> None:
    net, image = small_network(), picture(40, 40)
    _, weight, _ = infer_cams(net, image, [1, 0, 1])
    _, moved, _ = infer_cams(net.to(memory_format=torch.channels_last), image, [1, 0, 1])
    np.testing.assert_allclose(weight, moved, atol=1e-4)
    # Maps made under inference mode must not leak into the graph of a later training step.
    net.train()
    net(torch.randn(1, 3, 40, 40), torch.ones(1, 4, *net.grid_size(40, 40))).refined_cam.sum().backward()
    assert net.classifier.weight.grad is not None


@pytest.mark.parametrize("options", [{}, {"prototypes": "competing", "pixel_correlation": False}])
@pytest.mark.parametrize("given", [True, False])
def test_several_images_have_the_cams_that_each_has_alone(options: dict[str, Any], given: bool) -> None:
    net = small_network(**options)
    images = [picture(24, 20), picture(24, 20)[::-1], picture(24, 20)[:, ::-1].copy()]
    labels = [[1, 0, 1], [0, 1, 0], np.array([0, 0, 0])] if given else [None] * 3
    several = infer_cams_of_several(net, images, labels, (1.0, 0.5), threshold=0.4)
    assert len(several) == 3
    for image, label, found in zip(images, labels, several, strict=True):
        alone = infer_cams(net, image, label, (1.0, 0.5), threshold=0.4)
        np.testing.assert_array_equal(found[0], alone[0])
        for ours, other in zip(found[1:], alone[1:], strict=True):
            np.testing.assert_allclose(ours, other, atol=1e-4)
    assert not np.allclose(several[0][1][0], several[1][1][0])


def test_images_of_several_sizes_cannot_go_together() -> None:
    with pytest.raises(ValueError, match=r"one size, not \[\(20, 24\), \(24, 20\)\]"):
        infer_cams_of_several(small_network(), [picture(24, 20), picture(20, 24)], [None, None])
