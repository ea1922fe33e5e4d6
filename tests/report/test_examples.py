"""Which images a report shows, and the masks and heat maps of its panels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfc.data.images import mask_path, write_mask
from sfc.data.records import DataSet, Record
from sfc.errors import DataError
from sfc.localize.store import cam_path, save_cams
from sfc.pictures.style import class_colours
from sfc.report.examples import PATTERN, Source, choose_examples, load_example

COUNTS = [50, 40, 30, 20, 10, 9, 4, 3, 2]
GROUPS = ["head"] * 3 + ["medium"] * 3 + ["tail"] * 3


def dataset_of(labels: list[tuple[int, ...]]) -> DataSet:
    records = tuple(Record(f"{index:04}", Path(f"{index}.jpg"), shown) for index, shown in enumerate(labels))
    return DataSet("streets", "train", tuple("abcdefghi"), records)


def stores(root: Path, dataset: DataSet, count: int = 2) -> list[Path]:
    folders = [root / str(index) for index in range(count)]
    cam = np.zeros((1, 2, 2), np.float32)
    for folder in folders:
        for record in dataset.records:
            save_cams(cam_path(folder, record.id), np.array([0]), cam, cam)
    return folders


def test_rare_classes_first_by_the_pattern_and_never_twice(tmp_path: Path) -> None:
    dataset = dataset_of([(k,) for k in range(9)] + [(k, (k + 1) % 9) for k in range(9)] * 3)
    chosen = choose_examples(dataset, COUNTS, GROUPS, stores(tmp_path, dataset))
    assert [GROUPS[shown] for _, shown in chosen] == list(PATTERN)
    assert [shown for _, shown in chosen] == [8, 5, 7, 2, 6, 4]
    assert all(shown in record.labels and len(record.labels) == 2 for record, shown in chosen)
    assert len({record.id for record, _ in chosen}) == len(PATTERN)


def test_order_of_the_records_does_not_matter(tmp_path: Path) -> None:
    dataset = dataset_of([(k, (k + 2) % 9) for k in range(9)] * 4)
    folders = stores(tmp_path, dataset)
    chosen = choose_examples(dataset, COUNTS, GROUPS, folders)
    turned = choose_examples(replace(dataset, records=dataset.records[::-1]), COUNTS, GROUPS, folders)
    assert [record.id for record, _ in turned] == [record.id for record, _ in chosen]


def test_only_images_that_all_runs_have(tmp_path: Path) -> None:
    dataset = dataset_of([(8, 0), (8, 0), (8, 0)])
    folders = stores(tmp_path, dataset)
    cam_path(folders[1], "0000").unlink()
    cam_path(folders[0], "0002").unlink()
    assert [record.id for record, _ in choose_examples(dataset, COUNTS, GROUPS, folders)] == ["0001"]


def test_missing_groups_are_filled_with_the_rarest_classes(tmp_path: Path) -> None:
    dataset = dataset_of([(k,) for k in range(4)])
    chosen = choose_examples(dataset, [9, 8, 7, 6, 0], ["head"] * 4 + ["absent"], stores(tmp_path, dataset))
    assert [shown for _, shown in chosen] == [3, 2, 1, 0]


def test_company_of_one_or_two_is_preferred(tmp_path: Path) -> None:
    dataset = dataset_of([(0,), (0, 1, 2, 3), (0, 1, 2)])
    chosen = choose_examples(dataset, [5, 0, 0, 0], ["tail", "absent", "absent", "absent"], stores(tmp_path, dataset))
    assert [record.id for record, _ in chosen] == ["0002"]


@pytest.mark.parametrize(("what", "expected"), [("W", [2, 0]), ("P", [0, 5]), ("", [2, 5]), ("W + 0.5 P", [2, 5])])
def test_panels_show_the_map_that_was_asked_for(tmp_path: Path, what: str, expected: list[int]) -> None:
    Image.new("RGB", (2, 1)).save(tmp_path / "a.png")
    keys = np.array([0, 2, 5])
    weight = np.array([[[0.5, 1.0]], [[2.0, 0.0]], [[0.0, 0.9]]], np.float32)
    prototype = np.array([[[0.9, 0.5]], [[0.6, 0.0]], [[0.0, 2.0]]], np.float32)
    save_cams(cam_path(tmp_path, "a"), keys, weight, prototype, lossless=True)
    record = Record("a", tmp_path / "a.png", (1, 4))
    example = load_example(record, 4, [Source("SFC", tmp_path, 0.5, what)])
    assert example.truth is None
    assert example.panels[0].mask.tolist() == [expected]
    heat = {"W": [0, 0.45], "P": [0, 1.0]}.get(what, [0, (0.9 + 0.5 * 2) / 3])
    np.testing.assert_allclose(example.panels[0].heat, [heat], rtol=1e-6)  # type: ignore[arg-type]
    missing = load_example(record, 0, [Source("SFC", tmp_path, 0.5, what)])
    assert missing.panels[0].heat is None


def test_refined_masks_take_the_place_of_the_maps_own(tmp_path: Path) -> None:
    Image.new("RGB", (2, 1)).save(tmp_path / "a.png")
    cams = np.array([[[0.5, 1.0]], [[2.0, 0.0]]], np.float32)
    save_cams(cam_path(tmp_path, "a"), np.array([0, 2]), cams, cams, lossless=True)
    write_mask(mask_path(tmp_path / "masks", "a"), np.array([[0, 2]], np.uint8))
    source = Source("SFC", tmp_path, 1.0, "W", tmp_path / "masks", "irn")
    (panel,) = load_example(Record("a", tmp_path / "a.png", (1,)), 1, [source]).panels
    assert panel.mask.tolist() == [[0, 2]]
    np.testing.assert_allclose(panel.heat, [[1.0, 0.0]])  # type: ignore[arg-type]


def test_cams_of_another_size_name_the_file(tmp_path: Path) -> None:
    Image.new("RGB", (3, 3)).save(tmp_path / "a.png")
    cam = np.zeros((1, 2, 2), np.float32)
    save_cams(cam_path(tmp_path, "a"), np.array([0]), cam, cam)
    with pytest.raises(DataError, match=r"a\.cam: CAMs of"):
        load_example(Record("a", tmp_path / "a.png", (0,)), 0, [Source("SFC", tmp_path, 1.0)])


@pytest.mark.parametrize("count", [1, 9, 20, 81, 254])
def test_colours_are_valid_and_all_different(count: int) -> None:
    colours = class_colours(count)
    assert colours.shape == (count + 1, 3)
    assert colours.min() >= 0
    assert colours.max() <= 1
    assert len(np.unique((255 * colours).round(), axis=0)) == count + 1
