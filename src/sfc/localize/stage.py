"""Stage 2: CAMs of every image of a split, into the CAM store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from lightning_fabric import Fabric

from sfc.classify.inference import infer_cams
from sfc.classify.network import SFCNetwork
from sfc.config import LocalizeConfig, MachineConfig
from sfc.data.images import read_image
from sfc.data.records import DataSet, Record
from sfc.engine.image_work import claim, unfinished, work_through
from sfc.errors import ConfigError
from sfc.localize.store import cam_path, save_cams
from sfc.run.origin import require_origin
from sfc.settings import plain_values

ORIGIN = "cams.json"
"""Says in a store whose CAMs it holds."""


def identity(weights: str, config: LocalizeConfig) -> dict[str, Any]:
    """What CAMs depend on, as plain values: the checkpoint and the settings of this stage."""
    return {"weights": weights, **plain_values(asdict(config))}


def require_cams(folder: Path, expected: Mapping[str, Any]) -> None:
    """Refuses CAMs of other weights or settings, or none.

    Raises:
        ConfigError: says which.
    """
    if not require_origin(folder / ORIGIN, expected):
        raise ConfigError(f"{folder}: there are no CAMs; localize the run first")


def localize(
    fabric: Fabric,
    net: SFCNetwork,
    dataset: DataSet,
    folder: Path,
    config: LocalizeConfig,
    machine: MachineConfig,
    weights: str,
    title: str,
) -> None:
    """Writes the CAMs of every image that does not have them yet; processes share the list by rank.

    An image that cannot be read does not stop the others.

    Args:
        fabric: devices and processes.
        net: trained network, on the CPU.
        dataset: which images; with labels `given`, theirs are used.
        folder: the store.
        config: scales, labels, format.
        machine: precision and layout.
        weights: identifies the checkpoint; CAMs of another one in `folder` are refused.
        title: shown beside the progress bar.

    Raises:
        ConfigError: the folder holds CAMs of other weights or settings.
        SFCError: some images could not be read; all others are done.
    """
    claim(fabric, folder / ORIGIN, identity(weights, config))
    todo = unfinished(fabric, dataset.records, lambda record: cam_path(folder, record.id).exists())
    net = net.to(fabric.device)

    def work(record: Record) -> None:
        label = np.isin(np.arange(net.num_classes), record.labels) if config.labels == "given" else None
        image = read_image(record.image)
        cams = infer_cams(net, image, label, config.scales, threshold=config.threshold, precision=machine.precision)
        save_cams(cam_path(folder, record.id), *cams, lossless=config.store == "lossless")

    work_through(fabric, todo, work, title, f"the CAMs of all other images are in {folder}")
