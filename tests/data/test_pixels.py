"""Where a padded crop holds real pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sfc.data.pixels import rectangle_mask


@pytest.mark.parametrize("stride", [4, 8, 16, 32])
def test_rectangle_equals_the_full_mask_resized(stride: int) -> None:
    random = np.random.default_rng(stride)
    for size in [*range(1, 70), 96, 127, 128, 255, 256, 321, 500, 511, 512, 513, 640, 1023]:
        height, width = size, int(random.integers(1, 700))
        top, left = random.integers(0, height), random.integers(0, width)
        bottom, right = random.integers(top, height + 1), random.integers(left, width + 1)
        full = torch.zeros(1, 1, height, width)
        full[:, :, top:bottom, left:right] = 1
        grid = (math.ceil(height / stride), math.ceil(width / stride))
        rectangle = torch.tensor([[top, left, bottom, right]])
        mask = rectangle_mask(rectangle, (height, width), grid)
        assert mask.dtype == torch.float32
        assert torch.equal(mask, F.interpolate(full, size=grid, mode="nearest")), (height, width, rectangle)


def test_rectangle_can_be_on_a_finer_grid() -> None:
    mask = rectangle_mask(torch.tensor([[0, 1, 1, 2]]), (2, 2), (4, 6))
    assert mask[0, 0].tolist() == [[0, 0, 0, 1, 1, 1]] * 2 + [[0] * 6] * 2
