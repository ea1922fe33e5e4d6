"""Competing prototypes against plain loops, what they are for, and a toy that shows why maps go flat without them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from sfc.classify.cam import correlate_pixels, normalise_peak, prototype_cam, unit_length
from sfc.classify.competing import (
    BACKGROUND_SEED,
    FOREGROUND_SEED,
    PRIOR_FLOOR,
    TEMPERATURE,
    competing_prototype_cam,
    competing_seeds,
    stage_feature,
)
from sfc.classify.losses.guide import GuideLoss, GuideSettings
from sfc.classify.network import SFCNetwork, SFCOutput


def problem(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """CAMs, features and valid masks: 3 classes; image 0 shows the first two, image 1 none; a part is padding."""
    random = torch.Generator().manual_seed(seed)
    cam = normalise_peak(torch.rand(2, 4, 5, 6, generator=random))
    feature = torch.randn(2, 7, 5, 6, generator=random)
    mask = torch.zeros(2, 4, 5, 6)
    mask[:, 0] = 1
    mask[0, 1:3] = 1
    mask[:, :, 4] = 0
    return cam, feature, mask


def plain(cam: Tensor, feature: Tensor, mask: Tensor) -> np.ndarray:
    """The same, position by position."""
    images, channels, height, width = cam.shape
    result = np.zeros(cam.shape)
    for n in range(images):
        sums = [np.zeros(feature.shape[1]) for _ in range(channels)]
        counts = [0] * channels
        for y in range(height):
            for x in range(width):
                if mask[n, 0, y, x] == 0:
                    continue
                foreground = [float(cam[n, k, y, x] * mask[n, k, y, x]) for k in range(1, channels)]
                best = max(foreground)
                k = 0 if best < BACKGROUND_SEED else 1 + foreground.index(best) if best > FOREGROUND_SEED else None
                if k is not None and mask[n, k, y, x] > 0:
                    sums[k] += feature[n, :, y, x].numpy()
                    counts[k] += 1
        for y in range(height):
            for x in range(width):
                f = feature[n, :, y, x].numpy()
                prior = [float(cam[n, k, y, x] * mask[n, k, y, x]) for k in range(1, channels)]
                prior.insert(0, 1 - max(prior))
                scores = {
                    k: (prior[k] + PRIOR_FLOOR)
                    * math.exp(f @ sums[k] / np.linalg.norm(f) / np.linalg.norm(sums[k]) / TEMPERATURE)
                    for k in range(channels)
                    if counts[k]
                }
                for k, score in scores.items():
                    result[n, k, y, x] = score / sum(scores.values()) * float(mask[n, k, y, x])
    return result


@pytest.mark.parametrize("seed", range(3))
def test_competition_is_that_of_a_plain_loop(seed: int) -> None:
    cam, feature, mask = problem(seed)
    found = competing_prototype_cam(cam, feature, mask)
    np.testing.assert_allclose(found.numpy(), plain(cam, feature, mask), atol=1e-5)


def test_channels_share_every_real_position_and_absent_classes_get_nothing() -> None:
    cam, feature, mask = problem()
    found = competing_prototype_cam(cam, feature, mask)
    assert torch.allclose(found[0].sum(dim=0)[:4], torch.ones(4, 6))
    assert found[0, 3].abs().sum() == 0
    assert found[:, :, 4].abs().sum() == 0
    assert torch.equal(found[1, 1:], torch.zeros(3, 5, 6))  # an image without classes is background
    seeds = competing_seeds(cam, mask)
    assert ((seeds == 0) | (seeds == 1)).all()
    assert seeds.sum(dim=1).max() == 1


def test_an_image_without_any_seed_has_no_map() -> None:
    cam, feature, mask = problem()
    middle = torch.full_like(cam, (BACKGROUND_SEED + FOREGROUND_SEED) / 2)
    assert competing_prototype_cam(middle, feature, mask)[0].abs().sum() == 0


def test_shapes_that_do_not_fit_are_refused() -> None:
    cam, feature, mask = problem()
    with pytest.raises(ValueError, match="must agree in images and grid"):
        competing_prototype_cam(cam, feature[:, :, :4], mask)


def toy(shared: float) -> tuple[Tensor, Tensor, Tensor]:
    """An object in the middle of a 12 × 12 grid whose features share a large part with the background's."""
    random = torch.Generator().manual_seed(0)
    on_object = torch.zeros(12, 12, dtype=torch.bool)
    on_object[4:8, 4:8] = True
    own = torch.randn(3, 64, generator=random)
    feature = torch.where(on_object, own[0][:, None, None], own[1][:, None, None])
    feature = feature + 0.5 * torch.randn(64, 12, 12, generator=random) + shared * own[2][:, None, None]
    cam = 0.1 + 0.9 * on_object.float() * torch.rand(12, 12, generator=random)
    cam = normalise_peak(cam[None, None])
    return torch.cat([1 - cam, cam], dim=1), feature[None], on_object


def test_a_small_object_does_not_take_its_surroundings_along() -> None:
    """What surrounds it is a little more like it than like the background far away; its CAM is 0 there."""
    random = torch.Generator().manual_seed(3)
    on_object, around = torch.zeros(2, 12, 12, dtype=torch.bool)
    on_object[5:7, 5:7], around[3:9, 3:9] = True, True
    around &= ~on_object
    thing, ground = torch.randn(2, 64, generator=random)
    share = 0.55 * around + on_object.float()
    feature = share * thing[:, None, None] + (1 - share) * ground[:, None, None]
    feature = unit_length(feature[None] + 0.2 * torch.randn(1, 64, 12, 12, generator=random))
    cam = (0.9 * on_object + 0.1)[None, None] * 1.0
    cam = torch.cat([1 - cam, cam], dim=1)
    found = competing_prototype_cam(cam, feature, torch.ones_like(cam))[0, 1]
    odds_by_likeness = found / (1 - found) * (0.9 + PRIOR_FLOOR) / (0.1 + PRIOR_FLOOR)  # the prior taken out again
    assert (odds_by_likeness > 1)[around].float().mean() > 0.4
    assert (found > 0.5)[around].float().mean() < 0.1
    assert (found > 0.5)[on_object].all()


def flatness(cam: Tensor) -> float:
    """Mean over the background, relative to the peak: near 0 for a sharp map, 1 for a constant one."""
    _, _, on_object = toy(0)
    return float((cam / cam.max())[~on_object].mean())


def test_why_maps_go_flat() -> None:
    """What features share makes every cosine large: correlation and the paper's prototypes spread a map everywhere."""
    for shared, flat in ((0.0, False), (3.0, True)):
        cam, feature, _ = toy(shared)
        mask = torch.ones_like(cam)
        assert flatness(cam[0, 1]) < 0.2
        spread = flatness(correlate_pixels(cam, feature)[0, 1])
        cosine = flatness(prototype_cam(cam, feature, mask)[0, 1])
        assert (spread > 0.8) == flat
        assert (cosine > 0.8) == flat
        # What does not see the shared part stays sharp: centred features, and prototypes that compete.
        centred = feature - feature.mean(dim=(2, 3), keepdim=True)
        assert flatness(correlate_pixels(cam, centred)[0, 1]) < 0.4
        assert flatness(competing_prototype_cam(cam, unit_length(feature, centre=True), mask)[0, 1]) < 0.1


def test_flat_maps_are_a_minimum_of_the_papers_loss_and_none_of_the_guide() -> None:
    """On shared features the paper's loss is lowest for a map that is flat; against competing prototypes it is not."""
    cam, feature, on_object = toy(3.0)
    sharp = torch.stack([(~on_object).float(), on_object.float()])[None]
    flat = torch.ones_like(sharp)
    mask = torch.ones_like(cam)
    cosine = normalise_peak(prototype_cam(cam, feature, mask))
    competing = normalise_peak(competing_prototype_cam(cam, unit_length(feature, centre=True), mask))

    def distance(map_: Tensor, target: Tensor) -> float:
        return float((map_ - target)[:, 1].abs().mean())

    assert distance(flat, cosine) < distance(sharp, cosine)
    assert distance(flat, competing) > 5 * distance(sharp, competing)


def test_a_map_and_its_inverse_are_the_same_to_the_guide() -> None:
    """Only classification knows which side is the object, so the guide has to wait for it (`loss.start`)."""
    cam, feature, on_object = toy(3.0)
    feature = unit_length(feature, centre=True)
    for side in (on_object, ~on_object):
        own = normalise_peak(
            (0.1 + 0.9 * side * torch.rand(12, 12, generator=torch.Generator().manual_seed(1)))[None, None]
        )
        found = competing_prototype_cam(torch.cat([1 - own, own], dim=1), feature, torch.ones_like(cam))[0, 1]
        assert found[side].mean() > 0.9
        assert found[~side].mean() < 0.1


def output(refined: Tensor, prototype: Tensor | None) -> SFCOutput:
    return SFCOutput(torch.zeros(len(refined), refined.shape[1] - 1), refined, refined, prototype)


def test_guide_is_the_mean_over_present_classes_with_seeds_and_moves_the_classifier_alone() -> None:
    random = torch.Generator().manual_seed(1)
    refined = torch.rand(2, 4, 5, 6, generator=random, requires_grad=True)
    prototype = torch.rand(2, 4, 5, 6, generator=random)
    prototype[0, 2] = 0  # no seeds
    prototype.requires_grad_()
    label = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    coefficient = torch.tensor([1.0, 2.0, 3.0])
    loss = GuideLoss()(output(refined, prototype), None, label, coefficient, GuideSettings(1.0))
    expected = []
    for n, c, factor in ((0, 0, 1.0), (1, 2, 3.0)):
        target = prototype[n, c + 1] / (prototype[n, c + 1].max() + 1e-5)
        expected.append(factor * float((refined[n, c + 1] - target).abs().mean().detach()))
    assert float(loss.detach()) == pytest.approx(sum(expected) / 2, rel=1e-5)
    loss.backward()
    assert prototype.grad is None
    assert refined.grad is not None
    assert refined.grad[:, 0].abs().sum() == 0


def test_guide_of_images_without_classes_is_zero_and_without_prototypes_an_error() -> None:
    refined, prototype = torch.rand(2, 2, 4, 3, 3).unbind()
    arguments = (None, torch.zeros(2, 3), torch.ones(3), GuideSettings(1.0))
    assert float(GuideLoss()(output(refined, prototype), *arguments)) == 0
    with pytest.raises(ValueError, match="needs prototype CAMs"):
        GuideLoss()(output(refined, None), *arguments)


def test_a_network_with_competing_prototypes_has_no_side_layers() -> None:
    net = SFCNetwork("compact", 3, frozen_norm=False, trained_from=0, pixel_correlation=False, prototypes="competing")
    assert len(net.side) == 0
    image = torch.randn(2, 3, 48, 48)
    grid = net.grid_size(48, 48)
    label = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    mask = torch.cat([torch.ones(2, 1), label], dim=1)[:, :, None, None].expand(-1, -1, *grid)
    found = net(image, mask)
    stages = net.backbone(image)
    expected = competing_prototype_cam(found.refined_cam, stage_feature(stages, grid), mask)
    assert torch.allclose(found.prototype_cam, expected, atol=1e-6)
