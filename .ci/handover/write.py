"""Predictions of three photographs in FOLDER, exported in every format that other programs read."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from sfc.cli import main
from sfc.data.images import mask_path, write_mask

CLASSES = ("cat", "dog", "cow")
SIZES = {"a": (120, 160), "deep/b c": (97, 201), "nothing": (64, 48)}


def blobs(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Ellipses of all classes over each other, a hole in the first, undecided rows at the bottom."""
    y, x = np.mgrid[:height, :width] + 0.5
    mask = np.zeros((height, width), np.uint8)
    for value in range(1, 1 + len(CLASSES)):
        centre = random.uniform(0.25, 0.75, 2)
        radius = random.uniform(0.15, 0.3, 2) * (height, width)
        distance = ((y / height - centre[0]) * height / radius[0]) ** 2 + (
            (x / width - centre[1]) * width / radius[1]
        ) ** 2
        mask[distance < 1] = value
        if value == 1:
            mask[distance < 0.1] = 0
    mask[-3:] = 255
    return mask


def write(folder: Path) -> int:
    """Writes photographs, masks and exports; the exit code of the first export that fails."""
    random = np.random.default_rng(0)
    rows = [("id", "image")]
    for name, (height, width) in SIZES.items():
        photograph = folder / "photos" / f"{name}.jpg"
        photograph.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(photograph)
        mask = np.zeros((height, width), np.uint8) if name == "nothing" else blobs(random, height, width)
        write_mask(mask_path(folder / "masks", name), mask)
        rows.append((name, str(photograph)))
    content = {"classes": CLASSES, "segmenter": "none", "settings": {}}
    (folder / "predictions.json").write_text(json.dumps(content))
    with (folder / "images.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    exports = {
        "labelme": folder / "labelme",
        "cvat": folder / "cvat" / "annotations.xml",
        "yolo": folder / "yolo",
        "coco": folder / "coco" / "annotations" / "instances_all.json",
    }
    for name in ("cvat", "coco"):  # where Datumaro looks for photographs
        (folder / name).mkdir()
        (folder / name / "images").symlink_to(folder / "photos")
    return max(main(["export", str(folder), f"--{name}", str(path)]) for name, path in exports.items())


if __name__ == "__main__":
    sys.exit(write(Path(sys.argv[1]).resolve()))
