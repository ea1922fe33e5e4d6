"""Trains the relation network on relation labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from sfc.data.labelled_set import LabelSource
from sfc.data.pixels import PixelValues
from sfc.data.records import DataSet, input_hash
from sfc.engine.checkpoint import load_finished
from sfc.engine.fit import Batch, Training, fit
from sfc.engine.optimiser import ParameterGroup
from sfc.errors import ConfigError
from sfc.networks.backbone import Backbone
from sfc.refine.relation.config import OF_THE_WALK, RelationConfig
from sfc.refine.relation.loss import pair_counts, relation_loss
from sfc.refine.relation.network import RelationNetwork
from sfc.refine.relation.samples import RelationSet
from sfc.run.folder import CHECKPOINT
from sfc.settings.read import plain_values
from sfc.settings.shared import MachineConfig


class MakeBackbone(Protocol):
    """Gives a backbone; new layers draw their weights from torch's global generator."""

    def __call__(self, *, blank: bool) -> Backbone:
        """`blank`: its weights will be loaded, so that nothing is fetched."""
        ...


class RelationObjective(nn.Module):
    """The losses of one batch as a module, as DDP wants it."""

    def __init__(self, net: RelationNetwork, radius: int) -> None:
        super().__init__()
        self.net, self.radius = net, radius

    def forward(self, image: Tensor, label: Tensor, counts: Tensor) -> dict[str, Tensor]:
        """Terms of one batch by name, see `relation_loss`.

        Args:
            image: float [N, 3, H, W], normalised, zero outside the real pixels.
            label: uint8 [N, h, w] on the grid.
            counts: [3], mean over processes of `pair_counts`.
        """
        return dict(vars(relation_loss(self.net(image), label, self.radius, counts)))


class BatchMaker:
    """Turns a loaded batch into the objective's input."""

    def __init__(self, fabric: Fabric, radius: int, pixels: PixelValues) -> None:
        self.fabric, self.radius, self.pixels = fabric, radius, pixels

    def __call__(self, batch: Batch, host: Batch, step: int) -> Batch:  # noqa: ARG002
        """Normalised images; and pair counts over all processes, so that they share one mean over pairs."""
        counts = self.fabric.all_reduce(pair_counts(batch["label"], self.radius), reduce_op="mean")
        return {
            "image": self.pixels.normalise_crops(batch["image"], batch["rectangle"]),
            "label": batch["label"],
            "counts": counts,
        }


def train_relation_network(
    fabric: Fabric,
    config: RelationConfig,
    machine: MachineConfig,
    train: DataSet,
    labels: LabelSource,
    folder: Path,
    *,
    backbone: MakeBackbone,
    seed: int,
    origin: Mapping[str, Any] | None = None,
    title: str = "relation network",
) -> None:
    """Trains into `folder`, or goes on where an earlier call was stopped.

    Args:
        fabric: devices and processes.
        config: settings.
        machine: precision, layout, workers.
        train: the training images.
        labels: their relation labels; called in worker processes.
        folder: gets checkpoint.pt, log.csv and TensorBoard events.
        backbone: gives what the network builds on, which is frozen and copied.
        seed: of weights, order and augmentation.
        origin: plain values that say where labels and backbone come from; a training does not go on with others.
        title: shown beside the progress bar.

    Raises:
        ConfigError: a crop is too small for pairs of the radius.
        ConfigError, CheckpointError, DataError, SFCError: see `sfc.engine.fit.fit`.
    """
    torch.manual_seed(seed)
    # Where a checkpoint holds every weight, the file or network that the first ones came from is not needed again.
    net = RelationNetwork(backbone(blank=(folder / CHECKPOINT).exists()))
    _refuse_no_pairs(config, net.stride)
    training = Training(
        objective=RelationObjective(net, config.radius),
        model=net,
        samples=RelationSet(train, labels, config.input, net.stride, seed),
        groups=[ParameterGroup(net.edge_parameters())],
        fingerprint={
            **_fingerprint(config, seed, net),
            "data": input_hash(train),
            "origin": plain_values(origin or {}),
        },
        seed=seed,
        before_step=BatchMaker(fabric, config.radius, net.stages.backbone.pixels),
    )
    fit(fabric, training, config.training, machine, folder, title)


def _refuse_no_pairs(config: RelationConfig, stride: int) -> None:
    """Pairs start `radius` cells from the sides of a crop, see `relation_loss`; without one nothing is learnt."""
    least = 2 * (config.radius - 1) * stride + 1
    if config.input.crop < least:
        raise ConfigError(
            f"refine.irn.input.crop is {config.input.crop}: a radius of {config.radius} needs crops of {least} pixels "
            "or more; choose larger ones or a smaller refine.irn.radius"
        )


def load_relation_network(config: RelationConfig, folder: Path, backbone: MakeBackbone, seed: int) -> RelationNetwork:
    """The trained relation network of a run, in evaluation mode.

    Args:
        config: settings that it was trained with.
        folder: where `train_relation_network` put it.
        backbone: gives what it builds on; only its architecture counts.
        seed: that it was trained with.

    Raises:
        CheckpointError: there is none, it is damaged, or its training is not finished.
        ConfigError: it was trained with other settings, another backbone or for another stride.
    """
    net = RelationNetwork(backbone(blank=True))
    saved = load_finished(folder / CHECKPOINT, _fingerprint(config, seed, net))
    net.load_state_dict(saved["model"])
    return net.eval()


def _fingerprint(config: RelationConfig, seed: int, net: RelationNetwork) -> dict[str, Any]:
    """What a network must share with a checkpoint to take its weights; how its edges are walked may change."""
    settings = plain_values(asdict(config))
    for name in OF_THE_WALK:
        del settings[name]
    shape = {
        "stride": net.stride,
        "channels": list(net.stages.channels),
        "pixels": net.stages.backbone.pixels.plain(),
    }
    return {"relation": settings, "seed": seed, **shape}
