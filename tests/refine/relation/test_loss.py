"""Pair losses: golden figures, plain loops, gradients, uncertain labels, maps too small for a pair."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sfc.refine.relation.loss import RelationLosses, pair_counts, relation_loss
from sfc.refine.walk.paths import half_plane_offsets, path_cells

TERMS = {
    "background": "affinity_positive_bg",
    "foreground": "affinity_positive_fg",
    "negative": "affinity_negative",
}


def test_terms_are_those_of_the_released_code(golden) -> None:
    figures = golden("relation_training")
    edge = torch.from_numpy(figures["edge_logits"])
    losses = relation_loss(edge, torch.from_numpy(figures["label_quarter"])[None], 10)
    for ours, theirs in TERMS.items():
        assert float(getattr(losses, ours)) == pytest.approx(float(figures[f"loss_{theirs}"]), rel=1e-5), ours
    # The released total without its displacements.
    moves = (figures["loss_displacement_fg"] + figures["loss_displacement_bg"]) / 2
    assert float(losses.total) == pytest.approx(float(figures["loss_total"] - moves), rel=1e-5)


def plain_losses(edge: Tensor, label: Tensor, radius: int) -> Tensor:
    """[4] terms and total, one pair at a time, in autograd's own terms."""
    reach = radius - 1
    kinds: dict[str, list[Tensor]] = {name: [] for name in ("background", "foreground", "negative")}
    probability = torch.sigmoid(edge[:, 0])
    for n in range(len(label)):
        for y in range(label.shape[1] - reach):
            for x in range(reach, label.shape[2] - reach):
                for dy, dx in half_plane_offsets(radius).tolist():
                    a, b = int(label[n, y, x]), int(label[n, y + dy, x + dx])
                    if 255 in (a, b):
                        continue
                    path = torch.stack([probability[n, y + i, x + j] for i, j in path_cells(dy, dx).tolist()])
                    affinity = 1 - path.max()
                    if a != b:
                        kinds["negative"].append(-torch.log(1 + 1e-5 - affinity))
                        continue
                    kinds["foreground" if a else "background"].append(-torch.log(affinity + 1e-5))

    def mean(name: str) -> Tensor:
        values = kinds[name]
        return torch.stack(values).sum() / (len(values) + 1e-5) if values else edge.sum() * 0

    background, foreground, negative = (mean(name) for name in ("background", "foreground", "negative"))
    total = ((background + foreground) / 2 + negative) / 2
    return torch.stack([background, foreground, negative, total])


def random_batch(seed: int, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    edge = torch.randn(shape[0], 1, *shape[1:], generator=random)
    label = torch.tensor([0, 0, 1, 1, 2, 255], dtype=torch.uint8)[torch.randint(6, shape, generator=random)]
    return edge, label


@settings(max_examples=12)
@given(st.integers(2, 4), st.integers(0, 3), st.integers(0, 3), st.integers(0, 2**31))
def test_losses_and_gradients_equal_plain_loops(radius: int, rows: int, columns: int, seed: int) -> None:
    edge, label = random_batch(seed, (2, radius + rows, 2 * radius - 1 + columns))
    edge.requires_grad_()
    ours = relation_loss(edge, label, radius)
    expected = plain_losses(edge, label, radius)
    torch.testing.assert_close(torch.stack(values(ours)), expected, rtol=2e-5, atol=1e-6)
    (gradient,) = torch.autograd.grad(ours.total, edge)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected[-1], edge)[0], rtol=1e-4, atol=1e-6)


def values(losses: RelationLosses) -> list[Tensor]:
    return [value.detach() for value in vars(losses).values()]


def test_gradient_equals_finite_differences() -> None:
    edge, label = random_batch(3, (1, 6, 9))
    edge = edge.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda logits: relation_loss(logits, label, 4).total, edge)


def test_scaled_loss_scales_its_gradient() -> None:
    edge, label = random_batch(4, (2, 8, 12))
    edge.requires_grad_()
    (one,) = torch.autograd.grad(relation_loss(edge, label, 4).total, edge)
    (three,) = torch.autograd.grad(3 * relation_loss(edge, label, 4).total, edge)
    torch.testing.assert_close(three, 3 * one)


@pytest.mark.parametrize(("shape", "value"), [((2, 20, 30), 255), ((1, 9, 30), 0), ((1, 30, 18), 1), ((1, 1, 1), 0)])
def test_labels_all_uncertain_and_maps_too_small_cost_nothing(shape: tuple[int, int, int], value: int) -> None:
    edge, _ = random_batch(5, shape)
    edge.requires_grad_()
    losses = relation_loss(edge, torch.full(shape, value, dtype=torch.uint8))
    assert all(float(term) == 0 for term in values(losses))
    (gradient,) = torch.autograd.grad(losses.total, edge)
    assert float(gradient.abs().max()) == 0


def test_counts_are_those_of_the_pairs() -> None:
    label = torch.tensor([[[0, 0, 1, 1, 255]] * 3], dtype=torch.uint8)
    # Radius 2: rows 0 and 1, columns 1 to 3 are sources; to the right, down, down-left and down-right of each.
    assert pair_counts(label, 2).tolist() == [2 * 2, 2 * 5, 2 * 3]


def test_mean_of_halves_with_mean_counts_is_the_loss_of_the_whole() -> None:
    edge, label = random_batch(6, (4, 9, 14))
    whole = relation_loss(edge, label, 5)
    halves = [slice(0, 1), slice(1, 4)]
    counts = torch.stack([pair_counts(label[half], 5) for half in halves]).mean(dim=0)
    parts = [torch.stack(values(relation_loss(edge[half], label[half], 5, counts))) for half in halves]
    torch.testing.assert_close(torch.stack(parts).mean(dim=0), torch.stack(values(whole)), rtol=1e-5, atol=0)


def test_half_precision_maps_are_summed_in_single_precision() -> None:
    edge, label = random_batch(7, (1, 20, 30))
    edge = edge.bfloat16()
    half, single = relation_loss(edge, label, 10), relation_loss(edge.float(), label, 10)
    assert half.total.dtype == torch.float32
    assert torch.equal(half.total, single.total)


def test_shapes_and_types_that_do_not_fit_are_refused() -> None:
    edge, label = random_batch(8, (1, 20, 30))
    with pytest.raises(ValueError, match="do not fit"):
        relation_loss(edge, label[:, :-1])
    with pytest.raises(ValueError, match="do not fit"):
        relation_loss(edge.expand(-1, 2, -1, -1), label)
    with pytest.raises(ValueError, match=r"uint8, not torch\.int64"):
        relation_loss(edge, label.long())
