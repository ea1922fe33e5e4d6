"""Stage 2: CAMs of every image of a split, into the CAM store."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric

from sfc.classify.inference import infer_cams
from sfc.classify.network import SFCNetwork
from sfc.config import LocalizeConfig, MachineConfig
from sfc.data.images import read_image
from sfc.data.records import DataSet, Record
from sfc.errors import ConfigError, DataError, SFCError
from sfc.localize.store import cam_path, save_cams
from sfc.run_folder import write_json
from sfc.settings import plain_values, require_same
from sfc.training_log import progress_bar

READ_AHEAD = 4


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
    todo = todo[fabric.global_rank :: fabric.world_size]
    net = net.to(fabric.device)
    failures: list[DataError] = []
    with progress_bar() as bar, ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        task = bar.add_task(title, total=len(todo), note="", visible=fabric.is_global_zero)
        saving: Future[None] | None = None
        for record, image in _read_ahead(reader, todo):
            if isinstance(image, DataError):
                failures.append(image)
            else:
                label = None
                if config.labels == "given":
                    label = np.isin(np.arange(net.num_classes), record.labels)
                cams = infer_cams(
                    net, image, label, config.scales, threshold=config.threshold, precision=machine.precision
                )
                if saving is not None:
                    saving.result()
                saving = writer.submit(
                    save_cams, cam_path(folder, record.id), *cams, lossless=config.store == "lossless"
                )
            bar.update(task, advance=1)
        if saving is not None:
            saving.result()
    # All processes stop together: one that ended early would take the others with it.
    count = fabric.all_reduce(torch.tensor(len(failures), device=fabric.device), reduce_op="sum")
    assert isinstance(count, torch.Tensor)
    total = int(count)
    if total:
        first = str(failures[0]) if failures else "another process names an image that cannot be read"
        more = f" and {total - 1} more images cannot be read" if total > 1 else ""
        raise SFCError(f"{first}{more}; the CAMs of all other images are in {folder}")


def _read_ahead(
    reader: ThreadPoolExecutor, records: Sequence[Record]
) -> Iterator[tuple[Record, np.ndarray | DataError]]:
    """Decodes a few images ahead of the network; an unreadable one comes as its error."""

    def read(record: Record) -> np.ndarray | DataError:
        try:
            return read_image(record.image)
        except DataError as error:
            return error

    remaining = iter(records)
    pending = [(record, reader.submit(read, record)) for record in islice(remaining, READ_AHEAD)]
    while pending:
        record, image = pending.pop(0)
        pending.extend((following, reader.submit(read, following)) for following in islice(remaining, 1))
        yield record, image.result()
