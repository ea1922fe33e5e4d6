"""Relation labels: a CRF of each of two labellings, and the pixels on which they disagree."""

from __future__ import annotations

import numpy as np
import pytest

from sfc.refine.crf.config import CRFConfig
from sfc.refine.crf.dense import dense_crf
from sfc.refine.crf.labels import LabelCRF, fused_cam, relation_labels

KEYS = np.array([0, 3, 7])


def problem(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A noisy photograph of two squares, and maps that know roughly where they are."""
    random = np.random.default_rng(seed)
    image = random.integers(90, 130, (30, 40, 3)).astype(np.uint8)
    cam = random.random((3, 30, 40), dtype=np.float32) * 0.8 + 0.1
    for label, rows, columns in ((1, slice(4, 14), slice(5, 15)), (2, slice(12, 26), slice(22, 36))):
        image[rows, columns, label] = 230
        cam[label, rows, columns] += 0.95
    cam[1, 20:28, 2:10] += 0.5  # less than the background, more than half of it
    cam[0] += 0.65
    return image, cam


def test_labels_are_the_two_crfs_put_together() -> None:
    image, cam = problem()
    config = CRFConfig(gt_prob=0.6, gaussian=(2, 2), bilateral=(20, 8, 5), iterations=4)

    def labels(background: float) -> np.ndarray:
        scaled = np.stack([cam[0] * np.float32(background), cam[1], cam[2]])
        marginals = dense_crf(
            image,
            labels=scaled.argmax(axis=0),
            num_labels=3,
            gt_prob=0.6,
            gaussian=(2, 2),
            bilateral=(20, 8, 5),
            iterations=4,
        )
        return KEYS[marginals.argmax(axis=0)]

    strict, daring = labels(1.0), labels(0.5)
    found = relation_labels(image, KEYS, cam, 0.5, config)
    assert found.dtype == np.uint8
    assert set(np.unique(found)) == {0, 3, 7, 255}
    for y in range(30):
        for x in range(40):
            expected = strict[y, x] or (255 if daring[y, x] else 0)
            assert found[y, x] == expected


def test_a_background_that_is_not_weaker_leaves_nothing_uncertain(monkeypatch: pytest.MonkeyPatch) -> None:
    image, cam = problem(1)
    calls = []
    real = LabelCRF.__call__
    monkeypatch.setattr(LabelCRF, "__call__", lambda *arguments: calls.append(1) or real(*arguments))
    found = relation_labels(image, KEYS, cam, 1.0, CRFConfig())
    assert set(np.unique(found)) <= {0, 3, 7}
    assert len(calls) == 1  # the same question is not asked twice


def test_an_image_without_classes_is_background() -> None:
    image, cam = problem(2)
    assert not relation_labels(image, KEYS[:1], cam[:1], 0.5, CRFConfig()).any()


def test_one_pixel() -> None:
    cam = np.array([0.4, 0.9], dtype=np.float32)[:, None, None]
    found = relation_labels(np.zeros((1, 1, 3), np.uint8), np.array([0, 5]), cam, 0.5, CRFConfig())
    assert found.tolist() == [[5]]


def test_fusion_is_the_weighted_sum() -> None:
    weight, prototype = np.random.default_rng(0).random((2, 3, 4, 5), dtype=np.float32)
    fused = fused_cam(weight, prototype, 0.7)
    assert fused.dtype == np.float32
    assert np.allclose(fused, weight + 0.7 * prototype, rtol=1e-6)
