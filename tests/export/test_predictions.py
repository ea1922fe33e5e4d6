"""Folders of predictions: read as written, or refused in one sentence that names the file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sfc.errors import DataError
from sfc.predict.folder import Predictions, read_predictions

Write = Callable[..., Predictions]


@pytest.fixture
def folder(write: Write, masks: dict[str, np.ndarray], tmp_path: Path) -> Path:
    return write(tmp_path, masks).folder


def refused(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        list(read_predictions(folder).masks())
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_masks_come_back_in_the_order_of_the_table(folder: Path, masks: dict[str, np.ndarray]) -> None:
    predictions = read_predictions(folder)
    assert predictions.classes == ("cat", "dog", "cow")
    assert dict(predictions.images) == {image_id: folder / "photos" / f"{image_id}.jpg" for image_id in masks}
    found = list(predictions.masks())
    assert [image_id for image_id, _, _ in found] == list(masks)
    for image_id, image, mask in found:
        assert image.is_file()
        assert mask.dtype == np.uint8
        np.testing.assert_array_equal(mask, masks[image_id])


def test_photographs_may_be_gone_and_columns_more_or_turned(folder: Path) -> None:
    text = "\ufeffimage,note,id\r\nphotos/a.jpg,,a\r\n"
    (folder / "images.csv").write_text(text, encoding="utf-8", newline="")
    (folder / "photos" / "a.jpg").unlink()
    predictions = read_predictions(folder)
    assert predictions.images == (("a", Path("photos/a.jpg")),)
    assert len(list(predictions.masks())) == 1


def test_missing_masks_are_counted_and_the_first_is_named(folder: Path) -> None:
    for name in ("ü 图, x.png", "deep/nothing.png"):
        (folder / "masks" / name).unlink()
    assert refused(folder) == f"{folder}/masks/ü 图, x.png: no such file; 2 of 4 images have no mask"


def test_damaged_masks_are_named(folder: Path) -> None:
    path = folder / "masks" / "deep" / "er" / "b c.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    assert refused(folder).startswith(f"{path}: the image is truncated or damaged")
    path.write_bytes(b"")
    assert refused(folder) == f"{path}: the file is empty"


def test_values_beyond_the_classes(folder: Path) -> None:
    (folder / "predictions.json").write_text('{"classes": ["cat", "dog"]}')
    assert refused(folder) == f"{folder}/masks/a.png: mask values 3 are beyond the 2 classes (and not 255)"


@pytest.mark.parametrize("name", ["predictions.json", "images.csv"])
def test_not_such_a_folder(folder: Path, name: str) -> None:
    assert refused(folder / "none") == f"{folder}/none: there is no such folder"
    assert refused(folder / name) == f"{folder}/{name}: there is no such folder"
    (folder / name).unlink()
    assert refused(folder) == f"{folder}/{name}: no such file, so this is no folder of predictions"
    os.mkdir(folder / name)
    assert refused(folder) == f"{folder}/{name}: cannot be read (Is a directory)"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"classes": ["cat"', "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b'["cat", "dog"]', "has no list of class names under the key classes"),
        (b'{"classes": "cat"}', "has no list of class names under the key classes"),
        (b'{"classes": ["cat", 2]}', "has no list of class names under the key classes"),
        (b'{"classes": ["cat", ""]}', "has no list of class names under the key classes"),
        (b'{"classes": []}', "names no class"),
        (b'{"classes": ["cat", "dog", "cat"]}', "names the class 'cat' twice"),
        (b'{"classes": ["\xff"]}', "cannot be read (not UTF-8 text)"),
    ],
)
def test_damaged_class_lists(folder: Path, content: bytes, reason: str) -> None:
    (folder / "predictions.json").write_bytes(content)
    assert refused(folder).startswith(f"{folder}/predictions.json: {reason}")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", ": the first line must name the columns id and image"),
        (b"id;image\na;a.jpg\n", ": the first line must name the columns id and image"),
        (b"id,image\n", ": has no images"),
        (b"id,image\na,a.jpg\nb\n", ", line 3: has not as many cells as the first line, 2"),
        (b"id,image\na,a.jpg,c\n", ", line 2: has not as many cells as the first line, 2"),
        (b"id,image\n,a.jpg\n", ", line 2: names no id"),
        (b"id,image\na,\n", ", line 2: names no image"),
        (b'id,image\n"a"b,c\n', ", line 2: is damaged"),
        (b"id,image\na,a.jpg\nb,b.jpg\na,c.jpg\n", ", line 4: the id 'a' is there already"),
        (b"id,image\n../a,a.jpg\n", ", line 2: the id '../a' is no relative path inside a folder"),
        (b"id,image\n/a,a.jpg\n", ", line 2: the id '/a' is no relative path inside a folder"),
        (b"id,image\n\xff,a.jpg\n", ": cannot be read (not UTF-8 text)"),
    ],
)
def test_damaged_tables_of_images(folder: Path, content: bytes, reason: str) -> None:
    (folder / "images.csv").write_bytes(content)
    assert refused(folder).startswith(f"{folder}/images.csv{reason}")
