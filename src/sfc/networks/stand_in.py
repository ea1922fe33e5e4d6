"""Modules that stand in for others of a network."""

from __future__ import annotations

from torch import nn

HOOKS = (
    *("_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called"),
    *("_forward_pre_hooks", "_forward_pre_hooks_with_kwargs"),
)


def take_place(module: nn.Module, of_module: nn.Module) -> None:
    """Gives a module the mode and the listeners of the one that it stands in for: some networks of timm listen."""
    for name in HOOKS:
        setattr(module, name, getattr(of_module, name))
    module.training = of_module.training
