"""The trained segmenter and the trained classifier of a run, and what else a prediction needs of it."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from sfc.classify.network import SFCNetwork
from sfc.classify.train import load_classifier
from sfc.config import RunConfig, load_config
from sfc.engine.checkpoint import load_checkpoint
from sfc.errors import CheckpointError, ConfigError, SFCError
from sfc.networks.backbone import Backbone
from sfc.run.files import file_hash
from sfc.run.folder import CHECKPOINT, RunFolder, SystemFolder
from sfc.segment.model import Model, load
from sfc.segment.stage import TRUTH, source_of
from sfc.segment.train import load_segmenter
from sfc.settings.read import plain_values
from sfc.settings.shared import FROM_CLASSIFIER, NONE


def is_model_folder(path: str) -> bool:
    """Whether a folder was written by `sfc export --model`."""
    return (Path(path) / "config.json").is_file()


def open_system(run: str, method: str = "") -> tuple[RunConfig, SystemFolder]:
    """Settings and folder of one system of a run.

    Args:
        run: its folder.
        method: one of its methods; empty: the last, which comes after its baselines.

    Raises:
        SFCError: not a run folder, or a method that it does not have.
    """
    folder = RunFolder(Path(run))
    if not folder.config.is_file():
        raise SFCError(f"{run}: neither a run folder (config.yaml) nor a model folder (config.json)")
    config = load_config([folder.config])
    name = method or config.methods[-1]
    if name not in config.methods:
        raise ConfigError(f"{run} has no method '{name}', but {', '.join(config.methods)}")
    return config.of_method(name), folder.system(name)


def open_model(run: str, method: str = "", trained_on: str = "") -> Model:
    """The segmenter of a run folder or model folder.

    Args:
        run: either folder.
        method: of a run, see `open_system`.
        trained_on: the masks that it learned from; empty: those of the run's settings.

    Raises:
        SFCError: the folder is neither, or holds no finished segmenter.
    """
    if is_model_folder(run):
        if trained_on or method:
            raise ConfigError(
                f"{run} is a model folder, which holds one segmenter: --method and --trained-on are for runs"
            )
        return load(run)
    config, folder = open_system(run, method)
    return load_run_model(folder, config, trained_on or source_of(config))


def load_run_model(folder: SystemFolder, config: RunConfig, source: str) -> Model:
    """The segmenter of a finished run; its data set is not needed.

    Args:
        folder: of the system.
        config: settings of the system.
        source: the masks that it learned from: a method of refinement, or `truth`.

    Raises:
        CheckpointError: there is none, it is damaged, or its training is not finished.
        ConfigError: it was trained with other settings.
    """
    path = folder.segmenter(source) / CHECKPOINT
    saved = load_checkpoint(path)
    fingerprint = saved.get("fingerprint", {})
    if "segment" not in fingerprint:
        raise CheckpointError(f"{path}: not the checkpoint of a segmenter")
    classes = tuple(fingerprint["classes"])
    segment = replace(config.segment, masks="truth" if source == TRUTH else "pseudo")
    network, classifier = segment.network, None
    if network.backbone == FROM_CLASSIFIER:
        first = config.classify.network
        network = replace(network, backbone=first.backbone, weights=first.weights)
        classifier = Backbone(first.backbone, frozen_norm=first.weights != NONE, trained_from=0)
    net = load_segmenter(segment, config.seed, classes, folder.segmenter(source), classifier)
    # Names, not paths: a model travels, and whose folders it was made in is nobody's business.
    data = replace(config.data, root=Path(config.data.root).resolve().name)
    learned = fingerprint["origin"]["settings"]["segment"]["network"]
    learned["weights"] = Path(learned["weights"]).name
    provenance = {
        "data": {"settings": asdict(data), "input_hash": fingerprint["data"]},
        "masks": source,
        "origin": fingerprint["origin"],
        "checkpoint": file_hash(path),
        "steps": saved["steps"],
        "versions": saved.get("versions"),
    }
    return Model(net, classes, network, config.predict, config.longest, plain_values(provenance))


def open_classifier(run: str, method: str = "") -> tuple[SFCNetwork, tuple[str, ...], RunConfig, str]:
    """The classifier of a run, its foreground classes, the settings, and what identifies its weights.

    Args:
        run: its folder.
        method: see `open_system`.

    Raises:
        SFCError: the folder is no run, or holds no finished classifier.
    """
    if is_model_folder(run):
        raise ConfigError(f"{run} is a model folder, which has no classifier: --source cams is for runs")
    config, folder = open_system(run, method)
    path = folder.classify / CHECKPOINT
    classes = tuple(load_checkpoint(path)["fingerprint"]["classes"])
    net = load_classifier(config.classify, config.seed, classes, folder.classify)
    return net, classes, config, file_hash(path)
