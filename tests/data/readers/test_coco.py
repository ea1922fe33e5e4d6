"""The COCO reader: labels and masks from instances JSON, built lazily and without trusting it."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask

from sfc.data.readers import DataSection as DataConfig
from sfc.data.readers.coco import read_coco
from sfc.data.readers.coco_json import iterate_items
from sfc.data.readers.coco_regions import area, pixels, run_lengths
from sfc.errors import ConfigError, DataError

HEIGHT, WIDTH = 6, 8


def box(left: int, top: int, right: int, bottom: int) -> list[list[float]]:
    return [[left, top, right, top, right, bottom, left, bottom]]


def annotation(image: int, category: int, segmentation: Any, crowd: int = 0) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "segmentation": segmentation, "iscrowd": crowd}


def write(
    root: Path, annotations: list[dict], names: tuple[str, ...] = ("a.jpg", "b.jpg"), **changes: Any
) -> DataConfig:
    """A data set of two images and the categories 3 kite, 7 cow and 90 tie (gaps as in COCO)."""
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    for name in names:
        (root / "train" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT)).save(root / "train" / name)
    content = {
        "info": {"year": 2014, "note": ["]", "}"]},
        "images": [
            {"id": 10 * (index + 1), "file_name": name, "height": HEIGHT, "width": WIDTH}
            for index, name in enumerate(names)
        ],
        "annotations": [{"id": index, **item} for index, item in enumerate(annotations)],
        "categories": [{"id": 90, "name": "tie"}, {"id": 3, "name": "kite"}, {"id": 7, "name": "cow"}],
    } | changes
    (root / "annotations" / "instances_train.json").write_text(json.dumps(content))
    return DataConfig(format="coco", root=str(root), train="train")


def test_labels_gaps_and_negatives(tmp_path: Path) -> None:
    config = write(
        tmp_path,
        [annotation(20, 90, box(0, 0, 2, 2)), annotation(20, 3, box(1, 1, 3, 3)), annotation(20, 90, box(4, 4, 6, 6))],
    )
    data = read_coco(config, "train")
    assert data.classes == ("kite", "cow", "tie")
    assert [(record.id, record.labels) for record in data.records] == [("a", ()), ("b", (0, 2))]
    assert not data.records[0].mask.load().any()
    assert data.class_counts().tolist() == [1, 0, 1]


def test_a_byte_order_mark_moves_no_outline(tmp_path: Path) -> None:
    config = write(
        tmp_path, [annotation(10, 7, box(0, 0, 3, 2)), annotation(20, 3, box(1, 1, 3, 3))], ("a.jpg", "é.jpg")
    )
    path = tmp_path / "annotations" / "instances_train.json"
    expected = [record.mask.load() for record in read_coco(config, "train").records]
    path.write_text(json.dumps(json.loads(path.read_text()), ensure_ascii=False), encoding="utf-8-sig")
    data = read_coco(config, "train")
    assert [(record.id, record.labels) for record in data.records] == [("a", (1,)), ("é", (0,))]
    np.testing.assert_array_equal([record.mask.load() for record in data.records], expected)


def test_small_objects_lie_on_large_ones_whatever_the_order(tmp_path: Path) -> None:
    small, large = annotation(10, 90, box(2, 2, 4, 4)), annotation(10, 7, box(0, 0, 6, 6))
    expected = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    expected[:, :6] = 2
    expected[2:4, 2:4] = 3
    for index, order in enumerate(([small, large], [large, small])):
        mask = read_coco(write(tmp_path / str(index), order), "train").records[0].mask.load()
        assert mask.dtype == np.uint8
        assert mask.flags["C_CONTIGUOUS"]
        np.testing.assert_array_equal(mask, expected)


def test_crowds_are_ignored_below_objects_and_give_no_label(tmp_path: Path) -> None:
    counts = [0, 3 * HEIGHT, HEIGHT * (WIDTH - 3)]
    crowd = annotation(10, 3, {"size": [HEIGHT, WIDTH], "counts": counts}, crowd=1)
    objects = [annotation(10, 7, box(2, 0, 8, 6)), annotation(20, 3, box(0, 0, 1, 1))]
    data = read_coco(write(tmp_path, [crowd, *objects]), "train")
    assert data.records[0].labels == (1,)
    expected = np.full((HEIGHT, WIDTH), 2)
    expected[:, :2] = 255
    np.testing.assert_array_equal(data.records[0].mask.load(), expected)


def test_compressed_run_lengths_and_several_polygons(tmp_path: Path) -> None:
    region = np.zeros((HEIGHT, WIDTH), dtype=np.uint8, order="F")
    region[1:3, 2:5] = 1
    code = coco_mask.encode(region)
    compressed = {"size": [HEIGHT, WIDTH], "counts": code["counts"].decode()}
    both = box(0, 0, 1, 1) + box(6, 4, 8, 6) + [[0.0, 5.0, 3.0, 5.0]]
    data = read_coco(write(tmp_path, [annotation(10, 3, compressed), annotation(20, 7, both)]), "train")
    np.testing.assert_array_equal(data.records[0].mask.load(), region)
    expected = np.zeros((HEIGHT, WIDTH))
    expected[0, 0] = 2
    expected[4:, 6:] = 2
    np.testing.assert_array_equal(data.records[1].mask.load(), expected)


def test_records_are_small_and_travel_to_workers(tmp_path: Path) -> None:
    polygon = [[float(value) for value in np.random.default_rng(0).uniform(0, 5, 20_000)]]
    data = read_coco(write(tmp_path, [annotation(10, 3, polygon)]), "train")
    packed = pickle.dumps(data.records)
    assert len(packed) < 2000
    np.testing.assert_array_equal(pickle.loads(packed)[0].mask.load(), data.records[0].mask.load())


def test_other_places_sub_folders_unicode_and_limit(tmp_path: Path) -> None:
    config = write(tmp_path, [annotation(20, 3, box(0, 0, 8, 6))], ("x/é.jpg", "y/é.png"))
    text = (tmp_path / "annotations" / "instances_train.json").read_text()
    (tmp_path / "annotations").rename(tmp_path / "old")
    (tmp_path / "train").rename(tmp_path / "images")
    unescaped = json.dumps(json.loads(text), ensure_ascii=False, indent=2)
    (tmp_path / "instances_train.json").write_text(unescaped, encoding="utf-8")
    data = read_coco(config, "train")
    assert [(record.id, record.labels) for record in data.records] == [("x/é", ()), ("y/é", (0,))]
    assert (data.records[1].mask.load() == 1).all()
    assert len(read_coco(replace(config, limit=1), "train")) == 1


@pytest.mark.parametrize(
    ("annotations", "changes", "sentence"),
    [
        ([annotation(5, 3, [])], {}, "has an annotation of the image 5, which it does not list"),
        ([annotation(10, 4, [])], {}, "has an annotation of the category 4, which it does not list"),
        ([{"image_id": 10}], {}, "one of its annotations is malformed at byte"),
        ([], {"images": [{"id": 1, "file_name": "a.jpg"}]}, "one of its images is malformed at byte"),
        (
            [],
            {"images": [{"id": 1, "file_name": "a.jpg", "height": float("inf"), "width": 8}]},
            "one of its images is malformed at byte",
        ),
        ([annotation(10, float("inf"), [])], {}, "one of its annotations is malformed at byte"),
        ([], {"images": [{"id": 1, "file_name": "a.jpg", "height": 6, "width": 8}] * 2}, "the id 1 is there already"),
        ([], {"images": []}, "has no images"),
        ([], {"categories": []}, "names no class"),
        ([], {"categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]}, "names the class 'a' twice"),
        ([], {"images": [3]}, "images must hold objects"),
    ],
)
def test_faulty_files(tmp_path: Path, annotations: list, changes: dict, sentence: str) -> None:
    config = write(tmp_path, annotations, **changes)
    with pytest.raises(DataError) as caught:
        read_coco(config, "train")
    assert str(caught.value).startswith(str(tmp_path / "annotations" / "instances_train.json"))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_files_and_equal_ids(tmp_path: Path) -> None:
    config = write(tmp_path, [], ("a.jpg", "a.png"))
    with pytest.raises(DataError, match=r"lists the images 'a\.jpg' and 'a\.png', which get the same id"):
        read_coco(config, "train")
    config = write(tmp_path, [])
    (tmp_path / "train" / "b.jpg").unlink()
    with pytest.raises(DataError, match=r"train/b\.jpg: there is no such image, though instances_train\.json lists it"):
        read_coco(config, "train")
    with pytest.raises(DataError, match=r"annotations/instances_val\.json: there is no such annotation file"):
        read_coco(replace(config, train="val"), "train")
    with pytest.raises(ConfigError, match=r"data\.val is empty"):
        read_coco(config, "val")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.99])
def test_truncated_annotation_file(tmp_path: Path, share: float) -> None:
    config = write(tmp_path, [annotation(10, 3, box(0, 0, 2, 2))])
    path = tmp_path / "annotations" / "instances_train.json"
    path.write_text(path.read_text()[: int(share * path.stat().st_size)])
    with pytest.raises(DataError, match="is not a COCO annotation file"):
        read_coco(config, "train")


def test_mask_of_another_size_or_a_changed_file(tmp_path: Path) -> None:
    record = read_coco(write(tmp_path, [annotation(10, 3, box(0, 0, 2, 2))]), "train").records[0]
    Image.new("RGB", (HEIGHT, WIDTH)).save(record.image)
    with pytest.raises(DataError, match=r"a\.jpg: the image is 6x8, but its annotations say 8x6"):
        record.mask.load()
    Image.new("RGB", (WIDTH, HEIGHT)).save(record.image)
    path = tmp_path / "annotations" / "instances_train.json"
    path.write_text(" " + path.read_text())
    with pytest.raises(DataError, match=r"instances_train\.json: has changed since it was read"):
        record.mask.load()


@pytest.mark.parametrize(
    "segmentation",
    [
        "polygon",
        {},
        {"size": [HEIGHT, WIDTH]},
        {"size": [WIDTH, HEIGHT], "counts": [48]},
        {"size": [HEIGHT, WIDTH], "counts": [47]},
        {"size": [HEIGHT, WIDTH], "counts": [-1, 49]},
        {"size": [HEIGHT, WIDTH], "counts": [23.5, 24.5]},
        {"size": [HEIGHT, WIDTH], "counts": ""},
        {"size": [HEIGHT, WIDTH], "counts": "zzzz"},
        {"size": [HEIGHT, WIDTH], "counts": "o"},
        [[0, 0, 1, 1, 2, float("nan")]],
        [[0, 0, 1, 1, 2, float("inf")]],
        [[0, 0, 1, 1, 2, 1e9]],
        {"size": [HEIGHT, WIDTH], "counts": [float("inf"), 1]},
        {"size": [HEIGHT, WIDTH], "counts": [2**70, 48 - 2**70]},
        [[0, 0, 1, 1, 2, 2, 3]],
        [["a"] * 6],
    ],
)
def test_malformed_segmentations(tmp_path: Path, segmentation: Any) -> None:
    record = read_coco(write(tmp_path, [annotation(10, 3, segmentation)]), "train").records[0]
    with pytest.raises(DataError, match=r"instances_train\.json, annotation 0: its segmentation is malformed"):
        record.mask.load()


@settings(max_examples=100)
@given(height=st.integers(1, 40), width=st.integers(1, 40), share=st.floats(0, 1), seed=st.integers(0, 999))
def test_run_lengths_equal_pycocotools(height: int, width: int, share: float, seed: int) -> None:
    region = np.asfortranarray(np.random.default_rng(seed).random((height, width)) < share)
    code = coco_mask.encode(region.astype(np.uint8))
    counts = run_lengths({"size": [height, width], "counts": code["counts"].decode()}, height, width)
    assert run_lengths({"size": [height, width], "counts": counts}, height, width) == counts
    assert area(counts) == region.sum()
    np.testing.assert_array_equal(pixels(counts, height), region)


@settings(max_examples=80)
@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    ),
    indent=st.sampled_from([None, 0, 3]),
    ascii_only=st.booleans(),
)
def test_items_are_found_in_any_json(
    tmp_path_factory: pytest.TempPathFactory, value: Any, indent: int | None, ascii_only: bool
) -> None:
    path = tmp_path_factory.mktemp("json") / "file.json"
    elements = {key: [{"id": 1, "x": value}, {"id": 2, key: "é\u2028"}] for key in ("images", "annotations")}
    content = {"first": value, **elements, "last": value}
    data = json.dumps(content, indent=indent, ensure_ascii=ascii_only).encode(errors="replace")
    path.write_bytes(data)
    found = list(iterate_items(path))
    assert [(item.key, item.value) for item in found] == [
        (key, element) for key in elements for element in json.loads(data)[key]
    ]
    assert all(json.loads(data[item.start : item.stop]) == item.value for item in found)


def test_boxes_are_tags_and_no_masks(tmp_path: Path) -> None:
    boxes: list[dict] = [annotation(10, 7, []), {"image_id": 20, "category_id": 3, "bbox": [0, 0, 2, 2]}]
    data = read_coco(write(tmp_path / "boxes", boxes), "train")
    assert [record.labels for record in data.records] == [(1,), (0,)]
    assert [record.mask for record in data.records] == [None, None]
    mixed = [annotation(10, 7, box(0, 0, 2, 2)), annotation(20, 3, box(0, 0, 2, 2)), annotation(20, 7, [])]
    first, second = read_coco(write(tmp_path / "mixed", mixed), "train").records
    assert first.mask is not None
    assert second.mask is None  # a mask that knows the kite alone would call the cow background


def test_a_category_that_is_crowds_alone_was_painted_with_a_brush(tmp_path: Path) -> None:
    brush = [annotation(10, 7, box(0, 0, 2, 2), crowd=1), annotation(20, 3, box(0, 0, 2, 2))]
    crowd = annotation(20, 7, box(4, 4, 6, 6), crowd=1)
    painted, _ = read_coco(write(tmp_path / "brush", brush), "train").records
    assert painted.labels == (1,)
    assert painted.mask.load()[0, 0] == 2
    official = [annotation(10, 7, box(0, 0, 2, 2)), annotation(20, 3, box(0, 0, 2, 2)), crowd]
    _, second = read_coco(write(tmp_path / "official", official), "train").records
    assert second.labels == (0,)
    assert second.mask.load()[4, 4] == 255
