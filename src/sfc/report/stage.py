"""The last stage: page and pictures of a run, from saved scores and stored files."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from sfc.segment.stage import TRUTH, source_of

if TYPE_CHECKING:
    from pathlib import Path

    from sfc.engine.stage import Job
    from sfc.report.examples import Source
    from sfc.run.folder import RunFolder


def report(jobs: Sequence[Job], folder: RunFolder) -> None:
    """Draws the page of all systems of a run.

    Args:
        jobs: the systems, the first the baseline.
        folder: of the run.

    Raises:
        DataError: scores are missing, or a file is damaged.
    """
    from sfc.evaluate.scores import read_scores
    from sfc.report.examples import Gallery
    from sfc.report.page import write_report
    from sfc.signs.verdict import read_verdict

    data = jobs[0].data
    scores = [entry for job in jobs for entry in read_scores(job.folder.scores)]
    splits = list(data.scored()) or [("train", data.train)]
    galleries = [Gallery(dataset, [_source(job, split) for job in jobs]) for split, dataset in splits]
    pages = {f"{job.title}, {split}": page for job in jobs for split, page in all_masks(job).items()}
    title = f"{', '.join(job.title for job in jobs)} on {data.train.name}"
    verdicts = {job.title: read_verdict(job.folder.signs) for job in jobs if job.folder.signs.exists()}
    write_report(folder.report, title, scores, galleries, data.train.class_counts(), verdicts, pages)


def all_masks(job: Job) -> dict[str, Path]:
    """Writes a gallery of each split's masks, as far as there are any; its page by the name of the split.

    Raises:
        DataError: a mask is damaged.
        SFCError: a file cannot be written.
    """
    from sfc.data.images import mask_path
    from sfc.engine.progress import StageProgress
    from sfc.gallery.gallery import Entry, write_gallery

    pages = {}
    for split, dataset in job.data.splits():
        masks, method = _masks(job, split)
        entries = [
            Entry(record.id, record.image, path, tuple(dataset.classes[k] for k in record.labels))
            for record in dataset.records
            if (path := mask_path(masks, record.id)).exists()
        ]
        if not entries:
            continue
        title = f"{dataset.name}, {split}: {method} of {job.title}"
        with StageProgress() as bar:
            task = bar.add_task(f"{job.title}: gallery of {split}", total=len(entries), note="")
            done = partial(bar.update, task, advance=1)
            pages[split] = write_gallery(job.folder.gallery(split), title, entries, dataset.classes, done)
    return pages


def _source(job: Job, split: str) -> Source:
    """What the report shows of a system: its CAMs, and where there are any the masks made from them or predicted."""
    from sfc.report.examples import Source

    masks, method = _masks(job, split)
    return Source(
        job.title,
        job.folder.cams(split),
        job.config.refine.scored_lambda,
        masks=masks if masks.exists() else None,
        method=method,
    )


def _masks(job: Job, split: str) -> tuple[Path, str]:
    """The folder of a split's masks, and what they are: refined for training images, the segmenter's for others."""
    config, folder = job.config, job.folder
    if split == "train":
        return folder.masks(config.refine.method), f"{config.refine.method} masks"
    way = config.predict.ways[-1] if config.predict.ways else "single"
    source = source_of(config)
    kind = "segmenter of the truth" if source == TRUTH else "segmenter"
    return folder.predictions(source, split, way), f"{kind}, {way}"
