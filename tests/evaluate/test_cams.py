"""Scores from stored CAMs against an argmax and a loop over classes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from sfc.data.records import DataSet, Record
from sfc.errors import DataError, SFCError
from sfc.evaluate.cams import evaluate_cams
from sfc.evaluate.scores import Scores, read_scores, write_scores
from sfc.localize.store import cam_path, save_cams

CLASSES = ("car", "cat", "bus", "cow")
GROUPS = ["head", "medium", "tail", "absent"]


@dataclass(frozen=True)
class ArrayMask:
    """A mask that needs no file."""

    values: np.ndarray

    def load(self) -> np.ndarray:
        return self.values


def make_split(folder: Path, images: int = 11, seed: int = 0) -> tuple[DataSet, dict[str, tuple[np.ndarray, ...]]]:
    """Images of cars, cats and buses (no cow) with CAMs that know a little, and a negative."""
    rng = np.random.default_rng(seed)
    records, arrays = [], {}
    for index in range(images):
        size = tuple(rng.integers(5, 12, 2))
        labels = tuple(np.flatnonzero(rng.random(3) < 0.6).tolist()) if index else ()
        keys = np.array([0, *(label + 1 for label in labels)])
        mask = rng.choice(keys, size).astype(np.uint8)
        cams = rng.random((2, len(keys), *size)).astype(np.float32)
        cams += 0.3 * (mask == keys[:, None, None])
        cams[:, 1:] *= 2
        cams[:, 0] += np.float32(0.4)
        mask[rng.random(size) < 0.1] = 255
        name = f"folder {index % 2}/{index}"
        save_cams(cam_path(folder, name), keys, *cams, lossless=True)
        records.append(Record(name, Path(f"{name}.jpg"), labels, ArrayMask(mask)))
        arrays[name] = (mask, keys, *cams)
    return DataSet("streets", "val", CLASSES, tuple(records)), arrays


def score(dataset: DataSet, folder: Path, **settings: object) -> Scores:
    arguments = {"run": "SFC", "class_groups": GROUPS, "provenance": {"CRF": "none"}, **settings}
    return evaluate_cams(dataset, folder, **arguments)  # type: ignore[arg-type]


def plain_iou(pairs: list[tuple[np.ndarray, np.ndarray]]) -> list[float | None]:
    result: list[float | None] = []
    for k in range(len(CLASSES) + 1):
        both = sum(int(((t == k) & (p == k)).sum()) for t, p in pairs)
        either = sum(int((((t == k) | (p == k)) & (t != 255)).sum()) for t, p in pairs)
        result.append(100 * both / either if either else None)
    return result


@pytest.mark.parametrize("weight", [1.0, 0.7])
def test_fixed_scores_are_those_of_an_argmax(tmp_path: Path, weight: float) -> None:
    dataset, arrays = make_split(tmp_path)
    scores = score(dataset, tmp_path, fusion_lambda=weight, class_counts=np.array([9, 5, 2, 0]))
    assert [entry.what for entry in scores.scores] == ["W", "P", "W + P" if weight == 1 else "W + 0.7 P"]
    assert scores.images == len(arrays)
    assert scores.missing == []
    assert scores.class_counts == [9, 5, 2, 0]
    for position, entry in enumerate(scores.scores):
        pairs = []
        for mask, keys, w, p in arrays.values():
            cam = (w, p, w + np.float32(weight) * p)[position]
            pairs.append((mask, keys[cam.argmax(0)]))
        expected = plain_iou(pairs)
        assert entry.iou == pytest.approx(expected)
        seen = [value for value in expected if value is not None]
        assert entry.fixed == pytest.approx(sum(seen) / len(seen))
        assert entry.groups == pytest.approx(
            {"head": expected[1], "medium": expected[2], "tail": expected[3]}, nan_ok=True
        )
        truth = sum(int((t == 1).sum()) for t, _ in pairs)
        false = sum(int(((t != 1) & (t != 255) & (p == 1)).sum()) for t, p in pairs)
        false_on_background = sum(int(((t == 0) & (p == 1)).sum()) for t, p in pairs)
        missed = sum(int(((t == 1) & (p != 1)).sum()) for t, p in pairs)
        assert entry.over_activation["head"] == pytest.approx(100 * false / truth)
        assert entry.class_over_activation[1] == pytest.approx(100 * false / truth)
        assert entry.class_over_on_background[1] == pytest.approx(100 * false_on_background / truth)
        assert entry.class_over_on_background[0] == 0
        assert entry.under_activation["head"] == pytest.approx(100 * missed / truth)
        assert entry.background_score == pytest.approx(0.4 * (1, 1, 1 + weight)[position])


def test_oracle_is_searched_and_kept_apart(tmp_path: Path) -> None:
    dataset, arrays = make_split(tmp_path)
    entry = score(dataset, tmp_path).scores[0]
    best = 0.0
    for shift in np.arange(-1.4, 1.6, 0.01):
        pairs = []
        for mask, keys, w, _ in arrays.values():
            moved = w.astype(np.float64)
            moved[0] += shift
            pairs.append((mask, keys[moved.argmax(0)]))
        seen = [value for value in plain_iou(pairs) if value is not None]
        best = max(best, sum(seen) / len(seen))
    assert entry.oracle == pytest.approx(best, abs=0.2)  # the two grids differ by rounding
    assert entry.oracle >= entry.fixed
    fixed = entry.curve["background_score"].index(pytest.approx(0.4))
    assert entry.curve["miou"][fixed] == pytest.approx(entry.fixed)


def test_class_that_occurs_nowhere_is_said_to_be_absent(tmp_path: Path) -> None:
    dataset, _ = make_split(tmp_path)
    entry = score(dataset, tmp_path).scores[0]
    assert entry.iou[4] is None
    assert entry.class_over_activation[4] is None
    assert entry.fixed == pytest.approx(np.mean([value for value in entry.iou if value is not None]))


def test_images_without_cams_are_named_and_those_without_masks_left_out(tmp_path: Path) -> None:
    dataset, _ = make_split(tmp_path)
    cam_path(tmp_path, dataset.records[2].id).unlink()
    records = (*dataset.records, Record("unmarked", Path("unmarked.jpg"), (0,)))
    scores = score(replace(dataset, records=records), tmp_path)
    assert scores.missing == [dataset.records[2].id]
    assert scores.images == len(dataset) - 1


def test_order_and_number_of_images_a_shard_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, _ = make_split(tmp_path)
    whole = score(dataset, tmp_path)
    monkeypatch.setattr("sfc.evaluate.cams.SHARDS", 3)
    assert score(replace(dataset, records=dataset.records[::-1]), tmp_path) == whole


def test_no_cams_at_all(tmp_path: Path) -> None:
    dataset, _ = make_split(tmp_path / "elsewhere")
    with pytest.raises(SFCError, match="no CAMs of the 11 images"):
        score(dataset, tmp_path)


def test_masks_of_nothing_but_ignored_pixels(tmp_path: Path) -> None:
    dataset, _ = make_split(tmp_path)
    records = tuple(
        replace(record, mask=ArrayMask(np.full_like(record.mask.load(), 255)))  # type: ignore[union-attr]
        for record in dataset.records
    )
    with pytest.raises(SFCError, match="every pixel of its masks is ignored"):
        score(replace(dataset, records=records), tmp_path)


def test_cams_of_another_size_or_class_list_name_the_file(tmp_path: Path) -> None:
    dataset, _ = make_split(tmp_path)
    name = dataset.records[3].id
    keys, cam = np.array([0]), np.full((1, 3, 3), 0.4, np.float32)
    save_cams(cam_path(tmp_path, name), keys, cam, cam)
    with pytest.raises(DataError, match=f"{name}.*for a mask of"):
        score(dataset, tmp_path)
    size = dataset.records[3].mask.load().shape  # type: ignore[union-attr]
    cam = np.full((2, *size), 0.4, np.float32)
    save_cams(cam_path(tmp_path, name), np.array([0, 5]), cam, cam)
    with pytest.raises(DataError, match="class 4 in a data set of 4 classes"):
        score(dataset, tmp_path)


def test_json_brings_back_what_was_written(tmp_path: Path) -> None:
    dataset, _ = make_split(tmp_path)
    scores = score(dataset, tmp_path)
    assert "pixels with mask value 255" in scores.provenance["ignored"]
    assert scores.provenance["CRF"] == "none"
    path = tmp_path / "scores.json"
    write_scores(path, [scores, scores])
    assert read_scores(path) == [scores, scores]
    only_absent = score(dataset, tmp_path, class_groups=["absent"] * 4)
    write_scores(path, [only_absent])
    assert math.isnan(read_scores(path)[0].scores[0].groups["head"])


@pytest.mark.parametrize("content", ["", "[{}]", "{", '[{"run": 1}]', "[1]", "3"])
def test_damaged_scores_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "scores.json"
    path.write_text(content)
    with pytest.raises(DataError, match="damaged"):
        read_scores(path)


def test_missing_scores_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="evaluate the run first"):
        read_scores(tmp_path / "scores.json")
