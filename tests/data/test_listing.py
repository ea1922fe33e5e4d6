"""Which files exist, and the ids they get."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from sfc.data.listing import Listing, record_id


def test_files_are_found_and_folders_are_not(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("")
    (tmp_path / "b.jpg").mkdir()
    listing = Listing()
    assert listing.find(tmp_path / "a.jpg") == tmp_path / "a.jpg"
    for name in ("b.jpg", "c.jpg", "A.JPG", "none/a.jpg", "a.jpg/b.jpg"):
        assert listing.find(tmp_path / name) is None


def test_one_bad_link_hides_no_other_file(tmp_path: Path) -> None:
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "gone.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "a.jpg").write_text("")
    (tmp_path / "good.jpg").symlink_to("a.jpg")
    listing = Listing()
    assert listing.find(tmp_path / "a.jpg") is not None
    assert listing.find(tmp_path / "good.jpg") == tmp_path / "good.jpg"


def test_the_name_on_disk_wins_whatever_its_accents_are_encoded_in(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "ñ.jpg") for form in ("NFC", "NFD"))
    (tmp_path / decomposed).write_text("")
    assert Listing().find(tmp_path / composed) == tmp_path / decomposed
    (tmp_path / composed).write_text("")
    listing = Listing()
    assert listing.find(tmp_path / composed) == tmp_path / composed
    assert listing.find(tmp_path / decomposed) == tmp_path / decomposed


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("root/a.jpg", "a"),
        ("root/x/a.b.jpeg", "x/a.b"),
        ("root/./x/../a", "a"),
        ("other/a.jpg", "/other/a"),
        ("root/../a.jpg", "/a"),
        ("rooted/a.jpg", "/rooted/a"),
    ],
)
def test_ids_stay_below_any_folder_they_are_put_in(tmp_path: Path, image: str, expected: str) -> None:
    identity = record_id(tmp_path / "root", tmp_path / image)
    outside = tmp_path.as_posix().lstrip("/") + expected
    assert identity == (outside if expected.startswith("/") else expected)
    assert ".." not in Path(identity).parts
    assert not Path(identity).is_absolute()
