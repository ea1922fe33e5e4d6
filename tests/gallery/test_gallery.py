"""The gallery: what it says of each photograph, what it draws again, and that it leaves nothing out without a word."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sfc.data.images import write_mask
from sfc.errors import DataError
from sfc.gallery.gallery import LONG_SIDE, Entry, write_gallery

CLASSES = ("cat", "</script><b>dög</b>")


def entry(root: Path, name: str, mask: np.ndarray, tags: tuple[str, ...] | None = (), doubt: float = 0.5) -> Entry:
    photograph, file = root / "photographs" / f"{name}.jpg", root / "masks" / f"{name}.png"
    photograph.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (mask.shape[1], mask.shape[0]), (90, 120, 150)).save(photograph)
    write_mask(file, mask, doubt)
    return Entry(name, photograph, file, tags)


def content(page: Path) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="content">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found is not None
    return dict(json.loads(found[1]))


def half(height: int, width: int, value: int = 1) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    mask[:, : width // 2] = value
    return mask


def test_what_the_page_says_of_a_photograph(tmp_path: Path) -> None:
    mask = half(300, 400)
    mask[:, 300:] = 255
    page = write_gallery(tmp_path / "page", "Title", [entry(tmp_path, "a", mask, ("cat", CLASSES[1]), 0.125)], CLASSES)
    found = content(page)
    assert (found["title"], found["classes"]) == ("Title", list(CLASSES))
    assert found["colours"] == ["#800000", "#008000"]
    (item,) = found["items"]
    assert item == {
        "id": "a",
        "image": "../photographs/a.jpg",
        "mask": "../masks/a.png",
        "picture": "overlays/a.jpg",
        "size": [400, 300],
        "shares": {"0": 0.5},
        "open": 0.25,
        "tags": [0, 1],
        "doubt": 0.125,
    }
    with Image.open(tmp_path / "page" / item["picture"]) as picture:
        assert picture.size == (LONG_SIDE, 240)
        red, _, _ = picture.getpixel((20, 20))  # type: ignore[misc]
        ground = picture.getpixel((200, 100))
    assert ground != picture.size
    assert abs(red - round(0.45 * 90 + 0.55 * 128)) <= 3


def test_nothing_of_the_data_ends_the_script(tmp_path: Path) -> None:
    page = write_gallery(tmp_path, "</script><img src=x>", [entry(tmp_path, "a", half(8, 8))], CLASSES)
    text = page.read_text()
    assert text.count("</script>") == 2
    assert "<b>dög" not in text
    assert content(page)["title"] == "</script><img src=x>"
    assert "://" not in text


def test_addresses_are_quoted(tmp_path: Path) -> None:
    page = write_gallery(tmp_path / "page", "x", [entry(tmp_path, "in a/50% #1 ü", half(8, 8))], CLASSES)
    (item,) = content(page)["items"]
    assert item["picture"] == "overlays/in%20a/50%25%20%231%20%C3%BC.jpg"


def test_only_what_changed_is_drawn_again(tmp_path: Path) -> None:
    entries = [entry(tmp_path, name, half(20, 30)) for name in "ab"]
    write_gallery(tmp_path / "page", "x", entries, CLASSES)
    pictures = {name: tmp_path / "page" / "overlays" / f"{name}.jpg" for name in "ab"}
    before = {name: path.stat().st_mtime_ns for name, path in pictures.items()}
    write_mask(entries[1].mask, half(20, 30, 2), 0.1)
    os.utime(entries[1].mask, ns=(before["b"] + 10**9,) * 2)
    page = write_gallery(tmp_path / "page", "x", entries, CLASSES)
    after = {name: path.stat().st_mtime_ns for name, path in pictures.items()}
    assert after["a"] == before["a"]
    assert after["b"] != before["b"]
    assert content(page)["items"][1]["shares"] == {"1": 0.5}


def test_a_photograph_that_is_gone_keeps_its_place(tmp_path: Path) -> None:
    entries = [entry(tmp_path, name, half(20, 30), None) for name in "ab"]
    entries[0].image.unlink()
    entries[1].image.write_bytes(b"no picture")
    first, second = content(write_gallery(tmp_path / "page", "x", entries, CLASSES))["items"]
    assert (first["image"], first["picture"], first["tags"]) == ("", "", None)
    assert (second["image"], second["picture"]) == ("../photographs/b.jpg", "")


def test_a_damaged_mask_is_named(tmp_path: Path) -> None:
    damaged = entry(tmp_path, "a", half(20, 30))
    damaged.mask.write_bytes(b"no mask")
    with pytest.raises(DataError, match=r"a\.png"):
        write_gallery(tmp_path / "page", "x", [damaged], CLASSES)
    assert not (tmp_path / "page" / "index.html").exists()
