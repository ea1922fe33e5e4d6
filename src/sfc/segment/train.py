"""Trains a segmentation network on masks: pseudo masks, or the ground truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from sfc.data.labelled_set import LabelledSet, LabelSource
from sfc.data.pixels import PixelValues
from sfc.data.records import IGNORE, DataSet, input_hash
from sfc.engine.checkpoint import load_finished
from sfc.engine.fit import Batch, Training, fit
from sfc.engine.optimiser import ParameterGroup, warmup_steps
from sfc.engine.order import repeat_weights
from sfc.errors import SFCError
from sfc.networks.backbone import Backbone
from sfc.networks.quickening import compile_gradients
from sfc.networks.stand_in import synchronise_norms
from sfc.run.folder import CHECKPOINT
from sfc.segment.config import SegmentConfig
from sfc.segment.loss import Size, label_counts, pyramid, segmentation_losses
from sfc.segment.networks import build_segmenter
from sfc.segment.segmenter import Segmenter, log_shares
from sfc.settings.read import plain_values
from sfc.settings.shared import MachineConfig

PARTS = 2
"""Parts that a batch goes through one after the other, to save memory (kazuto1011/deeplab-pytorch: 5 × 2)."""
FORMAT = 2
"""Of the weights in a checkpoint; those of another have other names."""
POLY_EVERY = 10
"""Steps between two changes of the learning rate (the same)."""


class SegmentObjective(nn.Module):
    """The losses of one batch as a module, as DDP wants it."""

    def __init__(self, net: Segmenter, scales: Sequence[float]) -> None:
        super().__init__()
        self.net, self.scales = net, scales
        self.names = [f"scale_{scale:g}" for scale in scales] + ["maximum"] * (len(scales) > 1)

    def forward(self, image: Tensor, label: Tensor, counts: Tensor) -> dict[str, Tensor]:
        """Terms of one batch by name; `total` is their sum.

        Args:
            image: float [N, 3, H, W], normalised, zero outside the real pixels.
            label: uint8 [N, H, W], 255 ignored.
            counts: [terms], mean over processes and parts of `label_counts`.
        """
        losses = segmentation_losses(pyramid(self.net, image, self.scales), label, counts)
        return {**dict(zip(self.names, losses, strict=True)), "total": torch.stack(losses).sum()}


class BatchSplitter:
    """Turns a loaded batch into the objective's input, and into parts of it.

    Args:
        fabric: devices and processes.
        grids: of the objective's logits.
        parts: how many.
        pixels: what pixels the network wants.
    """

    def __init__(self, fabric: Fabric, grids: Sequence[Size], parts: int, pixels: PixelValues) -> None:
        self.fabric, self.grids, self.parts, self.pixels = fabric, grids, parts, pixels

    def __call__(self, batch: Batch, host: Batch, step: int) -> Batch:  # noqa: ARG002
        """Normalised images; and counts over all processes and parts, so that these share one mean over cells."""
        pixels = self.pixels.normalise_crops(batch["image"], batch["rectangle"])
        counts = self.fabric.all_reduce(label_counts(batch["label"], self.grids), reduce_op="mean")
        assert isinstance(counts, Tensor)
        return {"image": pixels, "label": batch["label"], "counts": counts / self.parts}

    def split(self, batch: Batch) -> list[Batch]:
        """The parts of a prepared batch."""
        images, labels = (batch[name].tensor_split(self.parts) for name in ("image", "label"))
        return [
            {"image": image, "label": label, "counts": batch["counts"]}
            for image, label in zip(images, labels, strict=True)
        ]


@torch.no_grad()
def _grids(net: Segmenter, config: SegmentConfig) -> list[Size]:
    """Height and width of each of the objective's logits."""
    net.eval()
    crop = torch.zeros(1, 3, config.input.crop, config.input.crop)
    sizes = [(logits.shape[2], logits.shape[3]) for logits in pyramid(net, crop, config.scales)]
    net.train()
    return sizes


def train_segmenter(
    fabric: Fabric,
    config: SegmentConfig,
    machine: MachineConfig,
    train: DataSet,
    labels: LabelSource,
    folder: Path,
    *,
    seed: int,
    classifier: Backbone | None = None,
    origin: Mapping[str, Any] | None = None,
    title: str = "segmenter",
) -> None:
    """Trains into `folder`, or goes on where an earlier call was stopped.

    Args:
        fabric: devices and processes.
        config: settings.
        machine: precision, layout, workers.
        train: the images.
        labels: their masks; called in worker processes.
        folder: gets checkpoint.pt, log.csv and TensorBoard events.
        seed: of weights, order and augmentation.
        classifier: the trained classifier's backbone, where the settings ask for it.
        origin: plain values that say where masks and backbone come from; a training does not go on with others.
        title: shown beside the progress bar.

    Raises:
        ConfigError, CheckpointError, DataError, SFCError: see `sfc.engine.fit.fit`; or no mask has anything to learn.
    """
    begun = (folder / CHECKPOINT).exists()
    if not begun:
        _require_labels(train, labels)
    torch.manual_seed(seed)
    # Where a checkpoint holds every weight, the file or network that the first ones came from is not needed again.
    net = build_segmenter(config.network, len(train.classes) + 1, classifier, blank=begun)
    shown = train.label_matrix()
    net.log_share.copy_(log_shares(shown))
    synchronise_norms(fabric, net)
    compile_gradients(fabric, net)
    share = max(1, config.training.batch // fabric.world_size)
    # In parts is the same as at once, but for batch norms that learn.
    batches = BatchSplitter(fabric, _grids(net, config), min(PARTS, share) if net.frozen_norm else 1, net.pixels)
    below = config.training.repeat_below
    weights, biases = net.head_parameters()
    weight_factor, bias_factor = config.training.head_factors
    training = Training(
        objective=SegmentObjective(net, config.scales),
        model=net,
        samples=LabelledSet(train, labels, config.input, seed),
        groups=[
            ParameterGroup(list(net.encoder.parameters())),
            ParameterGroup(weights, weight_factor),
            ParameterGroup(biases, bias_factor, decay=False),
        ],
        fingerprint={
            **_fingerprint(config, seed, train.classes, net),
            "data": input_hash(train),
            "origin": plain_values(origin or {}),
        },
        seed=seed,
        warmup=warmup_steps(config.training),
        poly_every=POLY_EVERY,
        before_step=batches,
        image_weights=repeat_weights(shown, below) if below else None,
        split=batches.split,
    )
    fit(fabric, training, config.training, machine, folder, title)


def _require_labels(train: DataSet, labels: LabelSource) -> None:
    """Refuses masks that are all ignored: nothing would be learnt, without a word. Usually looks at the first only."""
    if not any((labels(record) != IGNORE).any() for record in train.records):
        raise SFCError(f"{train.name} {train.split}: every pixel of every mask is ignored (255); nothing to learn")


def load_segmenter(
    config: SegmentConfig, seed: int, classes: tuple[str, ...], folder: Path, classifier: Backbone | None = None
) -> Segmenter:
    """The trained segmenter of a run, in evaluation mode.

    Args:
        config: settings that it was trained with.
        seed: that it was trained with.
        classes: foreground classes that it was trained with.
        folder: where `train_segmenter` put it.
        classifier: the classifier's backbone, where the settings ask for it; only its architecture counts.

    Raises:
        CheckpointError: there is none, it is damaged, or its training is not finished.
        ConfigError: it was trained with other settings or other classes.
    """
    net = build_segmenter(config.network, len(classes) + 1, classifier, blank=True)
    saved = load_finished(folder / CHECKPOINT, _fingerprint(config, seed, classes, net))
    net.load_state_dict(saved["model"])
    return net.eval()


def _fingerprint(config: SegmentConfig, seed: int, classes: tuple[str, ...], net: Segmenter) -> dict[str, Any]:
    """What a network must share with a checkpoint to take its weights."""
    settings = plain_values(asdict(config))
    return {"format": FORMAT, "segment": settings, "seed": seed, "classes": list(classes), "pixels": net.pixels.plain()}
