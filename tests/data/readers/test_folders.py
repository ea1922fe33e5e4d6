"""One sub-folder a class."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from sfc.data.readers import DataSection as DataConfig
from sfc.data.readers.folders import images_below, passed_over, read_folders
from sfc.errors import ConfigError, DataError


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if Path(name).suffix.lower() in (".jpg", ".png"):
            Image.new("RGB", (2, 2)).save(root / name)
        else:
            (root / name).write_text("")


def config(root: Path, **settings: object) -> DataConfig:
    return DataConfig(format="folders", root=str(root), **({"train": "train"} | settings))


def test_classes_labels_and_negatives(tmp_path: Path) -> None:
    touch(
        tmp_path, "train/dog/b.jpg", "train/cat/deep/a.PNG", "train/cat/b.jpg", "train/background/sky.jpg",
        "train/cat/Thumbs.db", "train/.hidden/x.jpg", "train/cat/._b.jpg", "train/readme.txt", "val/dog/z.jpg",
    )  # fmt: skip
    (tmp_path / "train" / "empty").mkdir()
    data = read_folders(config(tmp_path), "train")
    assert data.classes == ("cat", "dog", "empty")
    assert [(record.id, record.labels) for record in data.records] == [
        ("background/sky", ()),
        ("cat/b", (0,)),
        ("cat/deep/a", (0,)),
        ("dog/b", (1,)),
    ]
    val = read_folders(config(tmp_path, val="val"), "val")
    assert val.classes == data.classes
    assert [(record.id, record.labels) for record in val.records] == [("dog/z", (1,))]


def test_root_itself_class_file_and_limit(tmp_path: Path) -> None:
    touch(tmp_path, "dog/a.jpg", "dog/b.jpg", "cat/a.jpg")
    (tmp_path / "classes.txt").write_text("dog\nbird\ncat\n")
    data = read_folders(config(tmp_path, train=".", classes="classes.txt", limit=2), "train")
    assert data.classes == ("dog", "bird", "cat")
    assert [(record.id, record.labels) for record in data.records] == [("cat/a", (2,)), ("dog/a", (0,))]


def test_linked_class_folder_is_followed(tmp_path: Path) -> None:
    touch(tmp_path, "store/a.jpg")
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "dog").symlink_to(tmp_path / "store")
    assert [record.id for record in read_folders(config(tmp_path), "train").records] == ["dog/a"]


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["train/a.jpg", "train/dog/b.jpg"], "train/a.jpg: lies in no class folder; negatives belong into"),
        (["train/dog/a.jpg", "train/dog/a.png"], "train/dog/a.png: has the same path without suffix as 'a.jpg'"),
        (["train/dog/readme.txt"], "train: has no images"),
        (["train/background/a.jpg"], "train: names no class"),
        (["elsewhere/dog/a.jpg"], "train: there is no such folder"),
    ],
)
def test_faults(tmp_path: Path, names: list[str], sentence: str) -> None:
    touch(tmp_path, *names)
    with pytest.raises(DataError) as caught:
        read_folders(config(tmp_path), "train")
    assert str(caught.value).startswith(f"{tmp_path}/{sentence}")


def test_folder_that_is_no_class_and_empty_setting(tmp_path: Path) -> None:
    touch(tmp_path, "train/dog/a.jpg", "val/cat/a.jpg")
    with pytest.raises(DataError, match=r"val/cat: the folder's name is not in the class list"):
        read_folders(config(tmp_path, val="val"), "val")
    with pytest.raises(ConfigError, match=r"data\.val is empty"):
        read_folders(config(tmp_path), "val")


def test_what_is_passed_over_is_counted(tmp_path: Path) -> None:
    touch(tmp_path, "cat/a.jpg", "cat/b.jfif", "cat/c.heic", "cat/Thumbs.db", "dog/x.txt", "dog/y.TXT", "dog/README")
    assert passed_over(tmp_path) == {".txt": 2, ".db": 1, "without suffix": 1}
    assert [path.name for path in images_below(tmp_path)] == ["a.jpg", "b.jfif", "c.heic"]
