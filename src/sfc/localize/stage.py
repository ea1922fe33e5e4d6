"""Stage 2: CAMs of every image of every split, into the CAM store."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from sfc.classify.stage import corrections
from sfc.engine.stage import Artifact, Job, Stage
from sfc.errors import DataError
from sfc.settings.read import plain_values

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sfc.data.records import Record


PIXELS_TOGETHER = 2**17
"""That the images of a batch have at most on a CPU: 8 of 128 x 128 take 0.7 of the time that they take one by one; of
320 x 240 several gain nothing (docs/speed.md)."""
PIXELS_TOGETHER_ON_GPU = 2**19
"""On a GPU: 2 photographs of 500 x 375. Not measured yet, and small for the sake of its memory."""


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

    folder, records = job.folder.cams(split), job.data.split(split).records
    return next((cam_path(folder, record.id) for record in records if not _is_made(job, split, record)), None)


def _is_made(job: Job, split: str, record: Record) -> bool:
    """Whether the CAMs of an image are there; of validation, from whose tags nothing learnt, those of today's tags."""
    from sfc.localize.store import cam_path, stored_keys

    path = cam_path(job.folder.cams(split), record.id)
    if split == "train" or job.config.localize.labels != "given" or not path.exists():
        return path.exists()
    try:
        return stored_keys(path).tolist() == [0, *(1 + label for label in record.labels)]
    except DataError:
        return True  # whoever needs its maps says what is wrong with it


def _localize(job: Job) -> None:
    """Writes the CAMs of every image that lacks them; processes share the list by rank.

    An image that cannot be read does not stop the others.
    """
    from sfc.classify.inference import infer_cams_of_several
    from sfc.classify.stage import trained_classifier
    from sfc.data.images import has_many_pixels, read_image
    from sfc.engine.image_work import memory_of_each_batch, of_one_size, unfinished, work_through
    from sfc.engine.processes import precision_of
    from sfc.localize.store import cam_path, save_cams

    config, precision, device = job.config.localize, precision_of(job.config.machine), job.fabric.device
    net = trained_classifier(job).to(device)
    pixels = PIXELS_TOGETHER if device.type == "cpu" else PIXELS_TOGETHER_ON_GPU
    for split in _splits(job):
        folder, records = job.folder.cams(split), job.data.split(split).records

        def is_finished(record: Record, split: str = split) -> bool:
            return _is_made(job, split, record)

        def cams(batch: Sequence[Record], folder: Path = folder) -> None:
            images = [read_image(record.image, record.longest) for record in batch]
            given = [np.isin(np.arange(net.num_classes), record.labels) for record in batch]
            labels = given if config.labels == "given" else [None] * len(batch)
            maps = infer_cams_of_several(net, images, labels, config.scales, precision=precision)
            for record, each in zip(batch, maps, strict=True):
                if not is_finished(record):
                    save_cams(cam_path(folder, record.id), *each)

        left = {record.id for record in unfinished(job.fabric, records, is_finished)}
        # Made of all images, whatever is there already: a run that was stopped has the same batches, to the last bit.
        batches = of_one_size(records, pixels) if left else []
        todo = [batch for batch in batches if any(record.id in left for record in batch)]
        if todo and job.fabric.is_global_zero:
            job.folder.signs.unlink(missing_ok=True)  # of other maps than there will be
        finished = f"the CAMs of all other images are in {folder}"
        title = f"{job.title}: CAMs of {split}"
        each = memory_of_each_batch(todo, pixels, max(config.scales))
        work_through(job.fabric, todo, cams, title, finished, lambda r: has_many_pixels(r.image), each)


LOCALIZE = Stage(
    name="localize",
    text="make the CAMs of a run",
    sections=("localize",),
    reads=lambda _: ("classify",),
    artifacts=_artifacts,
    writes=lambda job: [f"cams/{split}" for split in _splits(job)],
    work=_localize,
)
