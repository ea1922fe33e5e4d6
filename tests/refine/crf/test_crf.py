"""Dense CRF: figures of pydensecrf, plain loops, properties, bad input."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sfc.refine.crf import dense as crf
from sfc.refine.crf.dense import dense_crf


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


def assert_same(ours: np.ndarray, reference: np.ndarray, largest: float = 5e-6, mean: float = 1e-7) -> None:
    assert ours.dtype == np.float32
    assert ours.shape == reference.shape
    difference = np.abs(ours - reference)
    assert difference.max() <= largest
    assert difference.mean() <= mean


def test_label_map_gives_the_figures_of_pydensecrf(golden) -> None:
    figures = golden("dense_crf")
    image, labels = figures["image"], figures["labels"]
    assert_same(dense_crf(image, labels=labels), figures["label_marginals"])
    once = dense_crf(image, labels=labels, num_labels=3, iterations=1)
    assert_same(once, figures["label_marginals_1_iteration"])


def test_probabilities_give_the_figures_of_pydensecrf(golden) -> None:
    figures = golden("dense_crf")
    ours = dense_crf(figures["image"], probabilities=figures["probabilities"], gaussian=(1, 3), bilateral=(67, 3, 4))
    assert_same(ours, figures["probability_marginals"], largest=1e-4)


def test_logits_of_an_image_whose_pixels_do_not_divide_by_4_give_the_figures_of_pydensecrf(golden) -> None:
    figures = golden("dense_crf_sizes")
    ours = dense_crf(
        figures["dark_image"], logits=figures["logits"], gaussian=(3, 0.3), bilateral=(50, 5, 1), iterations=5
    )
    assert_same(ours, figures["logit_marginals"])


def test_grey_image_with_labels_that_do_not_occur_gives_the_figures_of_pydensecrf(golden) -> None:
    figures = golden("dense_crf_sizes")
    options = {"gt_prob": 0.6, "gaussian": (2.5, 2), "bilateral": (20, 3, 6)}
    ours = dense_crf(figures["grey_image"], labels=figures["labels"], num_labels=9, **options)
    assert_same(ours[[0, 1, 2, 8]], figures["label_marginals"])
    np.testing.assert_array_equal(ours[3:8], np.repeat(ours[8:], 5, axis=0))


def test_agrees_with_an_installed_pydensecrf() -> None:
    densecrf = pytest.importorskip("pydensecrf.densecrf", reason="pydensecrf2 needs a C++ compiler: for who has it")
    image, logits = random_case(3, 41, 53, 3, 11)
    crf = densecrf.DenseCRF2D(53, 41, 11)
    crf.setUnaryEnergy(np.ascontiguousarray(-log_softmax(logits).reshape(11, -1)))
    crf.addPairwiseGaussian(sxy=3, compat=3)
    crf.addPairwiseBilateral(sxy=50, srgb=5, rgbim=image, compat=10)
    assert_same(dense_crf(image, logits=logits), np.array(crf.inference(10)).reshape(logits.shape), largest=1e-4)


def test_probabilities_are_clipped_at_1e_minus_5() -> None:
    image = np.zeros((1, 1, 3), np.uint8)
    marginals = dense_crf(image, probabilities=np.array([[[0.0]], [[1.0]]]), iterations=0)
    np.testing.assert_allclose(marginals[:, 0, 0], [1e-5, 1], rtol=2e-5)


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 12), st.integers(2, 20))
def test_marginals_are_a_distribution(seed, height, width, labels) -> None:
    image, logits = random_case(seed, height, width, 3, labels)
    marginals = dense_crf(image, logits=10 * logits)
    assert marginals.min() >= 0
    np.testing.assert_allclose(marginals.sum(axis=0), 1, atol=1e-5)


@settings(max_examples=15)
@given(st.integers(0, 10_000), st.permutations(range(6)))
@example(208, [0, 1, 2, 4, 5, 3])
def test_renaming_labels_renames_marginals(seed, names) -> None:
    image, logits = random_case(seed, 7, 9, 3, 6)
    ours = dense_crf(image, logits=logits[names])
    # Sums over labels round in another order, and ten updates blow that up where two labels are equally likely (2.3e-5
    # in the example); a label that was mixed up would differ by tenths.
    np.testing.assert_allclose(ours, dense_crf(image, logits=logits)[names], atol=2e-4)


def test_what_all_logits_of_a_pixel_share_does_not_matter() -> None:
    image, logits = random_case(0, 9, 9, 3, 4)
    shared = np.random.default_rng(0).normal(0, 1e6, (9, 9))
    np.testing.assert_allclose(dense_crf(image, logits=logits + shared), dense_crf(image, logits=logits), atol=1e-5)


def test_label_map_and_its_probabilities_agree() -> None:
    image, logits = random_case(5, 20, 30, 3, 3)
    labels = logits.argmax(axis=0).astype(np.uint8)
    probabilities = np.exp(-unary_of(labels, 12, 0.7))
    ours = dense_crf(image, labels=labels, num_labels=12)
    np.testing.assert_allclose(ours, dense_crf(image, probabilities=probabilities), atol=5e-5)


def test_arrays_that_are_not_contiguous() -> None:
    image, logits = random_case(6, 10, 14, 3, 3)
    expected = dense_crf(image, logits=logits)
    views = np.asfortranarray(image), np.asfortranarray(logits)
    np.testing.assert_array_equal(dense_crf(views[0], logits=views[1]), expected)
    wide = np.repeat(image, 2, axis=1)[:, ::2]
    np.testing.assert_array_equal(dense_crf(wide, logits=logits), expected)
    labels = np.asfortranarray(logits.argmax(axis=0))
    np.testing.assert_array_equal(dense_crf(image, labels=labels), dense_crf(image, labels=labels.copy(order="C")))


def test_inputs_are_left_alone() -> None:
    image, logits = random_case(7, 6, 6, 3, 3)
    before = image.copy(), logits.copy()
    dense_crf(image, logits=logits)
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(logits, before[1])


def test_grey_image_equals_an_image_of_one_channel() -> None:
    image, logits = random_case(8, 8, 8, 1, 3)
    np.testing.assert_array_equal(dense_crf(image[:, :, 0], logits=logits), dense_crf(image, logits=logits))


def test_single_label_is_certain() -> None:
    image = np.zeros((3, 4, 3), np.uint8)
    for unary in ({"labels": np.zeros((3, 4), int)}, {"logits": np.full((1, 3, 4), -7.0)}):
        np.testing.assert_array_equal(dense_crf(image, **unary), np.ones((1, 3, 4), np.float32))


def test_one_label_everywhere_of_many() -> None:
    image, _ = random_case(9, 8, 8, 3, 1)
    marginals = dense_crf(image, labels=np.full((8, 8), 2), num_labels=5)
    assert (marginals.argmax(axis=0) == 2).all()
    np.testing.assert_array_equal(marginals[0], marginals[4])


def test_several_images_build_their_lattices_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    both_there, untouched = Barrier(2, timeout=30), crf.image_lattice

    def together(*arguments: Any) -> Any:
        both_there.wait()
        return untouched(*arguments)

    crf._POSITIONS.get(5, 6, 3)  # of all images of a size; the images' own lattices are what is left to build
    monkeypatch.setattr(crf, "image_lattice", together)
    labels = np.arange(30).reshape(5, 6) % 2
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda shade: dense_crf(np.full((5, 6, 3), shade, np.uint8), labels=labels), (10, 200)))


def test_threads_do_not_disturb_each_other() -> None:
    cases = [random_case(seed, 30 + seed % 3, 40, 3, 3 + seed) for seed in range(8)]
    alone = [dense_crf(image, logits=logits) for image, logits in cases]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda case: dense_crf(case[0], logits=case[1]), cases))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


IMAGE, LABELS, SCORES = np.zeros((2, 3, 3), np.uint8), np.zeros((2, 3), int), np.zeros((2, 2, 3))
BAD_INPUT = {
    "image of floats": ({"image": IMAGE / 255, "labels": LABELS}, "image must be uint8"),
    "image of one dimension": ({"image": IMAGE[0, 0], "labels": LABELS}, "image must be uint8"),
    "empty image": ({"image": IMAGE[:0], "labels": LABELS[:0]}, "image must be uint8"),
    "no unary": ({}, "exactly one of"),
    "two unaries": ({"labels": LABELS, "logits": SCORES}, "exactly one of"),
    "labels of floats": ({"labels": LABELS * 1.0}, "labels must be integers"),
    "labels of another size": ({"labels": LABELS[:1]}, "labels must be integers"),
    "negative label": ({"labels": LABELS - 1}, "must not be negative, but -1"),
    "label too large": ({"labels": LABELS + 5, "num_labels": 5}, "below num_labels 5, but 5"),
    "NaN in probabilities": ({"probabilities": np.where(SCORES == 0, np.nan, 0)}, "probabilities must be finite"),
    "probability above 1": ({"probabilities": SCORES + 1.5}, "probabilities must lie in"),
    "negative probability": ({"probabilities": SCORES - 0.1}, "probabilities must lie in"),
    "NaN in logits": ({"logits": SCORES * np.nan}, "logits must be finite"),
    "infinite logit": ({"logits": SCORES - np.inf}, "logits must be finite"),
    "logits of another size": ({"logits": SCORES[:, :, :2]}, "logits must be floats"),
    "logits of integers": ({"logits": SCORES.astype(int)}, "logits must be floats"),
    "no labels in logits": ({"logits": SCORES[:0]}, "logits must be floats"),
    "another num_labels": ({"logits": SCORES, "num_labels": 3}, "have 2 labels, not num_labels 3"),
    "sxy 0": ({"labels": LABELS, "gaussian": (0, 3)}, "must be positive"),
    "negative srgb": ({"labels": LABELS, "bilateral": (50, -5, 10)}, "must be positive"),
    "NaN sxy": ({"labels": LABELS, "gaussian": (np.nan, 3)}, "must be finite"),
    "srgb too small": ({"logits": SCORES, "bilateral": (50, 1e-4, 10)}, "srgb 0.0001 is too small"),
    "gt_prob 1": ({"labels": LABELS, "gt_prob": 1.0}, "gt_prob must lie inside"),
    "negative iterations": ({"labels": LABELS, "iterations": -1}, "iterations must be"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_refused(case) -> None:
    arguments, message = BAD_INPUT[case]
    with pytest.raises(ValueError, match=message):
        dense_crf(**{"image": IMAGE, **arguments})
