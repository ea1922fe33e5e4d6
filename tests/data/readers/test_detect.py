"""What `sfc check FOLDER` and coming commands make of a folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from sfc.data.readers import DataSection as DataConfig
from sfc.data.readers.detect import detect
from sfc.data.readers.table import TableSettings
from sfc.errors import DataError


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["train.csv"], DataConfig(train="train.csv")),
        (["train.tsv", "val.tsv", "val.csv"], DataConfig(train="train.tsv", val="val.tsv")),
        (
            ["train.csv", "val.csv", "train_with_masks.csv", "classes.txt"],
            DataConfig(val="val.csv", train_masks="train_with_masks.csv", classes="classes.txt"),
        ),
        (["annotations/instances_train2014.json"], DataConfig(format="coco", train="train2014")),
        (
            [f"annotations/instances_{split}.json" for split in ("val2017", "train2017", "val2014")],
            DataConfig(format="coco", train="train2017", val="val2017"),
        ),
        (["instances_own.json"], DataConfig(format="coco", train="own")),
        (["ImageSets/Segmentation/train.txt"], DataConfig(format="voc", train="train")),
        (
            ["ImageSets/Segmentation/val.txt", "SegmentationClassAug/a.png"],
            DataConfig(format="voc", train="trainaug", train_masks="train", val="val"),
        ),
        (["cat/deep/a.JPG"], DataConfig(format="folders", train=".")),
        (["train/cat/a.jpg", "val/cat/b.jpg"], DataConfig(format="folders", train="train", val="val")),
    ],
)
def test_layouts(tmp_path: Path, names: list[str], expected: DataConfig) -> None:
    from dataclasses import replace

    touch(tmp_path, *names)
    assert detect(tmp_path) == replace(expected, root=str(tmp_path))


def test_voc_is_found_below_and_a_table_by_its_name(tmp_path: Path) -> None:
    touch(tmp_path, "VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt", "own/mine.csv", "own/classes.txt")
    assert detect(tmp_path).root == str(tmp_path / "VOCdevkit" / "VOC2012")
    found = detect(tmp_path / "own" / "mine.csv")
    assert (found.root, found.train, found.classes) == (str(tmp_path / "own"), "mine.csv", "classes.txt")


def test_given_settings_stay(tmp_path: Path) -> None:
    touch(tmp_path, "train.csv", "val.csv")
    given = DataConfig(val="other.csv", table=TableSettings("|"), limit=3)
    found = detect(tmp_path, given)
    assert (found.val, found.table.label_separator, found.limit, found.root) == ("other.csv", "|", 3, str(tmp_path))


def test_nothing_to_find(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no train\.csv, no VOC or COCO layout and no class folders"):
        detect(tmp_path)
    with pytest.raises(DataError, match=r"none: there is no such file or folder"):
        detect(tmp_path / "none")
    Image.new("RGB", (2, 2)).save(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=r"a\.jpg: is neither a folder nor a table"):
        detect(tmp_path / "a.jpg")
