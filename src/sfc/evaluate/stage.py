"""Stage 5: scores of CAMs, of masks and of the segmenter, from files alone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sfc.engine.stage import Job, Stage, is_complete
from sfc.errors import ConfigError
from sfc.refine.stage import REFINE, masks_name

if TYPE_CHECKING:
    from sfc.data.records import DataSet
    from sfc.evaluate.scores import MaskScore, Scores


def _reads(job: Job) -> list[str]:
    return [f"cams/{split}" for split in ("train", "val") if f"cams/{split}" in job.artifacts]


def _evaluate(job: Job) -> None:
    """Writes every score of a system; only the first process works."""
    if not job.fabric.is_global_zero:
        return
    from sfc.data.groups import class_groups
    from sfc.evaluate.cams import evaluate_cams
    from sfc.evaluate.scores import write_scores

    config = job.config
    counts = job.data.train.class_counts()
    groups = class_groups(counts, config.data.group_shares)
    provenance = {
        "checkpoint": str((job.finished("classify") or {}).get("checkpoint", "unknown")),
        "labels": f"{config.localize.labels}",
        "scales": ", ".join(f"{scale:g}" for scale in config.localize.scales) + ", each with its mirror",
        "CRF": "none on the maps",
    }
    scores = []
    for split, dataset in job.data.scored():
        entry = evaluate_cams(
            dataset,
            job.folder.cams(split),
            run=job.title,
            class_groups=groups,
            class_counts=counts,
            provenance=provenance,
            fusion_lambda=config.refine.scored_lambda,
        )
        add_masks = _with_refined_masks if split == "train" else _with_segmenter
        scores.append(add_masks(entry, dataset, job))
    write_scores(job.folder.scores, scores)


def _with_refined_masks(entry: Scores, dataset: DataSet, job: Job) -> Scores:
    """The scores of the CAMs, with those of all masks that the system has, in the order of refinement."""
    from sfc.evaluate.masks import evaluate_masks
    from sfc.evaluate.scores import fused_name
    from sfc.refine.methods import REFINERS

    masks: list[MaskScore] = []
    for method, refiner in REFINERS.items():
        if not _counts(job, masks_name(method)):
            continue
        cam = fused_name(job.config.refine.label_lambda)
        rows = [
            (refiner.words.format(cam=cam), False),
            *([(refiner.undecided_words, True)] if refiner.undecided_words else []),
        ]
        for what, undecided in rows:
            folder = job.folder.masks(method)
            masks.append(evaluate_masks(dataset, folder, what, entry.class_groups, undecided=undecided))
    return replace(entry, masks=masks)


def _counts(job: Job, masks: str) -> bool:
    """Whether masks are scored: those of the chosen method, and of another one where they are whole and of today."""
    if masks in REFINE.writes(job):
        return job.is_there(masks)
    try:
        return is_complete(job, masks)
    except ConfigError:  # made before with other settings
        return False


def _with_segmenter(entry: Scores, dataset: DataSet, job: Job) -> Scores:
    """The scores of the CAMs, with those of the segmenter's masks if it has written any, a row a way."""
    from sfc.evaluate.masks import evaluate_masks
    from sfc.segment.stage import TRUTH, predictions_name, source_of

    source, predict = source_of(job.config), job.config.predict
    ways = [way for way in predict.ways if job.is_there(predictions_name(source, way))]
    if not ways:
        return entry
    masks = [evaluate_masks(dataset, job.path(predictions_name(source, way)), way, entry.class_groups) for way in ways]
    material = "the ground truth" if source == TRUTH else f"{source} masks"
    words = f"learned from {material}; {predict.in_words()}"
    return replace(entry, masks=masks, provenance={**entry.provenance, "segmenter": words})


EVALUATE = Stage(
    name="evaluate",
    text="score the CAMs and masks of a run",
    sections=("data", "refine"),
    reads=_reads,
    work=_evaluate,
)
