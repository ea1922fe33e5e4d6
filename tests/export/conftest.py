"""Folders of predictions, as `sfc predict` writes them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfc.data.images import mask_path, write_mask
from sfc.predict.folder import Predictions, read_predictions

Write = Callable[..., Predictions]


@pytest.fixture(scope="session")
def write() -> Write:
    """Writes photographs below `photos` and their masks into a folder, and reads it."""

    def write_predictions(
        folder: Path, masks: Mapping[str, np.ndarray], classes: Sequence[str] = ("cat", "dog", "cow")
    ) -> Predictions:
        rows = [("id", "image")]
        for image_id, mask in masks.items():
            photo = folder / "photos" / f"{image_id}.jpg"
            photo.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", mask.shape[::-1]).save(photo)
            write_mask(mask_path(folder / "masks", image_id), mask)
            rows.append((image_id, str(photo)))
        content = {"classes": list(classes), "segmenter": "0a1b", "settings": {"scales": [1.0]}}
        (folder / "predictions.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        with (folder / "images.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)
        return read_predictions(folder)

    return write_predictions


def random_masks(seed: int = 3) -> dict[str, np.ndarray]:
    """Masks of three classes with holes, specks and undecided pixels, of different sizes; one of background only."""
    random = np.random.default_rng(seed)
    masks = {
        image_id: random.choice(np.array([0, 1, 2, 3, 255], np.uint8), size, p=[0.3, 0.4, 0.15, 0.1, 0.05])
        for image_id, size in (("a", (9, 14)), ("deep/er/b c", (1, 7)), ("ü 图, x", (20, 3)))
    }
    return {**masks, "deep/nothing": np.zeros((4, 5), np.uint8)}


@pytest.fixture
def masks() -> dict[str, np.ndarray]:
    return random_masks()


Fill = Callable[[np.ndarray, tuple[int, int]], np.ndarray]


@pytest.fixture(scope="session")
def winding() -> Fill:
    """How often a polygon, float [points, 2] of x and y, runs clockwise round each pixel centre: int [H, W].

    0 and 1 mean outside and inside by the non-zero rule and by the even-odd rule.
    """

    def count(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        y, x = np.mgrid[: size[0], : size[1]] + 0.5
        turns = np.zeros(size, dtype=np.int64)
        for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
            if y0 != y1:
                crossed = (np.minimum(y0, y1) <= y) & (y < np.maximum(y0, y1))
                crossing = x0 + (y - y0) * (x1 - x0) / (y1 - y0)
                turns += np.where(crossed & (crossing > x), 1 if y1 > y0 else -1, 0)
        return turns

    return count
