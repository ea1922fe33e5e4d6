"""The factor on what the losses on CAMs send into the backbone."""

from __future__ import annotations

import torch

from sfc.classify.losses.total import MSDWLoss
from sfc.classify.network import SFCNetwork


def gradients(factor: float) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    torch.manual_seed(0)
    net = SFCNetwork(
        "compact", 3, frozen_norm=True, trained_from=0, side_channels=(4, 4, 4, 4), consistency_gradient=factor
    )
    image, label = torch.randn(2, 3, 32, 32), torch.tensor([[1.0, 0, 1], [0, 1, 0]])
    mask = torch.ones(2, 4, 4, 4)
    full = net(image, mask)
    half = net(image[:, :, ::2, ::2], mask[:, :, ::2, ::2], prototypes=False)
    losses = MSDWLoss(torch.ones(3))(full, half, label)
    (losses.terms["prototype"] + losses.terms["scale"]).backward()
    return {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}, losses.total.detach()


def test_scales_the_backbone_and_leaves_heads_and_values() -> None:
    (whole, value), (part, same) = gradients(1.0), gradients(0.25)
    assert value == same
    assert whole.keys() == part.keys()
    for name, gradient in whole.items():
        factor = 0.25 if name.startswith("backbone") else 1.0
        assert torch.allclose(part[name], factor * gradient, rtol=1e-4, atol=1e-8), name


def test_zero_cuts_the_backbone_off() -> None:
    part, _ = gradients(0.0)
    assert all(not gradient.any() for name, gradient in part.items() if name.startswith("backbone"))
    assert part["classifier.weight"].any()
