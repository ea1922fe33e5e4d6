"""Which training images changed, in words."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from sfc.classify.stage import changed_images, described
from sfc.data.readers.detect import detect
from sfc.data.readers.read import read_dataset
from sfc.data.records import DataSet


@pytest.fixture
def train(squares: Path, tmp_path: Path) -> DataSet:
    return read_dataset(detect(Path(shutil.copytree(squares, tmp_path / "data"))), "train")


def test_what_changed_is_named(train: DataSet, tmp_path: Path) -> None:
    (tmp_path / "images.json").write_text(json.dumps(described(train)))
    assert changed_images(tmp_path / "images.json", train) == ""
    first, second, *rest = train.records
    name = ";".join(train.classes[k] for k in first.labels)
    second.image.write_bytes(second.image.read_bytes() + b" ")
    changed = replace(train, records=(replace(first, labels=()), second, replace(rest[0], id="other"), *rest[1:]))
    assert changed_images(tmp_path / "images.json", changed) == (
        f": {first.id} (was {name}, is no tag), {second.id} (its file), {rest[0].id} (is gone) and 1 more"
    )


@pytest.mark.parametrize("content", ["", "[]", '{"train/0": 3}', "null"])
def test_a_damaged_list_explains_nothing(content: str, train: DataSet, tmp_path: Path) -> None:
    (tmp_path / "images.json").write_text(content)
    assert changed_images(tmp_path / "images.json", train) == ""
    assert changed_images(tmp_path / "nowhere.json", train) == ""
