"""Modules that stand in for others of a network, batch norms over several GPUs among them."""

from __future__ import annotations

import warnings

from lightning_fabric import Fabric
from timm.layers.norm_act import convert_sync_batchnorm
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


def synchronise_norms(fabric: Fabric, net: nn.Module) -> None:
    """Batch norms that learn are those of all GPUs together; CPU processes cannot, and say so once.

    Frozen ones, and what stands in for them, are the same in every process and stay as they are.

    Args:
        fabric: devices and processes.
        net: in training mode, where only norms that learn are in it; changed in place.
    """
    if fabric.world_size == 1 or not any(map(_learns, net.modules())):
        return
    if fabric.device.type == "cuda":
        for parent in list(net.modules()):
            for name, norm in parent.named_children():
                if _learns(norm):
                    # timm's, as torch's would lose the activation and the drop of a BatchNormAct2d.
                    together = convert_sync_batchnorm(norm)
                    take_place(together, norm)
                    setattr(parent, name, together)
    elif fabric.is_global_zero:
        warnings.warn(
            "batch norm is not synchronised between CPU processes: each normalises by its own share of the batch",
            stacklevel=2,
        )


def _learns(module: nn.Module) -> bool:
    return isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) and module.training
