"""Stage 1: a classifier trained on the tags."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sfc.data.records import input_hash
from sfc.engine.stage import Artifact, Job, Stage, finish_training
from sfc.run.folder import CHECKPOINT
from sfc.settings.read import plain_values
from sfc.settings.shared import NONE, weight_options

if TYPE_CHECKING:
    from sfc.classify.network import SFCNetwork

CLASSIFY_NAME = "classify"
FREE = ("root", "val", "train_masks", "group_shares")
"""Settings of the data that may change within a run: a data set may move, and be scored in other ways."""


def _artifacts(job: Job) -> list[Artifact]:
    data = plain_values(asdict(job.config.data))

    def facts() -> Mapping[str, Any]:
        train = job.data.train
        return {"images or tags": job.once("input hash", lambda: input_hash(train)), "classes": list(train.classes)}

    settings = {
        "data": {name: value for name, value in data.items() if name not in FREE},
        "classify": _bound(plain_values(asdict(job.config.classify))),
        "seed": job.config.seed,
    }
    return [Artifact(CLASSIFY_NAME, "trained classifier", settings, facts=facts, is_training=True)]


def _bound(settings: dict[str, Any]) -> dict[str, Any]:
    """How often a training draws pictures may change."""
    training = {name: value for name, value in settings["training"].items() if name != "picture_every"}
    return {**settings, "training": training}


def _classify(job: Job) -> None:
    from sfc.classify.train import checkpoint_choice, train_classifier

    config = job.config
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
