"""benchmarks/voc_animals.py makes the data set of the recipe from a VOC folder: sizes, values, tables."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfc.config import load_config
from sfc.data.images import read_mask
from sfc.data.readers.splits import read_data
from sfc.data.readers.voc import VOC_CLASSES

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "voc_animals.py"


def test_the_tables_are_those_of_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every photograph is the same one of 500 × 300; its mask has a cat, a bird, which is no class, and a border."""
    voc, out = tmp_path / "voc", tmp_path / "out"
    tables = SCRIPT.with_suffix("")
    names = {
        Path(line.split(",")[0]).stem
        for table in ("train", "val")
        for line in (tables / f"{table}.csv").read_text().splitlines()[1:]
    }
    photograph, mask = tmp_path / "photograph.jpg", tmp_path / "mask.png"
    Image.new("RGB", (500, 300), (90, 120, 30)).save(photograph)
    values = np.zeros((300, 500), np.uint8)
    values[:, 200:300], values[:, 300:400] = VOC_CLASSES.index("cat") + 1, VOC_CLASSES.index("bird") + 1
    values[:, 400:] = 255
    Image.fromarray(values).save(mask)
    for folder, source in (("JPEGImages", photograph), ("SegmentationClassAug", mask), ("SegmentationClass", mask)):
        (voc / folder).mkdir(parents=True)
        for name in names:
            (voc / folder / f"{name}{source.suffix}").hardlink_to(source)
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), str(voc), str(out)])
    runpy.run_path(str(SCRIPT), run_name="__main__")

    data = read_data(load_config(["voc_animals"], [f"--data.root={out}"]).data, tmp_path)
    assert data.scoring is not None
    assert data.val is not None
    assert (len(data.train), len(data.scoring), len(data.val)) == (3131, 819, 223)
    counts = dict(zip(data.train.classes, data.train.class_counts().tolist(), strict=True))
    assert (counts["dog"], counts["person"], counts["tvmonitor"]) == (1180, 674, 40)
    record = data.val.records[0]
    with Image.open(record.image) as image:
        assert image.size == (320, 192)
    found = read_mask(out / "masks" / f"{record.image.stem}.png", 12, (192, 320))
    assert [int(found[100, x]) for x in (50, 160, 220, 300)] == [0, 1 + data.val.classes.index("cat"), 255, 255]
