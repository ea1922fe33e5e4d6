"""Photographs larger than training sees: worked on at its size by every stage, masks at their own."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sfc
from sfc.cli import main
from sfc.config import load_config
from sfc.data.images import image_size, read_image
from sfc.evaluate.scores import read_scores
from sfc.localize.store import cam_path, load_cams
from sfc.pipeline import run
from sfc.run.folder import RunFolder

WORKING = 48
FACTORS = (5, 3, 1)
"""By which the photographs are larger than that."""


@pytest.fixture(scope="module")
def photographs(squares: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The squares at several sizes, as JPEG and PNG; masks likewise."""
    root = tmp_path_factory.mktemp("large")
    for table in ("train", "train_with_masks", "val"):
        rows = list(csv.DictReader((squares / f"{table}.csv").read_text().splitlines()))
        for index, row in enumerate(rows):
            factor = FACTORS[index % len(FACTORS)]
            suffix = (".jpg", ".png")[index % 2]
            for column in row.keys() & {"image", "mask"}:
                name = str(Path(row[column]).with_suffix(suffix if column == "image" else ".png"))
                (root / name).parent.mkdir(exist_ok=True)
                with Image.open(squares / row[column]) as picture:
                    size = (factor * picture.width, factor * picture.height)
                    picture.resize(size, Image.Resampling.NEAREST).save(root / name, quality=95)
                row[column] = name
        with (root / f"{table}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    (root / "classes.txt").write_text((squares / "classes.txt").read_text())
    return root


@pytest.fixture(scope="module")
def large_run(recipe: Path, photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "large"
    overrides = [
        f"--data.root={photographs}",
        f"--classify.input.long_side=[40,{WORKING}]",
        "--methods=[sfc]",
        "--refine.method=irn",
        "--predict.ways=[single,multi+crf]",
    ]
    run(load_config([recipe], overrides), folder)
    return folder


def test_maps_have_the_working_size_and_masks_that_of_their_photograph(large_run: Path, photographs: Path) -> None:
    system = RunFolder(large_run).system("sfc")
    for split in ("train", "val"):
        folders = [system.masks("crf"), system.masks("irn")]
        if split == "val":
            folders = [system.predictions("irn", "val", way) for way in ("single", "multi+crf")]
        for image in sorted(path for path in (photographs / split).iterdir() if "mask" not in path.name):
            identity = f"{split}/{image.stem}"
            assert load_cams(cam_path(system.cams(split), identity))[1].shape[1:] == (WORKING, WORKING)
            for folder in folders:
                assert image_size(folder / f"{identity}.png") == image_size(image)
    assert [scores.split for scores in read_scores(system.scores)] == ["train", "val"]
    assert (large_run / "report" / "index.html").exists()


def test_new_photographs_get_masks_of_their_own_size(large_run: Path, photographs: Path, tmp_path: Path) -> None:
    image = photographs / "val" / "0.jpg"
    height, width = read_image(image).shape[:2]
    assert height == FACTORS[0] * WORKING
    for source in ("segmenter", "cams"):
        out = tmp_path / source
        assert main(["predict", str(large_run), str(image), "--out", str(out), "--source", source, "--crf=true"]) == 0
        assert image_size(out / "masks" / "0.png") == (height, width)
    assert main(["export", str(large_run), "--model", str(tmp_path / "model")]) == 0
    model = sfc.load(tmp_path / "model")
    assert model.longest == WORKING
    probabilities = model.probabilities(read_image(image))
    assert probabilities.shape[1:] == (height, width)
    assert probabilities.min() >= 0
    np.testing.assert_allclose(probabilities.sum(axis=0), 1, atol=1e-5)


def test_the_network_sees_a_large_photograph_as_it_sees_the_shrunk_one(large_run: Path, tmp_path: Path) -> None:
    assert main(["export", str(large_run), "--model", str(tmp_path / "model")]) == 0
    model = sfc.load(tmp_path / "model")
    small = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8).repeat(8, axis=0).repeat(6, axis=1)
    large = small.repeat(4, axis=0).repeat(4, axis=1)
    assert (model.mask(large)[2::4, 2::4] == model.mask(small)).mean() > 0.95
