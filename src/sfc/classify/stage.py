"""Stage 1: a classifier trained on the tags."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sfc.data.records import DataSet, input_hash
from sfc.engine.stage import Artifact, Job, Stage, finish_training
from sfc.run.files import write_json
from sfc.run.folder import CHECKPOINT
from sfc.run.origin import read_note
from sfc.settings.read import plain_values
from sfc.settings.shared import NONE, weight_options

if TYPE_CHECKING:
    from pathlib import Path

    from sfc.classify.network import SFCNetwork

CLASSIFY_NAME = "classify"
IMAGES = "images.json"
"""Beside the checkpoint: tags and size of each training image, to say which of them changed."""
INPUT = "images or tags"
"""What the note calls the hash of the training images and their tags."""
CORRECTED = "corrected"
"""Entry of the classifier's note where it was kept although images changed (`sfc amend`)."""
MOST_NAMES = 3
FREE = ("root", "val", "train_masks", "group_shares")
"""Settings of the data that may change within a run: a data set may move, and be scored in other ways."""


def _artifacts(job: Job) -> list[Artifact]:
    data = plain_values(asdict(job.config.data))

    def facts() -> Mapping[str, Any]:
        train = job.data.train
        return {INPUT: job.once("input hash", lambda: input_hash(train)), "classes": list(train.classes)}

    settings = {
        "data": {name: value for name, value in data.items() if name not in FREE},
        "classify": _bound(plain_values(asdict(job.config.classify))),
        "seed": job.config.seed,
    }

    def explain() -> str:
        return changed_images(job.folder.classify / IMAGES, job.data.train)

    return [
        Artifact(
            CLASSIFY_NAME,
            "trained classifier",
            settings,
            facts=facts,
            explain=explain,
            advice=f"`sfc amend {job.folder.root.parent}` keeps it and makes again what was made of them; or choose "
            "another run folder",
            is_training=True,
        )
    ]


def corrections(job: Job) -> Mapping[str, Any]:
    """What the maps of a classifier depend on beside its weights: the images, where they changed after its training."""
    corrected = (read_note(job.folder.classify) or {}).get(CORRECTED)
    return {CORRECTED: corrected["now"]} if corrected else {}


def corrected_since(folder: Path) -> list[str]:
    """The images that were corrected after the training of a kept classifier, by the classifier's folder."""
    return list((read_note(folder) or {}).get(CORRECTED, {}).get("images", []))


def described(train: DataSet) -> dict[str, Any]:
    """Tags and size in bytes of each training image, by its id; plain values."""
    return {
        record.id: [[train.classes[k] for k in record.labels], record.image.stat().st_size] for record in train.records
    }


def read_described(path: Path) -> dict[str, Any]:
    """What `described` gave when a training began, as far as it is there and not damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    entries = found.items() if isinstance(found, dict) else ()
    return {name: entry for name, entry in entries if _is_description(entry)}


def _is_description(entry: Any) -> bool:
    tags = entry[0] if isinstance(entry, list) and len(entry) == 2 else None
    return isinstance(tags, list) and all(isinstance(tag, str) for tag in tags)


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """By the id of each image that differs, in words, what became of it.

    Args:
        before: as `described` gives it.
        now: likewise.
    """
    names = dict.fromkeys((*before, *now))
    return {name: _change(before.get(name), now.get(name)) for name in names if before.get(name) != now.get(name)}


def changed_images(path: Path, train: DataSet) -> str:
    """Which training images changed since `path` was written, in words behind a colon; empty where nobody knows."""
    before = read_described(path)
    if not before:
        return ""
    found = changes(before, described(train))
    words = [f"{name} ({what})" for name, what in list(found.items())[:MOST_NAMES]]
    more = f" and {len(found) - MOST_NAMES:,} more" if len(found) > MOST_NAMES else ""
    return f": {', '.join(words)}{more}" if words else ""


def _change(before: Any, now: Any) -> str:
    if before is None or now is None:
        return "is new" if before is None else "is gone"
    old, new = (";".join(each[0]) or "no tag" for each in (before, now))
    return f"was {old}, is {new}" if old != new else "its file"


def _bound(settings: dict[str, Any]) -> dict[str, Any]:
    """How often a training draws pictures may change."""
    training = {name: value for name, value in settings["training"].items() if name != "picture_every"}
    return {**settings, "training": training}


def _classify(job: Job) -> None:
    from sfc.classify.train import checkpoint_choice, train_classifier

    config, images = job.config, job.folder.classify / IMAGES
    if job.fabric.is_global_zero and not (job.folder.classify / CHECKPOINT).exists():
        write_json(images, described(job.data.train))
    train_classifier(
        job.fabric,
        config.classify,
        config.machine,
        config.seed,
        job.data.train,
        job.data.scoring,
        job.folder.classify,
        f"{job.title}: classifier",
    )
    job.fabric.barrier()
    finish_training(job, CLASSIFY_NAME, {"checkpoint": checkpoint_choice(config.classify, job.folder.classify)})


def _needs(job: Job) -> Mapping[str, Callable[[], None]]:
    """The weights that a training starts from, if it has not begun."""
    return {} if (job.folder.classify / CHECKPOINT).exists() else starting_weights(job)


def starting_weights(job: Job) -> Mapping[str, Callable[[], None]]:
    """The weights that the classifier's backbone starts from, as `Stage.needs` gives them."""
    from sfc.networks.backbone import Backbone
    from sfc.networks.failures import naming_settings

    network = job.config.classify.network

    def look() -> None:
        with naming_settings("classify"):
            Backbone(network.backbone, **weight_options(network.weights))

    return {} if network.weights == NONE else {f"{network.weights} of {network.backbone}, classify": look}


def trained_classifier(job: Job) -> SFCNetwork:
    """The classifier of a system, in evaluation mode; loaded once."""
    from sfc.classify.train import load_classifier

    config = job.config
    return job.once(
        "classifier",
        lambda: load_classifier(config.classify, config.seed, job.data.train.classes, job.folder.classify),
    )


CLASSIFY = Stage(
    name="classify",
    text="train the classifier of a run",
    sections=("data", "classify", "seed"),
    artifacts=_artifacts,
    writes=lambda _: (CLASSIFY_NAME,),
    work=_classify,
    needs=_needs,
)
