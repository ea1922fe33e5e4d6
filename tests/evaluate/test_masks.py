"""Scores of stored masks against plain loops; pixels that masks leave open, left out or taken as background."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from sfc.data.images import mask_path, write_mask
from sfc.data.records import DataSet, Record
from sfc.errors import DataError, SFCError
from sfc.evaluate.masks import evaluate_masks
from sfc.evaluate.scores import Scores, read_scores, write_scores
from sfc.metrics.boundary import BoundaryCounts

CLASSES = ("car", "cat", "bus")
GROUPS = ["head", "medium", "tail"]


@dataclass(frozen=True)
class ArrayMask:
    """A truth that needs no file."""

    values: np.ndarray

    def load(self) -> np.ndarray:
        return self.values


def make_split(folder: Path, images: int = 11) -> tuple[DataSet, list[tuple[np.ndarray, np.ndarray]]]:
    """Truths with ignored pixels, and masks with open ones; no bus is ever predicted."""
    random = np.random.default_rng(0)
    records, pairs = [], []
    for index in range(images):
        size = tuple(random.integers(5, 12, 2))
        truth = random.choice(np.array([0, 1, 2, 3, 255], np.uint8), size, p=[0.5, 0.2, 0.15, 0.05, 0.1])
        mask = np.where(random.random(size) < 0.6, np.where(truth < 3, truth, 0), random.integers(0, 3, size))
        mask = np.where(random.random(size) < 0.2, 255, mask).astype(np.uint8)
        name = f"folder {index % 2}/{index}"
        write_mask(mask_path(folder, name), mask)
        records.append(Record(name, Path(f"{name}.jpg"), (), ArrayMask(truth)))
        pairs.append((truth, mask))
    return DataSet("streets", "train", CLASSES, tuple(records)), pairs


@pytest.mark.parametrize("undecided", [True, False])
def test_scores_are_those_of_plain_loops(tmp_path: Path, undecided: bool) -> None:
    dataset, pairs = make_split(tmp_path)
    score = evaluate_masks(dataset, tmp_path, "masks", GROUPS, undecided=undecided)
    counts = np.zeros((4, 4), dtype=int)
    known = left_open = 0
    for truth, mask in pairs:
        for t, m in zip(truth.ravel().tolist(), mask.ravel().tolist(), strict=True):
            if t == 255:
                continue
            known += 1
            if m == 255:
                left_open += 1
                if undecided:
                    continue
                m = 0
            counts[t, m] += 1
    iou = [100 * counts[k, k] / (counts[k].sum() + counts[:, k].sum() - counts[k, k]) for k in range(4)]
    assert score.iou == pytest.approx(iou)
    assert score.fixed == pytest.approx(np.mean(iou))
    assert score.groups == pytest.approx({"head": iou[1], "medium": iou[2], "tail": iou[3]})
    assert score.under_activation["tail"] == 100
    assert score.undecided == pytest.approx(100 * left_open / known if undecided else 0)


@pytest.mark.parametrize("undecided", [True, False])
def test_contours_are_scored_where_pixels_are(tmp_path: Path, undecided: bool) -> None:
    dataset, pairs = make_split(tmp_path)
    score = evaluate_masks(dataset, tmp_path, "masks", GROUPS, undecided=undecided)
    counts = BoundaryCounts(4)
    for truth, mask in pairs:
        counts.update(np.where((mask == 255) & undecided, 255, truth), np.where(mask == 255, 0, mask))
    assert score.class_boundary_iou == pytest.approx(100 * counts.iou())
    assert score.class_boundary_f == pytest.approx(100 * counts.f_score())
    assert score.boundary_iou == pytest.approx(100 * counts.iou().mean())
    assert score.boundary_f == pytest.approx(100 * counts.f_score().mean())
    assert score.class_boundary_f[3] == 0


def test_boundary_scores_that_do_not_exist_survive_the_file(tmp_path: Path) -> None:
    """All background: one class, and no contour anywhere."""
    truth = np.zeros((8, 9), np.uint8)
    dataset = DataSet("streets", "train", CLASSES, (Record("0", Path("0.jpg"), (), ArrayMask(truth)),))
    write_mask(mask_path(tmp_path, "0"), truth)
    score = evaluate_masks(dataset, tmp_path, "masks", GROUPS)
    assert (score.boundary_iou, score.boundary_f) == (100, None)
    assert score.class_boundary_iou == [100, None, None, None]
    assert score.class_boundary_f == [None] * 4
    entry = Scores("SFC", "streets", "train", 1, [], ["background", *CLASSES], GROUPS, {}, [], masks=[score])
    write_scores(tmp_path / "scores.json", [entry])
    (read,) = read_scores(tmp_path / "scores.json")
    assert read.masks[0].class_boundary_iou == [100, None, None, None]
    assert (read.masks[0].boundary_iou, read.masks[0].boundary_f) == (100, None)


def test_the_number_of_shards_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, _ = make_split(tmp_path)
    first = evaluate_masks(dataset, tmp_path, "masks", GROUPS)
    monkeypatch.setattr("sfc.evaluate.masks.SHARDS", 1)
    assert evaluate_masks(dataset, tmp_path, "masks", GROUPS) == first


def test_masks_of_another_size_name_the_file(tmp_path: Path) -> None:
    dataset, _ = make_split(tmp_path)
    write_mask(mask_path(tmp_path, "folder 0/4"), np.zeros((3, 3), np.uint8))
    with pytest.raises(DataError, match=r"folder 0/4\.png"):
        evaluate_masks(dataset, tmp_path, "masks", GROUPS)


def test_a_torn_mask_names_the_file(tmp_path: Path) -> None:
    dataset, _ = make_split(tmp_path)
    path = mask_path(tmp_path, "folder 0/4")
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match=r"folder 0/4\.png"):
        evaluate_masks(dataset, tmp_path, "masks", GROUPS)


def test_nothing_to_score_is_said(tmp_path: Path) -> None:
    dataset, pairs = make_split(tmp_path)
    with pytest.raises(SFCError, match="no masks of the 11 images"):
        evaluate_masks(dataset, tmp_path / "elsewhere", "masks", GROUPS)
    for record, (truth, _) in zip(dataset.records, pairs, strict=True):
        write_mask(mask_path(tmp_path, record.id), np.full_like(truth, 255))
    with pytest.raises(SFCError, match="no pixel is both decided and known"):
        evaluate_masks(dataset, tmp_path, "masks", GROUPS)
