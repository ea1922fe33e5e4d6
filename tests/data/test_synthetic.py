"""The synthetic set: its long tail, its truth, and how it reaches the disk."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfc.data.synthetic import benchmark as synthetic
from sfc.data.synthetic.benchmark import CLASSES, class_quotas, generate, write_synthetic
from sfc.data.synthetic.shapes import FAMILIES, MEMBERS, Shape, draw_shape
from sfc.errors import SFCError

HEAD_IMAGES = 60


@pytest.fixture(scope="module")
def pictures() -> list[synthetic.SyntheticImage]:
    return list(generate(11, HEAD_IMAGES))


def test_quotas_of_the_full_set() -> None:
    assert class_quotas(480) == [480, 334, 233, 162, 113, 79, 55, 38, 27]


def test_names_follow_family_and_member() -> None:
    assert CLASSES[0] == "striped-disc"
    assert CLASSES[7] == "checked-cross"
    assert len(set(CLASSES)) == len(FAMILIES) * len(MEMBERS)


def test_counts_fill_the_quotas(pictures: list[synthetic.SyntheticImage]) -> None:
    counts = np.bincount([label for picture in pictures for label in picture.labels], minlength=len(CLASSES))
    quotas = np.array(class_quotas(HEAD_IMAGES))
    assert (counts <= quotas).all()
    assert (counts >= quotas - np.maximum(1, quotas // 20)).all()
    assert 1.4 < counts.sum() / len(pictures) < 1.8


def test_masks_agree_with_labels(pictures: list[synthetic.SyntheticImage]) -> None:
    for picture in pictures:
        assert picture.image.shape == (96, 96, 3)
        assert picture.image.dtype == np.uint8
        assert picture.mask.shape == (96, 96)
        assert picture.mask.dtype == np.uint8
        pixels = np.bincount(picture.mask.ravel(), minlength=len(CLASSES) + 1)[1:]
        assert tuple(np.flatnonzero(pixels)) == picture.labels
        assert pixels[list(picture.labels)].min() >= 40
        assert 1 <= len(picture.labels) <= 3


def test_order_does_not_follow_rank(pictures: list[synthetic.SyntheticImage]) -> None:
    rarest = [max(picture.labels) for picture in pictures]
    assert max(rarest[: len(rarest) // 2]) >= 6
    assert max(rarest[len(rarest) // 2 :]) >= 6


def test_seed_and_split_decide_everything() -> None:
    def first(seed: int, split: synthetic.Split = "train") -> list[bytes]:
        return [picture.image.tobytes() + picture.mask.tobytes() for picture in generate(seed, 6, split=split)]

    assert first(3) == first(3)
    assert not set(first(3)) & set(first(4))
    assert not set(first(3)) & set(first(3, "val"))


def test_same_bytes_on_every_machine() -> None:
    digest = hashlib.sha256()
    for picture in generate(0, 8):
        digest.update(picture.image.tobytes() + picture.mask.tobytes())
    assert digest.hexdigest()[:16] == "010ff00d6f6a14dd"


def _mean_hue(rank: int, part: bool) -> np.ndarray:
    """Mean colour over many objects of a class: of the body's texture, or of the distinctive part."""
    rng = np.random.default_rng(0)
    shapes = [draw_shape(rng, rank, 48) for _ in range(40)]
    colors = [shape.part_color if part else shape.texture.mean(axis=(0, 1)) for shape in shapes]
    return np.mean(colors, axis=0)


def test_families_share_the_body_and_differ_in_the_part() -> None:
    bodies = np.array([_mean_hue(rank, part=False) for rank in range(9)])
    parts = np.array([_mean_hue(rank, part=True) for rank in range(9)])
    for a in range(9):
        for b in range(a):
            distance = np.abs(bodies[a] - bodies[b]).max()
            assert (distance < 0.06) == (a % 3 == b % 3), (a, b)
            if a % 3 == b % 3:
                assert np.abs(parts[a] - parts[b]).max() > 0.2, (a, b)


@pytest.mark.parametrize("rank", range(9))
def test_only_head_classes_lose_their_part(rank: int) -> None:
    rng = np.random.default_rng(rank)
    missing = np.mean([draw_shape(rng, rank, 24).part is None for _ in range(200)])
    assert 0.2 < missing < 0.4 if rank < 3 else missing == 0


def _rectangle(rank: int, rows: slice, columns: slice) -> Shape:
    body = np.zeros((96, 96), dtype=bool)
    body[rows, columns] = True
    return Shape(rank, body, None, np.zeros((96, 96, 3)), np.zeros(3))


def test_hidden_objects_are_left_out() -> None:
    lower = _rectangle(4, slice(0, 10), slice(0, 10))
    leaves_39 = _rectangle(5, slice(0, 6), slice(0, 10))
    leaves_39.body[6, 0] = True
    leaves_40 = _rectangle(5, slice(0, 6), slice(0, 10))
    last = _rectangle(6, slice(50, 60), slice(50, 60))
    assert (lower.body & ~leaves_40.body).sum() == 40
    assert synthetic._without_hidden([lower, leaves_40, last], 96) == [lower, leaves_40, last]
    assert (lower.body & ~leaves_39.body).sum() == 39
    assert synthetic._without_hidden([lower, leaves_39, last], 96) == [leaves_39, last]


def test_other_sizes_scale() -> None:
    small = list(generate(0, 12, size=48))
    large = list(generate(0, 12, size=96))
    assert small[0].image.shape == (48, 48, 3)
    share = [np.mean([(picture.mask > 0).mean() for picture in group]) for group in (small, large)]
    assert share[0] == pytest.approx(share[1], abs=0.05)


@pytest.mark.parametrize("arguments", [(-1, 10, 96), (0, 0, 96), (0, 10, 3)])
def test_bad_arguments_are_refused(arguments: tuple[int, int, int]) -> None:
    with pytest.raises(SFCError, match="synthetic set"):
        next(generate(*arguments))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("synthetic") / "set"
    write_synthetic(root, seed=5, head_images=12)
    return root


def _rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_written_files_hold_the_generated_pictures(written: Path) -> None:
    assert (written / "classes.txt").read_text().split() == ["background", *CLASSES]
    for table, split, images in (("train_with_masks.csv", "train", 12), ("val.csv", "val", 4)):
        expected = list(generate(5, images, split=split))  # type: ignore[arg-type]
        rows = _rows(written / table)
        assert len(rows) == len(expected)
        for row, picture in zip(rows, expected, strict=True):
            mask = Image.open(written / row["mask"])
            assert mask.mode == "P"
            assert mask.getpalette()[3:6] == [128, 0, 0]  # type: ignore[index]
            assert np.array_equal(np.asarray(mask), picture.mask)
            assert np.array_equal(np.asarray(Image.open(written / row["image"])), picture.image)
            assert row["labels"].split(";") == [CLASSES[label] for label in picture.labels]
    without = [{key: row[key] for key in ("image", "labels")} for row in _rows(written / "train_with_masks.csv")]
    assert _rows(written / "train.csv") == without


def test_a_finished_set_is_left_alone_and_another_replaced(tmp_path: Path) -> None:
    root = tmp_path / "set"
    write_synthetic(root, seed=1, head_images=3)
    (root / "mark").touch()
    write_synthetic(root, seed=1, head_images=3)
    assert (root / "mark").exists()
    write_synthetic(root, seed=2, head_images=3)
    assert not (root / "mark").exists()
    assert json.loads((root / "synthetic.json").read_text())["seed"] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_foreign_folder_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "photo.png").touch()
    with pytest.raises(SFCError, match="in the way"):
        write_synthetic(tmp_path, seed=0, head_images=3)
    assert (tmp_path / "photo.png").exists()


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(synthetic, "write_mask_png", full_disk)
    with pytest.raises(SFCError, match="No space left"):
        write_synthetic(tmp_path / "set", seed=0, head_images=3)
    assert list(tmp_path.iterdir()) == []
