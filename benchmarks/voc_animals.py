"""The data set of the recipe `voc_animals` from a PASCAL VOC 2012 that `sfc prepare voc` has unpacked.

    python benchmarks/voc_animals.py data/VOCdevkit/VOC2012 data/voc_animals

The tables in `benchmarks/voc_animals` say which photographs it has: of the augmented training split those that show a
dog, cat, horse, sheep or cow, with the tags of VOC's annotations as far as they are among the 12 classes; for scoring
the official training masks among them and all photographs with one of the six rarest classes; and official validation
photographs. Photographs become 320 pixels long (bicubic, JPEG of quality 82); masks likewise (nearest), and what is
none of the 12 classes becomes 255. Encoders differ, so scores may differ from those of docs/log.md by what that does.
"""

from __future__ import annotations

import argparse
import csv
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from sfc.data.images import open_image, write_mask
from sfc.data.readers.voc import VOC_CLASSES
from sfc.data.readers.voc_lists import AUGMENTED_MASKS
from sfc.data.records import IGNORE
from sfc.run.files import atomic_write

TABLES = Path(__file__).parent / "voc_animals"
LONG_SIDE, QUALITY = 320, 82


def rows(table: str) -> list[dict[str, str]]:
    """Of one of the tables."""
    with (TABLES / table).open(newline="") as file:
        return list(csv.DictReader(file))


def size_of(image: Image.Image) -> tuple[int, int]:
    """Width and height at the working size."""
    factor = LONG_SIDE / max(image.size)
    return max(1, round(image.width * factor)), max(1, round(image.height * factor))


def write_photograph(source: Path, path: Path) -> None:
    """At the working size, as JPEG."""
    image = open_image(source)
    with atomic_write(path) as file:
        image.resize(size_of(image), Image.Resampling.BICUBIC).save(file, format="JPEG", quality=QUALITY)


def class_values(classes: list[str]) -> np.ndarray:
    """uint8 [256]: value of a pixel in VOC's masks to that in ours."""
    values = np.full(256, IGNORE, np.uint8)
    values[0] = 0
    for k, name in enumerate(classes):
        values[VOC_CLASSES.index(name) + 1] = k + 1
    return values


def write_animals_mask(source: Path, path: Path, values: np.ndarray) -> None:
    """At the working size, with the values of our classes."""
    with Image.open(source) as mask:
        write_mask(path, values[np.asarray(mask.resize(size_of(mask), Image.Resampling.NEAREST))])


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("voc", type=Path, help="VOCdevkit/VOC2012, with SegmentationClassAug")
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    classes = (TABLES / "classes.txt").read_text().split()
    given.out.mkdir(parents=True, exist_ok=True)
    for path in TABLES.iterdir():
        shutil.copy(path, given.out / path.name)
    for row in (*rows("train.csv"), *rows("val.csv")):
        name = Path(row["image"]).stem
        write_photograph(given.voc / "JPEGImages" / f"{name}.jpg", given.out / row["image"])
    values = class_values(classes)
    for table, masks in (("train_with_masks.csv", AUGMENTED_MASKS), ("val.csv", "SegmentationClass")):
        for row in rows(table):
            name = Path(row["mask"]).stem
            write_animals_mask(given.voc / masks / f"{name}.png", given.out / row["mask"], values)


if __name__ == "__main__":
    main()
