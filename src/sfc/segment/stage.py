"""Stage 4: a segmenter trained on the masks of the training images, and its masks of the validation images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sfc.data.records import input_hash
from sfc.engine.stage import Artifact, Job, Stage, claim, each_missing, finish_training
from sfc.errors import ConfigError
from sfc.run.folder import CHECKPOINT
from sfc.settings.read import plain_values
from sfc.settings.shared import FROM_CLASSIFIER, NONE

if TYPE_CHECKING:
    from pathlib import Path

    from sfc.data.labelled_set import LabelSource
    from sfc.data.records import DataSet
    from sfc.segment.config import Way

TRUTH = "truth"


def source_of(config: Any) -> str:
    """The masks that the segmenter of a run learns from: those of a method of refinement, or `truth`."""
    return TRUTH if config.segment.masks == TRUTH else str(config.refine.method)


def segmenter_name(source: str) -> str:
    """The artifact that holds the segmenter trained on some masks."""
    return f"segmenter/{source}"


def predictions_name(source: str, way: str) -> str:
    """The artifact that holds a segmenter's masks of the validation images, predicted in one way."""
    return f"predictions/{source}/val/{way}"


def _artifacts(job: Job) -> list[Artifact]:
    source = source_of(job.config)
    return [_segmenter(job, source), *(_predictions(job, source, way) for way in job.config.predict.ways)]


def _segmenter(job: Job, source: str) -> Artifact:
    config = job.config
    from_classifier = config.segment.network.backbone == FROM_CLASSIFIER
    inputs = [*([] if source == TRUTH else [f"masks/{source}"]), *(["classify"] if from_classifier else [])]

    def facts() -> dict[str, Any]:
        return {} if source != TRUTH else {"images with masks": input_hash(_truth(job))}

    settings = {"segment": plain_values(asdict(config.segment)), "seed": config.seed}
    return Artifact(
        segmenter_name(source), "trained segmenter", settings, inputs=tuple(inputs), facts=facts, is_training=True
    )


def _predictions(job: Job, source: str, way: Way) -> Artifact:
    settings = plain_values(asdict(job.config.predict))
    names = ["logit_adjustment"]
    names += ["scales", "mirror", "pooling"] if way.startswith("multi") else []
    names += ["crf"] if way.endswith("+crf") else []
    return Artifact(
        predictions_name(source, way),
        f"masks of val ({way})",
        {"predict": {name: settings[name] for name in names}},
        inputs=(segmenter_name(source),),
        missing=lambda: _missing_mask(job, source, way),
    )


def _missing_mask(job: Job, source: str, way: str) -> Path | None:
    from sfc.data.images import mask_path

    folder = job.folder.predictions(source, "val", way)
    return each_missing(mask_path(folder, record.id) for record in job.data.split("val").records)


def _reads(job: Job) -> list[str]:
    names = ["classify"] if job.config.segment.network.backbone == FROM_CLASSIFIER else []
    source = source_of(job.config)
    return names if source == TRUTH else [*names, f"masks/{source}"]


def _writes(job: Job) -> list[str]:
    source = source_of(job.config)
    ways = job.config.predict.ways if job.config.data.val else ()
    return [segmenter_name(source), *(predictions_name(source, way) for way in ways)]


def _truth(job: Job) -> DataSet:
    if job.data.scoring is None:
        raise ConfigError("segment.masks is 'truth', but no training image has a mask (data.train_masks)")
    return job.data.scoring


def _needs(job: Job) -> Mapping[str, Callable[[], None]]:
    """The weights that a training starts from, if it has not begun."""
    from sfc.networks.failures import naming_settings
    from sfc.segment.networks import build_segmenter

    network = job.config.segment.network

    def look() -> None:
        with naming_settings("segment"):
            build_segmenter(network, len(job.data.train.classes) + 1)

    has_begun = (job.path(segmenter_name(source_of(job.config))) / CHECKPOINT).exists()
    if has_begun or network.weights == NONE or network.backbone == FROM_CLASSIFIER:
        return {}
    return {f"{network.weights} of {network.backbone}, segment": look}


def _segment(job: Job) -> None:
    from sfc.classify.stage import trained_classifier
    from sfc.data.labelled_set import true_labels
    from sfc.engine.processes import precision_of
    from sfc.segment.predict import Predictor, predict_masks
    from sfc.segment.train import load_segmenter, train_segmenter

    config, source = job.config, source_of(job.config)
    classifier = None
    if config.segment.network.backbone == FROM_CLASSIFIER:
        classifier = trained_classifier(job).backbone
    dataset, labels = job.data.train, _pseudo(job, source)
    if source == TRUTH:
        dataset, labels = _truth(job), true_labels
    name = segmenter_name(source)
    if job.finished(name) is None or not (job.path(name) / CHECKPOINT).exists():
        train_segmenter(
            job.fabric,
            config.segment,
            config.machine,
            dataset,
            labels,
            job.path(name),
            seed=config.seed,
            classifier=classifier,
            origin=job.expected(name),
            title=f"{job.title}: segmenter",
        )
        job.fabric.barrier()
        finish_training(job, name, {})
    if not (config.data.val and config.predict.ways):
        return
    net = load_segmenter(config.segment, config.seed, job.data.train.classes, job.path(name), classifier)
    predictor = Predictor(net, config.predict, precision_of(config.machine), longest=config.longest)
    folders = {way: job.folder.predictions(source, "val", way) for way in config.predict.ways}
    for way in folders:
        claim(job, predictions_name(source, way))
    predict_masks(job.fabric, predictor, job.data.split("val"), folders, f"{job.title}: masks of val")


def _pseudo(job: Job, source: str) -> LabelSource:
    from sfc.data.labelled_set import PngLabels

    folder: Path = job.folder.masks(source)
    return PngLabels(folder, len(job.data.train.classes))


SEGMENT = Stage(
    name="segment",
    text="train a segmenter on the masks of a run, and write its masks of the validation images",
    sections=("segment", "predict", "seed"),
    reads=_reads,
    artifacts=_artifacts,
    writes=_writes,
    work=_segment,
    needs=_needs,
)
