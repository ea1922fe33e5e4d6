"""`sfc predict`: its options, and from them a source of masks. Heavy libraries are imported when it runs."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from sfc.config import DataConfig, MachineConfig, PredictConfig, RunConfig, plain_cam
from sfc.errors import ConfigError, SFCError
from sfc.run.files import file_hash
from sfc.run.folder import RunFolder, VariantFolder
from sfc.settings import load_config

if TYPE_CHECKING:
    from sfc.predict.sources import CamSource, SegmenterSource, Source
    from sfc.segment.model import Model

LEAST_TILE, LARGEST_SCALE = 64, 16
TEXT = "masks of photographs that need no labels: by the segmenter of a run or of a model folder, or by CAMs"


def add_options(parser: ArgumentParser) -> None:
    """The options of `sfc predict`."""
    parser.add_argument("run", type=str, help="run folder, or a model folder that `sfc export` wrote")
    parser.add_argument("images", type=str, nargs="+", help="images, folders, patterns, or a .txt list of images")
    parser.add_argument("--out", type=str, default="predictions", help="folder that gets the masks")
    parser.add_argument("--root", type=str, default="", help="where the paths in a list start; default: its folder")
    add_segmenter_options(parser)
    parser.add_argument("--source", choices=["segmenter", "cams"], default="segmenter", help="where masks come from")
    parser.add_argument("--labels", type=str, default="", help="cams: table of image and labels; else predicted labels")
    parser.add_argument("--scales", type=list[float] | None, default=None, help="of the image; default: the run's")
    parser.add_argument("--mirror", type=bool | None, default=None, help="segmenter: average with the mirror image")
    parser.add_argument("--pooling", type=str, default="", help="segmenter: maximum or mean over the scales")
    parser.add_argument(
        "--tile",
        type=int,
        default=0,
        help="larger images are predicted in tiles of this side (cams: shrunk to it); default: the run's",
    )
    parser.add_argument("--crf", type=bool, default=False, help="put a dense CRF behind it")
    parser.add_argument("--probabilities", type=bool, default=False, help="also write float16 [classes, H, W] as .npy")
    parser.add_argument(
        "--overlays", type=bool, default=False, help="also write photographs with their masks over them"
    )
    parser.add_class_arguments(MachineConfig, nested_key="machine")


def add_segmenter_options(parser: ArgumentParser) -> None:
    """Which segmenter of a run is meant."""
    parser.add_argument("--variant", choices=["sfc", "plain"], default="sfc", help="which system of a run")
    parser.add_argument(
        "--trained-on",
        type=str,
        default="",
        help="which segmenter: none, crf, irn, irn+crf or truth; default: the run's",
    )


def predict_command(parser: ArgumentParser, parsed: Namespace) -> int:
    """Runs `sfc predict`; prints where the masks are."""
    from sfc.engine.processes import make_fabric, one_message
    from sfc.predict.outputs import Outputs
    from sfc.predict.photographs import find_photographs
    from sfc.predict.stage import predict

    # Every weight is in the run or model folder.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    machine: MachineConfig = parser.instantiate(parsed).machine
    source: Source = _cams(parsed, machine) if parsed.source == "cams" else _segmenter(parsed, machine)
    outputs = Outputs(Path(parsed.out), parsed.probabilities, parsed.overlays)
    photographs = find_photographs(parsed.images, source.classes, parsed.root, outputs.folder)
    fabric = make_fabric(machine)
    with one_message(fabric):
        predict(fabric, source, photographs, outputs, machine)
    if fabric.is_global_zero:
        print(f"masks of {len(photographs)} photographs: {outputs.folder / 'masks'}")  # noqa: T201
    return 0


def _run_of(parsed: Namespace) -> tuple[RunConfig, VariantFolder]:
    folder = RunFolder(Path(parsed.run))
    if not folder.config.is_file():
        raise SFCError(f"{parsed.run}: neither a run folder (config.yaml) nor a model folder (config.json)")
    return load_config([folder.config]), folder.variant(parsed.variant)


def open_model(run: str, variant: str = "sfc", trained_on: str = "") -> Model:
    """The segmenter of a run folder or model folder.

    Args:
        run: either folder.
        variant: `sfc` or `plain`, of a run.
        trained_on: the masks that it learned from; empty: those of the run's settings.

    Raises:
        SFCError: the folder is neither, or holds no finished segmenter.
    """
    from sfc.segment.model import load, load_run_model

    if (Path(run) / "config.json").is_file():
        if trained_on or variant != "sfc":
            raise ConfigError(
                f"{run} is a model folder, which holds one segmenter: --variant and --trained-on are for runs"
            )
        return load(run)
    config, folder = _run_of(Namespace(run=run, variant=variant))
    return load_run_model(folder, config, trained_on or config.segmented_masks)


def _segmenter(parsed: Namespace, machine: MachineConfig) -> SegmenterSource:
    from sfc.predict.sources import SegmenterSource
    from sfc.segment.predict import Predictor

    if parsed.labels:
        raise ConfigError("--labels is for --source cams; a segmenter needs none")
    model = open_model(parsed.run, parsed.variant, parsed.trained_on)
    predictor = Predictor(model.net, _overridden(model.predict, parsed), machine.precision)
    return SegmenterSource(predictor, model.classes, model.weights_hash(), parsed.crf)


def _overridden(config: PredictConfig, parsed: Namespace) -> PredictConfig:
    if parsed.pooling not in ("", "maximum", "mean"):
        raise ConfigError(f"--pooling is maximum or mean, not {parsed.pooling}")
    config = replace(
        config,
        scales=_scales(parsed, config.scales),
        mirror=config.mirror if parsed.mirror is None else parsed.mirror,
        pooling=parsed.pooling or config.pooling,
    )
    tile = _tile(parsed)
    return replace(config, tile=tile, overlap=min(config.overlap, tile // 8)) if tile else config


def _tile(parsed: Namespace) -> int:
    """The side of a tile; 0 where none is given."""
    tile: int = parsed.tile
    if tile and tile < LEAST_TILE:
        raise ConfigError(f"--tile is at least {LEAST_TILE} pixels, not {tile}")
    return tile


def _scales(parsed: Namespace, default: tuple[float, ...]) -> tuple[float, ...]:
    scales = default if parsed.scales is None else tuple(parsed.scales)
    if not scales or not all(0.01 <= scale <= LARGEST_SCALE for scale in scales):
        raise ConfigError(f"--scales are factors from 0.01 to {LARGEST_SCALE}, at least one, not {list(scales)}")
    return scales


def _cams(parsed: Namespace, machine: MachineConfig) -> CamSource:
    from sfc.classify.train import load_classifier
    from sfc.engine.checkpoint import load_checkpoint
    from sfc.predict.sources import CamSource

    if parsed.trained_on or parsed.pooling or parsed.mirror is not None:
        raise ConfigError("--trained-on, --pooling and --mirror are for a segmenter; CAMs always have the mirror")
    if (Path(parsed.run) / "config.json").is_file():
        raise ConfigError(f"{parsed.run} is a model folder, which has no classifier: --source cams is for runs")
    config, folder = _run_of(parsed)
    if parsed.variant == "plain":
        config = plain_cam(config)
    path = folder.classify / "checkpoint.pt"
    classes = tuple(load_checkpoint(path)["fingerprint"]["classes"])
    net, _ = load_classifier(config.classify, classes, folder.classify)
    return CamSource(
        net,
        classes,
        file_hash(path),
        replace(config.localize, scales=_scales(parsed, config.localize.scales)),
        config.refine,
        _labels(Path(parsed.labels), config.data, classes) if parsed.labels else None,
        labels_hash=file_hash(Path(parsed.labels)) if parsed.labels else "",
        crf=parsed.crf,
        longest=_tile(parsed) or config.predict.tile,
        precision=machine.precision,
    )


def _labels(table: Path, data: DataConfig, classes: tuple[str, ...]) -> dict[Path, tuple[int, ...]]:
    """Labels by resolved path of the image, from a table whose paths start from its own folder."""
    from sfc.data.readers.table import read_table

    config = DataConfig(root=str(table.parent), train=table.name, label_separator=data.label_separator)
    records = read_table(config, "train", classes=classes).records
    return {record.image.resolve(): record.labels for record in records}
