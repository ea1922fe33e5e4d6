"""COCO files: read by pycocotools, the masks come back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from scipy import ndimage

from sfc.data.images import write_mask
from sfc.data.readers import DataSection
from sfc.data.readers.coco import read_coco
from sfc.errors import DataError
from sfc.export.coco import export_coco
from sfc.predict.folder import Predictions

Write = Callable[..., Predictions]

# pycocotools' own, when it decodes.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


class InMemory(Predictions):
    """Masks that were never written."""

    def masks(self) -> Iterator[tuple[str, Path, np.ndarray]]:
        for index, (image_id, image) in enumerate(self.images):
            yield image_id, image, self.arrays[index]


def in_memory(*masks: np.ndarray) -> Predictions:
    images = tuple((str(index), Path(f"{index}.png")) for index in range(len(masks)))
    predictions = InMemory(Path(), ("cat", "dog", "cow"), images)
    object.__setattr__(predictions, "arrays", masks)
    return predictions


def rebuilt(coco: COCO, image_id: int) -> np.ndarray:
    """The mask from all annotations of an image, which must not overlap."""
    image = coco.imgs[image_id]
    mask = np.zeros((image["height"], image["width"]), dtype=np.uint8)
    for annotation in coco.imgToAnns[image_id]:
        inside = coco.annToMask(annotation).astype(bool)
        assert not mask[inside].any()
        mask[inside] = annotation["category_id"]
    return mask


def check_annotation(coco: COCO, annotation: dict[str, Any]) -> np.ndarray:
    """Area and box are those that pycocotools computes, the run lengths those that it would write."""
    code = annotation["segmentation"]
    assert isinstance(code["counts"], str)
    assert annotation["iscrowd"] == 0
    assert annotation["area"] == coco_mask.area(code) > 0
    assert annotation["bbox"] == coco_mask.toBbox(code).tolist()
    inside = coco.annToMask(annotation)
    assert coco_mask.encode(np.asfortranarray(inside))["counts"].decode() == code["counts"]
    return inside


def test_pycocotools_gives_every_mask_back(write: Write, masks: dict[str, np.ndarray], tmp_path: Path) -> None:
    path = tmp_path / "out" / "masks.json"
    export_coco(write(tmp_path, masks, ("chat", "狗", "cow")), path)
    coco = COCO(path)
    assert coco.cats == {index + 1: {"id": index + 1, "name": name} for index, name in enumerate(("chat", "狗", "cow"))}
    assert [coco.imgs[index + 1]["file_name"] for index in range(4)] == [f"{image_id}.jpg" for image_id in masks]
    assert len(coco.imgs) == len(masks)
    assert sorted(coco.anns) == list(range(1, len(coco.anns) + 1))
    for index, mask in enumerate(masks.values(), start=1):
        np.testing.assert_array_equal(rebuilt(coco, index), np.where(mask == 255, 0, mask))
        assert len(coco.imgToAnns[index]) == len(set(np.unique(mask)) - {0, 255})
    for annotation in coco.anns.values():
        check_annotation(coco, annotation)


@settings(max_examples=60)
@given(
    masks=st.lists(
        arrays(
            np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.sampled_from([0, 1, 2, 3, 255])
        ),
        min_size=1,
        max_size=3,
    ),
    instances=st.booleans(),
)
def test_any_mask_comes_back(
    tmp_path_factory: pytest.TempPathFactory, masks: list[np.ndarray], instances: bool
) -> None:
    path = tmp_path_factory.mktemp("coco") / "masks.json"
    export_coco(in_memory(*masks), path, instances=instances)
    coco = COCO(path)
    for index, mask in enumerate(masks, start=1):
        np.testing.assert_array_equal(rebuilt(coco, index), np.where(mask == 255, 0, mask))
    for annotation in coco.anns.values():
        inside = check_annotation(coco, annotation)
        if instances:
            assert ndimage.label(inside, structure=np.ones((3, 3)))[1] == 1


def test_instances_touch_at_corners_and_small_ones_go(tmp_path: Path) -> None:
    mask = np.array([[1, 0, 2, 0, 1], [0, 1, 2, 0, 0], [0, 0, 0, 0, 1]], dtype=np.uint8)
    for min_area, expected in ((1, [(1, 2), (1, 1), (1, 1), (2, 2)]), (2, [(1, 2), (2, 2)]), (3, [])):
        export_coco(in_memory(mask), tmp_path / "masks.json", instances=True, min_area=min_area)
        content = json.loads((tmp_path / "masks.json").read_text())
        assert [(item["category_id"], item["area"]) for item in content["annotations"]] == expected
    export_coco(in_memory(mask), tmp_path / "masks.json", min_area=3)
    content = json.loads((tmp_path / "masks.json").read_text())
    assert [(item["category_id"], item["area"]) for item in content["annotations"]] == [(1, 4), (2, 2)]


def test_our_own_reader_takes_it(write: Write, masks: dict[str, np.ndarray], tmp_path: Path) -> None:
    export_coco(write(tmp_path, masks), tmp_path / "instances_photos.json", instances=True)
    data = read_coco(DataSection(format="coco", root=str(tmp_path), train="photos"), "train")
    assert data.classes == ("cat", "dog", "cow")
    assert [record.id for record in data.records] == list(masks)
    for record, mask in zip(data.records, masks.values(), strict=True):
        np.testing.assert_array_equal(record.mask.load(), np.where(mask == 255, 0, mask))


@pytest.mark.parametrize(
    ("images", "names", "root"),
    [
        # Ids say where the data set's folder is, though all images lie in a sub-folder of it.
        ({"val/1": "/d/val/1.jpg", "val/2": "/d/val/2.png"}, ["val/1.jpg", "val/2.png"], "/d"),
        ({"1": "/d/val/1.jpg"}, ["1.jpg"], "/d/val"),
        # An image outside of the data set's folder.
        ({"1": "/d/e/1.jpg", "f/g/2": "/f/g/2.jpg"}, ["d/e/1.jpg", "f/g/2.jpg"], "/"),
        ({"1": "/d/e/1.jpg", "other": "/d/f/2.jpg"}, ["e/1.jpg", "f/2.jpg"], "/d"),
        ({"other": "/d/f/2.jpg"}, ["2.jpg"], "/d/f"),
        ({"a.b": "/d/a.b.jpg"}, ["a.b.jpg"], "/d"),
    ],
)
def test_file_names_are_paths_from_one_folder(
    images: dict[str, str], names: list[str], root: str, tmp_path: Path
) -> None:
    predictions = in_memory(*[np.zeros((2, 2), np.uint8)] * len(images))
    object.__setattr__(predictions, "images", tuple((image_id, Path(path)) for image_id, path in images.items()))
    export_coco(predictions, tmp_path / "masks.json")
    content = json.loads((tmp_path / "masks.json").read_text())
    assert [image["file_name"] for image in content["images"]] == names
    assert content["info"]["description"].endswith(f" file names are paths from {root}")


def test_relative_photographs_count_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    predictions = in_memory(*[np.zeros((2, 2), np.uint8)] * 2)
    images = (("x/1", Path("x/1.jpg")), ("2", tmp_path / "2.jpg"))
    object.__setattr__(predictions, "images", images)
    export_coco(predictions, Path("masks.json"))
    content = json.loads(Path("masks.json").read_text())
    assert [image["file_name"] for image in content["images"]] == ["x/1.jpg", "2.jpg"]


def test_a_damaged_mask_leaves_the_earlier_file(write: Write, masks: dict[str, np.ndarray], tmp_path: Path) -> None:
    predictions, path = write(tmp_path, masks), tmp_path / "out" / "masks.json"
    export_coco(predictions, path)
    before = path.read_bytes()
    export_coco(predictions, path)
    assert path.read_bytes() == before
    write_mask(predictions.mask_path("deep/nothing"), np.full((4, 5), 9, np.uint8))
    with pytest.raises(DataError, match="mask values 9 are beyond the 3 classes"):
        export_coco(predictions, path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
