"""Stage 3: pseudo masks of the training images, from their CAMs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric

from sfc.config import MachineConfig, RefineConfig
from sfc.data.images import mask_path, read_image, write_mask
from sfc.data.labelled_set import PngLabels
from sfc.data.pixels import normalise
from sfc.data.records import DataSet, Record
from sfc.engine.image_work import claim, on_device, unfinished, work_through
from sfc.errors import DataError
from sfc.kernels.compiling import compile_once
from sfc.localize.store import cam_path, load_cams
from sfc.networks.backbone import Backbone
from sfc.refine.crf import dense
from sfc.refine.crf.labels import LabelCRF, fused_cam, relation_labels
from sfc.refine.relation.train import FROM_CLASSIFIER, load_relation_network, train_relation_network
from sfc.refine.walk import kernels
from sfc.refine.walk.mask import walk_mask
from sfc.run.folder import VariantFolder
from sfc.run.origin import require_origin
from sfc.settings import plain_values

ORIGIN = "masks.json"
"""Says in a folder of masks what they were made from."""


@dataclass(frozen=True)
class Refinement:
    """What one variant's refinement works with.

    Args:
        name: of the variant, for the progress bars.
        config: settings of the stage.
        machine: precision, layout, workers.
        dataset: the training images.
        folder: of the variant; its CAMs of `train` are read, its masks and relation network written.
        cams: what those CAMs were made from, plain values.
        classifier: the trained classifier's backbone, for `relation.backbone: classifier`.
    """

    name: str
    config: RefineConfig
    machine: MachineConfig
    dataset: DataSet
    folder: VariantFolder
    cams: Mapping[str, Any]
    classifier: Backbone

    def origin(self, method: str) -> dict[str, Any]:
        """What the masks of a method are made from, plain values."""
        settings = plain_values(asdict(self.config))
        origin = {"cams": dict(self.cams), "seeds": settings["seeds"]}
        if method != "none":
            origin["crf"] = settings["crf"]
        if method in ("irn", "irn+crf"):
            origin |= {"relation": settings["relation"], "walk": settings["walk"]}
            del origin["relation"]["training"]["checkpoint_every"]
        return origin


def refine(fabric: Fabric, job: Refinement) -> None:
    """Writes a pseudo mask for every image that does not have one yet; processes share the list by rank.

    An image at fault does not stop the others.

    Args:
        fabric: devices and processes.
        job: what to do.

    Raises:
        ConfigError: the folder holds masks made from other CAMs or settings.
        CheckpointError, SFCError: see `train_relation_network`; or some images were at fault, and all others are done.
    """
    method = job.config.method
    if method != "none":
        compile_once(fabric, dense.compile_kernels, kernels.compile_kernels)
    if method == "none":
        _write_masks(fabric, job, "none", lambda *maps: _argmax_mask(job.config, *maps), "argmax masks")
        return
    _write_masks(fabric, job, "crf", lambda *maps: _relation_labels(job.config, *maps), "CRF masks")
    if method == "crf":
        return
    _train(fabric, job)
    if unfinished(fabric, job.dataset.records, lambda record: mask_path(job.folder.masks(method), record.id).exists()):
        walk = _Walk(fabric, job)
        _write_masks(fabric, job, method, walk, "random walk")


Maps = tuple[np.ndarray, np.ndarray, np.ndarray]


def _write_masks(
    fabric: Fabric, job: Refinement, method: str, make: Callable[[np.ndarray, Maps], np.ndarray], words: str
) -> None:
    """One folder of masks: `make` turns an image and its CAMs into a mask."""
    folder = job.folder.masks(method)
    cams = job.folder.cams("train")
    claim(fabric, folder / ORIGIN, job.origin(method))

    def work(record: Record) -> None:
        image, maps = read_image(record.image), load_cams(cam_path(cams, record.id))
        if maps[1].shape[1:] != image.shape[:2]:
            raise DataError(
                cam_path(cams, record.id), f"CAMs of {maps[1].shape[1:]} pixels for an image of {image.shape[:2]}"
            )
        write_mask(mask_path(folder, record.id), make(image, maps))

    todo = unfinished(fabric, job.dataset.records, lambda record: mask_path(folder, record.id).exists())
    work_through(fabric, todo, work, f"{job.name}: {words}", f"the masks of all other images are in {folder}")


def _argmax_mask(config: RefineConfig, _: np.ndarray, maps: Maps) -> np.ndarray:
    keys, weight, prototype = maps
    return keys[fused_cam(weight, prototype, config.seeds.fusion_lambda).argmax(axis=0)].astype(np.uint8)


def _relation_labels(config: RefineConfig, image: np.ndarray, maps: Maps) -> np.ndarray:
    keys, weight, prototype = maps
    cam = fused_cam(weight, prototype, config.seeds.fusion_lambda)
    return relation_labels(image, keys, cam, config.seeds.uncertain_background, config.crf)


def _backbone(job: Refinement) -> Backbone | None:
    return job.classifier if job.config.relation.backbone == FROM_CLASSIFIER else None


def _train(fabric: Fabric, job: Refinement) -> None:
    """The relation network, from the relation labels of the images that have them."""
    labels = job.folder.masks("crf")
    train_relation_network(
        fabric,
        job.config.relation,
        job.machine,
        job.dataset,
        PngLabels(labels, len(job.dataset.classes)),
        job.folder.relation,
        backbone=_backbone(job),
        origin=job.origin("crf"),
        title=f"{job.name}: relation network",
    )


class _Walk:
    """Image and CAMs to the walked mask, and through a CRF where the method says so."""

    def __init__(self, fabric: Fabric, job: Refinement) -> None:
        self.config, self.device = job.config, fabric.device
        self.precision = job.machine.precision
        net = load_relation_network(job.config.relation, job.folder.relation, _backbone(job))
        on_device(fabric, net, job.machine)
        self.net = net

    def __call__(self, image: np.ndarray, maps: Maps) -> np.ndarray:
        keys, weight, prototype = maps
        height, width = image.shape[:2]
        walk = self.config.walk
        pixels = torch.from_numpy(np.ascontiguousarray(image)).to(self.device).permute(2, 0, 1)[None]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            edge = self.net.infer(normalise(pixels)[0], self.config.relation.input.crop)
        mask = walk_mask(
            keys,
            fused_cam(weight, prototype, walk.fusion_lambda),
            edge.float().cpu().numpy(),
            (height, width),
            background=walk.background,
            power=walk.power,
            radius=walk.radius,
            beta=walk.beta,
            steps=walk.steps,
            tolerance=walk.tolerance,
            second_walk=walk.second_walk,
            stride=self.net.stride,
        )
        if self.config.method == "irn+crf":
            smooth = LabelCRF(image, len(keys), self.config.crf)
            mask = keys[smooth(np.searchsorted(keys, mask))].astype(np.uint8)
        return mask


def mask_folders(job: Refinement) -> list[tuple[str, Path]]:
    """Methods whose masks a variant has, in the order of refinement, and where those are.

    Raises:
        ConfigError: they were made from other CAMs or settings.
    """
    methods = ("none", "crf", "irn", "irn+crf")
    return [
        (method, job.folder.masks(method))
        for method in methods
        if require_origin(job.folder.masks(method) / ORIGIN, job.origin(method))
    ]
