"""Dense CRF against plain loops: a dictionary of vertices for the lattice, every label filtered, nothing fused."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from sfc.refine.crf.dense import dense_crf
from sfc.refine.crf.lattice import image_lattice
from sfc.refine.crf.lattice_kernels import FIRST_BITS

F = np.float32


def plain_simplex(feature: np.ndarray) -> tuple[list[tuple[int, ...]], list[float]]:
    """Vertices and barycentric weights of one feature vector, in float32 as the package computes them."""
    d = len(feature)
    deviation = np.float64(F(np.sqrt(2 / 3) * (d + 1)))
    elevated, total = [F(0)] * (d + 1), F(0)
    for j in range(d, 0, -1):
        scaled = feature[j - 1] * F(1 / np.sqrt(j * (j + 1)) * deviation)
        elevated[j] = total - F(j) * scaled
        total = total + scaled
    elevated[0] = total
    multiple = [np.rint(F(1) / F(d + 1) * value) for value in elevated]
    nearest = [value * F(d + 1) for value in multiple]
    residual = [value - near for value, near in zip(elevated, nearest, strict=True)]
    order = sorted(range(d + 1), key=lambda i: (-residual[i], i))
    rank = [order.index(i) + int(sum(multiple)) for i in range(d + 1)]
    for i in range(d + 1):
        wrap = int(rank[i] < 0) - int(rank[i] > d)
        rank[i] += wrap * (d + 1)
        nearest[i] += wrap * (d + 1)
    weight = np.zeros(d + 2, F)
    for i in range(d + 1):
        share = (elevated[i] - nearest[i]) * (F(1) / F(d + 1))
        weight[d - rank[i]] += share
        weight[d + 1 - rank[i]] -= share
    weight[0] += F(1) + weight[d + 1]
    vertices = [
        tuple(int(nearest[i]) + (r if rank[i] <= d - r else r - d - 1) for i in range(d + 1)) for r in range(d + 1)
    ]
    return vertices, [float(value) for value in weight[: d + 1]]


def plain_filter(features: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Gaussian filter of values [P, L] at features [P, d], not normalised, in float64."""
    d = features.shape[1]
    simplices = [plain_simplex(feature) for feature in features]
    lattice: dict[tuple[int, ...], np.ndarray] = {}
    for (vertices, weights), value in zip(simplices, values, strict=True):
        for vertex, weight in zip(vertices, weights, strict=True):
            lattice[vertex] = lattice.get(vertex, np.zeros(values.shape[1])) + weight * value
    if len(features) % 4:
        for vertex in plain_simplex(np.zeros(d, F))[0]:
            lattice.setdefault(vertex, np.zeros(values.shape[1]))
    for axis in range(d + 1):
        step = np.array([1 - (d + 1) * (i == axis) for i in range(d + 1)])
        nothing = np.zeros(values.shape[1])
        lattice = {
            vertex: value
            + 0.5 * lattice.get(tuple(np.add(vertex, step)), nothing)
            + 0.5 * lattice.get(tuple(np.subtract(vertex, step)), nothing)
            for vertex, value in lattice.items()
        }
    alpha = 1 / (1 + 2.0**-d)
    return np.array(
        [
            alpha * sum(weight * lattice[vertex] for vertex, weight in zip(*simplex, strict=True))
            for simplex in simplices
        ]
    )


def plain_crf(
    image: np.ndarray,
    unary: np.ndarray,
    gaussian: tuple[float, float],
    bilateral: tuple[float, float, float],
    iterations: int,
) -> np.ndarray:
    """Marginals [L, H, W] for an image [H, W, channels] and a unary energy [L, H, W]."""
    height, width, channels = image.shape
    positions = [(x, y) for y, x in product(range(height), range(width))]
    across = np.array(positions, F) if channels == 3 else np.array(positions, F)[:, ::-1]
    colours = image.reshape(-1, channels).astype(F) / F(bilateral[1])
    filters = [
        (np.array(positions, F) / F(gaussian[0]), gaussian[1]),
        (np.concatenate([across / F(bilateral[0]), colours], axis=1), bilateral[2]),
    ]
    ones = np.ones((len(positions), 1))
    filters = [(features, 1 / np.sqrt(plain_filter(features, ones)), weight) for features, weight in filters]
    energy = unary.reshape(len(unary), -1).T.astype(np.float64)
    marginals = _softmax(-energy)
    for _ in range(iterations):
        messages = sum(weight * norm * plain_filter(at, norm * marginals) for at, norm, weight in filters)
        marginals = _softmax(messages - energy)
    return marginals.T.reshape(unary.shape)


def _softmax(scores: np.ndarray) -> np.ndarray:
    power = np.exp(scores - scores.max(axis=1, keepdims=True))
    return power / power.sum(axis=1, keepdims=True)


def random_case(seed: int, height: int, width: int, channels: int, labels: int) -> tuple[np.ndarray, np.ndarray]:
    """A ramp with noise, and logits."""
    generator = np.random.default_rng(seed)
    ramp = 4 + np.add.outer(3 * np.arange(height), 2 * np.arange(width))[:, :, None]
    image = (ramp + generator.integers(0, 20, (height, width, channels))).clip(0, 255).astype(np.uint8)
    return image, generator.normal(0, 1.5, (labels, height, width)).astype(np.float32)


def unary_of(labels: np.ndarray, total: int, gt_prob: float) -> np.ndarray:
    energy = np.full((total, *labels.shape), -np.log((1 - gt_prob) / (total - 1)), np.float32)
    np.put_along_axis(energy, labels[None].astype(int), np.float32(-np.log(gt_prob)), axis=0)
    return energy


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=0)
    return shifted - np.log(np.exp(shifted).sum(axis=0))


@pytest.mark.parametrize(
    ("size", "channels", "labels", "gaussian", "bilateral", "iterations"),
    [
        ((1, 1), 3, 2, (3, 3), (50, 5, 10), 2),
        ((1, 7), 3, 3, (3, 3), (50, 5, 10), 2),
        ((9, 5), 3, 6, (2, 1), (4, 8, 2), 2),
        ((5, 9), 3, 9, (0.7, 2), (30, 2, 3), 3),
        ((6, 6), 2, 17, (3, 3), (50, 5, 10), 1),
        ((4, 5), 7, 2, (3, 3), (50, 60, 10), 2),
        ((5, 4), 3, 4, (3, 3), (50, 5, 10), 0),
    ],
)
def test_agrees_with_plain_loops(size, channels, labels, gaussian, bilateral, iterations) -> None:
    image, logits = random_case(1, *size, channels, labels)
    plain = plain_crf(image, -log_softmax(logits), gaussian, bilateral, iterations)
    ours = dense_crf(image, logits=logits, gaussian=gaussian, bilateral=bilateral, iterations=iterations)
    np.testing.assert_allclose(ours, plain, atol=2e-5)


def test_label_map_agrees_with_plain_loops_on_its_unary() -> None:
    image, logits = random_case(2, 6, 7, 3, 5)
    labels = logits[:3].argmax(axis=0)
    plain = plain_crf(image, unary_of(labels, 5, 0.8), (3, 1), (50, 5, 2), 3)
    ours = dense_crf(
        image, labels=labels, num_labels=5, gt_prob=0.8, gaussian=(3, 1), bilateral=(50, 5, 2), iterations=3
    )
    np.testing.assert_allclose(ours, plain, atol=2e-5)


def test_a_lattice_that_outgrew_its_first_table_has_every_vertex_once() -> None:
    image = np.random.default_rng(4).integers(0, 256, (36, 31, 3), dtype=np.uint8)
    lattice = image_lattice(image, 10, 3)
    numbers: dict[tuple[int, ...], int] = {}
    for pixel, simplex in enumerate(lattice.vertices.tolist()):
        y, x = divmod(pixel, 31)
        feature = np.concatenate([np.array([x, y], F) / F(10), image[y, x].astype(F) / F(3)])
        for vertex, number in zip(plain_simplex(feature)[0], simplex, strict=True):
            assert numbers.setdefault(vertex, number) == number
    assert len(set(numbers.values())) == len(numbers) == lattice.size
    assert lattice.size > 2 ** (FIRST_BITS - 1)
