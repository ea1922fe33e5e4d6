"""Settings that training stages share: input, optimiser, machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class InputConfig:
    """Augmentation of training images.

    Args:
        long_side: range (inclusive) of the long side that an image is resized to; null keeps its size.
        crop: side of the square random crop; smaller images are padded.
        flip: mirror half of the images.
        batch_sizes: resize each whole batch to one of these sides, drawn by step; empty: none.
    """

    long_side: tuple[int, int] | None = (320, 640)
    crop: int = 512
    flip: bool = True
    batch_sizes: tuple[int, ...] = ()


@dataclass(frozen=True)
class MaskedInputConfig:
    """Augmentation of training images that come with a label map.

    Args:
        scale: range of the factor on the image's size.
        crop: side of the square random crop; smaller images are padded, and the padding ignored.
        flip: mirror half of the images.
    """

    scale: tuple[float, float] = (0.5, 1.0)
    crop: int = 512
    flip: bool = True


@dataclass(frozen=True)
class TrainingConfig:
    """Optimiser, schedule and checkpoints of any training stage.

    Args:
        optimiser: `sgd` or `adamw`.
        learning_rate: of the backbone.
        head_factor: factor on the learning rate of new layers.
        momentum: of SGD. The released code passes the weight decay in its place: 0.0001, not 0.9.
        weight_decay: of all parameters.
        poly_power: learning rate times (1 - step / steps) to this power.
        poly_every: steps between two changes of it by that power.
        warmup: steps over which the learning rate rises linearly from 0.
        clip: gradient norm above which gradients are scaled down; 0: never.
        batch: images of a step, over all processes, bank images not counted.
        epochs: passes over the training images.
        seed: of weights, order, augmentation and bank.
        checkpoint_every: steps between checkpoints; also after the last step.
    """

    optimiser: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.1
    head_factor: float = 10.0
    momentum: float = 1e-4
    weight_decay: float = 1e-4
    poly_power: float = 0.9
    poly_every: int = 1
    warmup: int = 0
    clip: float = 1.0
    batch: int = 16
    epochs: int = 6
    seed: int = 10
    checkpoint_every: int = 200


@dataclass(frozen=True)
class MachineConfig:
    """Where and how to compute; changes speed, not what is computed (up to rounding).

    Args:
        accelerator: `auto`, `cpu`, `cuda` or `mps`.
        devices: processes on this machine; more than one trains under DDP and shares images in other stages.
        nodes: machines; started by torchrun or SLURM.
        precision: `fp32`, or `bf16` (autocast).
        channels_last: memory layout of images and weights; usually faster.
        compile: compile the training step with torch.compile; slow to start.
        workers: processes that prepare training images; 0: none.
        threads: CPU threads of each process; 0: torch's choice.
    """

    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: int = 1
    nodes: int = 1
    precision: Literal["fp32", "bf16"] = "fp32"
    channels_last: bool = True
    compile: bool = False
    workers: int = 2
    threads: int = 0
