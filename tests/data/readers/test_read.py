"""Every format behind one function, the training masks, and the fingerprint of the data."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfc.data.images import write_mask
from sfc.data.readers import READERS
from sfc.data.readers import DataSection as DataConfig
from sfc.data.readers.read import read_dataset, read_training_masks
from sfc.data.readers.synthetic import SyntheticSettings
from sfc.data.records import input_hash
from sfc.data.synthetic.benchmark import CLASSES
from sfc.errors import ConfigError, DataError


@pytest.fixture
def table(tmp_path: Path) -> DataConfig:
    for name in "abc":
        Image.new("RGB", (3, 2)).save(tmp_path / f"{name}.png")
        write_mask(tmp_path / "masks" / f"{name}.png", np.ones((2, 3), dtype=np.uint8))
    (tmp_path / "train.csv").write_text("image,labels\na.png,x\nb.png,y\nc.png,\n")
    (tmp_path / "scoring.csv").write_text("image,labels,mask\nc.png,,masks/c.png\na.png,x,masks/a.png\nb.png,y,\n")
    (tmp_path / "classes.txt").write_text("x\ny\n")
    return DataConfig(root=str(tmp_path), train_masks="scoring.csv", val="scoring.csv")


def ids(dataset: object) -> list[str]:
    return [record.id for record in dataset.records]


def test_synthetic_set(tmp_path: Path) -> None:
    config = DataConfig(format="synthetic", val="val.csv", synthetic=SyntheticSettings(images=2))
    config = READERS["synthetic"].located(config, tmp_path / "own", seed=0)
    assert config.root == str(tmp_path / "own")
    train = read_dataset(config, "train")
    assert train.classes == CLASSES
    assert all(record.mask is None for record in train.records)
    scoring = read_training_masks(config, train)
    assert ids(scoring) == ids(train)
    for record in (*scoring.records, *read_dataset(config, "val").records):
        shown = set(np.unique(record.mask.load()).tolist()) - {0}
        assert shown == {label + 1 for label in record.labels}


@pytest.mark.parametrize("give_train", [False, True])
def test_training_masks_of_a_table(table: DataConfig, give_train: bool) -> None:
    train = read_dataset(table, "train") if give_train else None
    assert ids(read_training_masks(table, train)) == ["c", "a"]
    assert ids(read_training_masks(replace(table, limit=1))) == ["a"]
    assert read_training_masks(replace(table, limit=2, train="scoring.csv", train_masks="")) is not None
    assert read_training_masks(replace(table, train_masks="")) is None


def test_training_masks_must_belong_to_training_images(table: DataConfig) -> None:
    (Path(table.root) / "train.csv").write_text("image,labels\na.png,x\nb.png,y\n")
    with pytest.raises(DataError, match=r"scoring\.csv: lists 'c', which is not among the training images"):
        read_training_masks(table)


def test_voc_scores_the_official_masks_of_a_training_on_trainaug(tmp_path: Path) -> None:
    for folder in ("JPEGImages", "Annotations", "ImageSets/Segmentation"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("1", "2", "3"):
        Image.new("RGB", (3, 2)).save(tmp_path / "JPEGImages" / f"{name}.jpg")
        (tmp_path / "Annotations" / f"{name}.xml").write_text("<a><object><name>cat</name></object></a>")
        write_mask(tmp_path / "SegmentationClassAug" / f"{name}.png", np.full((2, 3), 8, dtype=np.uint8))
    write_mask(tmp_path / "SegmentationClass" / "2.png", np.full((2, 3), 255, dtype=np.uint8))
    for split, lines in (("train", "2\n"), ("val", "3\n")):
        (tmp_path / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(lines)
    config = DataConfig(format="voc", root=str(tmp_path), train="trainaug", val="val", train_masks="train")
    train = read_dataset(config, "train")
    assert ids(train) == ["1", "2"]
    scoring = read_training_masks(config, train)
    assert ids(scoring) == ["2"]
    assert (scoring.records[0].mask.load() == 255).all()
    assert ids(read_training_masks(replace(config, train_masks=""))) == ["1", "2"]


def test_folders_have_no_masks(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    Image.new("RGB", (3, 2)).save(tmp_path / "cat" / "a.jpg")
    config = DataConfig(format="folders", root=str(tmp_path), train=".")
    assert ids(read_dataset(config, "train")) == ["cat/a"]
    assert read_training_masks(config) is None


def test_settings_that_do_not_fit(table: DataConfig) -> None:
    with pytest.raises(DataError, match=r"nowhere: there is no such folder \(data\.root\)"):
        read_dataset(replace(table, root="nowhere"), "train")
    with pytest.raises(ConfigError, match=r"data\.val is empty"):
        read_dataset(replace(table, val=""), "val")


def test_input_hash_follows_ids_labels_and_sizes(table: DataConfig) -> None:
    root = Path(table.root)
    before = input_hash(read_dataset(table, "train"))
    os.utime(root / "a.png", (0, 0))
    assert input_hash(read_dataset(table, "train")) == before
    seen = {before, input_hash(read_dataset(replace(table, limit=2), "train"))}
    (root / "train.csv").write_text("image,labels\na.png,x;y\nb.png,y\nc.png,\n")
    seen.add(input_hash(read_dataset(table, "train")))
    (root / "a.png").write_bytes((root / "a.png").read_bytes() + b"more")
    dataset = read_dataset(table, "train")
    seen.add(input_hash(dataset))
    assert len(seen) == 4
    (root / "a.png").unlink()
    with pytest.raises(DataError, match=r"a\.png: cannot be read"):
        input_hash(dataset)


def test_all_faults_can_be_collected(table: DataConfig) -> None:
    rows = ["a.png,x", "gone.png,x", "b.png,y,z", "a.png,y", "c.png,"]
    (Path(table.root) / "train.csv").write_text("\n".join(["image,labels", *rows]))
    faults: list[DataError] = []
    dataset = read_dataset(table, "train", faults.append)
    assert ids(dataset) == ["a", "c"]
    assert sorted(fault.reason.split(" ")[0] for fault in faults) == ["has", "the", "there"]
