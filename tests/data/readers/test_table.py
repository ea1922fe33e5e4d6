"""The table reader: any file names, every fault in one sentence with file and line."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from sfc.data.images import write_mask
from sfc.data.readers import DataSection as DataConfig
from sfc.data.readers.table import TableSettings, read_table, unused_neighbours
from sfc.errors import ConfigError, DataError


def make_images(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 3)).save(root / name)


def make_table(root: Path, *rows: str, name: str = "train.csv", header: str = "image,labels") -> DataConfig:
    (root / name).write_text("\n".join((header, *rows)) + "\n", encoding="utf-8")
    return DataConfig(root=str(root))


def refused(config: DataConfig, split: str = "train") -> str:
    with pytest.raises(DataError) as caught:
        read_table(config, split)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_images_labels_and_negatives(tmp_path: Path) -> None:
    make_images(tmp_path, "a.jpg", "deep/er/b c.png", "ü 图.jpeg")
    config = make_table(tmp_path, "a.jpg,dog;cat", "deep/er/b c.png,", '"ü 图.jpeg", cat ; cat;')
    data = read_table(config, "train")
    assert data.classes == ("cat", "dog")
    assert data.name == tmp_path.name
    assert data.split == "train"
    assert [(record.id, record.labels) for record in data.records] == [
        ("a", (0, 1)),
        ("deep/er/b c", ()),
        ("ü 图", (0,)),
    ]
    assert data.records[1].image == tmp_path / "deep/er/b c.png"
    assert all(record.mask is None for record in data.records)


def test_class_file_orders_the_classes(tmp_path: Path) -> None:
    make_images(tmp_path, "a.jpg", "b.jpg")
    config = make_table(tmp_path, "a.jpg,dog", "b.jpg,cat")
    for text in ("background\ndog\nbird\ncat\n", "\ufeffdog\r\nbird\r\ncat\r\n\r\n"):
        (tmp_path / "classes.txt").write_text(text, encoding="utf-8", newline="")
        data = read_table(DataConfig(root=config.root, classes="classes.txt"), "train")
        assert data.classes == ("dog", "bird", "cat")
        assert [record.labels for record in data.records] == [(0,), (2,)]
        assert data.class_counts().tolist() == [1, 0, 1]


def test_tsv_and_json_lines_and_other_columns(tmp_path: Path) -> None:
    make_images(tmp_path, "a,b.jpg", "c.jpg", "x/d.jpg")
    make_table(tmp_path, "note\ta,b.jpg\tx|y", "\tc.jpg\t", name="t.tsv", header="remark\tImage\tLABELS")
    lines = [
        {"image": "a,b.jpg", "labels": ["x", "y"], "seen": 3},
        {"image": "c.jpg", "labels": None, "mask": None},
        {"labels": "y|x", "image": "./x/../c.jpg"},
    ]
    (tmp_path / "t.jsonl").write_text("\n\n".join(map(json.dumps, lines[:2])))
    (tmp_path / "u.ndjson").write_text(json.dumps(lines[2]))
    for name in ("t.tsv", "t.jsonl"):
        data = read_table(DataConfig(root=str(tmp_path), train=name, table=TableSettings("|")), "train")
        assert [(record.id, record.labels) for record in data.records] == [("a,b", (0, 1)), ("c", ())]
    data = read_table(DataConfig(root=str(tmp_path), train="u.ndjson", table=TableSettings("|")), "train")
    assert [(record.id, record.labels) for record in data.records] == [("c", (0, 1))]


def test_masks_and_the_table_that_has_them(tmp_path: Path) -> None:
    make_images(tmp_path, "a.jpg", "b.jpg")
    write_mask(tmp_path / "m" / "a.png", np.full((3, 4), 2, dtype=np.uint8))
    config = make_table(tmp_path, "a.jpg,x;y", "b.jpg,x")
    make_table(tmp_path, "a.jpg,y,m/a.png", "b.jpg,x,", name="scoring.csv", header="image,labels,mask")
    config = DataConfig(root=config.root, train_masks="scoring.csv", val="scoring.csv")
    assert "scoring.csv, line 2: names a mask, but which value is which class?" in refused(config, "val")
    (tmp_path / "classes.txt").write_text("x\ny\n")  # nobody has to name it
    for data in (read_table(config, "train_masks"), read_table(config, "val")):
        assert data.classes == ("x", "y")
        assert [record.mask is None for record in data.records] == [False, True]
        assert data.records[0].mask.load().tolist() == [[2] * 4] * 3
    assert [record.mask for record in read_table(config, "train").records] == [None, None]


def test_a_class_file_that_lies_beside_the_table_says_what_the_values_of_masks_are(tmp_path: Path) -> None:
    make_images(tmp_path, "a.jpg")
    write_mask(tmp_path / "a.png", np.full((3, 4), 1, dtype=np.uint8))
    config = make_table(tmp_path, "a.jpg,person,a.png", header="image,labels,mask")
    assert read_table(config, "train").classes == ("person",)  # of one class there is no doubt
    for first in ("background", "_background_", "Background", "__BACKGROUND__", "person"):
        names = ["person", "bicycle", "dog"][first == "person" :]
        (tmp_path / "classes.txt").write_text("\n".join((first, *names)) + "\n")
        assert read_table(config, "train").classes == ("person", "bicycle", "dog")


def test_a_mask_whose_object_is_ignored_is_refused(tmp_path: Path) -> None:
    make_images(tmp_path, "a.jpg", "b.jpg")
    mask = np.zeros((3, 4), dtype=np.uint8)
    mask[1] = 255
    write_mask(tmp_path / "m.png", mask)
    config = make_table(tmp_path, "a.jpg,x,m.png", "b.jpg,,m.png", header="image,labels,mask")
    labelled, negative = read_table(config, "train").records
    assert (negative.mask.load() == mask).all()
    with pytest.raises(DataError, match="holds 0 and 255 alone, so its object is ignored; write 1 for the first class"):
        labelled.mask.load()
    mask[0, 0] = 1
    write_mask(tmp_path / "m.png", mask)
    assert (labelled.mask.load() == mask).all()


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (("person", '"person, bicycle"'), "line 3: the label 'person, bicycle' looks like several: set "),
        (("person", "person|dog"), "label_separator to '|', or list it in classes.txt if it is a class"),
        (("nan", "person"), "line 2: the label 'nan' looks like an empty cell"),
        (("person", "None"), "line 3: the label 'None' looks like an empty cell"),
        (("person", "Person"), "line 3: the label 'Person' is 'person' in another spelling"),
        (("traffic light", "traffic_light"), "the label 'traffic_light' is 'traffic light' in another spelling"),
        (("dog", "do\u200bg"), r"line 3: the label 'do\u200bg' holds a character that cannot be seen"),
        (("ｄｏｇ", "dog"), "line 3: the label 'dog' is 'ｄｏｇ' in another spelling"),
    ],
)
def test_labels_that_are_classes_by_mistake_are_refused_unless_they_are_listed(
    tmp_path: Path, labels: tuple[str, str], reason: str
) -> None:
    make_images(tmp_path, "a.jpg", "b.jpg")
    config = make_table(tmp_path, f"a.jpg,{labels[0]}", f"b.jpg,{labels[1]}")
    assert reason in refused(config)
    (tmp_path / "classes.txt").write_text("\n".join(label.strip('"') for label in labels) + "\n")
    assert len(read_table(config, "train")) == 2


def test_every_label_at_fault_is_told_where_faults_are_collected(tmp_path: Path) -> None:
    make_images(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    config = make_table(tmp_path, "a.jpg,person", "b.jpg,Person", "c.jpg,nan")
    faults: list[DataError] = []
    assert read_table(config, "train", faults.append).classes == ("person",)
    assert [any(word in str(fault) for fault in faults) for word in ("another spelling", "empty cell")] == [True, True]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"image;labels\na.jpg;x\n", "this one is separated by ';': save the table with commas"),
        (b"image\tlabels\na.jpg\tx\n", "this one is separated by tabs: save the table with commas"),
        (b"picture,tags\na.jpg,x\n", "image and labels among them; it is 'picture,tags'"),
        ("image,labels\na.jpg,caf\u00e9\n".encode("cp1252"), "not UTF-8 text, perhaps Windows-1252: save it as UTF-8"),
        ("image,labels\na.jpg,x\n".encode("utf-16"), "not UTF-8 text, but UTF-16: save it as UTF-8"),
        (b"image,labels\na.jpg,x,y\n", "line 2: has 3 cells where the first line has 2"),
    ],
)
def test_what_a_spreadsheet_wrote_otherwise_is_said(tmp_path: Path, content: bytes, reason: str) -> None:
    make_images(tmp_path, "a.jpg")
    (tmp_path / "train.csv").write_bytes(content)
    assert reason in refused(DataConfig(root=str(tmp_path)))
    with pytest.raises(DataError, match=r"train\.csv") as caught:  # also where faults are collected
        read_table(DataConfig(root=str(tmp_path)), "train", [].append)
    assert reason in str(caught.value)


def test_a_table_of_another_name_is_pointed_at(tmp_path: Path) -> None:
    make_images(tmp_path, "a.jpg")
    (tmp_path / "train.tsv").write_text("image\tlabels\na.jpg\tx\n")
    assert refused(DataConfig(root=str(tmp_path))) == (
        f"{tmp_path}/train.csv: there is no such table, but train.tsv is there: --data.train train.tsv"
    )


def test_separators_at_the_end_of_every_line_are_no_fault(tmp_path: Path) -> None:
    make_images(tmp_path, "a.jpg")
    config = make_table(tmp_path, "a.jpg,x,,")
    assert read_table(config, "train").classes == ("x",)


def test_limit_keeps_the_classes_of_the_whole_table(tmp_path: Path) -> None:
    make_images(tmp_path, "a.jpg")
    make_table(tmp_path, "a.jpg,x", "not-there.jpg,y")
    data = read_table(DataConfig(root=str(tmp_path), limit=1), "train")
    assert len(data) == 1
    assert data.classes == ("x", "y")


def test_same_stem_in_two_folders_is_two_images(tmp_path: Path) -> None:
    make_images(tmp_path, "1/a.jpg", "2/a.jpg", "2.jpg")
    data = read_table(make_table(tmp_path, "1/a.jpg,x", "2/a.jpg,x", "2.jpg,x"), "train")
    assert [record.id for record in data.records] == ["1/a", "2/a", "2"]


def test_images_outside_the_root_get_ids_that_stay_inside(tmp_path: Path) -> None:
    make_images(tmp_path, "elsewhere/a.jpg", "root/b.jpg")
    root = tmp_path / "root"
    table = make_table(root, "../elsewhere/a.jpg,x", f"{root}/b.jpg,x")
    outside, inside = read_table(table, "train").records
    assert outside.id == (tmp_path / "elsewhere/a").as_posix().lstrip("/")
    assert inside.id == "b"


def test_accents_encoded_in_two_ways_are_one_name(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "é.jpg") for form in ("NFC", "NFD"))
    make_images(tmp_path, decomposed)
    (record,) = read_table(make_table(tmp_path, f"{composed},x"), "train").records
    assert record.image.exists()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.lists(
        st.text(
            st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp"), exclude_characters="/\\"),
            min_size=1,
            max_size=20,
        )
        .map(str.strip)
        .filter(lambda name: name and not name.startswith(".") and "." not in name),
        min_size=1,
        max_size=5,
        unique_by=lambda name: unicodedata.normalize("NFKC", name).casefold(),
    )
)
def test_any_file_name_survives_csv_and_json(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    import csv

    root = tmp_path_factory.mktemp("names")
    make_images(root, *(f"{name}.png" for name in names))
    with (root / "train.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("image", "labels"), *((f"{name}.png", "x") for name in names)])
    (root / "train.jsonl").write_text(
        "\n".join(json.dumps({"image": f"{name}.png", "labels": "x"}) for name in names), encoding="utf-8"
    )
    for table in ("train.csv", "train.jsonl"):
        data = read_table(DataConfig(root=str(root), train=table), "train")
        assert [record.id for record in data.records] == names
        assert all(record.image.is_file() for record in data.records)


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (["a.jpg,x", "none.jpg,x"], "none.jpg: there is no such image ({table}, line 3)"),
        (["a.jpg,x", "no\0folder/b.jpg,x"], "there is no such image ({table}, line 3)"),
        (["a.jpg,x", "no\0file.jpg,x"], "there is no such image ({table}, line 3)"),
        (["a.jpg,x", "a.jpg,y"], "{table}, line 3: the image 'a.jpg' is there already ({table}, line 2)"),
        (
            ["a.jpg,x", "a.png,y"],
            "{table}, line 3: the image 'a.png' has the same path without suffix as 'a.jpg' ({table}, line 2)",
        ),
        ([" ,x"], "{table}, line 2: names no image"),
        (["a.jpg,x,y"], "{table}, line 2: has 3 cells where the first line has 2; quote cells that hold a comma"),
        (["a.jpg"], "{table}, line 2: has 1 cells where the first line has 2; quote cells that hold a comma"),
        (['"a.jpg"x,y'], "{table}, line 2: is damaged"),
        ([], "{table}: has no images"),
        (["a.jpg,"], "{table}: names no class"),
        (["a.jpg,background"], "{table}: names the class 'background', which stands for no class"),
    ],
)
def test_faulty_rows(tmp_path: Path, rows: list[str], sentence: str) -> None:
    make_images(tmp_path, "a.jpg", "a.png")
    expected = sentence.format(table=tmp_path / "train.csv")
    assert expected in refused(make_table(tmp_path, *rows))


def test_unknown_label_names_the_line(tmp_path: Path) -> None:
    make_images(tmp_path, "a.jpg", "b.jpg")
    make_table(tmp_path, "a.jpg,cat", "b.jpg,cta")
    (tmp_path / "classes.txt").write_text("cat")
    message = refused(DataConfig(root=str(tmp_path), classes="classes.txt"))
    assert message == f"{tmp_path}/train.csv, line 3: the label 'cta' is not in the class list"
    make_table(tmp_path, "a.jpg,dog", name="val.csv")
    assert "val.csv, line 2: the label 'dog'" in refused(DataConfig(root=str(tmp_path), val="val.csv"), "val")


def test_missing_mask_names_the_line(tmp_path: Path) -> None:
    make_images(tmp_path, "a.jpg")
    make_table(tmp_path, "a.jpg,x,m.png", header="image,labels,mask")
    assert refused(DataConfig(root=str(tmp_path))) == (
        f"{tmp_path}/m.png: there is no such mask ({tmp_path}/train.csv, line 2)"
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"image;labels\na;b\n", "must name the columns"),
        (b"image,labels\n\xff\xfe,x\n", "not UTF-8 text"),
        (b"", "has no images"),
        (None, "there is no such table"),
    ],
)
def test_faulty_tables(tmp_path: Path, content: bytes | None, reason: str) -> None:
    if content is not None:
        (tmp_path / "train.csv").write_bytes(content)
    message = refused(DataConfig(root=str(tmp_path)))
    assert message.startswith(str(tmp_path / "train.csv"))
    assert reason in message


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"image": "a.jpg"', "line 1: is not JSON"),
        ('["a.jpg", "x"]', "line 1: is not an object with the keys image and labels"),
        ('{"image": "a.jpg"}', "line 1: is not an object with the keys image and labels"),
        ('{"image": 3, "labels": "x"}', "line 1: names no image"),
        ('{"image": "a.jpg", "labels": [1]}', "line 1: labels are a list of names"),
        ('{"image": "a.jpg", "labels": "x", "mask": 1}', "line 1: a mask is a file name"),
    ],
)
def test_faulty_json_lines(tmp_path: Path, line: str, reason: str) -> None:
    make_images(tmp_path, "a.jpg")
    (tmp_path / "train.jsonl").write_text(line)
    assert reason in refused(DataConfig(root=str(tmp_path), train="train.jsonl"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "names no class"),
        ("background\n", "names no class"),
        ("a\n\nb\n", "line 2 of the class list is blank"),
        ("a\nb\na\n", "names the class 'a' twice"),
        ("a\nbackground\n", "names the class 'background'"),
        ("\n".join(map(str, range(255))), "names 255 classes, but masks of 8 bits hold at most 254"),
        (None, "there is no such class list"),
    ],
)
def test_faulty_class_files(tmp_path: Path, text: str | None, reason: str) -> None:
    make_images(tmp_path, "a.jpg")
    make_table(tmp_path, "a.jpg,a")
    if text is not None:
        (tmp_path / "classes.txt").write_text(text)
    message = refused(DataConfig(root=str(tmp_path), classes="classes.txt"))
    assert message.startswith(str(tmp_path / "classes.txt"))
    assert reason in message


def test_settings_that_do_not_fit(tmp_path: Path) -> None:
    make_images(tmp_path, "a.jpg")
    config = make_table(tmp_path, "a.jpg,a")
    with pytest.raises(ConfigError, match=r"label_separator is empty"):
        read_table(DataConfig(root=config.root, table=TableSettings("")), "train")
    (tmp_path / "train.xlsx").write_text("")
    with pytest.raises(ConfigError, match=r"train\.xlsx: a table's name ends in \.csv, \.tsv, \.jsonl or \.ndjson"):
        read_table(DataConfig(root=config.root, train="train.xlsx"), "train")


def test_tables_beside_the_training_table_that_are_not_read(tmp_path: Path) -> None:
    make_images(tmp_path, "a.jpg")
    config = make_table(tmp_path, "a.jpg,x")
    assert unused_neighbours(config) == {}
    make_table(tmp_path, "a.jpg,x", name="val.csv")
    make_table(tmp_path, "a.jpg,x", name="train_with_masks.csv")
    assert unused_neighbours(config) == {"val": "val.csv", "train_masks": "train_with_masks.csv"}
    assert unused_neighbours(replace(config, val="other.csv", train_masks="train_with_masks.csv")) == {}
    assert unused_neighbours(replace(config, format="folders")) == {}
