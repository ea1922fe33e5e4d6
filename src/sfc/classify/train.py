"""Stage 1: trains the classifier whose CAMs later stages use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn

from sfc.classify.bank import ImageBank
from sfc.classify.cam import valid_mask
from sfc.classify.distribution import VOC_RELEASED_FACTOR, distribution_coefficient, expected_resampling
from sfc.classify.loss import Losses, MSDWLoss
from sfc.classify.network import SFCNetwork
from sfc.classify.observers import BEST, GroundTruthSelection, Pictures
from sfc.config import ClassifyConfig, NetworkConfig, RunConfig
from sfc.data.pixels import normalise, rectangle_mask
from sfc.data.records import DataSet, input_hash
from sfc.data.training_set import TrainingSet
from sfc.engine.checkpoint import load_checkpoint
from sfc.engine.fit import Batch, Job, fit, steps_per_epoch
from sfc.engine.optimiser import ParameterGroup
from sfc.engine.processes import synchronise_norms
from sfc.errors import CheckpointError, ConfigError
from sfc.run.origin import require_same
from sfc.settings import plain_values

BANK_STREAM = 1
SIZE_STREAM = 2
"""Streams of random numbers beside the order of the images; each is a function of (seed, stream, step, process)."""


def build_network(config: NetworkConfig, num_classes: int) -> SFCNetwork:
    """The network that the settings describe; weights of new layers from torch's global generator."""
    options = asdict(config)
    return SFCNetwork(options.pop("backbone"), num_classes, **options)


def coefficient(config: ClassifyConfig, label_matrix: np.ndarray, steps: int) -> Tensor:
    """Distribution coefficient [C] as `loss.coefficient` says; `steps` is those of one epoch."""
    counts = torch.from_numpy(label_matrix.sum(axis=0))
    if config.loss.coefficient == "off":
        return torch.ones(len(counts))
    if config.loss.coefficient == "official":
        return distribution_coefficient(counts, steps * config.bank.draws * VOC_RELEASED_FACTOR / len(counts))
    return distribution_coefficient(counts, expected_resampling(label_matrix, steps, config.bank.draws))


class SFCObjective(nn.Module):
    """The loss of one batch: both passes and all terms in one forward, as DDP and torch.compile want it."""

    def __init__(self, net: SFCNetwork, loss: MSDWLoss, config: ClassifyConfig) -> None:
        super().__init__()
        self.net, self.loss = net, loss
        self.crop = (config.input.crop, config.input.crop)
        self.half_size_pass = config.loss.half_size_pass

    def forward(self, image: Tensor, label: Tensor, rectangle: Tensor, active: bool = True) -> dict[str, Tensor]:
        """Terms of one batch.

        Args:
            image: float [N, 3, H, W], normalised, zero outside the real pixels.
            label: float [N, C] of 0 and 1.
            rectangle: int64 [N, 4], the real pixels, in pixels of the crop as it was loaded.
            active: False: classification only.
        """
        consistency = active and (self.loss.prototype_weight > 0 or self.loss.scale_weight > 0)
        prototypes = active and self.loss.prototype_weight > 0
        full = self._pass(image, label, rectangle, prototypes, consistency)
        half = None
        if active and self.half_size_pass:
            size = (image.shape[2] // 2, image.shape[3] // 2)
            small = F.interpolate(image, size=size, mode="bilinear", align_corners=True)
            half = self._pass(small, label, rectangle, False, consistency)
        if consistency:
            losses = self.loss(full, half, label)
        else:
            classification = self.loss.classification(full, half, label)
            losses = Losses(classification, torch.zeros_like(classification), torch.zeros_like(classification))
        return {
            "classification": losses.classification,
            "prototype": losses.prototype,
            "scale": losses.scale,
            "total": losses.total,
        }

    def _pass(self, image: Tensor, label: Tensor, rectangle: Tensor, prototypes: bool, correlate: bool) -> Any:
        grid = self.net.grid_size(image.shape[2], image.shape[3])
        mask = valid_mask(rectangle, label, self.crop, grid)
        return self.net(image, mask, prototypes=prototypes, correlate=correlate)


class Preparation:
    """Turns a loaded batch into the objective's input: bank images, normalisation, size of the batch."""

    def __init__(self, config: ClassifyConfig, num_classes: int, total_steps: int, rank: int) -> None:
        self.config, self.rank = config, rank
        self.bank = ImageBank(num_classes)
        self.first_active = round(config.loss.start * total_steps)

    def _random(self, stream: int, step: int, rank: int) -> np.random.Generator:
        return np.random.default_rng([self.config.training.seed, stream, step, rank])

    def __call__(self, batch: Batch, step: int) -> Batch:
        """A step's batch on its device: uint8 images in, float images out."""
        image, label, rectangle = batch["image"], batch["label"], batch["rectangle"]
        if self.config.bank.draws:
            self.bank.put(image, label, rectangle)
            drawn = self.bank.draw(self.config.bank.draws, self._random(BANK_STREAM, step, self.rank))
            if drawn is not None:
                image, label, rectangle = (
                    torch.cat(parts) for parts in zip((image, label, rectangle), drawn, strict=True)
                )
        size = (image.shape[2], image.shape[3])
        pixels = normalise(image) * rectangle_mask(rectangle, size, size)
        if self.config.input.batch_sizes:
            # The same side on every process, or their passes would differ in cost.
            side = int(self._random(SIZE_STREAM, step, 0).choice(self.config.input.batch_sizes))
            if side != size[0]:
                pixels = F.interpolate(pixels, size=(side, side), mode="bilinear", align_corners=False)
        return {"image": pixels, "label": label, "rectangle": rectangle, "active": step >= self.first_active}


def train_classifier(fabric: Fabric, config: RunConfig, train: DataSet, scoring: DataSet | None, folder: Path) -> None:
    """Trains the classifier into `folder`, or goes on where an earlier call was stopped.

    Args:
        fabric: devices and processes.
        config: the run's settings.
        train: images with labels; masks are not looked at.
        scoring: training images with masks, used only by `training.select: ground_truth` and labelled so.
        folder: gets checkpoint.pt (and best.pt), log.csv, TensorBoard events, pictures.

    Raises:
        ConfigError, CheckpointError, DataError, SFCError: see `sfc.engine.fit.fit`.
    """
    classify = config.classify
    if not train.label_matrix().any():
        raise ConfigError(f"{train.name}: no training image has a label")
    torch.manual_seed(classify.training.seed)
    # Where a checkpoint holds every weight, the file or network that the first ones came from is not needed again.
    begun = (folder / "checkpoint.pt").exists()
    start = replace(classify.network, pretrained=False, weights="") if begun else classify.network
    net = build_network(start, len(train.classes))
    steps = steps_per_epoch(len(train), classify.training)
    loss = MSDWLoss(
        coefficient(classify, train.label_matrix(), steps), classify.loss.prototype_weight, classify.loss.scale_weight
    )
    _freeze_unused(net, loss)
    net = synchronise_norms(fabric, net)
    preparation = Preparation(classify, len(train.classes), steps * classify.training.epochs, fabric.global_rank)
    observers: list[Callable[[int], None]] = []
    if classify.training.select == "ground_truth":
        observers.append(GroundTruthSelection(fabric, net, scoring, config.machine, folder))
    if classify.training.picture_every:
        observers.append(Pictures(fabric, net, train, config.machine, classify.training.picture_every, folder))

    def after_epoch(epoch: int) -> None:
        for observer in observers:
            observer(epoch)

    heads = {id(parameter) for head in net.heads() for parameter in head.parameters()}
    job = Job(
        objective=SFCObjective(net, loss, classify),
        model=net,
        samples=TrainingSet(train, classify.input, classify.training.seed),
        groups=[
            ParameterGroup([p for p in net.parameters() if id(p) not in heads]),
            ParameterGroup([p for p in net.parameters() if id(p) in heads], classify.training.head_factor),
        ],
        fingerprint=fingerprint(classify, train),
        before_step=preparation,
        states={"bank": preparation.bank},
        after_epoch=after_epoch if observers else None,
    )
    fit(fabric, job, classify.training, config.machine, folder, f"{config.name}: classifier")


def _freeze_unused(net: SFCNetwork, loss: MSDWLoss) -> None:
    """Layers that no loss reaches must not be in the optimiser, where weight decay would shrink them."""
    for side in net.side:
        side.requires_grad_(loss.prototype_weight > 0)
    if net.correlation is not None:
        net.correlation.requires_grad_(loss.prototype_weight > 0 or loss.scale_weight > 0)


def fingerprint(config: ClassifyConfig, train: DataSet) -> dict[str, Any]:
    """What must stay the same for a stopped training to go on; how often it saves and draws may change."""
    return {"classify": _settings(config), "classes": list(train.classes), "data": input_hash(train)}


def _settings(config: ClassifyConfig) -> dict[str, Any]:
    settings = plain_values(asdict(config))
    for name in ("checkpoint_every", "picture_every"):
        del settings["training"][name]
    return settings


def load_classifier(config: ClassifyConfig, classes: tuple[str, ...], folder: Path) -> tuple[SFCNetwork, str]:
    """The trained classifier of a run, in evaluation mode, and how its checkpoint was chosen, in words.

    Raises:
        CheckpointError: there is none, it is damaged, or its training is not finished.
        ConfigError: it was trained with other settings or other classes.
    """
    path = folder / "checkpoint.pt"
    saved = load_checkpoint(path)
    expected = {"classify": _settings(config), "classes": list(classes)}
    require_same(path, {name: saved["fingerprint"].get(name) for name in expected}, expected)
    if saved["step"] < saved["steps"]:
        raise CheckpointError(f"{path}: training stopped at step {saved['step']} of {saved['steps']}; finish it first")
    choice = "last"
    if config.training.select == "ground_truth":
        saved = load_checkpoint(folder / BEST)
        choice = f"epoch {saved['epoch']}, CHOSEN BY GROUND-TRUTH MASKS of {saved['images']} training images"
    net = build_network(replace(config.network, pretrained=False, weights=""), len(classes))
    net.load_state_dict(saved["model"])
    return net.eval(), choice
