"""What every method of refinement works with."""

from __future__ import annotations

import numpy as np
import pytest

from sfc.refine.config import RefineSection
from sfc.refine.methods import REFINERS
from sfc.refine.refiner import Maps


def test_fusion_is_the_weighted_sum() -> None:
    weight, prototype = np.random.default_rng(0).random((2, 3, 4, 5), dtype=np.float32)
    fused = Maps(np.array([0, 3, 7]), weight, prototype).fused(0.7)
    assert fused.dtype == np.float32
    assert np.allclose(fused, weight + 0.7 * prototype, rtol=1e-6)


@pytest.mark.parametrize(
    ("given", "labels", "walk", "scored"), [("released", 0.7, 0.3, 1.0), (1.0, 1.0, 1.0, 1.0), (0.4, 0.4, 0.4, 0.4)]
)
def test_one_lambda_or_the_released_ones(given: float | str, labels: float, walk: float, scored: float) -> None:
    config = RefineSection(fusion_lambda=given)
    assert (config.label_lambda, config.walk_lambda, config.scored_lambda) == (labels, walk, scored)
    assert config.is_released == (given == "released")


def test_methods_come_after_those_that_they_build_on() -> None:
    names = list(REFINERS)
    assert names == ["none", "crf", "irn", "irn+crf"]
    for name, refiner in REFINERS.items():
        assert not refiner.after or names.index(refiner.after) < names.index(name)
