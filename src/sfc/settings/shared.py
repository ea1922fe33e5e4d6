"""Settings that stages share: training, augmentation of labelled images, machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from sfc.settings.limits import Count, Crop, Limits, NaturalNumber, Weight

PUBLISHED, NONE = "published", "none"
"""Values of a `weights` setting that are no file."""
FROM_CLASSIFIER = "classifier"
"""Value of a `backbone` setting: the trained classifier's."""


def weight_options(weights: str) -> dict[str, Any]:
    """A `weights` setting as `sfc.networks.backbone.Backbone` takes it."""
    return {"pretrained": weights == PUBLISHED, "weights": "" if weights in (PUBLISHED, NONE) else weights}


@dataclass(frozen=True)
class MaskedInputConfig:
    """Augmentation of training images that come with a label map; half of them are mirrored.

    Args:
        scale: range of the factor on the image's size.
        crop: side of the square random crop; smaller images are padded, and the padding ignored.
    """

    scale: Annotated[tuple[float, float], Limits(0.01, ascending=True)] = (0.5, 1.0)
    crop: Crop = 512


@dataclass(frozen=True)
class TrainingConfig:
    """Optimiser and length of any training.

    Args:
        optimiser: `sgd` (momentum 0.9), `sgd-released` (momentum 0.0001: the released code passes the weight decay in
            its place) or `adamw`.
        learning_rate: of the backbone; decays by (1 - step / steps) to the power 0.9.
        weight_decay: of all parameters.
        batch: images of a step, over all processes, bank images not counted.
        epochs: passes over the training images.
    """

    optimiser: Literal["sgd", "sgd-released", "adamw"] = "sgd-released"
    learning_rate: Weight = 0.1
    weight_decay: Weight = 1e-4
    batch: Count = 16
    epochs: Count = 6


@dataclass(frozen=True)
class MachineConfig:
    """Where and how to compute; changes speed, not what is computed (up to rounding).

    Args:
        accelerator: `auto`, `cpu`, `cuda` or `mps`.
        devices: processes on this machine; more than one trains under DDP and shares images in other stages.
        nodes: machines; started by torchrun or SLURM.
        precision: `fp32`, or `bf16` (autocast); `auto`: bf16 on a GPU that computes with it, else fp32.
        compile: compile the training step with torch.compile; slow to start.
        workers: processes that prepare training images; 0: none.
        threads: CPU threads of each process; 0: torch's choice.
        checkpoint_every: steps between checkpoints of a training; there is one after the last step too.
    """

    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: Count = 1
    nodes: Count = 1
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: bool = False
    workers: NaturalNumber = 2
    threads: NaturalNumber = 0
    checkpoint_every: Count = 200
