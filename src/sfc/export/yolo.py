"""Masks as a segmentation data set in the layout of Ultralytics YOLO: a text file of polygons for each image."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import numpy as np
import yaml
from scipy import ndimage

from sfc.data.records import artifact_path
from sfc.errors import DataError, SFCError
from sfc.export.polygons import polygon_area, region_polygons
from sfc.predict.folder import Predictions
from sfc.run.files import atomic_write

_LABELS, _IMAGES, _SETTINGS, _CACHE = "labels", "images", "data.yaml", "labels.cache"
_MARK = b"# Masks predicted by sfc; written anew by every export.\n"
"""First line of data.yaml; tells a folder that may be overwritten."""


def export_yolo(predictions: Predictions, folder: Path, *, link_images: bool = True, min_area: int = 1) -> None:
    """Writes a data set that Ultralytics trains on and shows as it is.

    labels/ID.txt: `class x1 y1 x2 y2 ...` a line, class from 0, coordinates in units of the image's width and height
    (after EXIF rotation, as Ultralytics turns images). A line is one connected region; pixels that touch at a corner
    are connected. Polygons follow the edges of pixels and holes are joined by a bridge, see `region_polygons`: filled
    where pixel centres lie inside, they give the mask exactly. Undecided pixels (255) are part of nothing. Images
    without objects get an empty file, which makes them negatives.

    images/ID.SUFFIX: links to the photographs, since Ultralytics finds labels by putting `labels` for the last
    `images` in an image's path. For the same reason a folder called `images` inside an id becomes `images_`.

    data.yaml: names, nc, train and val (both all images, as both keys are compulsory) and path, which is absolute
    because Ultralytics looks for a relative one from wherever it was started; change it if the folder moves.

    Args:
        predictions: the masks; one is in memory at a time.
        folder: of the data set; an earlier export in it is replaced, other files in it are left alone.
        link_images: False: no links, for photographs that are elsewhere or file systems without links.
        min_area: regions of fewer pixels are left out.

    Raises:
        DataError: a mask is damaged or a photograph is missing; what was in the folder stays as it was.
        SFCError: the folder has labels or images of another origin, or cannot be written.
    """
    names = _names(predictions)
    replaced = _replaceable(folder, link_images)
    with _staging(folder) as staging:
        for name in (_LABELS, _IMAGES):
            (staging / name).mkdir()
        for image_id, image, mask in predictions.masks():
            path = artifact_path(staging / _LABELS, names[image_id], ".txt")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_lines(mask, len(predictions.classes), min_area), encoding="ascii")
            if link_images:
                _link(image, artifact_path(staging / _IMAGES, names[image_id], image.suffix))
        # First of all, so that an export that is interrupted from here on can be repeated.
        _write_settings(predictions.classes, folder)
        for name in replaced:
            if (folder / name).exists():
                (folder / name).rename(staging / f"old {name}")
            (staging / name).rename(folder / name)
        (folder / _CACHE).unlink(missing_ok=True)


def _names(predictions: Predictions) -> dict[str, str]:
    """Ids, as paths inside the two folders."""
    names: dict[str, str] = {}
    for image_id, _ in predictions.images:
        *folders, last = PurePosixPath(image_id).parts
        names[image_id] = "/".join([*(f"{part}_" if part == _IMAGES else part for part in folders), last])
    if len(set(names.values())) < len(names):
        raise DataError(predictions.folder, "has the same image in a folder 'images' and in a folder 'images_'")
    return names


def _replaceable(folder: Path, link_images: bool) -> list[str]:
    """The folders that the export puts in place; raises SFCError where that would overwrite something else."""
    present = [name for name in (_LABELS, _IMAGES, _SETTINGS) if os.path.lexists(folder / name)]
    if present and not _is_export(folder / _SETTINGS):
        raise SFCError(f"{folder / present[0]}: is there and was not written by an export; name another folder")
    # Whoever exports without links may have put the photographs themselves there.
    photographs = [path for path in (folder / _IMAGES).rglob("*") if not path.is_symlink() and not path.is_dir()]
    if photographs and link_images:
        raise SFCError(f"{min(photographs)}: is no link of an earlier export and would be overwritten")
    return [_LABELS] if photographs else [_LABELS, _IMAGES]


def _is_export(settings: Path) -> bool:
    try:
        return settings.read_bytes().startswith(_MARK)
    except OSError:
        return False


@contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    """A folder inside `folder`, gone afterwards; what cannot be written becomes an SFCError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".export.", suffix=".tmp", dir=folder))
        try:
            yield staging
        finally:
            shutil.rmtree(staging)
    except OSError as error:
        raise SFCError(f"{folder}: cannot be written ({error.strerror})") from error


def _link(image: Path, link: Path) -> None:
    if not image.is_file():
        raise DataError(image, "no such file, so there is nothing to link to")
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(os.path.abspath(image))


def _write_settings(classes: tuple[str, ...], folder: Path) -> None:
    settings = {
        "path": folder.resolve().as_posix(),
        "train": _IMAGES,
        "val": _IMAGES,
        "nc": len(classes),
        "names": dict(enumerate(classes)),
    }
    with atomic_write(folder / _SETTINGS) as file:
        file.write(_MARK + yaml.safe_dump(settings, sort_keys=False, allow_unicode=True).encode())


def _lines(mask: np.ndarray, num_classes: int, min_area: int) -> str:
    """The label file of one image."""
    lines = []
    size = np.array(mask.shape[::-1])
    for value, box in enumerate(ndimage.find_objects(mask, max_label=num_classes), start=1):
        if box is None:
            continue
        corner = np.array([box[1].start, box[0].start])
        for polygon in region_polygons(mask[box] == value):
            if polygon_area(polygon) >= min_area:
                points = (polygon + corner) / size
                lines.append(" ".join([str(value - 1), *(f"{number:.6g}" for number in points.ravel())]) + "\n")
    return "".join(lines)
