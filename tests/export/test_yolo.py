"""YOLO data sets: polygons that are the masks, in places where Ultralytics looks for them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from sfc.data.images import write_mask
from sfc.errors import DataError, SFCError
from sfc.export.yolo import export_yolo
from sfc.predict.folder import Predictions

Write = Callable[..., Predictions]
Fill = Callable[[np.ndarray, tuple[int, int]], np.ndarray]


def files(folder: Path) -> dict[str, bytes | str]:
    """Everything in a folder: bytes, or where a link leads."""
    return {
        path.relative_to(folder).as_posix(): os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def read_label(path: Path, size: tuple[int, int], winding: Fill) -> np.ndarray:
    """The mask that a label file describes; its polygons must not overlap."""
    mask = np.zeros(size, dtype=np.uint8)
    for line in path.read_text().splitlines():
        label, *numbers = line.split()
        points = np.array([float(number) for number in numbers]).reshape(-1, 2)
        assert 0 <= points.min() <= points.max() <= 1
        turns = winding(points * (size[1], size[0]), size)
        assert set(np.unique(turns)) <= {0, 1}
        assert not mask[turns == 1].any()
        mask[turns == 1] = int(label) + 1
    return mask


def test_the_polygons_are_the_masks(write: Write, masks: dict[str, np.ndarray], winding: Fill, tmp_path: Path) -> None:
    export_yolo(write(tmp_path, masks), tmp_path / "out")
    for image_id, mask in masks.items():
        found = read_label(tmp_path / "out" / "labels" / f"{image_id}.txt", mask.shape, winding)
        np.testing.assert_array_equal(found, np.where(mask == 255, 0, mask))
    assert (tmp_path / "out" / "labels" / "deep" / "nothing.txt").read_bytes() == b""


def test_large_images_keep_their_pixels(write: Write, winding: Fill, tmp_path: Path) -> None:
    mask = np.zeros((3, 20_011), dtype=np.uint8)
    mask[np.random.default_rng(2).integers(0, 3, 60), np.random.default_rng(3).integers(0, 20_011, 60)] = 2
    export_yolo(write(tmp_path, {"wide": mask}), tmp_path / "out")
    np.testing.assert_array_equal(read_label(tmp_path / "out/labels/wide.txt", mask.shape, winding), mask)


def test_lines_and_settings(write: Write, tmp_path: Path) -> None:
    mask = np.array([[3, 3, 0, 1], [3, 3, 0, 0]], dtype=np.uint8)
    predictions = write(tmp_path, {"a": mask}, ("cat", "no", "狗: x"))
    export_yolo(predictions, tmp_path / "out")
    text = (tmp_path / "out" / "labels" / "a.txt").read_text()
    assert text == "0 0.75 0 1 0 1 0.5 0.75 0.5\n2 0 0 0.5 0 0.5 1 0 1\n"
    settings = yaml.safe_load((tmp_path / "out" / "data.yaml").read_text(encoding="utf-8"))
    assert settings == {
        "path": str(tmp_path / "out"),
        "train": "images",
        "val": "images",
        "nc": 3,
        "names": {0: "cat", 1: "no", 2: "狗: x"},
    }
    export_yolo(predictions, tmp_path / "out", min_area=2)
    assert (tmp_path / "out" / "labels" / "a.txt").read_text() == "2 0 0 0.5 0 0.5 1 0 1\n"


def test_ultralytics_finds_each_label_from_its_image(
    write: Write, masks: dict[str, np.ndarray], tmp_path: Path
) -> None:
    masks = {**masks, "images/1": masks["a"], "x/images/y/images.v1": masks["a"], "images": masks["a"]}
    predictions = write(tmp_path, masks)
    export_yolo(predictions, tmp_path / "out")
    links = [path for path in (tmp_path / "out" / "images").rglob("*") if not path.is_dir()]
    assert {path.resolve() for path in links} == {path for _, path in predictions.images}
    labels = {"/labels/".join(str(link).rsplit("/images/", 1)).rsplit(".", 1)[0] + ".txt" for link in links}
    assert labels == {str(path) for path in (tmp_path / "out" / "labels").rglob("*.txt")}
    assert len(labels) == len(masks)


def test_links_to_photographs_with_relative_paths(
    write: Write, masks: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    export_yolo(write(Path("in"), masks), Path("out"))
    for image_id in masks:
        assert (tmp_path / "out" / "images" / f"{image_id}.jpg").samefile(
            tmp_path / "in" / "photos" / f"{image_id}.jpg"
        )
    assert yaml.safe_load(Path("out/data.yaml").read_text())["path"] == str(tmp_path / "out")


def test_ids_that_would_become_one(write: Write, masks: dict[str, np.ndarray], tmp_path: Path) -> None:
    predictions = write(tmp_path, {"images/1": masks["a"], "images_/1": masks["a"]})
    with pytest.raises(DataError, match=r"has the same image in a folder 'images' and in a folder 'images_'"):
        export_yolo(predictions, tmp_path / "out")


def test_an_earlier_export_is_replaced_and_other_files_stay(
    write: Write, masks: dict[str, np.ndarray], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    export_yolo(write(tmp_path / "1", masks), out)
    before = files(out)
    export_yolo(write(tmp_path / "1", masks), out)
    assert files(out) == before
    (out / "labels.cache").write_text("of Ultralytics")
    (out / "notes.txt").write_text("mine")
    export_yolo(write(tmp_path / "2", {"b": masks["a"]}), out)
    assert sorted(files(out)) == ["data.yaml", "images/b.jpg", "labels/b.txt", "notes.txt"]
    assert (tmp_path / "1" / "photos" / "a.jpg").exists()


def test_a_fault_leaves_the_earlier_export(write: Write, masks: dict[str, np.ndarray], tmp_path: Path) -> None:
    out = tmp_path / "out"
    predictions = write(tmp_path, masks)
    export_yolo(predictions, out)
    before = files(out)
    (tmp_path / "photos" / "deep" / "nothing.jpg").unlink()
    with pytest.raises(DataError, match=r"photos/deep/nothing\.jpg: no such file, so there is nothing to link to"):
        export_yolo(predictions, out)
    write_mask(predictions.mask_path("deep/nothing"), np.full((4, 5), 9, np.uint8))
    with pytest.raises(DataError, match="mask values 9 are beyond the 3 classes"):
        export_yolo(predictions, out, link_images=False)
    assert files(out) == before
    assert sorted(path.name for path in out.iterdir()) == ["data.yaml", "images", "labels"]


@pytest.mark.parametrize("name", ["labels/a.txt", "images/a.jpg", "data.yaml"])
def test_what_was_not_exported_is_not_overwritten(
    name: str, write: Write, masks: dict[str, np.ndarray], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (out / name).parent.mkdir(parents=True, exist_ok=True)
    (out / name).write_text("mine")
    top = name.partition("/")[0]
    with pytest.raises(SFCError, match=f"out/{top}: is there and was not written by an export; name another folder"):
        export_yolo(write(tmp_path, masks), out)
    assert files(out) == {name: b"mine"}


def test_photographs_that_were_put_there_stay(write: Write, masks: dict[str, np.ndarray], tmp_path: Path) -> None:
    out = tmp_path / "out"
    predictions = write(tmp_path, masks)
    (tmp_path / "photos" / "a.jpg").unlink()
    export_yolo(predictions, out, link_images=False)
    assert list((out / "images").iterdir()) == []
    (out / "images" / "a.jpg").write_text("mine")
    before = files(out)
    export_yolo(predictions, out, link_images=False)
    assert files(out) == before
    with pytest.raises(SFCError, match=r"images/a\.jpg: is no link of an earlier export and would be overwritten"):
        export_yolo(predictions, out)
    assert files(out) == before


def test_a_folder_that_cannot_be(write: Write, masks: dict[str, np.ndarray], tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(SFCError, match=r"out: cannot be written \(File exists\)"):
        export_yolo(write(tmp_path, masks), tmp_path / "out")
