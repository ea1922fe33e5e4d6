"""`sfc export`: its options, and what they call. Heavy libraries are imported when it runs."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from sfc.errors import ConfigError, SFCError
from sfc.predict.command import add_segmenter_options

TEXT = "hand over a run's segmenter (--model, --onnx), or predicted masks (--coco, --yolo, --labelme, --cvat, --voc)"
MASKS = ("coco", "yolo", "labelme", "cvat", "voc")
WITH_REGIONS = ("yolo", "labelme", "cvat")
"""Exports of masks that have an outline a region."""


def add_options(parser: ArgumentParser) -> None:
    """The options of `sfc export`."""
    parser.add_argument(
        "source", type=str, help="run folder or model folder; for masks a folder that `sfc predict` wrote"
    )
    parser.add_argument(
        "--model", type=str, default="", help="folder that gets the segmenter, for sfc.load and predict"
    )
    parser.add_argument("--onnx", type=str, default="", help="file that gets the segmenter, for onnxruntime and others")
    add_segmenter_options(parser)
    parser.add_argument("--coco", type=str, default="", help="JSON file that gets the masks in COCO's format")
    parser.add_argument("--instances", type=bool, default=False, help="coco: one annotation a region, not one a class")
    parser.add_argument("--yolo", type=str, default="", help="folder that gets the masks as polygons for YOLO")
    parser.add_argument("--labelme", type=str, default="", help="folder that gets the masks as polygons for LabelMe")
    parser.add_argument("--cvat", type=str, default="", help="XML file that gets the masks as polygons for CVAT")
    parser.add_argument(
        "--min-area", type=int, default=1, help="coco instances and polygons: leave smaller regions out (pixels)"
    )
    parser.add_argument("--voc", type=str, default="", help="tar.gz that gets the masks for VOC's test server")
    parser.add_argument(
        "--voc-root", type=str, default="", help="voc: VOCdevkit/VOC2012, to check names and sizes with"
    )
    parser.add_argument("--voc-split", type=str, default="test", help="voc: the list of images that must be complete")


def export_command(parsed: Namespace) -> int:
    """Runs `sfc export`; prints what was written."""
    network = [name for name in ("model", "onnx") if parsed[name]]
    masks = [name for name in MASKS if parsed[name]]
    if not network and not masks:
        raise ConfigError(f"name what to write: --model, --onnx, --{', --'.join(MASKS[:-1])} or --{MASKS[-1]}")
    if network and masks:
        raise ConfigError(f"--{network[0]} exports a segmenter and --{masks[0]} exports masks: call export for each")
    _require_use(parsed, network)
    if network:
        _export_network(parsed)
    else:
        _export_masks(parsed)
    for name in (*network, *masks):
        print(f"{name}: {parsed[name]}")  # noqa: T201
    return 0


def _require_use(parsed: Namespace, network: list[str]) -> None:
    """Refuses options that what is written would not look at."""
    needs = {
        "method": bool(network) or not parsed.method,
        "trained_on": bool(network) or not parsed.trained_on,
        "instances": bool(parsed.coco) or not parsed.instances,
        "min_area": any(parsed[name] for name in WITH_REGIONS)
        or bool(parsed.coco and parsed.instances)
        or parsed.min_area == 1,
        "voc_root": bool(parsed.voc) or not parsed.voc_root,
        "voc_split": bool(parsed.voc) or parsed.voc_split == "test",
    }
    for name, used in needs.items():
        if not used:
            raise ConfigError(f"--{name.replace('_', '-')} has nothing to act on here; see sfc export --help")
    if parsed.min_area < 1:
        raise ConfigError(f"--min-area is at least 1 pixel, not {parsed.min_area}")


def _export_network(parsed: Namespace) -> None:
    from sfc.predict.models import open_model

    model = open_model(parsed.source, parsed.method, parsed.trained_on)
    if parsed.model:
        from sfc.segment.model import save_model

        save_model(model, Path(parsed.model))
    if parsed.onnx:
        from sfc.export.onnx import export_onnx

        export_onnx(model, Path(parsed.onnx))


def _export_masks(parsed: Namespace) -> None:
    from sfc.predict.folder import read_predictions

    if parsed.voc and not parsed.voc_root:
        raise SFCError("--voc needs --voc-root, the VOCdevkit/VOC2012 folder whose list and sizes the masks must match")
    predictions = read_predictions(Path(parsed.source))
    if parsed.coco:
        from sfc.export.coco import export_coco

        export_coco(predictions, Path(parsed.coco), instances=parsed.instances, min_area=parsed.min_area)
    if parsed.yolo:
        from sfc.export.yolo import export_yolo

        export_yolo(predictions, Path(parsed.yolo), min_area=parsed.min_area)
    if parsed.labelme or parsed.cvat:
        from sfc.export.labelling import export_cvat, export_labelme

        if parsed.labelme:
            export_labelme(predictions, Path(parsed.labelme), parsed.min_area)
        if parsed.cvat:
            export_cvat(predictions, Path(parsed.cvat), parsed.min_area)
    if parsed.voc:
        from sfc.export.voc import export_voc

        export_voc(predictions, Path(parsed.voc_root), Path(parsed.voc), parsed.voc_split)
