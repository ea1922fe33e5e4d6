"""benchmarks/voc_animals.py makes the data set of the recipe from a VOC folder: tables, sizes, values."""

from __future__ import annotations

import csv
import runpy
import shutil
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfc.config import load_config
from sfc.data.images import read_mask
from sfc.data.readers.splits import read_data
from sfc.data.readers.voc import VOC_CLASSES

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "voc_animals.py"
TABLES = SCRIPT.with_suffix("")


def rows(table: str) -> list[dict[str, str]]:
    return list(csv.DictReader((TABLES / table).read_text().splitlines()))


def test_the_tables_are_those_that_were_measured() -> None:
    train, scored, val = (rows(f"{name}.csv") for name in ("train", "train_with_masks", "val"))
    assert (len(train), len(scored), len(val)) == (3131, 819, 223)
    tags = {row["image"]: row["labels"] for row in train}
    assert all(tags[row["image"]] == row["labels"] for row in scored)
    assert not tags.keys() & {row["image"] for row in val}
    counts = Counter(tag for labels in tags.values() for tag in labels.split(";"))
    assert counts.keys() == {*(TABLES / "classes.txt").read_text().split()}
    assert (counts["dog"], counts["person"], counts["tvmonitor"]) == (1180, 674, 40)


def test_photographs_and_masks_have_the_working_size_and_the_classes_of_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Short tables; a photograph of 500 × 300 whose mask has a cat, a bird, which is no class here, and a border."""
    script, tables = shutil.copy(SCRIPT, tmp_path), tmp_path / TABLES.name
    tables.mkdir()
    shutil.copy(TABLES / "classes.txt", tables)
    (tables / "train.csv").write_text("image,labels\nimages/one.jpg,cat\nimages/two.jpg,dog\n")
    (tables / "train_with_masks.csv").write_text("image,labels,mask\nimages/one.jpg,cat,masks/one.png\n")
    (tables / "val.csv").write_text("image,labels,mask\nimages/new.jpg,cat,masks/new.png\n")
    voc, out = tmp_path / "voc", tmp_path / "out"
    values = np.zeros((300, 500), np.uint8)
    values[:, 200:300], values[:, 300:400] = VOC_CLASSES.index("cat") + 1, VOC_CLASSES.index("bird") + 1
    values[:, 400:] = 255
    for name, masks in (("one", "SegmentationClassAug"), ("two", ""), ("new", "SegmentationClass")):
        (voc / "JPEGImages").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (500, 300), (90, 120, 30)).save(voc / "JPEGImages" / f"{name}.jpg")
        if masks:
            (voc / masks).mkdir()
            Image.fromarray(values).save(voc / masks / f"{name}.png")
    monkeypatch.setattr(sys, "argv", [str(script), str(voc), str(out)])
    runpy.run_path(str(script), run_name="__main__")

    data = read_data(load_config(["voc_animals"], [f"--data.root={out}"]).data, tmp_path)
    assert data.scoring is not None
    assert data.val is not None
    assert (len(data.train), len(data.scoring), len(data.val)) == (2, 1, 1)
    for record in (*data.train.records, *data.val.records):
        with Image.open(record.image) as image:
            assert image.size == (320, 192)
    for name in ("one", "new"):
        found = read_mask(out / "masks" / f"{name}.png", 12, (192, 320))
        assert [int(found[100, x]) for x in (50, 160, 220, 300)] == [0, 1 + data.val.classes.index("cat"), 255, 255]
