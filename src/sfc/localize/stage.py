"""Stage 2: CAMs of every image of a split, into the CAM store."""

from __future__ import annotations

import hashlib
import json
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
from sfc.errors import ConfigError
from sfc.image_work import work_through
from sfc.localize.store import cam_path, save_cams
from sfc.run_folder import write_json
from sfc.settings import plain_values, require_same


def file_hash(path: Path) -> str:
    """sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def identity(weights: str, config: LocalizeConfig) -> dict[str, Any]:
    """What CAMs depend on, as plain values: the checkpoint and the settings of this stage."""
    return {"weights": weights, **plain_values(asdict(config))}


def require_identity(folder: Path, expected: dict[str, Any]) -> bool:
    """Refuses a store with the CAMs of other weights or settings; False if it holds none yet.

    Raises:
        ConfigError: names what differs, or the note of whose CAMs they are is damaged.
    """
    path = folder / "cams.json"
    if not path.exists():
        return False
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: damaged; delete {folder} and localize again") from error
    require_same(path, found, expected)
    return True


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
    if not require_identity(folder, identity(weights, config)) and fabric.is_global_zero:
        write_json(folder / "cams.json", identity(weights, config))
    fabric.barrier()
    todo = [record for record in dataset.records if not cam_path(folder, record.id).exists()]
    fabric.barrier()
    net = net.to(fabric.device)

    def work(record: Record) -> None:
        label = np.isin(np.arange(net.num_classes), record.labels) if config.labels == "given" else None
        image = read_image(record.image)
        cams = infer_cams(net, image, label, config.scales, threshold=config.threshold, precision=machine.precision)
        save_cams(cam_path(folder, record.id), *cams, lossless=config.store == "lossless")

    work_through(fabric, todo, work, title, f"the CAMs of all other images are in {folder}")
