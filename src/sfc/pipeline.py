"""The stages in order: data, then for each variant classify to evaluate; then the report."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfc.config import RunConfig, plain_cam
from sfc.data.readers.splits import Data, read_data
from sfc.errors import ConfigError
from sfc.run.files import atomic_write, file_hash, write_json
from sfc.run.folder import RunFolder, VariantFolder
from sfc.run.origin import require_same_run
from sfc.run.provenance import versions

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from sfc.data.records import DataSet
    from sfc.evaluate.scores import Scores
    from sfc.refine.stage import Refinement
    from sfc.report import Source
    from sfc.segment.stage import Segmentation

STAGES = ("classify", "localize", "refine", "segment", "evaluate", "report")


@dataclass(frozen=True)
class Variant:
    """One system to train and score."""

    name: str
    config: RunConfig
    folder: VariantFolder


def variants(config: RunConfig, run: RunFolder) -> Iterator[Variant]:
    """The plain-CAM baseline first, if it is wanted, then the system of the settings."""
    if config.baseline:
        yield Variant("plain", plain_cam(config), run.variant("plain"))
    yield Variant("sfc", config, run.variant("sfc"))


def run(config: RunConfig, root: Path, stages: Sequence[str] = STAGES) -> list[Scores]:
    """Goes through the stages, skipping what is done.

    Args:
        config: all settings.
        root: the run folder; a stopped run goes on where it was.
        stages: which of `STAGES`.

    Returns:
        Scores of each variant and split; empty on processes other than the first.

    Raises:
        SFCError: bad data, settings, checkpoint, or a full disk; what was finished stays.
    """
    from sfc.engine.processes import make_fabric, one_message

    # The hub client retries for most of a minute where there is no network; local files need no hub.
    if not _needs_hub(config):
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    folder = RunFolder(root)
    require_same_run(config, folder)
    fabric = make_fabric(config.machine)
    with one_message(fabric), _earlier_settings_kept(folder):
        return _run_stages(fabric, config, folder, stages)


def _needs_hub(config: RunConfig) -> bool:
    """Whether some network may start from weights that are on the hub."""
    networks = (config.classify.network, config.refine.relation, config.segment.network)
    own = ("compact", "classifier")
    return any(each.pretrained and not each.weights and each.backbone not in own for each in networks)


def _run_stages(fabric: Fabric, config: RunConfig, folder: RunFolder, stages: Sequence[str]) -> list[Scores]:
    if fabric.is_global_zero:
        data = read_data(config, folder)
        _write_settings(config, folder)
    fabric.barrier()
    if not fabric.is_global_zero:
        data = read_data(config, folder)
    scores: list[Scores] = []
    for variant in variants(config, folder):
        if "classify" in stages:
            _classify(fabric, variant, data)
        if "localize" in stages:
            _localize(fabric, variant, data)
        if "refine" in stages:
            _refine(fabric, variant, data)
        if "segment" in stages:
            _segment(fabric, variant, data)
        fabric.barrier()
        if "evaluate" in stages and fabric.is_global_zero:
            scores.extend(_evaluate(variant, data))
    if "report" in stages and fabric.is_global_zero:
        _report(config, folder, data)
    fabric.barrier()
    return scores


@contextmanager
def _earlier_settings_kept(folder: RunFolder) -> Iterator[None]:
    """Leaves the saved settings of a run as they were where a command is refused because of its own."""
    earlier = folder.config.read_bytes() if folder.config.is_file() else b""
    try:
        yield
    except ConfigError:
        if earlier:
            with atomic_write(folder.config) as file:
                file.write(earlier)
        raise


def _write_settings(config: RunConfig, folder: RunFolder) -> None:
    from sfc.settings import write_config

    write_config(folder.config, config)
    write_json(folder.manifest, {"command": sys.argv, "versions": versions()})


def _classify(fabric: Fabric, variant: Variant, data: Data) -> None:
    from sfc.classify.train import train_classifier

    train_classifier(fabric, variant.config, data.train, data.scoring, variant.folder.classify)


def _localize(fabric: Fabric, variant: Variant, data: Data) -> None:
    from sfc.classify.train import load_classifier
    from sfc.localize.stage import localize

    config = variant.config
    net, _ = load_classifier(config.classify, data.train.classes, variant.folder.classify)
    weights = file_hash(variant.folder.classify / "checkpoint.pt")
    for split, dataset in data.splits():
        title = f"{config.name}: CAMs of {split}"
        store = variant.folder.cams(split)
        localize(fabric, net, dataset, store, config.localize, config.machine, weights, title)


def _refinement(variant: Variant, data: Data) -> tuple[Refinement, str]:
    """What the refinement of a variant works with, and how its classifier's checkpoint was chosen."""
    from sfc.classify.train import load_classifier
    from sfc.localize.stage import identity
    from sfc.refine.stage import Refinement

    config, folder = variant.config, variant.folder
    net, choice = load_classifier(config.classify, data.train.classes, folder.classify)
    cams = identity(file_hash(folder.classify / "checkpoint.pt"), config.localize)
    job = Refinement(config.name, config.refine, config.machine, data.train, folder, cams, net.backbone)
    return job, choice


def _refine(fabric: Fabric, variant: Variant, data: Data) -> None:
    from sfc.localize.stage import require_cams
    from sfc.refine.stage import refine

    job, _ = _refinement(variant, data)
    require_cams(variant.folder.cams("train"), job.cams)
    refine(fabric, job)


def _segmentation(variant: Variant, data: Data, refinement: Refinement) -> Segmentation:
    """What the segmenter of a variant works with."""
    from sfc.segment.segmenter import FROM_CLASSIFIER
    from sfc.segment.stage import Segmentation

    config, folder, source = variant.config, variant.folder, variant.config.segmented_masks
    origin: dict[str, Any] = {"masks": source if source == "truth" else refinement.origin(source)}
    if config.segment.network.backbone == FROM_CLASSIFIER:
        origin["classifier"] = file_hash(folder.classify / "checkpoint.pt")
    return Segmentation(
        config.name,
        config.segment,
        config.predict,
        config.machine,
        data.train,
        data.scoring,
        source,
        folder,
        origin,
        refinement.classifier,
    )


def _segment(fabric: Fabric, variant: Variant, data: Data) -> None:
    from sfc.refine.stage import mask_folders
    from sfc.segment.stage import segment

    refinement, _ = _refinement(variant, data)
    mask_folders(refinement)  # refuses masks made from something else
    segment(fabric, _segmentation(variant, data, refinement), data.val)


def _evaluate(variant: Variant, data: Data) -> list[Scores]:
    from sfc.data.groups import class_groups
    from sfc.evaluate.cams import evaluate_cams
    from sfc.evaluate.masks import evaluate_refinement
    from sfc.evaluate.scores import write_scores
    from sfc.localize.stage import require_cams

    config = variant.config
    job, choice = _refinement(variant, data)
    counts = data.train.class_counts()
    groups = class_groups(counts, config.data.head_share, config.data.tail_share)
    provenance = {
        "checkpoint": choice,
        "labels": f"{config.localize.labels}",
        "scales": ", ".join(f"{scale:g}" for scale in config.localize.scales) + ", each with its mirror",
        "CRF": "none on the maps",
    }
    scores = []
    for split, dataset in data.scored():
        require_cams(variant.folder.cams(split), job.cams)
        entry = evaluate_cams(
            dataset,
            variant.folder.cams(split),
            run=config.name,
            class_groups=groups,
            class_counts=counts,
            provenance=provenance,
            fusion_lambda=config.evaluate.fusion_lambda,
        )
        if split == "train":
            entry = evaluate_refinement(entry, dataset, job)
        else:
            entry = _evaluate_segmenter(entry, dataset, _segmentation(variant, data, job))
        scores.append(entry)
    write_scores(variant.folder.scores, scores)
    return scores


def _evaluate_segmenter(entry: Scores, dataset: DataSet, job: Segmentation) -> Scores:
    """The scores of the CAMs, with those of the segmenter's masks if it has written any, a row a way."""
    from sfc.evaluate.masks import evaluate_masks
    from sfc.segment.stage import predicted_ways

    ways = predicted_ways(job, "val")
    if not ways:
        return entry
    masks = [evaluate_masks(dataset, folder, way, entry.class_groups) for way, folder in ways.items()]
    material = "the ground truth" if job.source == "truth" else f"{job.source} masks"
    words = f"learned from {material}; {job.predict.in_words()}"
    return replace(entry, masks=masks, provenance={**entry.provenance, "segmenter": words})


def _report(config: RunConfig, folder: RunFolder, data: Data) -> None:
    from sfc.evaluate.scores import read_scores
    from sfc.report import Gallery, write_report

    wanted = list(variants(config, folder))
    scores = [entry for variant in wanted for entry in read_scores(variant.folder.scores)]
    splits = list(data.scored()) or [("train", data.train)]
    galleries = [Gallery(dataset, [_source(variant, split) for variant in wanted]) for split, dataset in splits]
    title = f"{config.name} on {data.train.name}"
    write_report(folder.report, title, scores, galleries, data.train.class_counts())


def _source(variant: Variant, split: str) -> Source:
    """What the report shows of a variant: its CAMs, and where there are any the masks made from them or predicted."""
    from sfc.report import Source

    config, folder = variant.config, variant.folder
    masks, method = folder.masks(config.refine.method), f"{config.refine.method} masks"
    if split != "train":
        way = config.predict.ways[0] if config.predict.ways else "single"
        kind = "segmenter of the truth" if config.segmented_masks == "truth" else "segmenter"
        masks, method = folder.predictions(config.segmented_masks, split, way), f"{kind}, {way}"
    return Source(
        config.name,
        folder.cams(split),
        config.evaluate.fusion_lambda,
        masks=masks if masks.exists() else None,
        method=method,
    )
