"""Optimisers and their schedule, for every training stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from sfc.config import TrainingConfig


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a factor on the learning rate, with the weight decay of the settings or without."""

    parameters: Sequence[nn.Parameter]
    factor: float = 1.0
    decay: bool = True


def schedule(config: TrainingConfig, step: int, steps: int) -> float:
    """Factor on the learning rate: (1 − step / steps)^power, renewed every few steps, after a linear warm-up."""
    factor = (1 - step // config.poly_every * config.poly_every / steps) ** config.poly_power
    return factor * min(1.0, (step + 1) / config.warmup) if config.warmup else factor


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
    return torch.optim.SGD(options, lr=config.learning_rate, momentum=config.momentum)
