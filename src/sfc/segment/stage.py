"""Stage 4: a segmenter trained on the masks of the training images, and its masks of the validation images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from sfc.config import MachineConfig, PredictConfig, SegmentConfig
from sfc.config.predict import Way
from sfc.data.images import mask_path
from sfc.data.labelled_set import LabelSource, PngLabels, true_labels
from sfc.data.records import DataSet
from sfc.errors import ConfigError, DataError
from sfc.networks.backbone import Backbone
from sfc.run.files import file_hash
from sfc.run.folder import VariantFolder
from sfc.run.origin import require_origin
from sfc.segment.predict import ORIGIN, PREDICT_DEFAULTS, Predictor, predict_masks
from sfc.segment.train import load_segmenter, train_segmenter
from sfc.settings import plain_values


@dataclass(frozen=True)
class Segmentation:
    """What one variant's segmenter works with.

    Args:
        name: of the variant, for the progress bars.
        config: settings of the stage.
        predict: how validation images are predicted.
        machine: precision, layout, workers.
        train: the training images.
        truth: those that have ground-truth masks, for `masks: truth`; None where none has.
        source: the masks that the segmenter learns from (`RunConfig.segmented_masks`): a method's, or `truth`.
        folder: of the variant; pseudo masks are read, segmenter and predictions written.
        origin: what pseudo masks and classifier were made from, plain values.
        classifier: the trained classifier's backbone, for `network.backbone: classifier`.
    """

    name: str
    config: SegmentConfig
    predict: PredictConfig
    machine: MachineConfig
    train: DataSet
    truth: DataSet | None
    source: str
    folder: VariantFolder
    origin: Mapping[str, Any]
    classifier: Backbone

    def predictions(self, split: str) -> dict[Way, Path]:
        """Where its masks of a split are, for each way of the settings."""
        return {way: self.folder.predictions(self.source, split, way) for way in self.predict.ways}

    def origins(self) -> dict[Way, dict[str, Any]]:
        """What its masks are made from, plain values, for each way of the settings."""
        weights = file_hash(self.folder.segmenter(self.source) / "checkpoint.pt")
        settings = plain_values(asdict(self.predict))

        def origin(way: Way) -> dict[str, Any]:
            names = ["tile", "overlap"]
            if way.startswith("multi"):
                names += ["scales", "mirror", "pooling"]
            if way.endswith("+crf"):
                names.append("crf")
            return {"segmenter": weights, **{name: settings[name] for name in names}}

        return {way: origin(way) for way in self.predict.ways}


def segment(fabric: Fabric, job: Segmentation, val: DataSet | None) -> None:
    """Trains the segmenter, or goes on; then writes its masks of the validation images.

    Args:
        fabric: devices and processes.
        job: what to do.
        val: the validation images.

    Raises:
        ConfigError: there is no ground truth to learn from, or what is there was made from something else.
        DataError: pseudo masks are missing.
        CheckpointError, SFCError: see `train_segmenter` and `predict_masks`.
    """
    dataset, labels = _material(job)
    folder = job.folder.segmenter(job.source)
    train_segmenter(
        fabric,
        job.config,
        job.machine,
        dataset,
        labels,
        folder,
        classifier=job.classifier,
        origin=job.origin,
        title=f"{job.name}: segmenter",
    )
    fabric.barrier()
    if val is None or not job.predict.ways:
        return
    net = load_segmenter(job.config, job.train.classes, folder, job.classifier)
    predictor = Predictor(net, job.predict, job.machine.precision)
    title = f"{job.name}: masks of {val.split}"
    predict_masks(fabric, predictor, val, job.predictions("val"), job.machine, job.origins(), title)


def _material(job: Segmentation) -> tuple[DataSet, LabelSource]:
    """The images to learn from and where their masks are."""
    if job.source == "truth":
        if job.truth is None:
            raise ConfigError("segment.masks is 'truth', but no training image has a mask (data.train_masks)")
        return job.truth, true_labels
    folder = job.folder.masks(job.source)
    missing = [record for record in job.train.records if not mask_path(folder, record.id).exists()]
    if missing:
        count = f"{len(missing)} of {len(job.train)} training images have no pseudo mask"
        raise DataError(mask_path(folder, missing[0].id), f"no such file; {count}: run `sfc refine` first")
    return job.train, PngLabels(folder, len(job.train.classes))


def predicted_ways(job: Segmentation, split: str) -> dict[Way, Path]:
    """The ways in which the segmenter has written masks of a split, and where those are.

    Raises:
        ConfigError: they were made by another segmenter or with other settings.
    """
    folders = job.predictions(split)
    if not any((folder / ORIGIN).exists() for folder in folders.values()):
        return {}
    origins = job.origins()
    return {
        way: folder
        for way, folder in folders.items()
        if require_origin(folder / ORIGIN, origins[way], PREDICT_DEFAULTS)
    }
