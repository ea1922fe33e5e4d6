"""The last stage: page and pictures of a run, from saved scores and stored files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sfc.segment.stage import TRUTH, source_of

if TYPE_CHECKING:
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
    title = f"{', '.join(job.title for job in jobs)} on {data.train.name}"
    verdicts = {job.title: read_verdict(job.folder.signs) for job in jobs if job.folder.signs.exists()}
    write_report(folder.report, title, scores, galleries, data.train.class_counts(), verdicts)


def _source(job: Job, split: str) -> Source:
    """What the report shows of a system: its CAMs, and where there are any the masks made from them or predicted."""
    from sfc.report.examples import Source

    config, folder = job.config, job.folder
    masks, method = folder.masks(config.refine.method), f"{config.refine.method} masks"
    if split != "train":
        way = config.predict.ways[0] if config.predict.ways else "single"
        source = source_of(config)
        kind = "segmenter of the truth" if source == TRUTH else "segmenter"
        masks, method = folder.predictions(source, split, way), f"{kind}, {way}"
    return Source(
        job.title,
        folder.cams(split),
        config.refine.scored_lambda,
        masks=masks if masks.exists() else None,
        method=method,
    )
