"""Masks for programs in which people correct outlines: LabelMe (a JSON file a photograph) and CVAT (one XML file)."""

from __future__ import annotations

import hashlib
import json
import os
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from sfc.data.records import artifact_path
from sfc.errors import SFCError
from sfc.export.polygons import Points, polygon_area, region_polygons, simplified
from sfc.predict.folder import Predictions
from sfc.run.files import atomic_write

TOLERANCE = 0.75
"""Pixels by which an outline may leave the edges of the mask: every step of a staircase would be a point otherwise."""
LABELME_VERSION, CVAT_VERSION = "5.5.0", "1.1"
"""Of the formats."""
MARK = "writtenBy"
"""Key of a LabelMe file that says it is as an export wrote it. LabelMe keeps the key when outlines are corrected, so it
holds a digest of all the rest."""


def export_labelme(predictions: Predictions, folder: Path, min_area: int = 1) -> None:
    """Writes ID.json for each photograph: a polygon for each connected region, holes joined by a bridge.

    The files name the photographs by relative paths, so LabelMe opens them where they lie. Undecided pixels (255) are
    part of nothing.

    Args:
        predictions: the masks; one is in memory at a time.
        folder: gets the files; those of an earlier export are replaced, unless somebody has changed them since.
        min_area: regions of fewer pixels are left out.

    Raises:
        DataError: a mask is damaged.
        SFCError: a file is there that LabelMe or somebody else wrote or changed, or one cannot be written.
    """
    paths = {identity: artifact_path(folder, identity, ".json") for identity, _ in predictions.images}
    for path in paths.values():
        if path.exists() and not _is_ours(path):
            raise SFCError(f"{path}: was not written by an export, or was changed since; name another folder")
    for identity, image, mask in predictions.masks():
        shapes = [
            {
                "label": predictions.classes[k],
                "points": points.tolist(),
                "group_id": None,
                "description": "",
                "shape_type": "polygon",
                "flags": {},
            }
            for k, points in _outlines(mask, len(predictions.classes), min_area)
        ]
        content: dict[str, Any] = {
            "version": LABELME_VERSION,
            "flags": {},
            "shapes": shapes,
            "imagePath": _address(image, paths[identity].parent),
            "imageData": None,
            "imageHeight": mask.shape[0],
            "imageWidth": mask.shape[1],
        }
        content[MARK] = _mark(content)
        with atomic_write(paths[identity]) as file:
            file.write(json.dumps(content, ensure_ascii=False, indent=1).encode())


def _mark(content: Mapping[str, Any]) -> str:
    return f"sfc {hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()}"


def _is_ours(path: Path) -> bool:
    """Whether a file is as an export wrote it."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.pop(MARK, None) == _mark(content)


def export_cvat(predictions: Predictions, path: Path, min_area: int = 1) -> None:
    """Writes `CVAT for images 1.1`: a polygon for each connected region, holes joined by a bridge.

    A photograph's name is its id with the file's suffix, as a task has it that was made of the folder. Undecided pixels
    (255) are part of nothing.

    Args:
        predictions: the masks; one is in memory at a time.
        path: the XML file.
        min_area: regions of fewer pixels are left out.

    Raises:
        DataError: a mask is damaged; the earlier file stays.
        SFCError: the file cannot be written.
    """
    root = ET.Element("annotations")
    ET.SubElement(root, "version").text = CVAT_VERSION
    labels = ET.SubElement(ET.SubElement(ET.SubElement(root, "meta"), "task"), "labels")
    for name in predictions.classes:
        ET.SubElement(ET.SubElement(labels, "label"), "name").text = name
    for number, (identity, image, mask) in enumerate(predictions.masks()):
        size = {"width": str(mask.shape[1]), "height": str(mask.shape[0])}
        entry = ET.SubElement(root, "image", {"id": str(number), "name": f"{identity}{image.suffix}", **size})
        for k, points in _outlines(mask, len(predictions.classes), min_area):
            words = ";".join(f"{x:.2f},{y:.2f}" for x, y in points.tolist())
            fixed = {"source": "auto", "occluded": "0", "z_order": "0"}
            ET.SubElement(entry, "polygon", {"label": predictions.classes[k], **fixed, "points": words})
    ET.indent(root)
    with atomic_write(path) as file:
        ET.ElementTree(root).write(file, encoding="utf-8", xml_declaration=True)


def _outlines(mask: np.ndarray, num_classes: int, min_area: int) -> Iterator[tuple[int, Points]]:
    """Class and outline of each region; int64 [points, 2], x and y of pixel corners."""
    for k, box in enumerate(ndimage.find_objects(mask, max_label=num_classes)):
        if box is None:
            continue
        corner = np.array([box[1].start, box[0].start])
        for polygon in region_polygons(mask[box] == k + 1):
            if polygon_area(polygon) >= min_area:
                yield k, simplified(polygon, TOLERANCE) + corner


def _address(image: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(image, folder)).as_posix()
    except ValueError:  # another drive
        return image.absolute().as_posix()
