"""Distribution coefficients and the expected effect of the bank."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sfc.classify.bank import ImageBank
from sfc.classify.distribution import VOC_RELEASED_FACTOR, distribution_coefficient, expected_resampling

VOC_COUNTS = {
    "aeroplane": 590,
    "bicycle": 504,
    "bird": 705,
    "boat": 468,
    "bottle": 714,
    "bus": 393,
    "car": 1150,
    "cat": 1005,
    "chair": 1228,
    "cow": 267,
    "diningtable": 613,
    "dog": 1188,
    "horse": 445,
    "motorbike": 492,
    "person": 4155,
    "pottedplant": 522,
    "sheep": 300,
    "sofa": 649,
    "train": 503,
    "tvmonitor": 567,
}


def coefficient_slowly(counts: list[int], extra: list[float]) -> list[float]:
    present = [n > 0 for n in counts]
    raw = []
    for n, r, here in zip(counts, extra, present, strict=True):
        gap = sum(abs(n - m) for m, there in zip(counts, present, strict=True) if there)
        raw.append(gap / (n + r) if here else 0.0)
    if not any(raw):
        return [float(here) for here in present]
    return [value * sum(present) / sum(raw) for value in raw]


def test_voc_coefficients_of_the_released_code(golden) -> None:
    steps = 660  # 10,582 images, 16 a step
    resampled = steps * 4 * VOC_RELEASED_FACTOR / 20
    assert resampled == 396
    coefficient = distribution_coefficient(torch.tensor(list(VOC_COUNTS.values())), resampled)
    by_name = dict(zip(VOC_COUNTS, coefficient.tolist(), strict=True))
    published = {"person": 1.545, "chair": 0.907, "bottle": 0.773, "bus": 1.208, "sheep": 1.595, "cow": 1.769}
    for name, value in published.items():
        assert by_name[name] == pytest.approx(value, abs=5e-4), name
    figures = golden("network_training")
    np.testing.assert_array_equal(figures["class_counts"], list(VOC_COUNTS.values()))
    np.testing.assert_allclose(coefficient.numpy(), figures["distribution_coefficient"], rtol=1e-6)
    assert float(coefficient.mean()) == pytest.approx(1, abs=1e-6)


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=12), st.data())
def test_coefficient_equals_plain_loops(counts: list[int], data: st.DataObject) -> None:
    extra = data.draw(st.lists(st.floats(0, 1000), min_size=len(counts), max_size=len(counts)))
    coefficient = distribution_coefficient(torch.tensor(counts), torch.tensor(extra, dtype=torch.float64))
    assert coefficient.dtype == torch.float32
    assert coefficient.tolist() == pytest.approx(coefficient_slowly(counts, extra), rel=1e-5)
    number = distribution_coefficient(torch.tensor(counts, dtype=torch.float32), 17.5)
    assert number.tolist() == pytest.approx(coefficient_slowly(counts, [17.5] * len(counts)), rel=1e-5)


def test_classes_without_images_change_nothing() -> None:
    some = distribution_coefficient(torch.tensor([100, 10, 1]), 5)
    more = distribution_coefficient(torch.tensor([0, 100, 10, 0, 1]), 5)
    assert more[[1, 2, 4]].tolist() == some.tolist()
    assert more[[0, 3]].tolist() == [0, 0]
    without_bank = distribution_coefficient(torch.tensor([0, 100, 1]), 0)
    assert without_bank.isfinite().all()


def test_equal_counts_weigh_all_classes_alike() -> None:
    assert distribution_coefficient(torch.tensor([7, 7, 0, 7]), 3).tolist() == [1, 1, 0, 1]
    assert distribution_coefficient(torch.tensor([7]), 3).tolist() == [1]
    assert distribution_coefficient(torch.tensor([0, 0]), 0).tolist() == [0, 0]


def test_expected_resampling_by_hand() -> None:
    # Class 0 is in all four images, class 1 in one of them, class 2 in two, class 3 in none.
    label = np.array([[1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 1, 0], [1, 0, 0, 0]])
    expected = 10 * 2 / 3 * np.array([1 + 1 + 1, 1 / 4 + 1 + 0, 2 / 4 + 0 + 1, 0])
    for matrix in (label, label.astype(bool), torch.from_numpy(label), torch.from_numpy(label).float()):
        resampled = expected_resampling(matrix, steps_per_epoch=10, draws=2)
        assert resampled.dtype == torch.float32
        assert resampled.tolist() == pytest.approx(expected.tolist(), rel=1e-6)
    assert expected_resampling(label, 10, 0).tolist() == [0, 0, 0, 0]
    assert expected_resampling(np.zeros((3, 2)), 10, 2).tolist() == [0, 0]


def test_expected_resampling_is_what_the_bank_does() -> None:
    """Monte Carlo: epochs of shuffled batches through a real bank, on a long-tailed set with classes that co-occur."""
    random = np.random.default_rng(0)
    images, batch, draws, epochs = 200, 10, 4, 250
    label = random.random((images, 4)) < np.array([0.6, 0.25, 0.1, 0.05])
    label[:, 1] |= label[:, 3]
    label[:, 0] |= ~label.any(axis=1)
    steps = images // batch
    bank, total = ImageBank(5), torch.zeros(5)
    rows = torch.cat([torch.from_numpy(label), torch.zeros(images, 1, dtype=torch.bool)], dim=1).float()
    nothing = torch.zeros(batch, 0)
    for epoch in range(epochs + 1):
        for index in np.split(random.permutation(images), steps):
            bank.put(nothing, rows[index], nothing)
            drawn = bank.draw(draws, random)
            assert drawn is not None
            if epoch:  # the first epoch fills the bank
                total += drawn[1].sum(dim=0)
    expected = expected_resampling(rows, steps, draws)
    np.testing.assert_allclose(total[:4] / epochs, expected[:4], rtol=0.04)
    assert total[4] == expected[4] == 0
