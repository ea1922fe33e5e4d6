"""Relation labels: a CRF of each of two labellings, and the pixels on which they disagree."""

from __future__ import annotations

import numpy as np
import pytest

from sfc.refine.crf.config import CRFConfig
from sfc.refine.crf.dense import dense_crf
from sfc.refine.crf.labels import LabelCRF, relation_labels

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
    config = CRFConfig(gaussian=(2, 2), bilateral=(20, 8, 5))

    def labels(background: float) -> np.ndarray:
        scaled = np.stack([cam[0] * np.float32(background), cam[1], cam[2]])
        marginals = dense_crf(
            image,
            labels=scaled.argmax(axis=0),
            num_labels=3,
            gt_prob=0.7,
            gaussian=(2, 2),
            bilateral=(20, 8, 5),
        )
        return KEYS[marginals.argmax(axis=0)]

    strict, daring = labels(1.0), labels(0.5)
    found = relation_labels(image, KEYS, cam, config)
    assert found.dtype == np.uint8
    assert set(np.unique(found)) == {0, 3, 7, 255}
    for y in range(30):
        for x in range(40):
            expected = strict[y, x] or (255 if daring[y, x] else 0)
            assert found[y, x] == expected


def test_the_same_question_is_not_asked_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the background is far from every class, the daring labelling is the strict one."""
    image, cam = problem(1)
    cam = np.where(cam[:1] >= cam.max(axis=0), [[[4.0]], [[0.1]], [[0.1]]], [[[0.0]], [[1.0]], [[0.5]]])
    calls = []
    real = LabelCRF.__call__
    monkeypatch.setattr(LabelCRF, "__call__", lambda *arguments: calls.append(1) or real(*arguments))
    found = relation_labels(image, KEYS, cam.astype(np.float32), CRFConfig())
    assert set(np.unique(found)) <= {0, 3, 7}
    assert len(calls) == 1


def test_an_image_without_classes_is_background() -> None:
    image, cam = problem(2)
    assert not relation_labels(image, KEYS[:1], cam[:1], CRFConfig()).any()


def test_one_pixel() -> None:
    cam = np.array([0.4, 0.9], dtype=np.float32)[:, None, None]
    found = relation_labels(np.zeros((1, 1, 3), np.uint8), np.array([0, 5]), cam, CRFConfig())
    assert found.tolist() == [[5]]
