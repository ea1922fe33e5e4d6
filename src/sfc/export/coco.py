"""Masks as one COCO annotation file: pycocotools, detectron2, FiftyOne, CVAT and others read it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from scipy import ndimage

from sfc.predict.folder import Predictions
from sfc.run.files import atomic_write

_EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=bool)


def export_coco(predictions: Predictions, path: Path, *, instances: bool = False, min_area: int = 1) -> None:
    """Writes one JSON file: images, categories (id = 1 + class index = mask value), annotations as run lengths.

    An annotation is all of a class in an image, or with `instances` one connected region of it (pixels that touch at
    a corner are connected), for tools that count objects; touching objects of a class stay one. Undecided pixels (255)
    are part of nothing, so in the file they are no different from background.

    `file_name` is the photograph's path from the folder that ids count from, which is what tools ask for beside the
    file; `info.description` names that folder. The photographs themselves are not opened. Width and height are those
    of the mask, hence after EXIF rotation. The same masks give the same file.

    Args:
        predictions: the masks; one is in memory at a time.
        path: the JSON file; replaced, if it is there.
        instances: an annotation for each connected region.
        min_area: with `instances`, regions of fewer pixels are left out.

    Raises:
        DataError: a mask is damaged; nothing is written.
        SFCError: the file cannot be written.
    """
    root = _images_root(predictions.images)
    head = {
        "info": {"description": f"masks predicted by sfc; file names are paths from {root.as_posix()}"},
        "licenses": [],
        "categories": [{"id": index, "name": name} for index, name in enumerate(predictions.classes, start=1)],
    }
    images, count = [], 0
    with atomic_write(path) as file:
        file.write(f'{json.dumps(head, ensure_ascii=False)[:-1]}, "annotations": ['.encode())
        for image_id, (_, image, mask) in enumerate(predictions.masks(), start=1):
            height, width = mask.shape
            name = Path(os.path.relpath(image, root)).as_posix()
            images.append({"id": image_id, "file_name": name, "width": width, "height": height})
            for annotation in _annotations(mask, len(predictions.classes), instances, min_area):
                count += 1
                line = json.dumps({"id": count, "image_id": image_id, **annotation})
                file.write(f"{',' if count > 1 else ''}\n{line}".encode())
        lines = ",\n".join(json.dumps(image, ensure_ascii=False) for image in images)
        file.write(f'\n], "images": [\n{lines}\n]}}\n'.encode())


def _images_root(images: tuple[tuple[str, Path], ...]) -> Path:
    """The folder that ids count from; the deepest common one, if they count from several."""
    roots = set()
    for image_id, image in images:
        absolute = Path(os.path.abspath(image))
        depth = len(Path(image_id).parts)
        # An image outside of its data set's folder may have another id than its path.
        counts = absolute.with_suffix("").parts[-depth:] == Path(image_id).parts
        roots.add(absolute.parents[depth - 1] if counts else absolute.parent)
    return Path(os.path.commonpath(roots))


def _annotations(mask: np.ndarray, num_classes: int, instances: bool, min_area: int) -> Iterator[dict[str, Any]]:
    """What COCO says of each class or region; boxes are left, top, width and height."""
    for category, top, left, inside in _regions(mask, num_classes, instances):
        area = int(inside.sum())
        if instances and area < min_area:
            continue
        yield {
            "category_id": category,
            "segmentation": _run_lengths(inside, top, left, mask.shape),
            "area": area,
            "bbox": [float(left), float(top), float(inside.shape[1]), float(inside.shape[0])],
            "iscrowd": 0,
        }


def _regions(mask: np.ndarray, num_classes: int, instances: bool) -> Iterator[tuple[int, int, int, np.ndarray]]:
    """Mask value, top and left of the bounding box, and bool [h, w] of what is inside it."""
    for value, box in enumerate(ndimage.find_objects(mask, max_label=num_classes), start=1):
        if box is None:
            continue
        inside, top, left = mask[box] == value, box[0].start, box[1].start
        if not instances:
            yield value, top, left, inside
            continue
        labels, _ = ndimage.label(inside, structure=_EIGHT_NEIGHBOURS)
        for label, part in enumerate(ndimage.find_objects(labels), start=1):
            yield value, top + part[0].start, left + part[1].start, labels[part] == label


def _run_lengths(inside: np.ndarray, top: int, left: int, size: tuple[int, ...]) -> dict[str, Any]:
    """COCO's compressed run lengths, column by column; costs the size of the region, not that of the image."""
    height, width = size
    x, y = np.nonzero(inside.T)
    pixels = (x + left) * height + (y + top)
    breaks = np.flatnonzero(np.diff(pixels) > 1)
    starts, stops = pixels[np.r_[0, breaks + 1]], pixels[np.r_[breaks, -1]] + 1
    edges = np.stack([starts, stops], axis=1).ravel()
    # No run of nothing at the end, as pycocotools has it.
    end = [height * width] if edges[-1] < height * width else []
    counts = np.diff(edges, prepend=0, append=end).tolist()
    code = coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return {"size": [height, width], "counts": code["counts"].decode("ascii")}
