"""The devices and processes of a command, and what they have to agree on."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Literal

import torch
from lightning_fabric import Fabric
from torch import nn

from sfc.errors import ConfigError, SFCError
from sfc.settings.shared import MachineConfig

PATIENCE = timedelta(hours=24)
"""How long processes wait for each other: one may have a whole data set to score, or more images left than others."""

POLL = 2.0
"""Seconds between two looks whether the parent of a process is still there."""


@contextmanager
def one_message(fabric: Fabric) -> Iterator[None]:
    """Where one of several processes ends with a message of its own, the others say that instead of a traceback.

    Raises:
        SFCError: another process ended.
    """
    try:
        yield
    except RuntimeError as error:
        # What gloo and NCCL raise in a process whose peer has gone.
        if fabric.world_size > 1 and ("closed by peer" in str(error) or "reset by peer" in str(error)):
            raise SFCError("another process of this run stopped; its own message says why") from error
        raise


def precision_of(machine: MachineConfig) -> Literal["fp32", "bf16"]:
    """What to compute in. bf16 moves a mIoU by 0.05 points at most (docs/speed.md); on a CPU it may be slower."""
    if machine.precision != "auto":
        return machine.precision
    on_gpu = machine.accelerator in ("auto", "cuda") and torch.cuda.is_available()
    return "bf16" if on_gpu and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"


def make_fabric(machine: MachineConfig) -> Fabric:
    """Devices and processes as the settings and the environment (torchrun, SLURM) say; launches local processes.

    Raises:
        ConfigError: the machine does not have what the settings ask for.
    """
    from lightning_fabric.strategies.ddp import DDPStrategy

    several = machine.devices * machine.nodes > 1
    try:
        fabric = Fabric(
            accelerator=machine.accelerator,
            devices=machine.devices,
            num_nodes=machine.nodes,
            strategy=DDPStrategy(find_unused_parameters=True, timeout=PATIENCE) if several else "auto",
            precision="bf16-mixed" if precision_of(machine) == "bf16" else "32-true",
        )
        fabric.launch()
        if machine.threads:
            # Where Lightning launches processes, it has just shared the cores out among them.
            torch.set_num_threads(machine.threads)
        if fabric.local_rank > 0:
            threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"machine: {str(error).splitlines()[0]}") from error
    return fabric


def _end_with_parent(parent: int) -> None:
    """Ends this process when the one that started it has gone: files are whole or not there, so nothing is lost.

    The other way round, and in collectives, Lightning and the sockets do so.
    """
    while os.getppid() == parent:
        time.sleep(POLL)
    sys.stderr.write("sfc: the first process of this run has gone, so this one stops\n")
    sys.stderr.flush()
    os._exit(1)


def is_first_process() -> bool:
    """Whether this is the first of the processes of a command, which speaks for all; True before they are launched."""
    import torch.distributed as processes

    return not (processes.is_available() and processes.is_initialized()) or processes.get_rank() == 0


def prepared_for_inference(fabric: Fabric, net: nn.Module) -> None:
    """Moves a network to this process's device, in the memory layout that is fastest there."""
    net.to(fabric.device)
    net.to(memory_format=torch.channels_last)
