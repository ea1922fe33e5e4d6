"""The VOC reader on folders in VOC's layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfc.data.images import write_mask
from sfc.data.readers import DataSection as DataConfig
from sfc.data.readers.voc import VOC_CLASSES, VocSettings, read_voc
from sfc.errors import ConfigError, DataError


def add_image(root: Path, identity: str, objects: list[tuple[str, int]], mask: dict[str, list[int]]) -> None:
    """One image with its annotation, (name, difficult), and its mask values by folder."""
    (root / "JPEGImages").mkdir(parents=True, exist_ok=True)
    (root / "Annotations").mkdir(exist_ok=True)
    Image.new("RGB", (4, 3)).save(root / "JPEGImages" / f"{identity}.jpg")
    items = "".join(
        f"<object><name>{name}</name><difficult>{flag}</difficult><part><name>head</name></part></object>"
        for name, flag in objects
    )
    (root / "Annotations" / f"{identity}.xml").write_text(f"<annotation>{items}</annotation>")
    for folder, values in mask.items():
        write_mask(root / folder / f"{identity}.png", np.resize(np.array(values, dtype=np.uint8), (3, 4)))


def add_split(root: Path, name: str, *ids: str) -> None:
    folder = root / "ImageSets" / "Segmentation"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.txt").write_text("".join(f"{identity}\n" for identity in ids))


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    add_image(
        tmp_path, "2007_1", [("person", 0), ("dog", 1)], {"SegmentationClass": [0, 15], "SegmentationClassAug": [15]}
    )
    add_image(tmp_path, "2007_2", [("cat", 0)], {"SegmentationClass": [0, 8, 255], "SegmentationClassAug": [8]})
    add_image(tmp_path, "2008_3", [("bus", 0), ("bus", 0), ("car", 1)], {"SegmentationClassAug": [0, 6, 7, 255]})
    add_split(tmp_path, "train", "2007_1")
    add_split(tmp_path, "val", "2007_2")
    return tmp_path


def labels(root: Path, train: str, **settings: object) -> dict[str, list[str]]:
    data = read_voc(DataConfig(format="voc", root=str(root), train=train, voc=VocSettings(**settings)), "train")
    return {record.id: [data.classes[label] for label in record.labels] for record in data.records}


def test_classes_are_those_of_voc() -> None:
    assert len(VOC_CLASSES) == 20
    assert list(VOC_CLASSES) == sorted(VOC_CLASSES)


def test_labels_from_xml_with_and_without_difficult(voc: Path) -> None:
    assert labels(voc, train="train") == {"2007_1": ["dog", "person"]}
    assert labels(voc, train="train", labels_from="xml-without-difficult") == {"2007_1": ["person"]}


def test_labels_from_masks(voc: Path) -> None:
    assert labels(voc, train="train", labels_from="masks") == {"2007_1": ["person"]}
    expected = {"2007_1": ["person"], "2008_3": ["bus", "car"]}
    assert labels(voc, train="trainaug", labels_from="masks") == expected


def test_trainaug_is_derived_where_its_list_is_missing(voc: Path) -> None:
    assert labels(voc, train="trainaug", labels_from="xml-without-difficult") == {
        "2007_1": ["person"],
        "2008_3": ["bus"],
    }
    add_split(voc, "trainaug", "2008_3")
    assert list(labels(voc, train="trainaug")) == ["2008_3"]


def test_masks_come_from_the_folder_of_the_split(voc: Path) -> None:
    config = DataConfig(format="voc", root=str(voc), train="trainaug", val="val")
    train, val = read_voc(config, "train"), read_voc(config, "val")
    assert [np.unique(record.mask.load()).tolist() for record in train.records] == [[15], [0, 6, 7, 255]]
    assert [np.unique(record.mask.load()).tolist() for record in val.records] == [[0, 8, 255]]
    plain = read_voc(DataConfig(format="voc", root=str(voc), train="train"), "train")
    assert np.unique(plain.records[0].mask.load()).tolist() == [0, 15]


def test_without_masks_labels_still_come_from_xml(voc: Path) -> None:
    for path in (voc / "SegmentationClass").iterdir():
        path.unlink()
    (voc / "SegmentationClass").rmdir()
    data = read_voc(DataConfig(format="voc", root=str(voc), train="train"), "train")
    assert data.records[0].mask is None
    assert data.records[0].labels == (11, 14)
    with pytest.raises(ConfigError, match="labels_from is masks, but the folder"):
        labels(voc, train="train", labels_from="masks")


def test_own_classes_and_limit(voc: Path) -> None:
    (voc / "classes.txt").write_text("background\ndog\nperson\nbus\ncar\n")
    config = DataConfig(format="voc", root=str(voc), train="trainaug", classes="classes.txt", limit=1)
    data = read_voc(config, "train")
    assert data.classes == ("dog", "person", "bus", "car")
    assert [(record.id, record.labels) for record in data.records] == [("2007_1", (0, 1))]


def test_lists_with_byte_order_mark_and_ids_with_blanks(voc: Path) -> None:
    for suffix in ("jpg", "xml", "png"):
        for path in voc.rglob(f"2007_1.{suffix}"):
            path.rename(path.with_stem("on the beach 1"))
    text = "\ufeffon the beach 1 \r\n\r\n2007_2\r\n"
    (voc / "ImageSets" / "Segmentation" / "own.txt").write_bytes(text.encode())
    assert labels(voc, train="own", labels_from="xml-without-difficult") == {
        "on the beach 1": ["person"],
        "2007_2": ["cat"],
    }


def test_object_without_a_difficult_mark_counts(voc: Path) -> None:
    (voc / "Annotations" / "2007_1.xml").write_text("<annotation><object><name>sofa</name></object></annotation>")
    assert labels(voc, train="train", labels_from="xml-without-difficult") == {"2007_1": ["sofa"]}


def test_image_without_objects_is_a_negative(voc: Path) -> None:
    (voc / "Annotations" / "2007_1.xml").write_text("<annotation/>")
    assert labels(voc, train="train") == {"2007_1": []}


@pytest.mark.parametrize(
    ("gone", "sentence"),
    [
        ("JPEGImages/2007_1.jpg", "there is no such image, though the split lists it"),
        ("Annotations/2007_1.xml", "there is no such annotation"),
        ("SegmentationClass/2007_1.png", "there is no such mask, though the split lists it"),
        ("ImageSets/Segmentation/train.txt", "the list of images cannot be read"),
    ],
)
def test_missing_files(voc: Path, gone: str, sentence: str) -> None:
    (voc / gone).unlink()
    with pytest.raises(DataError) as caught:
        labels(voc, train="train")
    assert str(caught.value).startswith(f"{voc / gone}: {sentence}")


def test_faulty_annotations_and_lists(voc: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.train is empty"):
        labels(voc, train="")
    add_split(voc, "twice", "2007_1", "2008_3", "2007_1")
    with pytest.raises(DataError, match=r"twice\.txt: lists the image '2007_1' twice"):
        labels(voc, train="twice")
    add_split(voc, "none")
    with pytest.raises(DataError, match=r"none\.txt: has no images"):
        labels(voc, train="none")
    (voc / "Annotations" / "2007_1.xml").write_text("<annotation><object><name>unicorn</name></object></annotation>")
    with pytest.raises(DataError, match=r"2007_1\.xml: the object 'unicorn' is not in the class list"):
        labels(voc, train="train")
    (voc / "Annotations" / "2007_1.xml").write_text("<annotation><object>")
    with pytest.raises(DataError, match=r"2007_1\.xml: the annotation cannot be read"):
        labels(voc, train="train")
    write_mask(voc / "SegmentationClass" / "2007_1.png", np.full((3, 4), 21, dtype=np.uint8))
    with pytest.raises(DataError, match=r"2007_1\.png: mask values 21 are beyond the 20 classes"):
        labels(voc, train="train", labels_from="masks")
