"""Trains the relation network on relation labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from sfc.config import MachineConfig, RelationConfig
from sfc.data.labelled_set import LabelSource
from sfc.data.pixels import normalise, rectangle_mask
from sfc.data.records import DataSet, input_hash
from sfc.engine.checkpoint import load_checkpoint, load_finished
from sfc.engine.fit import Batch, Job, fit
from sfc.engine.optimiser import ParameterGroup
from sfc.errors import CheckpointError, ConfigError
from sfc.networks.backbone import Backbone
from sfc.refine.relation.loss import pair_counts, relation_loss
from sfc.refine.relation.network import RelationNetwork
from sfc.refine.relation.samples import RelationSet
from sfc.settings import plain_values

FROM_CLASSIFIER = "classifier"


def build_relation_network(config: RelationConfig, backbone: Backbone | None = None) -> RelationNetwork:
    """The network that the settings describe; weights of new layers from torch's global generator.

    Args:
        config: settings.
        backbone: the classifier's, which `backbone: classifier` asks for; it is copied.

    Raises:
        ConfigError: the classifier's backbone is asked for but not given.
    """
    if config.backbone != FROM_CLASSIFIER:
        return RelationNetwork(config.backbone, pretrained=config.pretrained, weights=config.weights)
    if backbone is None:
        raise ConfigError("refine.relation.backbone is 'classifier', but no classifier's backbone is given")
    return RelationNetwork(backbone)


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


class Preparation:
    """Turns a loaded batch into the objective's input."""

    def __init__(self, fabric: Fabric, radius: int) -> None:
        self.fabric, self.radius = fabric, radius

    def __call__(self, batch: Batch, step: int) -> Batch:  # noqa: ARG002
        """Normalised images; and pair counts over all processes, so that they share one mean over pairs."""
        counts = self.fabric.all_reduce(pair_counts(batch["label"], self.radius), reduce_op="mean")
        size = batch["image"].shape[2:]
        pixels = normalise(batch["image"]) * rectangle_mask(batch["rectangle"], size, size)
        return {"image": pixels, "label": batch["label"], "counts": counts}


def train_relation_network(
    fabric: Fabric,
    config: RelationConfig,
    machine: MachineConfig,
    train: DataSet,
    labels: LabelSource,
    folder: Path,
    *,
    backbone: Backbone | None = None,
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
        backbone: the classifier's, where the settings ask for it.
        origin: plain values that say where labels and backbone come from; a training does not go on with others.
        title: shown beside the progress bar.

    Raises:
        ConfigError, CheckpointError, DataError, SFCError: see `sfc.engine.fit.fit`.
    """
    torch.manual_seed(config.training.seed)
    path = folder / "checkpoint.pt"
    begun = path.exists()
    if begun:
        _refuse_displacements(path, load_checkpoint(path))
    # Where a checkpoint holds every weight, the file or network that the first ones came from is not needed again.
    start = replace(config, pretrained=False, weights="") if begun else config
    net = build_relation_network(start, backbone)
    job = Job(
        objective=RelationObjective(net, config.radius),
        model=net,
        samples=RelationSet(train, labels, config.input, net.stride, config.training.seed),
        groups=[ParameterGroup(net.edge_parameters())],
        fingerprint={**_fingerprint(config, net), "data": input_hash(train), "origin": plain_values(origin or {})},
        before_step=Preparation(fabric, config.radius),
    )
    fit(fabric, job, config.training, machine, folder, title)


def load_relation_network(config: RelationConfig, folder: Path, backbone: Backbone | None = None) -> RelationNetwork:
    """The trained relation network of a run, in evaluation mode.

    Args:
        config: settings that it was trained with.
        folder: where `train_relation_network` put it.
        backbone: the classifier's, where the settings ask for it; only its architecture counts.

    Raises:
        CheckpointError: there is none, it is damaged, from an earlier version, or its training is not finished.
        ConfigError: it was trained with other settings, another backbone or for another stride.
    """
    net = build_relation_network(replace(config, pretrained=False, weights=""), backbone)
    path = folder / "checkpoint.pt"
    saved = load_finished(path, _fingerprint(config, net))
    _refuse_displacements(path, saved)
    net.load_state_dict(saved["model"])
    return net.eval()


def _refuse_displacements(path: Path, saved: Mapping[str, Any]) -> None:
    if any("displacement" in name for name in saved["model"]):
        raise CheckpointError(
            f"{path}: an earlier version of sfc trained this relation network, with displacements that are no longer "
            "learnt; delete its folder to train it again"
        )


def _fingerprint(config: RelationConfig, net: RelationNetwork) -> dict[str, Any]:
    """What a network must share with a checkpoint to take its weights."""
    settings = plain_values(asdict(config))
    del settings["training"]["checkpoint_every"]
    return {"relation": settings, "stride": net.stride, "channels": list(net.stages.channels)}
