"""The random walk against plain loops, reference figures and its bound."""

from __future__ import annotations

import multiprocessing
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfc.refine.walk import walk
from sfc.refine.walk.walk import random_walk, walk_polynomial


def affinity_slowly(edge: np.ndarray, radius: int, beta: float) -> np.ndarray:
    """float64 [hw, hw], cell by cell as the formula says it."""
    height, width = edge.shape
    matrix = np.eye(height * width)
    for y, x in np.ndindex(height, width):
        for v, u in np.ndindex(height, width):
            dy, dx = v - y, u - x
            if 0 < dy**2 + dx**2 < radius**2:
                path = [
                    edge[y + j, x + i]
                    for j in range(min(dy, 0), max(dy, 0) + 1)
                    for i in range(min(dx, 0), max(dx, 0) + 1)
                    if (dy * i - dx * j) ** 2 / (dy**2 + dx**2) < 1
                ]
                matrix[y * width + x, v * width + u] = (1 - float(max(path))) ** beta
    return matrix


def walk_slowly(cam: np.ndarray, edge: np.ndarray, radius: int, beta: float, steps: int) -> np.ndarray:
    affinity = affinity_slowly(edge, radius, beta)
    transition = affinity / affinity.sum(axis=0)
    maps = (cam.astype(np.float64) * (1 - edge.astype(np.float64))).reshape(len(cam), -1)
    for _ in range(steps):
        maps = maps @ transition
    return maps.reshape(cam.shape)


def walk_by_torch(cam: np.ndarray, edge: np.ndarray, radius: int, beta: float, steps: int) -> np.ndarray:
    """The way of other devices, on the CPU."""
    maps, edges = torch.from_numpy(cam), torch.from_numpy(edge)
    return walk._walk_by_torch(maps * (1 - edges), (1 - edges) ** beta, radius, *walk_polynomial(steps, 0)).numpy()


def draw_task(data: st.DataObject) -> tuple[np.ndarray, np.ndarray, int, float]:
    """Maps, edge, radius and beta; edges from smooth to torn."""
    random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    height, width = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 20)))
    cam = random.random((data.draw(st.integers(1, 5)), height, width), dtype=np.float32)
    edge = random.random((height, width), dtype=np.float32) ** data.draw(st.sampled_from([0.2, 1, 6]))
    edge[random.random(edge.shape) < 0.1] = data.draw(st.sampled_from([0, 1]))
    return cam, edge, data.draw(st.integers(1, 7)), data.draw(st.sampled_from([0, 0.5, 1, 3.7, 10]))


@settings(max_examples=40)
@given(st.data(), st.sampled_from([0, 1, 2, 5, 13]))
def test_plain_steps_equal_plain_loops(data: st.DataObject, steps: int) -> None:
    cam, edge, radius, beta = draw_task(data)
    expected = walk_slowly(cam, edge, radius, beta, steps)
    for walked in (
        random_walk(cam, edge, radius, beta, steps, 0),
        walk_by_torch(cam, edge, radius, beta, steps),
    ):
        assert walked.dtype == np.float32
        np.testing.assert_allclose(walked, expected, rtol=0, atol=3e-6)


@settings(max_examples=40)
@given(st.data(), st.sampled_from([40, 255, 256, 1000]), st.sampled_from([1e-4, 1e-3, 1e-2, 0.3, 2]))
def test_error_is_within_the_tolerance_in_the_norm_of_the_degrees(
    data: st.DataObject, steps: int, tolerance: float
) -> None:
    cam, edge, radius, beta = draw_task(data)
    start = cam * (1 - edge)
    affinity = affinity_slowly(edge, radius, beta)
    matrix, norm = np.linalg.matrix_power(affinity / affinity.sum(axis=0), steps), affinity.sum(axis=0)
    exact = (start.reshape(len(cam), -1).astype(np.float64) @ matrix).reshape(cam.shape)
    walked = random_walk(cam, edge, radius, beta, steps, tolerance)
    for error, reference in zip(walked - exact, start, strict=True):
        size = np.sqrt((norm * reference.ravel() ** 2).sum())
        assert np.sqrt((norm * error.ravel() ** 2).sum()) <= (tolerance + 2e-5) * size


@given(st.integers(0, 5000), st.sampled_from([0, 1e-8, 1e-4, 1e-2, 0.5, 3]))
def test_polynomial_is_near_the_power_and_no_shorter_series_is(steps: int, tolerance: float) -> None:
    first, recurrence = walk_polynomial(steps, tolerance)
    x = np.cos(np.linspace(0, np.pi, 801))
    value, before, now = np.full_like(x, first), np.zeros_like(x), np.ones_like(x)
    error_one_degree_less = abs(value - x**steps).max()
    for gain, back, coefficient in recurrence.astype(np.float64):
        before, now = now, gain * x * now - back * before
        if coefficient:
            error_one_degree_less = abs(value - x**steps).max()
        value += coefficient * now
    assert len(recurrence) <= steps
    assert abs(value - x**steps).max() <= tolerance + 1e-6  # the recurrence is float32
    if 0 < len(recurrence) < steps:
        assert error_one_degree_less > min(tolerance, 1) - 1e-6


@pytest.mark.parametrize("size", ["small", "medium"])
@pytest.mark.parametrize("tolerance", [1e-4, 0])
def test_reference_figures(golden, size: str, tolerance: float) -> None:
    figures = golden(f"random_walk_{size}")
    for beta, exponent in ((10, 8), (4, 3)):
        expected = figures[f"walked_radius5_beta{beta}_exp{exponent}"][:, 0]
        walked = random_walk(figures["cam"], figures["edge"][0], 5, beta, 2**exponent, tolerance)
        assert np.linalg.norm(walked - expected) <= 5e-4 * np.linalg.norm(expected)


def test_the_default_takes_62_products() -> None:
    assert len(walk_polynomial(256, 1e-4)[1]) == 62


def test_constant_maps_stay_where_nothing_is_an_edge() -> None:
    cam = np.full((3, 37, 50), 0.7, dtype=np.float32)
    edge = np.zeros((37, 50), dtype=np.float32)
    np.testing.assert_allclose(random_walk(cam, edge, steps=2000, tolerance=0), cam, rtol=2e-5)
    np.testing.assert_allclose(random_walk(cam, edge), cam, rtol=1.2e-4)


def test_nothing_crosses_a_closed_edge() -> None:
    cam = np.zeros((1, 20, 30), dtype=np.float32)
    cam[:, :, :10] = 1
    edge = np.zeros((20, 30), dtype=np.float32)
    edge[:, 12] = 1
    walked = random_walk(cam, edge, steps=500)
    assert walked[:, :, :12].min() > 0.5
    assert walked[:, :, 12:].max() == 0


def test_a_map_does_not_depend_on_the_maps_beside_it_nor_on_its_scale() -> None:
    random = np.random.default_rng(3)
    cam, edge = random.random((5, 21, 34), dtype=np.float32), random.random((21, 34), dtype=np.float32)
    cam[1] *= 1e-33
    cam[2] *= 1e30
    cam[3] = 0
    together = random_walk(cam, edge)
    assert not together[3].any()
    for index in range(5):
        np.testing.assert_allclose(together[index], random_walk(cam[index : index + 1], edge)[0], rtol=1e-5)
    unit = random_walk(cam[2:3] / 1e30, edge)[0]
    np.testing.assert_allclose(together[2] / 1e30, unit, rtol=1e-4, atol=1e-6)
    assert together[1].max() > 0


def test_nothing_becomes_subnormal() -> None:
    cam = np.zeros((1, 1, 9), dtype=np.float32)
    cam[0, 0, 0] = 1
    edge = np.full((1, 9), 0.99, dtype=np.float32)
    edge[0, 0] = 0.5
    walked = random_walk(cam, edge, radius=2, steps=2, tolerance=0)[0, 0]
    assert 1e-21 < walked[1] < 1e-19
    assert walked[2] == 0  # 1e-40


def test_no_value_is_negative_or_above_the_peak() -> None:
    cam = np.zeros((1, 40, 40), dtype=np.float32)
    cam[0, 20, 20] = 1
    edge = np.zeros((40, 40), dtype=np.float32)
    first, recurrence = walk_polynomial(256, 0.05)
    raw = walk._walk_by_torch(torch.from_numpy(cam), torch.from_numpy(1 - edge), 5, first, recurrence)
    assert raw.min() < 0
    walked = random_walk(cam, edge, tolerance=0.05)
    assert walked.min() == 0
    assert walked.max() <= 1


def test_tensors_give_tensors_and_inputs_stay() -> None:
    random = np.random.default_rng(4)
    cam, edge = random.random((2, 9, 11), dtype=np.float32), random.random((9, 11), dtype=np.float32)
    maps, edges = torch.from_numpy(cam.copy()).requires_grad_(), torch.from_numpy(edge.copy())
    walked = random_walk(maps, edges)
    assert isinstance(walked, torch.Tensor)
    assert walked.dtype == torch.float32
    assert not walked.requires_grad
    np.testing.assert_array_equal(walked, random_walk(cam, edge))
    np.testing.assert_array_equal(maps.detach(), cam)
    np.testing.assert_array_equal(edges, edge)


def test_layouts_and_dtypes_of_arrays_do_not_matter() -> None:
    random = np.random.default_rng(5)
    cam, edge = random.random((3, 12, 14), dtype=np.float32), random.random((12, 14), dtype=np.float32)
    expected = random_walk(cam, edge)
    turned = np.asfortranarray(cam)[:, ::-1][:, ::-1]
    turned.flags.writeable = False
    np.testing.assert_array_equal(random_walk(turned, edge.astype(np.float64)), expected)
    transposed = torch.from_numpy(cam).permute(1, 2, 0).contiguous().permute(2, 0, 1)
    np.testing.assert_array_equal(random_walk(transposed, torch.from_numpy(edge)), expected)
    assert random_walk(cam[:0], edge).shape == (0, 12, 14)


CAM, EDGE = np.ones((2, 4, 6), dtype=np.float32), np.zeros((4, 6), dtype=np.float32)


def changed(array: np.ndarray, value: float) -> np.ndarray:
    array = array.copy()
    array.reshape(-1)[3] = value
    return array


@pytest.mark.parametrize(
    ("cam", "edge", "sentence"),
    [
        (changed(CAM, np.nan), EDGE, "cam must be finite and not negative"),
        (changed(CAM, np.inf), EDGE, "cam must be finite and not negative"),
        (changed(CAM, -0.01), EDGE, "cam must be finite and not negative"),
        (CAM, changed(EDGE, np.nan), r"edge must lie in \[0, 1\]"),
        (CAM, changed(EDGE, 1.01), r"edge must lie in \[0, 1\]"),
        (CAM, changed(EDGE, -0.01), r"edge must lie in \[0, 1\]"),
        (CAM, EDGE[:, :-1], r"not \[2, 4, 6\] and \[4, 5\]"),
        (CAM[0], EDGE, r"not \[4, 6\] and \[4, 6\]"),
        (CAM, EDGE[None], r"not \[2, 4, 6\] and \[1, 4, 6\]"),
        (CAM[:, :0], EDGE[:0], r"not \[2, 0, 6\] and \[0, 6\]"),
    ],
)
def test_refuses_maps(cam: np.ndarray, edge: np.ndarray, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        random_walk(cam, edge)
    with pytest.raises(ValueError, match=sentence):
        random_walk(torch.from_numpy(cam.copy()), torch.from_numpy(edge.copy()))


@pytest.mark.parametrize(
    "option",
    [
        {"radius": 0},
        {"radius": 2.5},
        {"steps": -1},
        {"steps": 1.5},
        {"beta": -1},
        {"beta": np.nan},
        {"tolerance": -1e-4},
        {"tolerance": np.inf},
    ],
)
def test_refuses_options_by_name(option: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(option))} must be a"):
        random_walk(CAM, EDGE, **option)  # type: ignore[arg-type]


def test_refuses_an_array_beside_a_tensor_and_lists() -> None:
    with pytest.raises(TypeError, match="ndarray and Tensor"):
        random_walk(CAM, torch.from_numpy(EDGE))
    with pytest.raises(TypeError, match="both be arrays or both be tensors"):
        random_walk(CAM.tolist(), EDGE.tolist())


def test_refuses_two_devices() -> None:
    with pytest.raises(ValueError, match="cam is on cpu but edge on meta"):
        random_walk(torch.from_numpy(CAM), torch.from_numpy(EDGE).to("meta"))


def _walk_in_child(queue: multiprocessing.Queue) -> None:
    queue.put(random_walk(CAM, EDGE))


@pytest.mark.skipif(sys.platform == "win32", reason="no fork there")
def test_works_in_a_forked_process_after_the_parent_has_walked() -> None:
    expected = random_walk(CAM, EDGE)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_walk_in_child, args=(queue,))
    child.start()
    np.testing.assert_array_equal(queue.get(timeout=60), expected)
    child.join()
