"""What is written of a photograph, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfc.data.images import mask_doubt, read_mask, write_mask
from sfc.data.pixels import doubt
from sfc.errors import DataError, SFCError
from sfc.predict.outputs import Outputs, Strip, file_note, overlay

PHOTO = Path("gone.jpg")
IMAGE = np.random.default_rng(0).integers(0, 256, (30, 20, 3), dtype=np.uint8)
PROBABILITIES = np.random.default_rng(1).dirichlet([1, 1, 1], (30, 20)).transpose(2, 0, 1).astype(np.float32)


def strips(heights: tuple[int, ...] = (12, 1, 17)) -> Iterator[Strip]:
    top = 0
    for height in heights:
        rows = PROBABILITIES[:, top : top + height]
        yield Strip(top, rows.argmax(axis=0).astype(np.uint8), rows, doubt(rows))
        top += height


def test_mask_probabilities_and_overlay_from_strips(tmp_path: Path) -> None:
    outputs = Outputs(tmp_path, probabilities=True, overlays=True)
    assert not outputs.finished("sub/ü", PHOTO)
    outputs.write("sub/ü", IMAGE, "", 3, strips())
    assert outputs.finished("sub/ü", PHOTO)
    np.testing.assert_array_equal(read_mask(tmp_path / "masks/sub/ü.png", 2), PROBABILITIES.argmax(axis=0))
    with Image.open(tmp_path / "masks/sub/ü.png") as mask:
        assert mask.mode == "P"
        assert np.asarray(mask.convert("RGB")).any()
    stored = np.load(tmp_path / "probabilities/sub/ü.npy", allow_pickle=False)
    assert stored.dtype == np.float16
    np.testing.assert_array_equal(stored, PROBABILITIES.astype(np.float16))
    with Image.open(tmp_path / "overlays/sub/ü.jpg") as picture:
        assert picture.size == (20, 30)


def test_only_what_is_wanted(tmp_path: Path) -> None:
    Outputs(tmp_path).write("a", IMAGE, "", 3, strips())
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["a.png"]
    assert Outputs(tmp_path).finished("a", PHOTO)
    assert not Outputs(tmp_path, overlays=True).finished("a", PHOTO)
    assert not Outputs(tmp_path, probabilities=True).finished("a", PHOTO)


def predicted(outputs: Outputs, photo: Path) -> None:
    outputs.write("a", IMAGE, file_note(photo), 3, strips())


@pytest.mark.parametrize("change", ["newer", "older", "of another size"])
def test_a_photograph_that_changed_is_not_finished(change: str, tmp_path: Path) -> None:
    photo, outputs = tmp_path / "a.jpg", Outputs(tmp_path / "out")
    photo.write_bytes(b"first")
    predicted(outputs, photo)
    assert outputs.finished("a", photo)
    time = photo.stat().st_mtime_ns
    if change == "of another size":
        photo.write_bytes(b"second")
    time += {"newer": 10**9, "older": -(10**12), "of another size": 0}[change]
    os.utime(photo, ns=(time, time))
    assert not outputs.finished("a", photo)
    predicted(outputs, photo)
    assert outputs.finished("a", photo)


def test_nothing_is_left_of_another_photograph(tmp_path: Path) -> None:
    photo, everything = tmp_path / "a.jpg", Outputs(tmp_path / "out", probabilities=True, overlays=True)
    photo.write_bytes(b"first")
    predicted(everything, photo)
    predicted(Outputs(tmp_path / "out", overlays=True), photo)
    assert everything.finished("a", photo)
    photo.write_bytes(b"second")
    predicted(Outputs(tmp_path / "out", overlays=True), photo)
    assert not everything.finished("a", photo)
    assert not (tmp_path / "out/probabilities/a.npy").exists()
    assert Outputs(tmp_path / "out", overlays=True).finished("a", photo)


def test_masks_of_nobody_knows_what_are_made_again(tmp_path: Path) -> None:
    photo, outputs = tmp_path / "a.jpg", Outputs(tmp_path / "out")
    photo.write_bytes(b"first")
    write_mask(outputs.mask("a"), np.zeros((3, 3), np.uint8), 0.5)
    assert not outputs.finished("a", photo)
    predicted(outputs, photo)
    assert mask_doubt(outputs.mask("a")) is not None
    outputs.mask("a").write_bytes(b"damaged")
    assert not outputs.finished("a", photo)


def test_a_source_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[Strip]:
        yield next(strips())
        raise DataError("photo.jpg", "went away")

    with pytest.raises(DataError, match="went away"):
        Outputs(tmp_path, probabilities=True, overlays=True).write("a", IMAGE, "", 3, broken())
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "masks").write_text("in the way")
    with pytest.raises(SFCError, match=r"masks/a\.png: cannot be written"):
        Outputs(tmp_path).write("a", IMAGE, "", 3, strips())


def test_an_overlay_colours_classes_and_leaves_background(tmp_path: Path) -> None:
    mask = np.zeros((30, 20), np.uint8)
    mask[5:10, 5:10] = 1
    picture = overlay(IMAGE, mask)
    np.testing.assert_array_equal(picture[mask == 0], IMAGE[mask == 0])
    expected = 0.45 * IMAGE[7, 7] + 0.55 * np.array([128, 0, 0])
    np.testing.assert_allclose(picture[7, 7], expected, atol=0.5)
    tall = np.concatenate([IMAGE] * 20)
    np.testing.assert_array_equal(overlay(tall, np.concatenate([mask] * 20)), np.concatenate([picture] * 20))
