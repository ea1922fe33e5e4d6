"""Probabilities of an image at several sizes, against plain loops; the CRF behind them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfc.data.pixels import IMAGENET_PIXELS, doubt
from sfc.refine.crf.config import CRFConfig
from sfc.refine.crf.dense import dense_crf
from sfc.segment.config import PredictConfig
from sfc.segment.predict import Predictor
from sfc.segment.probabilities import ImageLogits, only, smoothed
from sfc.segment.tiles import spans

IMAGE = np.random.default_rng(0).integers(0, 256, (22, 31, 3), dtype=np.uint8)


class Brightness(nn.Module):
    """Logits on a grid of stride 4 that only depend on the pixels of a cell, and on its place."""

    pixels = IMAGENET_PIXELS

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, image: Tensor) -> Tensor:
        cells = F.avg_pool2d(image.mean(dim=1, keepdim=True), 4, ceil_mode=True) * self.weight
        place = torch.linspace(0, 1, cells.shape[3]).expand_as(cells)
        return torch.cat([cells, place, -cells], dim=1)


class Pixels(Brightness):
    """Logits of a pixel that depend on nothing else, so that tiles cannot differ from the whole."""

    def forward(self, image: Tensor) -> Tensor:
        return torch.cat([3 * image, self.weight * image[:, :1]], dim=1)


def pixels(mirrored: bool) -> Tensor:
    image = IMAGE[:, ::-1].copy() if mirrored else IMAGE
    return IMAGENET_PIXELS.normalise(torch.from_numpy(image).permute(2, 0, 1)[None])


@torch.no_grad()
def expected(scales: tuple[float, ...], mirror: bool, pooling: str) -> np.ndarray:
    """The same by plain steps."""
    net, answers = Brightness(), []
    for mirrored in (False, True)[: 1 + mirror]:
        image = pixels(mirrored)
        logits = []
        for scale in scales:
            size = (int(22 * scale), int(31 * scale))
            logits.append(net(F.interpolate(image, size=size, mode="bilinear") if scale != 1 else image))
        if pooling == "maximum":
            grid = logits[0].shape[2:]
            joined = [torch.stack([F.interpolate(each, size=grid, mode="bilinear") for each in logits]).amax(dim=0)]
        else:
            joined = logits
        enlarged = [F.interpolate(each, size=(22, 31), mode="bilinear").softmax(dim=1)[0] for each in joined]
        answer = torch.stack(enlarged).mean(dim=0)
        answers.append(answer.flip(2) if mirrored else answer)
    return torch.stack(answers).mean(dim=0).numpy()


@pytest.mark.parametrize("pooling", ["maximum", "mean"])
@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("scales", [(1.0,), (1.0, 0.5, 1.5), (0.75, 1.0)])
def test_scales_and_mirror_as_by_plain_steps(scales: tuple[float, ...], mirror: bool, pooling: str) -> None:
    found = ImageLogits(Brightness(), IMAGE).probabilities(scales, mirror=mirror, pooling=pooling)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected(scales, mirror, pooling), atol=1e-5)
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-5)


def test_an_image_that_may_not_be_written_is_looked_at_without_a_warning() -> None:
    """As Pillow gives them."""
    image = IMAGE.copy()
    image.setflags(write=False)
    np.testing.assert_array_equal(
        ImageLogits(Brightness(), image).probabilities(), ImageLogits(Brightness(), IMAGE).probabilities()
    )


def test_only_what_is_shown() -> None:
    maps = np.array([[[0.2, 0.0, 0.7]], [[0.3, 1.0, 0.1]], [[0.5, 0.0, 0.2]]], dtype=np.float32)
    found = only(maps, np.array([False, True]))
    np.testing.assert_allclose(
        found, [[[0.2 / 0.7, 1, 0.7 / 0.9]], [[0, 0, 0]], [[0.5 / 0.7, 0, 0.2 / 0.9]]], atol=1e-6
    )
    assert found.dtype == np.float32
    np.testing.assert_allclose(only(maps, np.array([True, True])), maps, atol=1e-6)


def test_the_two_poolings_and_the_mirror_differ() -> None:
    """Otherwise the settings would do nothing."""
    scales = (1.0, 0.5)
    plain, mean, mirrored = (
        ImageLogits(Brightness(), IMAGE).probabilities(scales, mirror, pooling)
        for pooling, mirror in (("maximum", False), ("mean", False), ("maximum", True))
    )
    assert np.abs(plain - mean).max() > 1e-3
    assert np.abs(plain - mirrored).max() > 1e-3


@pytest.mark.parametrize("pooling", ["maximum", "mean"])
def test_adjusted_logits_are_those_of_a_network_with_the_offsets_in_it(
    pooling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, scales = Brightness(), (1.0, 0.5)
    net.log_share = torch.tensor([0.0, -2.0, -3.0])
    plain = ImageLogits(net, IMAGE).probabilities(scales, mirror=True, pooling=pooling)
    single = ImageLogits(net, IMAGE, logit_adjustment=0.5).probabilities()
    found = ImageLogits(net, IMAGE, logit_adjustment=0.5).probabilities(scales, mirror=True, pooling=pooling)
    np.testing.assert_allclose(plain, expected(scales, True, pooling), atol=1e-5)
    forward, offsets = Brightness.forward, torch.tensor([0.0, 1.0, 1.5])[:, None, None]
    monkeypatch.setattr(Brightness, "forward", lambda self, image: forward(self, image) + offsets)
    np.testing.assert_allclose(single, expected((1.0,), False, pooling), atol=1e-5)
    np.testing.assert_allclose(found, expected(scales, True, pooling), atol=1e-5)
    assert np.abs(found - plain).max() > 0.1


def test_what_is_no_image_is_refused() -> None:
    for image in (IMAGE.astype(np.float32), IMAGE[:, :, 0], IMAGE[:0]):
        with pytest.raises(ValueError, match="image must be uint8"):
            ImageLogits(Brightness(), image)


def test_the_crf_leaves_out_only_labels_that_cannot_matter() -> None:
    random = np.random.default_rng(1)
    likely = random.dirichlet([0.3, 0.3, 0.3], size=(22, 31)).transpose(2, 0, 1)
    rest = random.random((40, 22, 31)) * 1e-4
    probabilities = np.concatenate([likely[:2], rest, likely[2:]]).astype(np.float32)
    probabilities /= probabilities.sum(axis=0)
    config = CRFConfig(gaussian=(1, 3), bilateral=(20, 10, 4))
    found = smoothed(IMAGE, probabilities, config)
    whole = dense_crf(IMAGE, probabilities=probabilities, gaussian=(1, 3), bilateral=(20, 10, 4), iterations=10)
    assert not found[2:42].any()
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-5)
    np.testing.assert_allclose(found, whole, atol=5e-3)
    assert (found.argmax(axis=0) == whole.argmax(axis=0)).mean() > 0.999
    assert (found.argmax(axis=0) != probabilities.argmax(axis=0)).any()


def test_one_label_alone_stays_certain() -> None:
    probabilities = np.zeros((3, 22, 31), np.float32)
    probabilities[1] = 1
    found = smoothed(IMAGE, probabilities, CRFConfig())
    assert (found[1] == 1).all()
    assert not found[[0, 2]].any()


def test_every_way_is_what_it_says() -> None:
    config = PredictConfig(scales=(1.0, 0.5), mirror=True, pooling="mean")
    predictor = Predictor(Brightness(), config)
    (strip,) = predictor.strips(IMAGE, ("multi+crf", "single", "multi", "single+crf"))
    ways = strip.probabilities
    assert strip.top == 0
    single = ImageLogits(Brightness(), IMAGE).probabilities()
    multi = ImageLogits(Brightness(), IMAGE).probabilities((1.0, 0.5), True, "mean")
    assert list(ways) == ["multi+crf", "single", "multi", "single+crf"]
    np.testing.assert_array_equal(ways["single"], single)
    np.testing.assert_array_equal(ways["multi"], multi)
    np.testing.assert_array_equal(ways["single+crf"], smoothed(IMAGE, single, config.crf))
    np.testing.assert_array_equal(ways["multi+crf"], smoothed(IMAGE, multi, config.crf))
    np.testing.assert_array_equal(strip.labels["multi"], multi.argmax(axis=0))
    masks = predictor.masks(IMAGE, ("single", "multi+crf"))
    np.testing.assert_array_equal(masks["single"].labels, single.argmax(axis=0))
    assert masks["multi+crf"].labels.dtype == np.uint8
    assert masks["single"].doubt == strip.doubt["single"] == doubt(single)


def test_every_way_has_its_logits_adjusted() -> None:
    net, config = Brightness(), PredictConfig(scales=(1.0, 0.5), logit_adjustment=0.3)
    net.log_share = torch.tensor([0.0, -2.0, -3.0])
    (strip,) = Predictor(net, config).strips(IMAGE, ("single", "multi"))
    adjusted = ImageLogits(net, IMAGE, logit_adjustment=0.3)
    np.testing.assert_array_equal(strip.probabilities["single"], adjusted.probabilities())
    np.testing.assert_array_equal(strip.probabilities["multi"], adjusted.probabilities((1.0, 0.5)))


def test_the_network_sees_each_size_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    forward = Brightness.forward

    def counted(self: Brightness, image: Tensor) -> Tensor:
        sizes.append(tuple(image.shape[2:]))
        return forward(self, image)

    monkeypatch.setattr(Brightness, "forward", counted)
    predictor = Predictor(Brightness(), PredictConfig(scales=(0.5, 1.0)))
    list(predictor.strips(IMAGE, ("single", "single+crf", "multi", "multi+crf")))
    assert sorted(sizes) == [(11, 15), (22, 31)]


def test_tiles_say_what_the_whole_says() -> None:
    image = np.random.default_rng(3).integers(0, 256, (150, 190, 3), dtype=np.uint8)
    whole = Predictor(Pixels(), PredictConfig(scales=(1.0,)))
    tiled = Predictor(Pixels(), PredictConfig(scales=(1.0,)), tile=64)
    strips = list(tiled.strips(image, ("multi",)))
    assert [strip.top for strip in strips] == [begin for begin, _ in spans(150, 64, 64 // 8)]
    assert len(strips) == 3
    joined = np.concatenate([strip.probabilities["multi"] for strip in strips], axis=1)
    expected = next(iter(whole.strips(image, ("multi",)))).probabilities["multi"]
    np.testing.assert_allclose(joined, expected, atol=1e-5)
    of_tiles, at_once = (each.masks(image, ("multi",))["multi"] for each in (tiled, whole))
    np.testing.assert_array_equal(of_tiles.labels, at_once.labels)
    assert of_tiles.doubt == pytest.approx(at_once.doubt, abs=1e-6)
