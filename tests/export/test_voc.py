"""The archive for the VOC server: its names, its bytes, and what is refused before an upload."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfc.data.images import write_mask
from sfc.data.palette import mask_palette
from sfc.data.readers.voc import VOC_CLASSES
from sfc.errors import DataError
from sfc.export.voc import export_voc
from sfc.predict.folder import Predictions

Write = Callable[..., Predictions]

FOLDER = "results/VOC2012/Segmentation/comp6_test_cls"
SIZES = {"2008_000006": (6, 9), "2008_000011": (5, 4), "2010_000002": (3, 3)}


def masks() -> dict[str, np.ndarray]:
    random = np.random.default_rng(1)
    return {f"JPEGImages/{name}": random.integers(0, 21, size).astype(np.uint8) for name, size in SIZES.items()}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "VOC2012"
    (root / "JPEGImages").mkdir(parents=True)
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    for name, (height, width) in SIZES.items():
        Image.new("RGB", (width, height)).save(root / "JPEGImages" / f"{name}.jpg")
    (root / "ImageSets" / "Segmentation" / "test.txt").write_text("\n".join(SIZES) + "\n")
    return root


def refused(predictions: Predictions, root: Path, split: str = "test") -> str:
    archive = root / "out" / "results.tar.gz"
    with pytest.raises(DataError) as caught:
        export_voc(predictions, root, archive, split)
    assert "\n" not in str(caught.value)
    assert not archive.exists()
    assert list(archive.parent.glob("*")) == []
    return str(caught.value)


def test_the_archive_holds_the_masks_in_the_colours_of_voc(write: Write, root: Path, tmp_path: Path) -> None:
    export_voc(write(tmp_path, masks(), VOC_CLASSES), root, tmp_path / "out" / "results.tar.gz")
    with tarfile.open(tmp_path / "out" / "results.tar.gz", "r:gz") as tar:
        assert tar.getnames() == [f"{FOLDER}/{name}.png" for name in sorted(SIZES)]
        for image_id, mask in masks().items():
            member = tar.extractfile(f"{FOLDER}/{Path(image_id).name}.png")
            assert member is not None
            with Image.open(io.BytesIO(member.read())) as image:
                assert image.format == "PNG"
                assert image.mode == "P"
                np.testing.assert_array_equal(np.reshape(image.getpalette(), (256, 3)), mask_palette())
                np.testing.assert_array_equal(np.asarray(image), mask)


def test_the_same_masks_give_the_same_bytes(
    write: Write, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_voc(write(tmp_path / "1", masks(), VOC_CLASSES), root, tmp_path / "a.tar.gz")
    # Another day, another order, another name, and another file in its place.
    monkeypatch.setattr("time.time", lambda: 2_000_000_000.0)
    (tmp_path / "b.tar.gz").write_text("an earlier one")
    export_voc(write(tmp_path / "2", dict(reversed(masks().items())), VOC_CLASSES), root, tmp_path / "b.tar.gz")
    assert (tmp_path / "a.tar.gz").read_bytes() == (tmp_path / "b.tar.gz").read_bytes()
    with tarfile.open(tmp_path / "a.tar.gz") as tar:
        found = {(item.mtime, item.uid, item.gid, item.uname, item.gname, item.mode) for item in tar}
        assert found == {(0, 0, 0, "", "", 0o644)}


def test_other_splits(write: Write, root: Path, tmp_path: Path) -> None:
    (root / "ImageSets" / "Segmentation" / "val.txt").write_text("2008_000011\n")
    predictions = write(tmp_path, {"2008_000011": masks()["JPEGImages/2008_000011"]}, VOC_CLASSES)
    export_voc(predictions, root, tmp_path / "val.tar.gz", "val")
    with tarfile.open(tmp_path / "val.tar.gz") as tar:
        assert tar.getnames() == ["results/VOC2012/Segmentation/comp6_val_cls/2008_000011.png"]
    message = refused(predictions, root, "trainval")
    assert message.startswith(f"{root}/ImageSets/Segmentation/trainval.txt: the list of images cannot be read")


def test_images_without_masks_and_masks_without_images(write: Write, root: Path, tmp_path: Path) -> None:
    all_masks = masks()
    some = write(tmp_path / "1", {"JPEGImages/2008_000011": all_masks["JPEGImages/2008_000011"]}, VOC_CLASSES)
    message = "images.csv: 2 of the 3 images in test.txt have no mask, the first is '2008_000006'"
    assert refused(some, root) == f"{tmp_path}/1/{message}"
    more = write(tmp_path / "2", {**all_masks, "z": np.zeros((1, 1), np.uint8)}, VOC_CLASSES)
    message = "images.csv: 1 of the 4 images are not in test.txt, the first is 'z'"
    assert refused(more, root) == f"{tmp_path}/2/{message}"
    twice = write(tmp_path / "3", {**all_masks, "b/2008_000006": np.zeros((6, 9), np.uint8)}, VOC_CLASSES)
    message = "images.csv: the ids 'JPEGImages/2008_000006' and 'b/2008_000006' are one name to VOC"
    assert refused(twice, root) == f"{tmp_path}/3/{message}"


def test_masks_that_the_server_would_refuse(write: Write, root: Path, tmp_path: Path) -> None:
    predictions = write(tmp_path, masks(), VOC_CLASSES)
    path = predictions.mask_path("JPEGImages/2010_000002")
    write_mask(path, np.array([[255, 255, 0]] * 3, np.uint8))
    assert refused(predictions, root) == f"{path}: is undecided (255) at 6 pixels; VOC takes classes only"
    write_mask(path, np.full((3, 3), 21, np.uint8))
    assert refused(predictions, root).startswith(f"{path}: mask values 21 are beyond the 20 classes")
    write_mask(path, np.zeros((3, 4), np.uint8))
    assert refused(predictions, root).startswith(f"{path}: the mask is 4x3 but its image is 3x3")
    image = root / "JPEGImages" / "2010_000002.jpg"
    image.unlink()
    assert refused(predictions, root) == f"{image}: no such file"


@pytest.mark.parametrize("classes", [VOC_CLASSES[:-1], VOC_CLASSES[::-1], (*VOC_CLASSES, "zebra")])
def test_classes_that_are_not_those_of_voc(classes: tuple[str, ...], write: Write, root: Path, tmp_path: Path) -> None:
    predictions = write(tmp_path, masks(), classes)
    message = "predictions.json: the classes are not the 20 of PASCAL VOC in its order"
    assert refused(predictions, root) == f"{tmp_path}/{message}"
