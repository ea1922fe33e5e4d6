"""Trains the relation network on relation labels, and then centres its displacements on the training set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import DataLoader

from sfc.data.labelled_set import LabelSource
from sfc.data.pixels import normalise, rectangle_mask
from sfc.data.records import DataSet, input_hash
from sfc.engine.checkpoint import load_checkpoint, load_finished, save_checkpoint
from sfc.engine.fit import Batch, Training, collate, fit
from sfc.engine.optimiser import ParameterGroup
from sfc.errors import CheckpointError
from sfc.networks.backbone import Backbone
from sfc.refine.relation.config import RelationConfig
from sfc.refine.relation.loss import pair_counts, relation_loss
from sfc.refine.relation.network import RelationNetwork
from sfc.refine.relation.samples import CornerCrops, RelationSet
from sfc.run.folder import CHECKPOINT
from sfc.settings.read import plain_values
from sfc.settings.shared import MachineConfig

CENTRED = "mean_displacement"
"""Entry of a checkpoint whose displacements are centred: training is over."""


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
        edge, displacement = self.net(image)
        return dict(vars(relation_loss(edge, displacement, label, self.radius, counts)))


class BatchMaker:
    """Turns a loaded batch into the objective's input."""

    def __init__(self, fabric: Fabric, radius: int) -> None:
        self.fabric, self.radius = fabric, radius

    def __call__(self, batch: Batch, step: int) -> Batch:  # noqa: ARG002
        """Normalised images; and pair counts over all processes, so that they share one mean over pairs."""
        counts = self.fabric.all_reduce(pair_counts(batch["label"], self.radius), reduce_op="mean")
        return {"image": _pixels(batch), "label": batch["label"], "counts": counts}


def _pixels(batch: Batch) -> Tensor:
    size = batch["image"].shape[2:]
    return normalise(batch["image"]) * rectangle_mask(batch["rectangle"], size, size)


def train_relation_network(
    fabric: Fabric,
    config: RelationConfig,
    machine: MachineConfig,
    train: DataSet,
    labels: LabelSource,
    folder: Path,
    *,
    backbone: Backbone,
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
        backbone: what the network builds on, frozen; it is copied.
        seed: of weights, order and augmentation.
        origin: plain values that say where labels and backbone come from; a training does not go on with others.
        title: shown beside the progress bar.

    Raises:
        ConfigError, CheckpointError, DataError, SFCError: see `sfc.engine.fit.fit`.
    """
    torch.manual_seed(seed)
    path = folder / CHECKPOINT
    net = RelationNetwork(backbone)
    training = Training(
        objective=RelationObjective(net, config.radius),
        model=net,
        samples=RelationSet(train, labels, config.input, net.stride, seed),
        groups=[
            ParameterGroup(net.edge_parameters()),
            ParameterGroup(net.displacement_parameters(), 10.0),
        ],
        fingerprint={
            **_fingerprint(config, seed, net),
            "data": input_hash(train),
            "origin": plain_values(origin or {}),
        },
        seed=seed,
        before_step=BatchMaker(fabric, config.radius),
    )
    fit(fabric, training, config.training, machine, folder, title)
    saved = load_checkpoint(path)
    fabric.barrier()
    if CENTRED not in saved:
        net.to(memory_format=torch.channels_last)  # as `fit` does, unless it had nothing left to do: same rounding
        mean = mean_displacement(fabric, net, train, config, machine.workers)
        if fabric.is_global_zero:
            saved["model"][CENTRED] = mean
            save_checkpoint(path, {**saved, CENTRED: mean.tolist()})
        fabric.barrier()


@torch.no_grad()
def mean_displacement(
    fabric: Fabric, net: RelationNetwork, train: DataSet, config: RelationConfig, workers: int = 0
) -> Tensor:
    """float32 [2]: mean of the displacement over the training images, uncut where they fit the crop (METHOD).

    Each process takes its share of the images and all get the mean over all of them.

    Raises:
        DataError: an image cannot be read.
    """
    training = net.training
    net.train()  # so that nothing is subtracted; the backbone and its statistics stay as they are
    shares = range(fabric.global_rank, len(train), fabric.world_size)
    size = max(1, config.training.batch // fabric.world_size)
    batches = [list(shares[i : i + size]) for i in range(0, len(shares), size)]
    loader = DataLoader(
        CornerCrops(train, config.input.crop), batch_sampler=batches, num_workers=workers, collate_fn=collate
    )
    total = torch.zeros(3, dtype=torch.float64)  # sums of both channels' means, and images
    for batch in loader:
        if isinstance(batch, Exception):
            raise batch
        pixels = _pixels({name: value.to(fabric.device) for name, value in batch.items()})
        with fabric.autocast():
            means = net(pixels)[1].float().mean(dim=(2, 3))
        total[:2] += means.sum(dim=0).cpu()
        total[2] += len(means)
    net.train(training)
    reduced = fabric.all_reduce(total.float().to(fabric.device), reduce_op="sum")
    assert isinstance(reduced, Tensor)
    return (reduced[:2] / reduced[2]).cpu()


def load_relation_network(config: RelationConfig, folder: Path, backbone: Backbone, seed: int) -> RelationNetwork:
    """The trained relation network of a run, in evaluation mode.

    Args:
        config: settings that it was trained with.
        folder: where `train_relation_network` put it.
        backbone: what it builds on; only its architecture counts.
        seed: that it was trained with.

    Raises:
        CheckpointError: there is none, it is damaged, or its training is not finished.
        ConfigError: it was trained with other settings, another backbone or for another stride.
    """
    path = folder / CHECKPOINT
    net = RelationNetwork(backbone)
    saved = load_finished(path, _fingerprint(config, seed, net))
    if CENTRED not in saved:
        raise CheckpointError(f"{path}: training stopped at step {saved['step']} of {saved['steps']}; finish it first")
    net.load_state_dict(saved["model"])
    return net.eval()


def _fingerprint(config: RelationConfig, seed: int, net: RelationNetwork) -> dict[str, Any]:
    """What a network must share with a checkpoint to take its weights."""
    settings = plain_values(asdict(config))
    shape = {"stride": net.stride, "channels": list(net.stages.channels)}
    return {"relation": settings, "seed": seed, **shape}
