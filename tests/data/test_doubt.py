"""How unsure a mask is, and that its file keeps it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sfc.data.images import mask_doubt, read_mask, write_mask
from sfc.data.pixels import RIVAL, doubt
from sfc.errors import DataError


def plain_doubt(maps: np.ndarray) -> float:
    """One pixel after the other."""
    doubtful = 0
    _, height, width = maps.shape
    for y in range(height):
        for x in range(width):
            strongest, second = sorted(maps[:, y, x], reverse=True)[:2]
            doubtful += second >= RIVAL * strongest
    return doubtful / (height * width)


@given(seed=st.integers(0, 1000), classes=st.integers(2, 6), height=st.integers(1, 9), width=st.integers(1, 9))
def test_doubt_is_the_share_of_pixels_with_a_rival(seed: int, classes: int, height: int, width: int) -> None:
    maps = np.random.default_rng(seed).random((classes, height, width), dtype=np.float32)
    assert doubt(maps) == pytest.approx(plain_doubt(maps))


def test_certain_and_unsure() -> None:
    certain = np.zeros((3, 4, 5), np.float32)
    certain[1] = 1
    assert doubt(certain) == 0
    assert doubt(np.full((3, 4, 5), 1 / 3, np.float32)) == 1
    assert doubt(certain[:1]) == 0


def test_a_mask_file_keeps_its_doubt_and_its_pixels(tmp_path: Path) -> None:
    mask = np.array([[0, 1, 255]], np.uint8)
    write_mask(tmp_path / "a.png", mask, 0.25)
    write_mask(tmp_path / "b.png", mask)
    assert mask_doubt(tmp_path / "a.png") == 0.25
    assert mask_doubt(tmp_path / "b.png") is None
    for name in "ab":
        np.testing.assert_array_equal(read_mask(tmp_path / f"{name}.png", 1), mask)


def test_what_is_no_number_is_no_doubt(tmp_path: Path) -> None:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("doubt", "who knows")
    Image.new("P", (3, 2)).save(tmp_path / "a.png", pnginfo=info)
    assert mask_doubt(tmp_path / "a.png") is None
    (tmp_path / "b.png").write_bytes(b"no picture")
    with pytest.raises(DataError):
        mask_doubt(tmp_path / "b.png")
