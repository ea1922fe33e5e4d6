"""What is slow on a CPU is replaced by what computes the same."""

from __future__ import annotations

from lightning_fabric import Fabric
from torch import nn

from sfc.networks.activation import LeanReLU6
from sfc.networks.convolution import QuickConv2d, compile_kernels


def quicken(model: nn.Module) -> None:
    """Replaces depthwise and 1 × 1 convolutions and ReLU6 of a network; names and parameters stay as they were."""
    for parent in list(model.modules()):
        for name, module in list(parent.named_children()):
            if type(module) is nn.Conv2d and (module.kernel_size == (1, 1) or module.groups == module.in_channels > 1):
                setattr(parent, name, QuickConv2d(module))
            elif type(module) is nn.ReLU6 and module.inplace:
                setattr(parent, name, LeanReLU6(module))


def compile_gradients(fabric: Fabric, net: nn.Module) -> None:
    """Compiles what the training of a network needs, before its progress is shown; every process calls this."""
    needs = any(isinstance(module, QuickConv2d) and module.is_slow_in_torch() for module in net.modules())
    if needs and fabric.device.type == "cpu":
        from sfc.kernels.compiling import compile_once  # here, as numba takes 90 MB that inference does without

        compile_once(fabric, compile_kernels)
