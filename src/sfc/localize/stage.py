"""Stage 2: CAMs of every image of every split, into the CAM store."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from sfc.classify.stage import corrections
from sfc.engine.stage import Artifact, Job, Stage, each_missing
from sfc.settings.read import plain_values

if TYPE_CHECKING:
    from pathlib import Path

    from sfc.data.records import Record


def _splits(job: Job) -> list[str]:
    return ["train", *(["val"] if job.config.data.val else [])]


def _artifacts(job: Job) -> list[Artifact]:
    return [_cams(job, split) for split in _splits(job)]


def _cams(job: Job, split: str) -> Artifact:
    return Artifact(
        f"cams/{split}",
        f"CAMs of {split}",
        {"localize": plain_values(asdict(job.config.localize))},
        inputs=("classify",),
        facts=(lambda: corrections(job)) if split == "train" else dict,
        missing=lambda: _missing_cams(job, split),
    )


def _missing_cams(job: Job, split: str) -> Path | None:
    from sfc.localize.store import cam_path

    folder = job.folder.cams(split)
    return each_missing(cam_path(folder, record.id) for record in job.data.split(split).records)


def _localize(job: Job) -> None:
    """Writes the CAMs of every image that lacks them; processes share the list by rank.

    An image that cannot be read does not stop the others.
    """
    from sfc.classify.inference import infer_cams
    from sfc.classify.stage import trained_classifier
    from sfc.data.images import has_many_pixels, read_image
    from sfc.engine.image_work import memory_of_each, unfinished, work_through
    from sfc.engine.processes import precision_of
    from sfc.localize.store import cam_path, save_cams

    config, precision = job.config.localize, precision_of(job.config.machine)
    net = trained_classifier(job).to(job.fabric.device)
    for split in _splits(job):
        folder, records = job.folder.cams(split), job.data.split(split).records

        def is_finished(record: Record, folder: Path = folder) -> bool:
            return cam_path(folder, record.id).exists()

        def cams(record: Record, folder: Path = folder) -> None:
            label = np.isin(np.arange(net.num_classes), record.labels) if config.labels == "given" else None
            maps = infer_cams(net, read_image(record.image, record.longest), label, config.scales, precision=precision)
            save_cams(cam_path(folder, record.id), *maps)

        todo = unfinished(job.fabric, records, is_finished)
        if todo and job.fabric.is_global_zero:
            job.folder.signs.unlink(missing_ok=True)  # of other maps than there will be
        finished = f"the CAMs of all other images are in {folder}"
        title = f"{job.title}: CAMs of {split}"
        each = memory_of_each(todo, max(config.scales))
        work_through(job.fabric, todo, cams, title, finished, lambda record: has_many_pixels(record.image), each)


LOCALIZE = Stage(
    name="localize",
    text="make the CAMs of a run",
    sections=("localize",),
    reads=lambda _: ("classify",),
    artifacts=_artifacts,
    writes=lambda job: [f"cams/{split}" for split in _splits(job)],
    work=_localize,
)
