"""`sfc predict`: its options, and from them a source of masks. Heavy libraries are imported when it runs."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from sfc.errors import ConfigError
from sfc.run.files import file_hash
from sfc.settings.shared import MachineConfig

if TYPE_CHECKING:
    from sfc.data.config import DataConfig
    from sfc.predict.sources import CamSource, GivenTags, SegmenterSource, Source
    from sfc.segment.config import PredictConfig

LEAST_TILE, LARGEST_SCALE = 64, 16
TEXT = "masks of new photographs, with or without tags: by the segmenter of a run or of a model folder, or by CAMs"


def add_options(parser: ArgumentParser) -> None:
    """The options of `sfc predict`."""
    parser.add_argument("run", type=str, help="run folder, or a model folder that `sfc export` wrote")
    parser.add_argument("images", type=str, nargs="+", help="images, folders, patterns, or a .txt list of images")
    parser.add_argument("--out", type=str, default="predictions", help="folder that gets the masks")
    parser.add_argument("--root", type=str, default="", help="where the paths in a list start; default: its folder")
    add_segmenter_options(parser)
    parser.add_argument("--source", choices=["segmenter", "cams"], default="segmenter", help="where masks come from")
    parser.add_argument(
        "--labels",
        type=str,
        default="",
        help="table of image and labels, where tags are known: nothing else is found; cams: without it predicted tags",
    )
    parser.add_argument("--scales", type=list[float] | None, default=None, help="of the image; default: the run's")
    parser.add_argument("--mirror", type=bool | None, default=None, help="segmenter: average with the mirror image")
    parser.add_argument("--pooling", type=str, default="", help="segmenter: maximum or mean over the scales")
    parser.add_argument(
        "--logit-adjustment",
        type=float | None,
        default=None,
        help="segmenter: how far frequent classes are not preferred for being frequent; 0 to 1, default: the run's",
    )
    parser.add_argument(
        "--tile",
        type=int,
        default=0,
        help="segmenter: what is larger (after shrinking to the size that it learned at) is predicted in tiles of this "
        "side; default: 1024",
    )
    parser.add_argument("--crf", type=bool, default=False, help="put a dense CRF behind it")
    parser.add_argument("--probabilities", type=bool, default=False, help="also write float16 [classes, H, W] as .npy")
    parser.add_argument(
        "--overlays", type=bool, default=False, help="also write photographs with their masks over them"
    )
    parser.add_class_arguments(MachineConfig, nested_key="machine")


def add_segmenter_options(parser: ArgumentParser) -> None:
    """Which segmenter of a run is meant."""
    parser.add_argument("--method", type=str, default="", help="which method of a run; default: its last")
    parser.add_argument(
        "--trained-on",
        type=str,
        default="",
        help="which segmenter: none, crf, irn, irn+crf or truth; default: the run's",
    )


def predict_command(parser: ArgumentParser, parsed: Namespace) -> int:
    """Runs `sfc predict`; prints where the masks are."""
    from sfc.data.readers.folders import passed_over
    from sfc.engine.processes import make_fabric, one_message
    from sfc.predict.outputs import Outputs
    from sfc.predict.photographs import find_photographs
    from sfc.predict.stage import predict, write_page

    # Every weight is in the run or model folder.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    machine: MachineConfig = parser.instantiate(parsed).machine
    source: Source = _cams(parsed, machine) if parsed.source == "cams" else _segmenter(parsed, machine)
    outputs = Outputs(Path(parsed.out), parsed.probabilities, parsed.overlays)
    photographs = find_photographs(parsed.images, source.classes, parsed.root, outputs.folders)
    fabric = make_fabric(machine)
    with one_message(fabric):
        predict(fabric, source, photographs, outputs)
    if fabric.is_global_zero:
        page = write_page(outputs, source.classes)
        for folder in filter(Path.is_dir, map(Path, parsed.images)):
            kinds = ", ".join(f"{suffix} ({count:,})" for suffix, count in passed_over(folder).items())
            if kinds:
                print(f"passed over in {folder}, as they are no images: {kinds}")  # noqa: T201
        print(f"masks of {len(photographs)} photographs: {outputs.folder / 'masks'}")  # noqa: T201
        print(f"to look at: {page}")  # noqa: T201
    return 0


def _segmenter(parsed: Namespace, machine: MachineConfig) -> SegmenterSource:
    from sfc.data.readers import DataSection
    from sfc.engine.processes import precision_of
    from sfc.predict.models import is_model_folder, open_model, open_system
    from sfc.predict.sources import SegmenterSource
    from sfc.segment.predict import TILE, Predictor

    model = open_model(parsed.run, parsed.method, parsed.trained_on)
    config = _overridden(model.predict, parsed)
    predictor = Predictor(model.net, config, precision_of(machine), _tile(parsed) or TILE, model.longest)
    tags = None
    if parsed.labels:
        data = DataSection() if is_model_folder(parsed.run) else open_system(parsed.run, parsed.method)[0].data
        tags = _tags(Path(parsed.labels), data, model.classes)
    return SegmenterSource(predictor, model.classes, model.weights_hash(), parsed.crf, tags)


def _overridden(config: PredictConfig, parsed: Namespace) -> PredictConfig:
    if parsed.pooling not in ("", "maximum", "mean"):
        raise ConfigError(f"--pooling is maximum or mean, not {parsed.pooling}")
    adjustment = config.logit_adjustment if parsed.logit_adjustment is None else parsed.logit_adjustment
    if not 0 <= adjustment < math.inf:
        raise ConfigError(f"--logit-adjustment is at least 0, not {adjustment:g}")
    return replace(
        config,
        scales=_scales(parsed, config.scales),
        mirror=config.mirror if parsed.mirror is None else parsed.mirror,
        pooling=parsed.pooling or config.pooling,
        logit_adjustment=adjustment,
    )


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
    from sfc.engine.processes import precision_of
    from sfc.predict.models import open_classifier
    from sfc.predict.sources import CamSource
    from sfc.segment.predict import TILE

    given = (parsed.mirror, parsed.logit_adjustment)
    if parsed.trained_on or parsed.pooling or parsed.tile or given != (None, None):
        raise ConfigError(
            "--trained-on, --pooling, --mirror, --logit-adjustment and --tile are for a segmenter; CAMs always have "
            "the mirror"
        )
    net, classes, config, weights = open_classifier(parsed.run, parsed.method)
    return CamSource(
        net,
        classes,
        weights,
        replace(config.localize, scales=_scales(parsed, config.localize.scales)),
        config.refine,
        _tags(Path(parsed.labels), config.data, classes) if parsed.labels else None,
        crf=parsed.crf,
        longest=config.longest or TILE,
        precision=precision_of(machine),
    )


def _tags(table: Path, data: DataConfig, classes: tuple[str, ...]) -> GivenTags:
    """What a table says, whose paths start from its own folder."""
    from sfc.data.readers.table import read_table
    from sfc.predict.sources import GivenTags

    config = replace(data, format="table", root=str(table.parent), train=table.name, classes="", limit=0, exclude="")
    records = read_table(config, "train", classes=classes).records
    by_image = {record.image.resolve(): record.labels for record in records}
    return GivenTags(by_image, file_hash(table), len(classes))
