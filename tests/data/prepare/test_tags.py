"""Exports of other programs: recognised by `detect`, never taken for class folders, made into tables of tags."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sfc.cli import main
from sfc.data.images import write_mask
from sfc.data.prepare.tags import prepare_tags
from sfc.data.readers.detect import detect, foreign_layout
from sfc.data.readers.read import read_dataset
from sfc.errors import DataError


def photograph(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6)).save(path)
    return path


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def roboflow_yolo(root: Path) -> None:
    text(root / "data.yaml", "names: [person, dog]\nnc: 2\n")
    for split in ("train", "valid", "test"):
        photograph(root / split / "images" / "a.jpg")
        text(root / split / "labels" / "a.txt", "1 0.5 0.5 0.1 0.1\n0 0.1 0.1 0.2 0.2 0.3 0.3\n1 0 0 1 1\n")
    photograph(root / "train" / "images" / "b.jpg")


def ultralytics(root: Path) -> None:
    text(root / "dataset.yaml", "names: {0: person, 1: dog}\n")
    for split in ("train", "val"):
        photograph(root / "images" / split / "a.jpg")
        text(root / "labels" / split / "a.txt", "1 0 0 1 1\n\n0 0 0 1 1")
    photograph(root / "images" / "train" / "b.jpg")


def roboflow_coco(root: Path) -> None:
    for split in ("train", "valid", "test"):
        photograph(root / split / "a.jpg")
        content = {
            "categories": [{"id": 0, "name": "things"}, {"id": 1, "name": "person"}, {"id": 2, "name": "dog"}],
            "images": [{"id": 7, "file_name": "a.jpg"}],
            "annotations": [{"image_id": 7, "category_id": k} for k in (2, 1, 2)],
        }
        if split == "train":
            photograph(root / split / "b.jpg")
            content["images"].append({"id": 8, "file_name": "b.jpg"})
        text(root / split / "_annotations.coco.json", json.dumps(content))


def labelme(root: Path) -> None:
    for split in ("train", "val"):
        photograph(root / split / "a.jpg")
        shapes = [{"label": "dog", "points": []}, {"label": "person", "points": []}]
        text(root / split / "a.json", json.dumps({"shapes": shapes, "imagePath": "a.jpg", "version": "5"}))
    photograph(root / "train" / "b.jpg")
    text(root / "train" / "b.json", json.dumps({"shapes": [], "imagePath": "b.jpg"}))


LAYOUTS: dict[str, Callable[[Path], None]] = {
    "YOLO": roboflow_yolo,
    "YOLO, splits below": ultralytics,
    "Roboflow COCO": roboflow_coco,
    "LabelMe": labelme,
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_an_export_is_recognised_and_becomes_tables(name: str, tmp_path: Path) -> None:
    LAYOUTS[name](tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert foreign_layout(tmp_path) == name.split(",", maxsplit=1)[0]
    with pytest.raises(DataError, match=f"is an export of {name.split(',', maxsplit=1)[0]}: `sfc prepare tags"):
        detect(tmp_path)
    assert sorted(path.name for path in prepare_tags(tmp_path)) == ["train.csv", "val.csv"]
    assert {path: path.read_bytes() for path in before} == before
    config = detect(tmp_path)
    train, val = read_dataset(config, "train"), read_dataset(config, "val")
    assert train.classes == ("dog", "person")
    assert sorted((record.image.name, record.labels) for record in train.records) == [("a.jpg", (0, 1)), ("b.jpg", ())]
    assert [record.labels for record in val.records] == [(0, 1)]
    with pytest.raises(DataError, match="is there already, and is not overwritten"):
        prepare_tags(tmp_path)


@pytest.mark.parametrize(
    "settings",
    [
        {"train": "images/train2017", "val": "images/val2017", "test": "images/test2017"},
        {"path": "../datasets/coco", "train": "images/train2017", "val": ["images/val2017"], "test": None},
        {"path": "/content/coco", "train": ["../images/train2017"], "val": "/content/coco/images/val2017"},
        {"train": "train.txt", "val": "lists/val.txt", "test": ""},
        {"train": ".", "val": "images\\val2017", "test": ["images/test2017", "images/new"]},
        {"train": "images/train2017", "val": ["images/val2017", "images/train2017"]},
    ],
)
def test_data_yaml_decides_the_split(settings: dict[str, Any], tmp_path: Path) -> None:
    for folder in ("train2017", "val2017", "test2017", "new"):
        photograph(tmp_path / "images" / folder / "a.jpg")
        text(tmp_path / "labels" / folder / "a.txt", "0 0 0 1 1\n")
    text(tmp_path / "train.txt", "./images/train2017/a.jpg\n\n")
    text(tmp_path / "lists" / "val.txt", "/content/coco/images/val2017/a.jpg\n")
    text(tmp_path / "data.yaml", json.dumps({"names": ["dog"], **settings}))
    assert [path.name for path in prepare_tags(tmp_path)] == ["train.csv", "val.csv"]
    assert (tmp_path / "train.csv").read_text() == "image,labels\nimages/train2017/a.jpg,dog\n"
    assert (tmp_path / "val.csv").read_text() == "image,labels\nimages/val2017/a.jpg,dog\n"


@pytest.mark.parametrize("settings", [{}, {"train": "../elsewhere", "val": "images/val"}, {"train": None, "val": 3}])
def test_folders_decide_where_data_yaml_names_no_training_photographs(settings: dict[str, Any], tmp_path: Path) -> None:
    ultralytics(tmp_path)
    text(tmp_path / "dataset.yaml", json.dumps({"names": ["person", "dog"], **settings}))
    prepare_tags(tmp_path)
    assert (tmp_path / "train.csv").read_text() == "image,labels\nimages/train/a.jpg,dog;person\nimages/train/b.jpg,\n"
    assert (tmp_path / "val.csv").read_text() == "image,labels\nimages/val/a.jpg,dog;person\n"


def test_a_list_of_photographs_that_are_not_there(tmp_path: Path) -> None:
    ultralytics(tmp_path)
    text(tmp_path / "dataset.yaml", "names: [person, dog]\ntrain: train.txt\n")
    text(tmp_path / "train.txt", "./images/train/a.jpg\n./images/train/gone.jpg\n")
    with pytest.raises(DataError, match=r"train\.txt, line 2: names the photograph '.*gone\.jpg', which is not there"):
        prepare_tags(tmp_path)


def test_cvat(tmp_path: Path) -> None:
    photograph(tmp_path / "images" / "a.jpg")
    photograph(tmp_path / "b.jpg")
    shapes = '<polygon label="dog" points="0,0"/><box label="person"/>'
    text(
        tmp_path / "annotations.xml",
        f'<annotations><image id="0" name="a.jpg">{shapes}</image><image name="b.jpg"/></annotations>',
    )
    assert foreign_layout(tmp_path) == "CVAT"
    prepare_tags(tmp_path)
    assert (tmp_path / "train.csv").read_text() == "image,labels\nb.jpg,\nimages/a.jpg,dog;person\n"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("train/labels/a.txt", "7 0 0 1 1", "begins with '7', which is no class"),
        ("train/labels/a.txt", "dog 0 0 1 1", "begins with 'dog', which is no class"),
        ("data.yaml", "nc: 2", "has no list of class names"),
        ("data.yaml", "names: {.inf: dog}", "has no list of class names"),
        ("data.yaml", "names: [a, dog", "is no YAML"),
        ("data.yaml", "names: [a;b, dog]", "the class 'a;b' holds ';'"),
    ],
)
def test_a_damaged_export_is_refused_and_nothing_written(name: str, content: str, words: str, tmp_path: Path) -> None:
    roboflow_yolo(tmp_path)
    text(tmp_path / name, content)
    with pytest.raises(DataError, match=words):
        prepare_tags(tmp_path)
    assert list(tmp_path.glob("*.csv")) == []


def test_other_files_that_are_damaged(tmp_path: Path) -> None:
    text(tmp_path / "annotations.xml", "<annotations><image")
    with pytest.raises(DataError, match="is damaged"):
        prepare_tags(tmp_path)
    text(tmp_path / "annotations.xml", '<annotations><image name="gone.jpg"/></annotations>')
    with pytest.raises(DataError, match=r"'gone\.jpg', which is not there"):
        prepare_tags(tmp_path)
    text(tmp_path / "coco" / "train" / "_annotations.coco.json", '{"images": []}')
    with pytest.raises(DataError, match="is no COCO file"):
        prepare_tags(tmp_path / "coco")


def test_what_is_no_data_set_is_told_what_to_do(tmp_path: Path) -> None:
    for name, words in (
        ("tags.csv", "holds no train.csv, but tags.csv: name the table"),
        ("photograph.jpg", "holds photographs, but no table of their tags"),
        ("images/photograph.jpg", "has folders such as 'images', which are no classes"),
        ("train/photograph.jpg", "has folders such as 'train', which are no classes"),
    ):
        root = tmp_path / name.replace("/", "_")
        photograph(root / "holidays" / "other.jpg")
        text(root / name, "image,labels\n") if name.endswith(".csv") else photograph(root / name)
        with pytest.raises(DataError, match=words):
            detect(root)


def test_masks_of_mmsegmentation(tmp_path: Path) -> None:
    for split, values in (("train", [0, 2, 255]), ("val", [1])):
        photograph(tmp_path / "img_dir" / split / "deep" / "a.jpg")
        write_mask(tmp_path / "ann_dir" / split / "deep" / "a.png", np.resize(np.array(values, np.uint8), (6, 8)))
    with pytest.raises(DataError, match="is an export of mmsegmentation: `sfc prepare tags"):
        detect(tmp_path)
    with pytest.raises(DataError, match=r"keeps their classes in its code: write .*classes\.txt, a class name a line"):
        prepare_tags(tmp_path)
    text(tmp_path / "classes.txt", "background\nperson\n")
    with pytest.raises(DataError, match="mask values 2 are beyond the 1 classes"):
        prepare_tags(tmp_path)
    text(tmp_path / "classes.txt", "background\nperson\ndog\n")
    assert [path.name for path in prepare_tags(tmp_path)] == ["train.csv", "val.csv"]
    assert (tmp_path / "train.csv").read_text() == "image,labels\nimg_dir/train/deep/a.jpg,dog\n"
    assert (tmp_path / "val.csv").read_text() == "image,labels\nimg_dir/val/deep/a.jpg,person\n"
    config = detect(tmp_path)
    assert (config.format, config.classes) == ("table", "classes.txt")
    photograph(tmp_path / "img_dir" / "train" / "b.jpg")
    for name in ("train.csv", "val.csv"):
        (tmp_path / name).unlink()
    with pytest.raises(DataError, match=r"b\.jpg.*has no mask .*b\.png"):
        prepare_tags(tmp_path)


@pytest.mark.parametrize("root", [".", "train"])
def test_class_folders_are_still_class_folders(root: str, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        photograph(tmp_path / root / name / "a.jpg")
    assert detect(tmp_path).format == "folders"


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    roboflow_yolo(tmp_path)
    assert main(["prepare", "tags", str(tmp_path)]) == 0
    assert f"next: sfc check {tmp_path}" in capsys.readouterr().out
    assert main(["prepare", "tags", str(tmp_path / "nowhere")]) == 2
    assert main(["prepare", "tags", str(tmp_path), "--download", "2012"]) == 2
