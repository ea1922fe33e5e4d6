"""Stage 1: trains the classifier whose CAMs later stages use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn

from sfc.classify.bank import ImageBank
from sfc.classify.cam import valid_mask
from sfc.classify.config import ClassifyConfig, NetworkConfig
from sfc.classify.distribution import VOC_RELEASED_FACTOR, distribution_coefficient, expected_resampling
from sfc.classify.losses import LOSSES
from sfc.classify.losses.total import ClassifierLoss
from sfc.classify.network import SFCNetwork
from sfc.classify.observers import BEST, GroundTruthSelection, Pictures
from sfc.classify.samples import TrainingSet
from sfc.data.records import DataSet, input_hash
from sfc.engine.checkpoint import load_checkpoint, load_finished
from sfc.engine.fit import Batch, Training, fit
from sfc.engine.optimiser import ParameterGroup, warmup_steps
from sfc.engine.order import steps_per_epoch
from sfc.errors import ConfigError
from sfc.networks.quickening import compile_gradients
from sfc.networks.stand_in import synchronise_norms
from sfc.run.folder import CHECKPOINT
from sfc.settings.read import plain_values
from sfc.settings.shared import NONE, MachineConfig, weight_options

CLIP = 1.0
"""Norm above which gradients are scaled down (released code)."""
BANK_STREAM = 1
SIZE_STREAM = 2
"""Streams of random numbers beside the order of the images; each is a function of (seed, stream, step, process)."""


def build_network(config: NetworkConfig, num_classes: int, *, blank: bool = False) -> SFCNetwork:
    """The network that the settings describe; weights of new layers from torch's global generator.

    Args:
        config: settings.
        num_classes: foreground classes.
        blank: the weights will be loaded; none are fetched.
    """
    options = asdict(config)
    backbone, weights = options.pop("backbone"), options.pop("weights")
    start = {} if blank else weight_options(weights)
    return SFCNetwork(backbone, num_classes, frozen_norm=weights != NONE, **start, **options)


def coefficient(config: ClassifyConfig, label_matrix: np.ndarray, steps: int) -> Tensor:
    """Distribution coefficient [C] as `loss.coefficient` says; `steps` is those of one epoch."""
    counts = torch.from_numpy(label_matrix.sum(axis=0))
    if config.loss.coefficient == "off":
        return torch.ones(len(counts))
    if config.loss.coefficient == "official":
        return distribution_coefficient(counts, steps * config.bank_draws * VOC_RELEASED_FACTOR / len(counts))
    return distribution_coefficient(counts, expected_resampling(label_matrix, steps, config.bank_draws))


def build_loss(config: ClassifyConfig, label_matrix: np.ndarray, steps: int) -> ClassifierLoss:
    """Classification and the losses on CAMs that have a weight; `steps` is those of one epoch.

    Raises:
        ConfigError: a loss needs the pass at half size, and the settings have it off.
    """
    settings = {name: getattr(config.loss, name) for name in LOSSES}
    loss = ClassifierLoss(coefficient(config, label_matrix, steps), settings, config.loss.start)
    if loss.needs_half_size and not config.loss.half_size_pass:
        name = next(name for name in loss.settings if LOSSES[name].needs_half_size)
        raise ConfigError(f"classify.loss.{name} needs classify.loss.half_size_pass; set the weight to 0")
    return loss


class SFCObjective(nn.Module):
    """The loss of one batch: both passes and all terms in one forward, as DDP and torch.compile want it."""

    def __init__(self, net: SFCNetwork, loss: ClassifierLoss, config: ClassifyConfig) -> None:
        super().__init__()
        self.net, self.loss = net, loss
        self.crop = (config.input.crop, config.input.crop)
        self.half_size_pass = config.loss.half_size_pass

    def forward(
        self, image: Tensor, label: Tensor, rectangle: Tensor, share: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Terms of one batch.

        Args:
            image: float [N, 3, H, W], normalised, zero outside the real pixels.
            label: float [N, C] of 0 and 1.
            rectangle: int64 [N, 4], the real pixels, in pixels of the crop as it was loaded.
            share: scalar, share of the training that is over; None: losses on CAMs count from the first step.
        """
        correlate = bool(self.loss.settings)
        full = self._pass(image, label, rectangle, self.loss.needs_prototypes, correlate)
        half = None
        if self.half_size_pass:
            size = (image.shape[2] // 2, image.shape[3] // 2)
            small = F.interpolate(image, size=size, mode="bilinear", align_corners=True)
            half = self._pass(small, label, rectangle, False, correlate)
        losses = self.loss(full, half, label, share)
        return {"classification": losses.classification, **losses.terms, "total": losses.total}

    def _pass(self, image: Tensor, label: Tensor, rectangle: Tensor, prototypes: bool, correlate: bool) -> Any:
        grid = self.net.grid_size(image.shape[2], image.shape[3])
        mask = valid_mask(rectangle, label, self.crop, grid)
        return self.net(image, mask, prototypes=prototypes, correlate=correlate)


class BatchMaker:
    """Turns a loaded batch into the objective's input: bank images, normalisation, size of the batch.

    Args:
        config: settings.
        net: what the images are for.
        steps: of the whole training.
        seed: of the run.
        rank: of this process among `world`.
        world: processes.

    Raises:
        ConfigError: the bank images of a step cannot be shared equally by `world` processes.
    """

    def __init__(
        self, config: ClassifyConfig, net: SFCNetwork, steps: int, seed: int, rank: int = 0, world: int = 1
    ) -> None:
        if config.bank_draws % world:
            raise ConfigError(f"classify.bank_draws {config.bank_draws} cannot be shared equally by {world} processes")
        self.config, self.steps, self.seed, self.rank = config, steps, seed, rank
        self.draws = config.bank_draws // world
        self.pixels = net.backbone.pixels
        self.bank = ImageBank(net.num_classes)

    def _random(self, stream: int, step: int, rank: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, stream, step, rank])

    def __call__(self, batch: Batch, host: Batch, step: int) -> Batch:
        """A step's batch on its device: uint8 images in, float images out."""
        image, label, rectangle = batch["image"], batch["label"], batch["rectangle"]
        if self.draws:
            self.bank.put(image, label, rectangle, host["label"])
            drawn = self.bank.draw(self.draws, self._random(BANK_STREAM, step, self.rank))
            if drawn is not None:
                image, label, rectangle = (
                    torch.cat(parts) for parts in zip((image, label, rectangle), drawn, strict=True)
                )
        size = (image.shape[2], image.shape[3])
        pixels = self.pixels.normalise_crops(image, rectangle)
        if self.config.input.batch_sizes:
            # The same side on every process, or their passes would differ in cost.
            side = int(self._random(SIZE_STREAM, step, 0).choice(self.config.input.batch_sizes))
            if side != size[0]:
                pixels = F.interpolate(pixels, size=(side, side), mode="bilinear", align_corners=False)
        made = {"image": pixels, "label": label, "rectangle": rectangle}
        return {**made, "share": label.new_full((), step / self.steps)} if self.config.loss.start else made


def train_classifier(
    fabric: Fabric,
    config: ClassifyConfig,
    machine: MachineConfig,
    seed: int,
    train: DataSet,
    scoring: DataSet | None,
    folder: Path,
    title: str,
) -> None:
    """Trains the classifier into `folder`, or goes on where an earlier call was stopped.

    Args:
        fabric: devices and processes.
        config: settings of the stage.
        machine: precision, workers, checkpoints.
        seed: of weights, order, augmentation and bank.
        train: images with labels; masks are not looked at.
        scoring: training images with masks, used only by `training.select: ground_truth` and labelled so.
        folder: gets checkpoint.pt (and best.pt), log.csv, TensorBoard events, pictures.
        title: shown beside the progress bar.

    Raises:
        ConfigError, CheckpointError, DataError, SFCError: see `sfc.engine.fit.fit`.
    """
    label_matrix = train.label_matrix()
    if not label_matrix.any():
        raise ConfigError(f"{train.name}: no training image has a label")
    torch.manual_seed(seed)
    # Where a checkpoint holds every weight, the file or network that the first ones came from is not needed again.
    net = build_network(config.network, len(train.classes), blank=(folder / CHECKPOINT).exists())
    steps = steps_per_epoch(len(train), config.training)
    loss = build_loss(config, label_matrix, steps)
    _freeze_unused(net, loss)
    synchronise_norms(fabric, net)
    compile_gradients(fabric, net)
    total = steps * config.training.epochs
    batches = BatchMaker(config, net, total, seed, fabric.global_rank, fabric.world_size)
    observers: list[Callable[[int], None]] = []
    if config.training.select == "ground_truth":
        observers.append(GroundTruthSelection(fabric, net, scoring, machine, folder))
    if config.training.picture_every:
        observers.append(Pictures(fabric, net, train, machine, config.training.picture_every, folder))

    def after_epoch(epoch: int) -> None:
        for observer in observers:
            observer(epoch)

    heads = {id(parameter) for head in net.heads() for parameter in head.parameters()}
    training = Training(
        objective=SFCObjective(net, loss, config),
        model=net,
        samples=TrainingSet(train, config.input, seed),
        groups=[
            ParameterGroup([p for p in net.parameters() if id(p) not in heads]),
            ParameterGroup([p for p in net.parameters() if id(p) in heads], config.training.head_factor),
        ],
        fingerprint={**_fingerprint(config, seed, train.classes, net), "data": input_hash(train)},
        seed=seed,
        warmup=warmup_steps(config.training),
        clip=CLIP,
        before_step=batches,
        states={"bank": batches.bank},
        after_epoch=after_epoch if observers else None,
    )
    fit(fabric, training, config.training, machine, folder, title)


def _freeze_unused(net: SFCNetwork, loss: ClassifierLoss) -> None:
    """Layers that no loss reaches must not be in the optimiser, where weight decay would shrink them."""
    for side in net.side:
        side.requires_grad_(loss.needs_prototypes)
    if net.correlation is not None:
        net.correlation.requires_grad_(bool(loss.settings))


def _fingerprint(config: ClassifyConfig, seed: int, classes: tuple[str, ...], net: SFCNetwork) -> dict[str, Any]:
    """What a network must share with a checkpoint to take its weights; how often it draws pictures may change."""
    settings = plain_values(asdict(config))
    del settings["training"]["picture_every"]
    return {"classify": settings, "seed": seed, "classes": list(classes), "pixels": net.backbone.pixels.plain()}


def load_classifier(config: ClassifyConfig, seed: int, classes: tuple[str, ...], folder: Path) -> SFCNetwork:
    """The trained classifier of a run, in evaluation mode; torch's generator stays as it is.

    Raises:
        CheckpointError: there is none, it is damaged, or its training is not finished.
        ConfigError: it was trained with other settings or other classes.
    """
    # Whoever trains something next draws the same weights whether the classifier was loaded before or just now.
    with torch.random.fork_rng(devices=[]):
        net = build_network(config.network, len(classes), blank=True)
    saved = load_finished(folder / CHECKPOINT, _fingerprint(config, seed, classes, net))
    if config.training.select == "ground_truth":
        saved = load_checkpoint(folder / BEST)
    net.load_state_dict(saved["model"])
    return net.eval()


def checkpoint_choice(config: ClassifyConfig, folder: Path) -> str:
    """How the weights that later stages use were chosen, in words that stand beside every score."""
    if config.training.select == "last":
        return "last"
    saved = load_checkpoint(folder / BEST)
    return f"epoch {saved['epoch']}, CHOSEN BY GROUND-TRUTH MASKS of {saved['images']} training images"
