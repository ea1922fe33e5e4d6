"""Optimisers and their schedule, for every training stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from sfc.settings.shared import TrainingConfig

POLY_POWER = 0.9
"""Of the learning rate's decay: DeepLab, and all released code of the field since."""
ADAMW_WARMUP = 40
"""Ours."""
MOMENTUM = {"sgd": 0.9, "sgd-released": 1e-4}
"""The released code passes the weight decay in momentum's place."""


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a factor on the learning rate, with the weight decay of the settings or without."""

    parameters: Sequence[nn.Parameter]
    factor: float = 1.0
    decay: bool = True


def schedule(step: int, steps: int, warmup: int = 0, poly_every: int = 1) -> float:
    """Factor on the learning rate: (1 − step / steps)^0.9, renewed every few steps, after a linear warm-up."""
    factor = (1 - step // poly_every * poly_every / steps) ** POLY_POWER
    return factor * min(1.0, (step + 1) / warmup) if warmup else factor


def warmup_steps(config: TrainingConfig) -> int:
    """Steps that a training of new layers warms up for: AdamW's first steps rest on few gradients."""
    return ADAMW_WARMUP if config.optimiser == "adamw" else 0


def make_optimiser(config: TrainingConfig, groups: Sequence[ParameterGroup]) -> torch.optim.Optimizer:
    """SGD or AdamW over the groups; groups without trainable parameters are left out."""
    options = []
    for group in groups:
        parameters = [p for p in group.parameters if p.requires_grad]
        if parameters:
            decay = config.weight_decay if group.decay else 0.0
            rate = config.learning_rate * group.factor
            options.append({"params": parameters, "lr": rate, "factor": group.factor, "weight_decay": decay})
    if config.optimiser == "adamw":
        return torch.optim.AdamW(options, lr=config.learning_rate)
    return torch.optim.SGD(options, lr=config.learning_rate, momentum=MOMENTUM[config.optimiser])
