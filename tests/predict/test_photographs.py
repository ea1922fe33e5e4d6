"""Which photographs a command line names, and under which ids."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from sfc.errors import DataError
from sfc.predict.photographs import find_photographs


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Photographs in two folders, and what is none."""
    for name in ("a.jpg", "holiday/b.png", "holiday/deep/ç d.JPG", ".hidden/e.jpg"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(path)
    (tmp_path / "photos" / "notes.md").write_text("no image")
    return tmp_path / "photos"


def ids(*sources: object, root: Path | str = "") -> list[str]:
    found = find_photographs([str(source) for source in sources], ("cat",), str(root))
    assert all(record.image.is_file() and record.labels == () for record in found.records)
    return [record.id for record in found.records]


def test_a_folder_gives_everything_below_it(photos: Path) -> None:
    assert ids(photos) == ["a", "holiday/b", "holiday/deep/ç d"]


def test_files_patterns_and_lists(photos: Path) -> None:
    assert ids(photos / "holiday" / "b.png", photos / "a.jpg") == ["b", "a"]
    assert ids(photos / "*.jpg") == ["a"]
    assert ids(photos / "**" / "*") == ["a", "holiday/b", "holiday/deep/ç d"]
    assert ids(photos / "holi*" / "*.png") == ["holiday/b"]
    listed = photos / "list.txt"
    listed.write_text("holiday/b.png\n\n  a  \n", encoding="utf-8")
    assert ids(listed) == ["holiday/b", "a"]
    elsewhere = photos.parent / "elsewhere.txt"
    elsewhere.write_text("b\n")
    assert ids(elsewhere, root=photos / "holiday") == ["b"]


def test_the_same_photograph_twice_counts_once(photos: Path) -> None:
    assert ids(photos, photos / "a.jpg", photos / "*.jpg") == ["a", "holiday/b", "holiday/deep/ç d"]


def test_two_photographs_of_one_name_are_refused(photos: Path) -> None:
    Image.new("RGB", (4, 4)).save(photos / "holiday" / "a.jpg")
    with pytest.raises(DataError, match=r"holiday/a\.jpg: would share the name 'a' with .*photos/a\.jpg"):
        ids(photos / "a.jpg", photos / "holiday" / "a.jpg")
    assert ids(photos) == ["a", "holiday/a", "holiday/b", "holiday/deep/ç d"]
    Image.new("RGB", (4, 4)).save(photos / "a.png")
    with pytest.raises(DataError, match=r"a\.png: would share the name 'a'"):
        ids(photos)


def test_a_list_with_duplicates_names_both_lines(photos: Path) -> None:
    listed = photos / "list.txt"
    listed.write_text("a.jpg\nholiday/b.png\na\n")
    with pytest.raises(DataError, match=r"list\.txt, line 3: names 'a' again \(line 1\)"):
        ids(listed)


def test_one_file_by_two_ways_is_one_photograph(photos: Path) -> None:
    assert ids(photos, photos / "holiday") == ["a", "holiday/b", "holiday/deep/ç d"]
    (photos / "holiday" / "round").symlink_to(photos)
    (photos / "holiday" / "again").symlink_to(photos)
    assert len(ids(photos)) == 3


def test_what_was_predicted_is_not_predicted_again(photos: Path) -> None:
    out = photos / "predictions"
    (out / "masks").mkdir(parents=True)
    Image.new("L", (4, 4)).save(out / "masks" / "a.png")
    found = find_photographs([str(photos), str(photos / "**" / "*.png")], ("cat",), "", [out / "masks"])
    assert [record.id for record in found.records] == ["a", "holiday/b", "holiday/deep/ç d"]


def test_names_that_no_other_program_could_read_are_refused(photos: Path) -> None:
    Image.new("RGB", (4, 4)).save(os.fsdecode(os.fsencode(photos) + b"/\xff.png"))
    with pytest.raises(DataError, match="the file's name is not UTF-8"):
        ids(photos)
    with pytest.raises(DataError, match="cannot be looked up"):
        ids("x" * 300)


def test_folders_with_brackets_and_suffixes_in_capitals(photos: Path) -> None:
    folder = photos / "trip [2020]"
    folder.mkdir()
    Image.new("RGB", (4, 4)).save(folder / "IMG.PNG")
    assert ids(folder / "*.PNG") == ["IMG"]
    listed = folder / "list.txt"
    listed.write_text("IMG\n")
    assert ids(listed) == ["IMG"]


def test_what_is_missing_or_empty_is_named(photos: Path) -> None:
    with pytest.raises(DataError, match="nothing: there is no such file or folder"):
        ids(photos / "nothing")
    with pytest.raises(DataError, match=r"\*\.tif: holds no image"):
        ids(photos / "*.tif")
    (photos / "empty").mkdir()
    with pytest.raises(DataError, match="empty: holds no image"):
        ids(photos / "empty")
    listed = photos / "list.txt"
    listed.write_text("a.jpg\nlost.jpg\n")
    with pytest.raises(DataError, match=r"list\.txt, line 2: there is no image .*lost\.jpg"):
        ids(listed)
    listed.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"list\.txt: the list cannot be read as UTF-8 text"):
        ids(listed)
    listed.write_text("\n")
    with pytest.raises(DataError, match=r"list\.txt: holds no image"):
        ids(listed)
