"""The CAM arithmetic against plain loops, the golden figures, and numerical gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.overrides import TorchFunctionMode

from sfc.classify.cam import (
    correlate_pixels,
    normalise_peak,
    prototype_cam,
    seeds,
    unit_length,
    valid_mask,
    with_background,
)

TOLERANCE = 1e-4


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def tensors(figures: dict[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(value) for name, value in figures.items()}


def problem(seed: int, n: int, k: int, d: int, h: int, w: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """A CAM, a feature and a fractional valid mask with absent classes."""
    random = torch.Generator().manual_seed(seed)
    cam = torch.rand(n, k, h, w, generator=random, dtype=dtype)
    feature = torch.randn(n, d, h, w, generator=random, dtype=dtype)
    mask = torch.rand(n, k, h, w, generator=random, dtype=dtype)
    mask *= torch.rand(n, k, 1, 1, generator=random) > 0.3
    return [cam, feature, mask]


shapes = st.tuples(
    st.integers(0, 2**31), st.integers(1, 3), st.integers(2, 7), st.integers(1, 6), st.integers(1, 5), st.integers(1, 5)
)


# --- Classifier CAM ---------------------------------------------------------------------------------------------------


def test_background_is_what_the_strongest_class_leaves() -> None:
    class_map = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    class_map[1, 2] = -1.0  # a class that is nowhere: its peak is 0 and must not be divided by
    cam = with_background(class_map)
    assert cam.shape == (2, 4, 4, 5)
    for image in range(2):
        for y in range(4):
            for x in range(5):
                values = []
                for c in range(3):
                    peak = max(0.0, float(class_map[image, c].max()))
                    values.append(max(0.0, float(class_map[image, c, y, x])) / (peak + 1e-5))
                assert cam[image, 1:, y, x].tolist() == pytest.approx(values, rel=1e-6)
                assert float(cam[image, 0, y, x]) == pytest.approx(1 - max(values), abs=1e-6)
    assert not cam[1, 3].any()


@pytest.mark.parametrize("centre", [False, True])
def test_unit_length_stays_finite_at_zero(centre: bool) -> None:
    feature = torch.zeros(1, 3, 2, 2, dtype=torch.float64)
    feature[0, :, 0, 0] = torch.tensor([3.0, 4.0, 0.0])
    feature.requires_grad_()
    unit = unit_length(feature, centre)
    unit.sum().backward()
    assert feature.grad is not None
    assert feature.grad.isfinite().all()
    if not centre:
        assert unit[0, :, 0, 0].tolist() == pytest.approx([3 / (5 + 1e-5), 4 / (5 + 1e-5), 0.0], rel=1e-12)
        assert not unit[0, :, 1, 1].any()
    else:
        assert unit.sum(dim=(2, 3)).isfinite().all()
        expected = feature.detach() - feature.detach().mean(dim=(2, 3), keepdim=True)
        assert torch.allclose(unit, F.normalize(expected, dim=1), atol=1e-4)


# --- Pixel correlation ------------------------------------------------------------------------------------------------


def correlate_slowly(cam: Tensor, feature: Tensor) -> Tensor:
    n, k, h, w = cam.shape
    out = torch.zeros_like(cam)
    for image in range(n):
        unit = [feature[image, :, p // w, p % w] for p in range(h * w)]
        unit = [u / (u.norm() + 1e-5) for u in unit]
        affinity = [[max(0.0, float(a @ b)) for b in unit] for a in unit]
        for column in range(h * w):
            total = sum(row[column] for row in affinity) + 1e-5
            for row in affinity:
                row[column] /= total
        for c in range(k):
            value = cam[image, c].flatten().tolist()
            for _ in range(2):
                value = [sum(value[i] * affinity[i][j] for i in range(h * w)) for j in range(h * w)]
            out[image, c] = torch.tensor(value, dtype=cam.dtype).view(h, w)
    return out


@settings(max_examples=15)
@given(shapes)
def test_pixel_correlation_equals_plain_loops(shape: tuple[int, ...]) -> None:
    cam, feature, _ = problem(*shape)
    assert torch.allclose(correlate_pixels(cam, feature), correlate_slowly(cam, feature), rtol=1e-9, atol=1e-12)


def test_pixel_correlation_figures(golden) -> None:
    figures = tensors(golden("pixel_correlation"))
    cam, feature = figures["cam"].requires_grad_(), figures["feature"].requires_grad_()
    refined = correlate_pixels(cam, feature)
    (refined * figures["cotangent"]).sum().backward()
    assert relative(refined.detach(), figures["refined_cam"]) < TOLERANCE
    assert relative(cam.grad, figures["grad_cam"]) < TOLERANCE
    assert relative(feature.grad, figures["grad_feature"]) < TOLERANCE


@pytest.mark.parametrize("limit", [1, 13 * 2 * 20, 399 * 2, 10**6])
def test_pixel_correlation_of_large_images_needs_no_large_matrix(limit: int, monkeypatch) -> None:
    cam, feature, _ = problem(4, 2, 3, 6, 4, 5)
    expected = correlate_pixels(cam, feature)
    monkeypatch.setattr("sfc.classify.cam.DENSE_AFFINITY", limit)
    largest = 0

    class Watch(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            out = function(*args, **(kwargs or {}))
            if function is torch.bmm:
                largest = max(largest, out.numel())
            return out

    with torch.no_grad(), Watch():
        refined = correlate_pixels(cam, feature)
    assert torch.allclose(refined, expected, rtol=1e-12)
    assert largest <= max(limit, 2 * 20 * 3)  # one column of the matrix, or the CAM
    # Training keeps the whole matrix for its gradient.
    feature.requires_grad_()
    assert torch.equal(correlate_pixels(cam, feature), expected)


def test_pixel_correlation_keeps_constant_maps_and_survives_zero_features() -> None:
    _, feature, _ = problem(3, 2, 3, 4, 3, 5)
    ones = torch.ones(2, 3, 3, 5, dtype=torch.float64)
    assert torch.allclose(correlate_pixels(ones, feature), ones, atol=1e-4)
    nothing = torch.zeros_like(feature).requires_grad_()
    refined = correlate_pixels(ones, nothing)
    refined.sum().backward()
    assert not refined.any()
    assert nothing.grad is not None
    assert nothing.grad.isfinite().all()


# --- Seeds ------------------------------------------------------------------------------------------------------------


def seeds_slowly(cam: Tensor, mask: Tensor, scale: float, threshold: float | None) -> Tensor:
    n, k, h, w = cam.shape
    out = torch.zeros_like(cam)
    for image in range(n):
        for y in range(h):
            for x in range(w):
                values = cam[image, :, y, x].tolist()
                if threshold is None:
                    values[0] *= scale
                    strongest = values.index(max(values))
                    out[image, strongest, y, x] = mask[image, strongest, y, x]
                    continue
                for c in range(k):
                    if values[c] / (float(cam[image, c].max()) + 1e-5) > threshold:
                        out[image, c, y, x] = mask[image, c, y, x]
    return out


@settings(max_examples=40)
@given(shapes, st.sampled_from([0.0, 0.3, 1.0, 2.5]), st.sampled_from([None, 0.0, 0.4, 0.9]), st.booleans())
def test_seeds_equal_plain_loops(shape: tuple[int, ...], scale: float, threshold: float | None, coarse: bool) -> None:
    cam, _, mask = problem(*shape)
    if coarse:  # many ties, zeros among them
        cam = (cam * 3).floor() / 2
    expected = seeds_slowly(cam, mask, scale, threshold)
    assert torch.equal(seeds(cam, mask, scale, threshold), expected)


def test_ties_go_to_the_background_and_then_to_the_first_class() -> None:
    cam = torch.tensor([[1.0, 0.5, 0.5], [1.0, 0.2, 0.7], [0.0, 0.0, 0.0], [0.2, 0.6, 0.6]]).T[None, :, :, None]
    seed = seeds(cam, torch.ones_like(cam), background_scale=0.5)
    assert seed[0, :, :, 0].argmax(dim=0).tolist() == [0, 2, 0, 1]
    assert seed.sum(dim=1).eq(1).all()


def test_seeds_are_at_most_one_class_and_only_valid_ones() -> None:
    cam, _, mask = problem(5, 3, 6, 2, 7, 4, torch.float32)
    seed = seeds(cam.requires_grad_(), mask)
    assert not seed.requires_grad
    assert seed.dtype == torch.float32
    assert (seed > 0).sum(dim=1).max() <= 1
    assert not seed[mask == 0].any()


# --- Prototype CAM ----------------------------------------------------------------------------------------------------


def prototype_cam_slowly(cam: Tensor, feature: Tensor, mask: Tensor, scale: float, threshold: float | None) -> Tensor:
    """The definition, differentiable: one position and one class at a time."""
    n, k, h, w = cam.shape
    seed = seeds_slowly(cam, mask, scale, threshold)
    images = []
    for image in range(n):
        rows = []
        for c in range(k):
            prototype = feature.new_zeros(feature.shape[1])
            for y in range(h):
                for x in range(w):
                    prototype = prototype + seed[image, c, y, x] * feature[image, :, y, x] / (h * w)
            for y in range(h):
                rows.extend(
                    F.relu(F.cosine_similarity(feature[image, :, y, x], prototype, dim=0, eps=1e-8)) for x in range(w)
                )
        images.append(torch.stack(rows).view(k, h, w))
    return torch.stack(images)


@settings(max_examples=30)
@given(shapes, st.sampled_from([0.0, 0.3, 1.0]), st.sampled_from([None, None, 0.5]), st.booleans())
def test_prototype_cam_and_gradient_equal_plain_loops(
    shape: tuple[int, ...], scale: float, threshold: float | None, whole: bool
) -> None:
    cam, feature, mask = problem(*shape)
    if whole:
        mask = (mask > 0.2).double()
    cotangent = torch.randn(cam.shape, generator=torch.Generator().manual_seed(shape[0] + 1), dtype=cam.dtype)
    results = []
    for function in (prototype_cam, prototype_cam_slowly):
        leaf = feature.clone().requires_grad_()
        out = function(cam, leaf, mask, scale, threshold)
        (out * cotangent).sum().backward()
        results.append((out.detach(), leaf.grad))
    (out, grad), (slow_out, slow_grad) = results
    assert torch.allclose(out, slow_out, rtol=1e-9, atol=1e-12)
    assert torch.allclose(grad, slow_grad, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("factor", [1e-5, 1e-7, 1e-9])
def test_norms_below_the_epsilon_are_those_of_cosine_similarity(factor: float) -> None:
    cam, feature, mask = problem(21, 2, 4, 5, 3, 4)
    out = prototype_cam(cam, feature * factor, mask)
    assert torch.allclose(out, prototype_cam_slowly(cam, feature * factor, mask, 0.3, None), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("threshold", [None, 0.5])
@pytest.mark.parametrize("whole", [True, False])
def test_prototype_gradient_is_the_numerical_one(threshold: float | None, whole: bool) -> None:
    cam, feature, mask = problem(11, 2, 4, 5, 3, 4)
    mask[1, 2] = 0  # a class without seeds
    if whole:
        mask = (mask > 0.2).double()
    assert torch.autograd.gradcheck(
        lambda f: prototype_cam(cam, f, mask, threshold=threshold), feature.requires_grad_(), eps=1e-6, atol=1e-7
    )


def test_prototype_figures(golden) -> None:
    figures = tensors(golden("prototype_cam"))
    feature = figures["feature"].requires_grad_()
    out = prototype_cam(figures["cam"], feature, figures["valid_mask"])
    (out * figures["cotangent"]).sum().backward()
    assert relative(out.detach(), figures["prototype_cam"]) < TOLERANCE
    assert relative(feature.grad, figures["grad_feature"]) < TOLERANCE
    assert out.detach().eq(0).all(dim=(2, 3)).equal(figures["prototype_cam"].eq(0).all(dim=(2, 3)))


def test_hand_written_gradient_survives_compilation() -> None:
    """`aot_eager` traces forward and backward, and generates no code."""
    cam, feature, mask = problem(8, 2, 4, 5, 4, 6)
    results = []
    for function in (prototype_cam, torch.compile(prototype_cam, backend="aot_eager", fullgraph=True)):
        leaf = feature.clone().requires_grad_()
        out = function(cam, leaf, mask)
        out.square().sum().backward()
        results.append((out.detach(), leaf.grad))
    assert torch.allclose(results[0][0], results[1][0])
    assert torch.allclose(results[0][1], results[1][1])


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float64])
def test_masks_of_other_types(dtype: torch.dtype) -> None:
    cam, feature, mask = problem(9, 2, 4, 5, 4, 6, torch.float32)
    whole = (mask > 0.3).float()
    assert torch.equal(prototype_cam(cam, feature, whole.to(dtype)), prototype_cam(cam, feature, whole))


def test_whole_and_fractional_masks_agree() -> None:
    """Masks of 0 and 1 take a shorter way; halving all of them scales the prototypes, which a cosine does not see."""
    cam, feature, mask = problem(10, 2, 4, 5, 4, 6)
    whole = (mask > 0.3).double()
    assert torch.allclose(prototype_cam(cam, feature, whole), prototype_cam(cam, feature, whole / 2), rtol=1e-12)


def test_a_class_without_seeds_has_a_zero_map_and_no_gradient() -> None:
    cam, feature, mask = problem(1, 2, 4, 6, 5, 5, torch.float32)
    mask = torch.ones_like(mask)
    mask[:, 2] = 0
    feature.requires_grad_()
    out = prototype_cam(cam, feature, mask)
    assert not out[:, 2].any()
    out[:, 2].sum().backward()
    assert feature.grad is not None
    assert not feature.grad.any()


def test_zero_features_give_zeros_and_finite_gradients() -> None:
    cam, feature, mask = problem(2, 2, 3, 4, 4, 4, torch.float32)
    feature[:, :, 1] = 0
    feature[1] = 0
    feature.requires_grad_()
    out = prototype_cam(cam, feature, mask)
    out.sum().backward()
    assert not out[1].any()
    assert not out[0, :, 1].any()
    assert feature.grad is not None
    assert feature.grad.isfinite().all()


@settings(max_examples=20)
@given(shapes, st.floats(0.01, 100))
def test_prototype_cam_is_a_cosine(shape: tuple[int, ...], factor: float) -> None:
    cam, feature, mask = problem(*shape)
    out = prototype_cam(cam, feature, mask)
    assert 0 <= float(out.min()) <= float(out.max()) <= 1 + 1e-12
    assert torch.allclose(prototype_cam(cam, feature * factor, mask), out, atol=1e-9)
    permutation = torch.randperm(cam.shape[3], generator=torch.Generator().manual_seed(0))
    moved = prototype_cam(cam[..., permutation], feature[..., permutation], mask[..., permutation])
    assert torch.allclose(moved, out[..., permutation], atol=1e-9)


def test_saves_little_for_the_backward_pass() -> None:
    """No [N, K, D, h, w] tensor anywhere: what is kept is the inputs and maps of K channels."""
    cam, feature, mask = problem(3, 2, 21, 32, 6, 6, torch.float32)
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = prototype_cam(cam, feature.requires_grad_(), mask)
    inputs = cam.nbytes + feature.nbytes + mask.nbytes + out.nbytes
    assert sum(kept.values()) <= inputs


@pytest.mark.parametrize(
    ("cam", "feature", "mask"),
    [
        ((2, 3, 4, 4), (2, 8, 4, 4), (2, 3, 4, 5)),
        ((2, 3, 4, 4), (2, 8, 4, 4), (2, 4, 4, 4)),
        ((2, 3, 4, 4), (1, 8, 4, 4), (2, 3, 4, 4)),
        ((2, 3, 4, 4), (2, 8, 4, 5), (2, 3, 4, 4)),
    ],
)
def test_shapes_that_do_not_belong_together_are_refused(cam, feature, mask) -> None:
    with pytest.raises(ValueError, match="must agree"):
        prototype_cam(torch.rand(cam), torch.rand(feature), torch.rand(mask))


# --- Valid masks ------------------------------------------------------------------------------------------------------


def test_valid_mask_is_rectangle_times_label() -> None:
    rectangle = torch.tensor([[0, 0, 64, 64], [0, 16, 32, 64]])
    label = torch.tensor([[1, 0, 1], [0, 0, 0]])
    mask = valid_mask(rectangle, label, (64, 64), (4, 4))
    assert mask.dtype == torch.float32
    assert mask.shape == (2, 4, 4, 4)
    assert mask[0].mean(dim=(1, 2)).tolist() == [1, 1, 0, 1]
    assert mask[1, 0].tolist() == [[0, 1, 1, 1], [0, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert not mask[1, 1:].any()


def test_valid_mask_figures(golden) -> None:
    figures = golden("network_training")
    rectangle = torch.tensor([[0, 0, 128, 128], [0, 0, 128, 64]])
    mask = valid_mask(rectangle, torch.from_numpy(figures["label"]), (128, 128), (16, 16))
    np.testing.assert_array_equal(mask, figures["valid_mask_full"])


def test_peak_of_every_map_becomes_one() -> None:
    cam = torch.rand(2, 3, 4, 5) + 0.1
    cam[0, 1] = 0
    peak = normalise_peak(cam).amax(dim=(2, 3))
    assert peak[0, 1] == 0
    peak[0, 1] = 1
    assert torch.allclose(peak, torch.ones(2, 3), atol=1e-3)


def test_correlation_in_bfloat16_keeps_the_maps_in_float32() -> None:
    cam, feature, _ = problem(12, 2, 4, 32, 12, 14, torch.float32)
    exact, rounded = correlate_pixels(cam, feature), correlate_pixels(cam, feature.bfloat16())
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).norm() / exact.norm() < 2e-3
