"""Cross-entropy at several sizes against plain loops; labels on grids as Pillow shrinks them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from sfc.segment.loss import label_counts, pyramid, resize_labels, segmentation_losses


@pytest.mark.parametrize("size", [(41, 41), (31, 7), (321, 253), (1, 1)])
def test_labels_are_resized_as_pillow_does(size: tuple[int, int]) -> None:
    # Odd sides: no centre lies between two pixels, where Pillow's floating point decides.
    labels = np.random.default_rng(0).integers(0, 256, (321, 253), dtype=np.uint8)
    expected = Image.fromarray(labels).resize((size[1], size[0]), Image.Resampling.NEAREST)
    np.testing.assert_array_equal(resize_labels(torch.from_numpy(labels)[None], size)[0], np.asarray(expected))


def test_pyramid_is_each_size_and_their_maximum_on_the_first_grid() -> None:
    torch.manual_seed(0)
    net = nn.Conv2d(3, 4, 3, stride=4, padding=1)
    image = torch.randn(2, 3, 33, 50)
    logits = pyramid(net, image, (1.0, 0.5))
    small = net(F.interpolate(image, size=(16, 25), mode="bilinear", align_corners=False))
    torch.testing.assert_close(logits[0], net(image))
    torch.testing.assert_close(logits[1], small)
    enlarged = F.interpolate(small, size=(9, 13), mode="bilinear", align_corners=False)
    torch.testing.assert_close(logits[2], torch.stack([logits[0], enlarged]).amax(dim=0))
    assert len(pyramid(net, image, (0.5,))) == 1


def test_loss_is_the_mean_over_cells_that_are_not_ignored() -> None:
    random = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 3, 4, 5, generator=random)
    labels = torch.randint(0, 3, (2, 9, 11), generator=random, dtype=torch.uint8)
    labels[0, :, 4:] = 255
    grid = resize_labels(labels, (4, 5))
    total, count = 0.0, 0
    for n in range(2):
        for y in range(4):
            for x in range(5):
                label = int(grid[n, y, x])
                if label != 255:
                    values = logits[n, :, y, x].tolist()
                    total += math.log(sum(map(math.exp, values))) - values[label]
                    count += 1
    counts = label_counts(labels, [(4, 5)])
    assert counts.tolist() == [count]
    assert 0 < count < 40
    (loss,) = segmentation_losses([logits], labels, counts)
    assert loss.item() == pytest.approx(total / count, rel=1e-5)


def test_nothing_but_ignored_cells_costs_nothing_and_has_no_gradient() -> None:
    logits = torch.randn(1, 3, 4, 5, requires_grad=True)
    labels = torch.full((1, 8, 10), 255, dtype=torch.uint8)
    (loss,) = segmentation_losses([logits], labels, label_counts(labels, [(4, 5)]))
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()
