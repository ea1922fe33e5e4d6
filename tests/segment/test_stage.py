"""The segmenter's stage: from masks in a run folder to masks of the validation images; what it refuses."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfc.config import load_config
from sfc.data.images import PngMask, mask_path, read_mask, write_mask
from sfc.data.records import DataSet, Record
from sfc.engine.processes import make_fabric
from sfc.errors import ConfigError, DataError, SFCError
from sfc.evaluate.masks import evaluate_masks
from sfc.networks.backbone import Backbone
from sfc.pipeline import run
from sfc.run.folder import SystemFolder
from sfc.segment.config import PredictConfig, SegmentConfig
from sfc.segment.segmenter import SegmenterConfig
from sfc.segment.stage import Segmentation, predicted_ways, segment
from sfc.settings.shared import MachineConfig, MaskedInputConfig, TrainingConfig

MACHINE = MachineConfig(accelerator="cpu", workers=0, threads=1)
CONFIG = SegmentConfig(
    network=SegmenterConfig(backbone="compact", pretrained=False, atrous_rates=(1, 2), frozen_norm=False),
    input=MaskedInputConfig(scale=(0.8, 1.2), crop=48),
    scales=(1.0,),
    accumulate=1,
    training=TrainingConfig(
        optimiser="adamw", learning_rate=3e-3, head_factor=1.0, batch=4, epochs=30, seed=5, checkpoint_every=50
    ),
)

PREDICT = PredictConfig(scales=(1.0, 0.75), ways=("multi",))


def halves(root: Path, split: str, count: int, masks: bool = True) -> DataSet:
    """Dark halves and bright ones (class 2), of several sizes."""
    (root / split).mkdir(parents=True, exist_ok=True)
    records = []
    for index in range(count):
        random = np.random.default_rng([index, len(split)])
        height, width = (int(side) for side in random.integers(36, 72, 2))
        mask = np.zeros((height, width), dtype=np.uint8)
        mask[:, width // 3 + int(random.integers(width // 3)) :] = 2
        image = np.where(mask[:, :, None], 200, 50) + random.integers(0, 20, (height, width, 3))
        path = root / split / f"{index}.png"
        Image.fromarray(image.astype(np.uint8)).save(path)
        truth = root / split / "truth" / f"{index}.png"
        write_mask(truth, mask)
        records.append(Record(f"{split}/{index}", path, (1,), PngMask(truth, 2, path) if masks else None))
    return DataSet("halves", split, ("a", "b"), tuple(records))


def segmentation(root: Path, config: SegmentConfig = CONFIG, **options: object) -> Segmentation:
    train = halves(root / "images", "train", 8, masks=False)
    truth = halves(root / "images", "train", 8)
    folder = SystemFolder(root / "run")
    for record in truth.records:
        write_mask(mask_path(folder.masks("crf"), record.id), record.mask.load())
    backbone = Backbone("compact", frozen_norm=False, trained_from=0)
    source = "truth" if config.masks == "truth" else "crf"
    job = Segmentation("SFC", config, PREDICT, MACHINE, train, truth, source, folder, {"masks": "crf"}, backbone)
    return replace(job, **options)


def short(config: SegmentConfig = CONFIG) -> SegmentConfig:
    return replace(config, training=replace(config.training, epochs=1))


@pytest.mark.parametrize("masks", ["pseudo", "truth"])
def test_from_masks_to_scored_masks_of_other_images(tmp_path: Path, masks: str) -> None:
    job, val = segmentation(tmp_path, replace(CONFIG, masks=masks)), halves(tmp_path / "images", "val", 5)
    assert predicted_ways(job, "val") == {}
    segment(make_fabric(MACHINE), job, val)
    folder = job.predictions("val")["multi"]
    assert predicted_ways(job, "val") == {"multi": folder}
    assert folder.parts[-3:] == ("truth" if masks == "truth" else "crf", "val", "multi")
    for record in val.records:
        with Image.open(mask_path(folder, record.id)) as image:
            assert image.mode == "P"
    score = evaluate_masks(val, folder, "segmenter", ["absent", "head"])
    assert score.iou[0] > 80
    assert score.iou[2] > 80


def test_masks_that_are_there_stay_and_a_broken_image_stops_no_other(tmp_path: Path) -> None:
    job, val = segmentation(tmp_path, short()), halves(tmp_path / "images", "val", 4)
    val.records[1].image.write_bytes(b"no picture")
    with pytest.raises(SFCError, match=r"val/1\.png: not a readable .* the masks of all other images are in"):
        segment(make_fabric(MACHINE), job, val)
    paths = [mask_path(job.predictions("val")["multi"], record.id) for record in val.records]
    assert [path.exists() for path in paths] == [True, False, True, True]
    before = paths[0].stat().st_mtime_ns
    segment(make_fabric(MACHINE), job, halves(tmp_path / "images", "val", 4))
    assert paths[1].exists()
    assert paths[0].stat().st_mtime_ns == before


def test_masks_of_another_segmenter_are_refused(tmp_path: Path) -> None:
    job, val = segmentation(tmp_path, short()), halves(tmp_path / "images", "val", 1)
    segment(make_fabric(MACHINE), job, val)
    (job.folder.segmenter("crf") / "checkpoint.pt").unlink()
    other = replace(job, config=replace(short(), bias_factor=1.0))
    with pytest.raises(ConfigError, match="segmenter was"):
        segment(make_fabric(MACHINE), other, val)
    with pytest.raises(ConfigError, match="segmenter was"):
        predicted_ways(other, "val")


def test_without_validation_images_it_only_trains(tmp_path: Path) -> None:
    job = segmentation(tmp_path, short())
    segment(make_fabric(MACHINE), job, None)
    assert (job.folder.segmenter("crf") / "checkpoint.pt").exists()
    assert predicted_ways(job, "val") == {}


def test_missing_masks_are_counted_before_anything_is_trained(tmp_path: Path) -> None:
    job = segmentation(tmp_path, short())
    for index in (5, 6):
        mask_path(job.folder.masks("crf"), f"train/{index}").unlink()
    with pytest.raises(DataError, match=r"train/5\.png: no such file; 2 of 8 training images have no pseudo mask: run"):
        segment(make_fabric(MACHINE), job, None)
    assert not job.folder.segmenter("crf").exists()


def test_ground_truth_where_there_is_none(tmp_path: Path) -> None:
    job = segmentation(tmp_path, replace(short(), masks="truth"), truth=None)
    with pytest.raises(ConfigError, match=r"segment\.masks is 'truth', but no training image has a mask"):
        segment(make_fabric(MACHINE), job, None)


def test_predictions_keep_the_size_of_the_image(tmp_path: Path) -> None:
    job, val = segmentation(tmp_path, short()), halves(tmp_path / "images", "val", 3)
    segment(make_fabric(MACHINE), job, val)
    for record in val.records:
        mask = read_mask(mask_path(job.predictions("val")["multi"], record.id), 2)
        with Image.open(record.image) as image:
            assert mask.shape == (image.height, image.width)


def test_a_run_gets_a_segmenter_and_its_score(squares_run: Path, recipe: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(squares_run, tmp_path / "run"))
    config = replace(load_config([recipe]), baseline=False)
    train, val = run(config, folder, ("segment", "evaluate"))
    assert [masks.what for masks in train.masks] == ["CRF of W + 0.7 P", "relation labels"]
    ways = ("single", "single+crf", "multi", "multi+crf")
    assert tuple(masks.what for masks in val.masks) == ways
    assert "learned from crf masks; single: the image as it is; multi: scales 1," in val.provenance["segmenter"]
    made = sorted((folder / "sfc" / "predictions" / "crf" / "val").rglob("*.png"))
    assert len(made) == 4 * 6
    before = [path.stat().st_mtime_ns for path in (*made, folder / "sfc" / "segmenter" / "crf" / "checkpoint.pt")]
    assert run(config, folder, ("segment", "evaluate"))[1].masks == val.masks
    after = [path.stat().st_mtime_ns for path in (*made, folder / "sfc" / "segmenter" / "crf" / "checkpoint.pt")]
    assert before == after
    # The upper bound lies beside it, and each is scored where the settings name it.
    truth = replace(config, segment=replace(config.segment, masks="truth"))
    truth = replace(truth, predict=replace(truth.predict, ways=("single",)))
    bound = run(truth, folder, ("segment", "evaluate"))[1]
    assert [masks.what for masks in bound.masks] == ["single"]
    assert "learned from the ground truth" in bound.provenance["segmenter"]
    # A command that is refused leaves the saved settings as they were.
    saved = (folder / "config.yaml").read_bytes()
    mirrored = replace(config, predict=replace(config.predict, mirror=True))
    with pytest.raises(ConfigError, match=r"val/multi/masks\.json was begun with other settings: mirror was False"):
        run(mirrored, folder, ("segment",))
    assert (folder / "config.yaml").read_bytes() == saved
    changed = replace(config, segment=replace(config.segment, bias_factor=3.0))
    with pytest.raises(ConfigError, match=r"segment\.bias_factor was 20\.0 and is 3\.0"):
        run(changed, folder, ("segment",))


def test_masks_of_other_settings_are_not_learnt_from(squares_run: Path, recipe: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(squares_run, tmp_path / "run"))
    config = replace(load_config([recipe]), baseline=False)
    other = replace(config, refine=replace(config.refine, crf=replace(config.refine.crf, iterations=3)))
    with pytest.raises(
        ConfigError, match=r"masks\.json was begun with other settings: crf\.iterations was 10 and is 3"
    ):
        run(other, folder, ("segment",))
    none = replace(config, refine=replace(config.refine, method="irn"))
    with pytest.raises(DataError, match=r"12 of 12 training images have no pseudo mask: run `sfc refine` first"):
        run(none, folder, ("segment",))
    assert not (folder / "sfc" / "segmenter" / "irn").exists()


@pytest.mark.parametrize(("backbone", "asked"), [("classifier", "1"), ("resnet101", None)])
def test_a_run_asks_the_hub_only_where_it_needs_it(
    backbone: str, asked: str | None, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    run(load_config([recipe], [f"--segment.network.backbone={backbone}"]), tmp_path, ())
    assert os.environ.pop("HF_HUB_OFFLINE", None) == asked
