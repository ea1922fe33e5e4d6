"""The MSDW loss against plain loops."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sfc.classify.losses.prototype import PrototypeSettings
from sfc.classify.losses.scale import ScaleSettings
from sfc.classify.losses.total import ClassifierLoss, MSDWLoss
from sfc.classify.network import SFCOutput

N, C, H, W = 3, 4, 6, 8


def outputs(seed: int = 0) -> tuple[SFCOutput, SFCOutput, Tensor, Tensor]:
    """Full and half pass (every tensor with gradient), labels and a coefficient; float64."""
    random = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.rand(shape, generator=random, dtype=torch.float64).requires_grad_()

    def output(h: int, w: int, prototypes: bool) -> SFCOutput:
        score = torch.randn(N, C, generator=random, dtype=torch.float64).requires_grad_()
        return SFCOutput(
            score, draw(N, C + 1, h, w), draw(N, C + 1, h, w), draw(N, C + 1, h, w) if prototypes else None
        )

    full, half = output(H, W, prototypes=True), output(H // 2, W // 2, prototypes=False)
    label = (torch.rand(N, C, generator=random) > 0.5).double()
    return full, half, label, torch.rand(C, generator=random) * 2


def soft_margin(score: Tensor, label: Tensor) -> float:
    total = 0.0
    for s, y in zip(score.flatten().tolist(), label.flatten().tolist(), strict=True):
        p = 1 / (1 + math.exp(-s))
        total -= y * math.log(p) + (1 - y) * math.log(1 - p)
    return total / (N * C)


def prototype_term(full: SFCOutput, coefficient: Tensor) -> float:
    weight = [1.0, *coefficient.tolist()]
    total = 0.0
    assert full.prototype_cam is not None
    for n in range(N):
        for k in range(C + 1):
            prototype = full.prototype_cam[n, k].detach()
            refined, peak = full.refined_cam[n, k].detach(), float(prototype.max()) + 1e-5
            for y in range(H):
                for x in range(W):
                    total += weight[k] * abs(float(refined[y, x]) - float(prototype[y, x]) / peak)
    return total / (N * (C + 1) * H * W)


def shrink_by_half(image: Tensor) -> Tensor:
    """Bilinear with aligned corners, one pixel at a time."""
    h, w = image.shape
    small = torch.zeros(h // 2, w // 2, dtype=image.dtype)
    for i in range(h // 2):
        for j in range(w // 2):
            y, x = i * (h - 1) / (h // 2 - 1), j * (w - 1) / (w // 2 - 1)
            top, left = min(int(y), h - 2), min(int(x), w - 2)
            fy, fx = y - top, x - left
            small[i, j] = (
                (1 - fy) * (1 - fx) * image[top, left]
                + (1 - fy) * fx * image[top, left + 1]
                + fy * (1 - fx) * image[top + 1, left]
                + fy * fx * image[top + 1, left + 1]
            )
    return small


def scale_term(full: SFCOutput, half: SFCOutput, label: Tensor, coefficient: Tensor) -> float:
    total = 0.0
    for n in range(N):
        for c in range(C):
            difference = shrink_by_half(full.refined_cam[n, 1 + c].detach()) - half.refined_cam[n, 1 + c].detach()
            total += float(coefficient[c]) * float(label[n, c]) * float(difference.abs().sum())
    return total / (N * C * (H // 2) * (W // 2))


@pytest.mark.parametrize("seed", range(3))
def test_terms_equal_plain_loops(seed: int) -> None:
    full, half, label, coefficient = outputs(seed)
    losses = MSDWLoss(coefficient, 1.6, 0.8)(full, half, label)
    classification = (soft_margin(full.score, label) + soft_margin(half.score, label)) / 2
    assert float(losses.classification.detach()) == pytest.approx(classification, rel=1e-6)
    assert float(losses.terms["prototype"].detach()) == pytest.approx(1.6 * prototype_term(full, coefficient), rel=1e-6)
    assert float(losses.terms["scale"].detach()) == pytest.approx(
        0.8 * scale_term(full, half, label, coefficient), rel=1e-6
    )
    assert list(losses.terms) == ["prototype", "scale"]
    total = losses.classification + losses.terms["prototype"] + losses.terms["scale"]
    assert losses.total == total
    assert all(value.ndim == 0 for value in (losses.classification, *losses.terms.values(), losses.total))


def test_gradient_reaches_what_each_term_compares() -> None:
    full, half, label, coefficient = outputs()
    MSDWLoss(coefficient)(full, half, label).total.backward()
    assert full.prototype_cam is not None
    for leaf in (full.score, half.score, full.refined_cam, half.refined_cam, full.prototype_cam):
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()
        assert leaf.grad.any()
    # The scale loss looks at present foreground classes only.
    assert half.refined_cam.grad is not None
    assert not half.refined_cam.grad[:, 0].any()
    assert not half.refined_cam.grad[:, 1:][label == 0].any()


def test_equal_maps_cost_nothing() -> None:
    full, half, label, coefficient = outputs()
    prototype = full.refined_cam.detach() * 3
    refined = prototype / (prototype.amax(dim=(2, 3), keepdim=True) + 1e-5)
    small = F.interpolate(refined, scale_factor=0.5, mode="bilinear", align_corners=True)
    full = SFCOutput(full.score, full.classifier_cam, refined, prototype)
    half = SFCOutput(half.score, half.classifier_cam, small, None)
    losses = MSDWLoss(coefficient)(full, half, label)
    assert float(losses.terms["prototype"]) == pytest.approx(0, abs=1e-9)
    assert float(losses.terms["scale"]) == pytest.approx(0, abs=1e-9)


def test_parts_can_be_switched_off() -> None:
    full, half, label, coefficient = outputs()
    plain = SFCOutput(full.score, full.classifier_cam, full.refined_cam, None)
    losses = MSDWLoss(coefficient, prototype_weight=0, scale_weight=0)(plain, None, label)
    assert losses.terms == {}
    assert float(losses.total.detach()) == pytest.approx(soft_margin(full.score, label), rel=1e-6)
    only_scale = MSDWLoss(coefficient, prototype_weight=0)(plain, half, label)
    assert only_scale.terms.keys() == {"scale"}
    assert only_scale.terms["scale"] > 0
    assert only_scale.total == only_scale.classification + only_scale.terms["scale"]


def test_what_is_missing_or_weighs_nothing_is_off_and_needs_nothing() -> None:
    full, half, label, coefficient = outputs()
    prototype = ClassifierLoss(coefficient, {"prototype": PrototypeSettings(weight=0.5)})
    assert prototype.needs_prototypes
    assert not prototype.needs_half_size
    losses = prototype(full, None, label)
    assert losses.terms.keys() == {"prototype"}
    assert float(losses.terms["prototype"].detach()) == pytest.approx(0.5 * prototype_term(full, coefficient), rel=1e-6)
    off = ClassifierLoss(coefficient, {"prototype": PrototypeSettings(weight=0.0)})
    assert not off.needs_prototypes
    assert off(full, half, label).terms == {}
    both = MSDWLoss(coefficient)
    assert both.needs_prototypes
    assert both.needs_half_size


def test_before_their_start_losses_on_cams_are_there_and_move_nothing() -> None:
    full, half, label, coefficient = outputs()
    settings = {"prototype": PrototypeSettings(weight=0.5), "scale": ScaleSettings(weight=0.5)}
    loss, at_once = ClassifierLoss(coefficient, settings, start=0.25), ClassifierLoss(coefficient, settings)
    before = loss(full, half, label, torch.tensor(0.2499))
    assert set(before.terms) == {"prototype", "scale"}
    assert not any(before.terms.values())
    assert before.total == before.classification
    for share in (torch.tensor(0.25), torch.tensor(1.0), None):
        after = loss(full, half, label, share)
        assert after.total == at_once(full, half, label).total > before.total


def test_weights_without_their_maps_are_refused() -> None:
    full, half, label, coefficient = outputs()
    plain = SFCOutput(full.score, full.classifier_cam, full.refined_cam, None)
    with pytest.raises(ValueError, match="prototypes=True"):
        MSDWLoss(coefficient)(plain, half, label)
    with pytest.raises(ValueError, match="half-size pass"):
        MSDWLoss(coefficient)(full, None, label)


def test_coefficient_moves_with_the_module_and_stays_out_of_checkpoints() -> None:
    loss = MSDWLoss(torch.ones(3))
    assert not loss.state_dict()
    assert loss.to("meta").coefficient.device.type == "meta"
