"""The order of images: epochs, shares of processes, rare classes more often."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfc.engine.order import StepBatches, draws, repeat_weights, steps_per_epoch
from sfc.errors import ConfigError
from sfc.settings.shared import TrainingConfig


def test_each_epoch_shows_each_image_once_and_processes_share_the_global_batch() -> None:
    config = TrainingConfig(batch=8, epochs=3)
    whole = list(StepBatches(40, config, seed=1))
    assert len(whole) == len(StepBatches(40, config, seed=1)) == 15
    for epoch in range(3):
        keys = [key for step in whole[5 * epoch : 5 * epoch + 5] for key in step]
        assert {key[0] for key in keys} == {epoch}
        assert sorted(key[1] for key in keys) == list(range(40))
    assert [key[1] for key in whole[0]] != [key[1] for key in whole[5]]
    shares = [list(StepBatches(40, config, 1, 0, rank, 2)) for rank in (0, 1)]
    assert [a + b for a, b in zip(*shares, strict=True)] == whole
    assert list(StepBatches(40, config, 1, first_step=7)) == whole[7:]
    assert list(StepBatches(40, config, seed=2)) != whole


def test_fewer_images_than_a_batch_are_repeated() -> None:
    config = TrainingConfig(batch=8, epochs=1)
    assert steps_per_epoch(3, config) == 1
    (batch,) = StepBatches(3, config, seed=0)
    assert sorted({index for _, index in batch}) == [0, 1, 2]
    assert len(batch) == 8


def test_batch_that_processes_cannot_share_is_refused() -> None:
    with pytest.raises(ConfigError, match="batch 7 cannot be shared equally by 2"):
        StepBatches(40, TrainingConfig(batch=7), 0, 0, 0, 2)


def test_images_of_a_rare_class_are_shown_more_often() -> None:
    labels = np.zeros((200, 3))
    labels[:100, 0] = 1  # half of the images: frequent
    labels[90:98, 1] = 1  # 4 %, each beside the frequent class
    labels[198:, 2] = 1  # 1 %
    weights = repeat_weights(labels, 0.16)
    assert weights is not None
    np.testing.assert_allclose(weights[:90], 1)
    np.testing.assert_allclose(weights[90:98], 2)
    np.testing.assert_allclose(weights[100:198], 1)  # a negative is an image like others
    np.testing.assert_allclose(weights[198:], 4)


@pytest.mark.parametrize("below", [0.0, 0.25])
def test_without_a_rare_class_the_order_is_that_of_a_permutation(below: float) -> None:
    labels = np.zeros((40, 3))
    labels[:10, 0] = labels[10:30, 1] = 1  # the third class is in no image
    assert repeat_weights(labels, below) is None


@given(st.lists(st.floats(1, 30), min_size=1, max_size=60), st.integers(0, 2**32 - 1))
def test_draws_are_the_shares_rounded_up_or_down(weights: list[float], seed: int) -> None:
    drawn = draws(np.array(weights), np.random.default_rng(seed))
    assert len(drawn) == len(weights)
    counts = np.bincount(drawn, minlength=len(weights))
    share = np.array(weights) * len(weights) / sum(weights)
    assert (counts >= np.floor(share - 1e-9)).all()
    assert (counts <= np.ceil(share + 1e-9)).all()


def test_over_many_epochs_images_are_shown_by_their_weights() -> None:
    weights = np.array([1.0] * 18 + [3.0] * 2)
    config = TrainingConfig(batch=5, epochs=400)
    shown = Counter(index for step in StepBatches(20, config, seed=3, weights=weights) for _, index in step)
    mean = np.array([shown[index] for index in range(20)]) / 400
    np.testing.assert_allclose(mean, weights * 20 / weights.sum(), atol=0.08)


def test_with_weights_too_processes_share_a_batch_and_a_resumed_training_goes_on() -> None:
    weights = np.linspace(1, 4, 40)
    config = TrainingConfig(batch=8, epochs=3)
    whole = list(StepBatches(40, config, 1, weights=weights))
    assert len(whole) == 15
    shares = [list(StepBatches(40, config, 1, 0, rank, 2, weights)) for rank in (0, 1)]
    assert [a + b for a, b in zip(*shares, strict=True)] == whole
    assert list(StepBatches(40, config, 1, first_step=7, weights=weights)) == whole[7:]
    assert whole != list(StepBatches(40, config, 1))
