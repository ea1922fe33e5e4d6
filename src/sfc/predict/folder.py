"""A folder of predicted masks, as `sfc predict` writes it: classes, the photographs, one palette PNG each."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sfc.data.class_list import check_classes
from sfc.data.images import mask_path, read_mask
from sfc.errors import DataError

CLASSES_FILE = "predictions.json"
IMAGES_FILE = "images.csv"
MASKS_FOLDER = "masks"


@dataclass(frozen=True)
class Predictions:
    """Masks of a set of photographs, which stay on disk until they are asked for.

    Args:
        folder: where they lie.
        classes: names of the foreground classes; mask value k + 1 is class k.
        images: id and file of every photograph. An id is a relative POSIX path without suffix and unique. A file may
            be gone, or relative to the folder in which the prediction was started.
    """

    folder: Path
    classes: tuple[str, ...]
    images: tuple[tuple[str, Path], ...]

    def mask_path(self, image_id: str) -> Path:
        """The mask of one photograph."""
        return mask_path(self.folder / MASKS_FOLDER, image_id)

    def masks(self) -> Iterator[tuple[str, Path, np.ndarray]]:
        """Id, photograph and mask of each, one at a time; a mask is uint8 [H, W]: 0 background, 255 undecided.

        Raises:
            DataError: a mask is damaged, or holds a value that is no class.
        """
        for image_id, image in self.images:
            yield image_id, image, read_mask(self.mask_path(image_id), len(self.classes))


def read_predictions(folder: Path) -> Predictions:
    """Reads classes and images, and looks whether every mask is there; pixels are not looked at.

    Raises:
        DataError: there is no such folder; its list of classes or of images is missing, damaged or empty; two images
            have one id; masks are missing (says how many, names the first).
    """
    if not folder.is_dir():
        raise DataError(folder, "there is no such folder")
    predictions = Predictions(
        folder, _read_classes(folder / CLASSES_FILE), tuple(read_images(folder / IMAGES_FILE).items())
    )
    missing = [path for image_id, _ in predictions.images if not (path := predictions.mask_path(image_id)).is_file()]
    if missing:
        raise DataError(missing[0], f"no such file; {len(missing)} of {len(predictions.images)} images have no mask")
    return predictions


def _read_classes(path: Path) -> tuple[str, ...]:
    try:
        content = json.loads(_read_text(path))
    except (ValueError, RecursionError) as error:
        raise DataError(path, f"is not JSON ({error})") from error
    names = content.get("classes") if isinstance(content, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise DataError(path, "has no list of class names under the key classes")
    return check_classes(names, path)


def read_images(path: Path) -> dict[str, Path]:
    """The photograph of each id.

    Raises:
        DataError: the list is missing, damaged or empty, or has an id twice.
    """
    reader = csv.DictReader(io.StringIO(_read_text(path), newline=""), strict=True)
    images: dict[str, Path] = {}
    try:
        if not {"id", "image"} <= set(reader.fieldnames or ()):
            raise DataError(path, "the first line must name the columns id and image")
        for row in reader:
            place = f"{path}, line {reader.line_num}"
            if None in row or None in row.values():
                raise DataError(place, f"has not as many cells as the first line, {len(reader.fieldnames or ())}")
            image_id, image = row["id"], row["image"]
            if not image_id or not image:
                raise DataError(place, "names no image" if image_id else "names no id")
            if image_id in images:
                raise DataError(place, f"the id '{image_id}' is there already")
            _check_id(place, image_id)
            images[image_id] = Path(image)
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.reader.line_num}", f"is damaged ({error})") from error
    if not images:
        raise DataError(path, "has no images")
    return images


def _check_id(place: str, image_id: str) -> None:
    try:
        mask_path(Path(), image_id)
    except DataError as error:
        raise DataError(place, f"the id '{image_id}' {error.reason}") from error


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(path, "no such file, so this is no folder of predictions") from error
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise DataError(path, f"cannot be read ({reason})") from error
