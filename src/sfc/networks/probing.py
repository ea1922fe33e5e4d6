"""A network tried with a fixed random image."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def probe(model: nn.Module, height: int, width: int) -> list[Tensor]:
    """Stage features of a fixed random image, without a change to the model's state."""
    image = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    training = model.training
    model.eval()
    features = model(image)
    model.train(training)
    return list(features)


def takes(model: nn.Module, height: int, width: int) -> bool:
    """Whether the network takes images of that size."""
    try:
        with torch.no_grad():
            probe(model, height, width)
    except (RuntimeError, AssertionError, ValueError):
        return False
    return True
