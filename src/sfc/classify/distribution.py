"""How far each class is from the middle of a long-tailed class distribution."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

VOC_RELEASED_FACTOR = 3
"""An unexplained factor of the released code: 396 = 660 steps · 4 draws · 3 / 20 classes."""


def distribution_coefficient(class_counts: Tensor, resampled: float | Tensor) -> Tensor:
    """Distribution coefficient (SFC, AAAI 2024, eq. 7), divided by its mean.

    DC_c = Σ_j |n_c − n_j| / (n_c + r_c) over the classes that have images; a class with none takes part in nothing
    and gets 0.

    Args:
        class_counts: [C], training images that show each class, not negative.
        resampled: r, how many more images of each class the bank adds in one epoch; a number or [C].

    Returns:
        float32 [C], mean 1 over the classes with images (all ones if they have equal counts).
    """
    counts = torch.as_tensor(class_counts, dtype=torch.float64)
    present = counts > 0
    extra = torch.as_tensor(resampled, dtype=torch.float64).expand_as(counts)
    gap = (counts[:, None] - counts[None, :]).abs()[:, present].sum(dim=1)
    coefficient = torch.where(present, gap / (counts + extra).clamp_min(1e-12), 0)
    total = coefficient.sum()
    if total == 0:
        return present.float()
    return (coefficient * (present.sum() / total)).float()


def expected_resampling(label_matrix: Tensor | np.ndarray, steps_per_epoch: int, draws: int) -> Tensor:
    """Images of each class that the bank is expected to add in one epoch.

    r_c = steps · draws · mean over the slots j of P(an image shows c | it shows j): a slot is drawn uniformly, and
    its image shows other classes too. Slots of classes without images are never drawn.

    Args:
        label_matrix: [images, C] of 0 and 1.
        steps_per_epoch: optimiser steps in one epoch.
        draws: images drawn from the bank at each step.

    Returns:
        float32 [C].
    """
    label = torch.as_tensor(label_matrix).double()
    together = label.T @ label
    counts = together.diagonal()
    present = counts > 0
    if not present.any():
        return torch.zeros(label.shape[1])
    shows_given_slot = together[present] / counts[present, None]
    return (steps_per_epoch * draws * shows_given_slot.mean(dim=0)).float()
