"""`data.exclude`: training images that take no part."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from sfc.data.config import DataConfig
from sfc.data.readers import DataSection
from sfc.data.readers.detect import detect
from sfc.data.readers.read import read_dataset, read_training_masks
from sfc.errors import DataError


@pytest.fixture
def config(squares: Path, tmp_path: Path) -> DataConfig:
    return replace(detect(Path(shutil.copytree(squares, tmp_path / "data")), DataSection()), exclude="exclude.csv")


def exclude(config: DataConfig, *lines: str) -> None:
    (Path(config.root) / "exclude.csv").write_text("\n".join(("image", *lines)) + "\n", encoding="utf-8-sig")


def test_images_are_named_by_path_or_id(config: DataConfig) -> None:
    everything = {record.id for record in read_dataset(replace(config, exclude=""), "train").records}
    exclude(config, "train/0.png", "train/3", "")
    train = read_dataset(config, "train")
    assert {record.id for record in train.records} == everything - {"train/0", "train/3"}
    scoring = read_training_masks(config, train)
    assert scoring is not None
    assert {record.id for record in scoring.records} == everything - {"train/0", "train/3"}
    assert len(read_dataset(config, "val")) == 6


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["train/0", "val/1"], "line 3: excludes 'val/1', which is no training image"),
        ([f"train/{number}" for number in range(12)], "excludes every training image"),
    ],
)
def test_what_cannot_be_meant_is_refused(config: DataConfig, lines: list[str], words: str) -> None:
    exclude(config, *lines)
    with pytest.raises(DataError, match=words):
        read_dataset(config, "train")


@pytest.mark.parametrize(
    ("content", "words"), [(b"", "must name the column image"), (b"\xff\xfe\x00", "cannot be read")]
)
def test_a_damaged_table_is_refused(config: DataConfig, content: bytes, words: str) -> None:
    (Path(config.root) / "exclude.csv").write_bytes(content)
    with pytest.raises(DataError, match=words):
        read_dataset(config, "train")


def test_a_table_that_is_not_there_is_refused(config: DataConfig) -> None:
    with pytest.raises(DataError, match=r"exclude\.csv: the table of excluded images cannot be read"):
        read_dataset(config, "train")
