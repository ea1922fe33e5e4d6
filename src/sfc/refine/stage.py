"""Stage 3: pseudo masks of the training images, from their CAMs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sfc.engine.stage import Artifact, Job, Stage, claim, each_missing
from sfc.errors import DataError
from sfc.run.folder import CHECKPOINT
from sfc.settings.read import plain_values

if TYPE_CHECKING:
    from pathlib import Path

    from sfc.data.records import Record
    from sfc.refine.refiner import RefineConfig, RefineJob


def masks_name(method: str) -> str:
    """The artifact that holds the masks of a method."""
    return f"masks/{method}"


def _artifacts(job: Job) -> list[Artifact]:
    from sfc.refine.methods import REFINERS

    return [_masks(job, method) for method in REFINERS]


def _masks(job: Job, method: str) -> Artifact:
    from sfc.refine.methods import REFINERS

    config: RefineConfig = job.config.refine
    values = plain_values(asdict(config))
    settings: dict[str, Any] = {name: values[name] for name in ("fusion_lambda", *REFINERS[method].uses)}
    for section in REFINERS[method].uses:
        settings[section] = values[section]
    after = REFINERS[method].after
    if after:
        settings["seed"] = job.config.seed
    return Artifact(
        masks_name(method),
        f"{method} masks",
        {"refine": settings},
        inputs=("cams/train", *((masks_name(after),) if after else ())),
        missing=lambda: _missing_mask(job, method),
    )


def _missing_mask(job: Job, method: str) -> Path | None:
    from sfc.data.images import mask_path

    return each_missing(mask_path(job.folder.masks(method), record.id) for record in job.data.split("train").records)


def _writes(job: Job) -> list[str]:
    from sfc.refine.methods import REFINERS

    method = job.config.refine.method
    after = REFINERS[method].after
    return [masks_name(name) for name in (after, method) if name]


def _needs(job: Job) -> Mapping[str, Callable[[], None]]:
    """A relation network that has not begun starts from the classifier's weights, as they were before its training."""
    from sfc.classify.stage import starting_weights
    from sfc.refine.methods import REFINERS

    trains = REFINERS[job.config.refine.method].after and not (job.folder.relation / CHECKPOINT).exists()
    return starting_weights(job) if trains else {}


def _refine(job: Job) -> None:
    """Writes a mask for every image that does not have one yet; processes share the list by rank."""
    from sfc.classify.stage import trained_classifier
    from sfc.networks.backbone import Backbone
    from sfc.refine.methods import REFINERS
    from sfc.refine.refiner import RefineJob
    from sfc.settings.shared import NONE, weight_options

    def backbone(*, blank: bool) -> Backbone:
        network = job.config.classify.network
        if network.weights == NONE:
            return trained_classifier(job).backbone
        return Backbone(network.backbone, **({} if blank else weight_options(network.weights)))

    config = job.config.refine
    work = RefineJob(
        fabric=job.fabric,
        config=config,
        machine=job.config.machine,
        seed=job.config.seed,
        dataset=job.data.train,
        masks=job.folder.masks,
        relation=job.folder.relation,
        origin=lambda method: job.expected(masks_name(method)),
        backbone=backbone,
        title=job.title,
    )
    for method in (REFINERS[config.method].after, config.method):
        if method:
            _write_masks(job, work, method)


def _write_masks(job: Job, work: RefineJob, method: str) -> None:
    """One folder of masks."""
    from sfc.data.enlargement import enlarged_labels
    from sfc.data.images import has_many_pixels, mask_path, read_image, shrunk_size, write_mask
    from sfc.data.pixels import doubt, resize_image
    from sfc.engine.image_work import one_by_one, unfinished, work_through
    from sfc.localize.store import cam_path, load_cams
    from sfc.refine.methods import REFINERS
    from sfc.refine.refiner import Maps

    folder, cams = job.folder.masks(method), job.folder.cams("train")
    claim(job, masks_name(method))
    records = job.data.split("train").records
    todo = unfinished(job.fabric, records, lambda record: mask_path(folder, record.id).exists())
    if not todo:
        return
    make = REFINERS[method].start(work)

    def mask(record: Record) -> None:
        image, maps = read_image(record.image), Maps(*load_cams(cam_path(cams, record.id)))
        small = resize_image(image, shrunk_size((image.shape[0], image.shape[1]), record.longest))
        if maps.weight.shape[1:] != small.shape[:2]:
            raise DataError(
                cam_path(cams, record.id), f"CAMs of {maps.weight.shape[1:]} pixels for an image of {small.shape[:2]}"
            )
        labels = enlarged_labels(make(small, maps), small, image)
        write_mask(mask_path(folder, record.id), labels, doubt(maps.fused(job.config.refine.label_lambda)))

    finished = f"the masks of all other images are in {folder}"
    title = f"{job.title}: {method} masks"
    work_through(job.fabric, *one_by_one(todo, mask), title, finished, lambda record: has_many_pixels(record.image))


def _reads(_: Job) -> Sequence[str]:
    return ("classify", "cams/train")


REFINE = Stage(
    name="refine",
    text="turn the CAMs of a run into pseudo masks",
    sections=("refine",),
    reads=_reads,
    artifacts=_artifacts,
    writes=_writes,
    work=_refine,
    needs=_needs,
)
