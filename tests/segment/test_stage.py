"""The segmenter's stage: from masks in a run folder to masks of the validation images; what it refuses."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfc.classify.config import ClassifyConfig, NetworkConfig
from sfc.config import RunConfig, load_config
from sfc.data.images import PngMask, mask_path, read_mask, write_mask
from sfc.data.readers import DataSection
from sfc.data.readers.splits import Data
from sfc.data.records import DataSet, Record
from sfc.engine.processes import make_fabric
from sfc.engine.stage import Job, claim, drive, register
from sfc.errors import ConfigError, SFCError
from sfc.evaluate.masks import evaluate_masks
from sfc.pipeline import STAGES, run
from sfc.refine.config import RefineSection
from sfc.run.folder import SystemFolder
from sfc.segment.config import PredictConfig, SegmentConfig, SegmenterTrainingConfig
from sfc.segment.deeplab import DeepLabV2Settings
from sfc.segment.networks import SegmenterSection
from sfc.segment.stage import SEGMENT, predictions_name, source_of
from sfc.settings.shared import MachineConfig, MaskedInputConfig

MACHINE = MachineConfig(accelerator="cpu", workers=0, threads=1, checkpoint_every=50)
CONFIG = SegmentConfig(
    network=SegmenterSection(backbone="compact", weights="none", deeplab_v2=DeepLabV2Settings(atrous_rates=(1, 2))),
    input=MaskedInputConfig(scale=(0.8, 1.2), crop=48),
    scales=(1.0,),
    training=SegmenterTrainingConfig(
        optimiser="adamw", learning_rate=3e-3, head_factors=(1.0, 20.0), batch=4, epochs=30
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


def job_of(root: Path, config: SegmentConfig = CONFIG, val: DataSet | None = None, truth: bool = True) -> Job:
    """A system of a run with CRF masks that are the truth; it needs no classifier."""
    settings = RunConfig(
        seed=5,
        data=DataSection(val="val.csv" if val is not None else ""),
        classify=ClassifyConfig(network=NetworkConfig(backbone="compact", weights="none")),
        refine=RefineSection(method="crf"),
        segment=config,
        predict=PREDICT,
        machine=MACHINE,
    )
    job = Job(make_fabric(MACHINE), settings, SystemFolder(root / "run"), "SFC")
    register(job, STAGES)
    scoring = halves(root / "images", "train", 8)
    job.data = Data(halves(root / "images", "train", 8, masks=False), scoring if truth else None, val)
    for record in scoring.records:
        write_mask(mask_path(job.folder.masks("crf"), record.id), record.mask.load())
    for name in ("cams/train", "masks/crf"):
        claim(job, name)
    return job


def predicted(job: Job) -> Path | None:
    """Where the segmenter's masks of the validation images are, once there are any."""
    name = predictions_name(source_of(job.config), "multi")
    return job.path(name) if job.is_there(name) else None


def short(config: SegmentConfig = CONFIG) -> SegmentConfig:
    return replace(config, training=replace(config.training, epochs=1))


@pytest.mark.parametrize("masks", ["pseudo", "truth"])
def test_from_masks_to_scored_masks_of_other_images(tmp_path: Path, masks: str) -> None:
    val = halves(tmp_path / "images", "val", 5)
    job = job_of(tmp_path, replace(CONFIG, masks=masks), val)
    assert predicted(job) is None
    drive(job, SEGMENT)
    folder = predicted(job)
    assert folder is not None
    assert folder.parts[-3:] == ("truth" if masks == "truth" else "crf", "val", "multi")
    for record in val.records:
        with Image.open(mask_path(folder, record.id)) as image:
            assert image.mode == "P"
    score = evaluate_masks(val, folder, "segmenter", ["absent", "head"])
    assert score.iou[0] > 80
    assert score.iou[2] > 80


def test_masks_that_are_there_stay_and_a_broken_image_stops_no_other(tmp_path: Path) -> None:
    val = halves(tmp_path / "images", "val", 4)
    val.records[1].image.write_bytes(b"no picture")
    job = job_of(tmp_path, short(), val)
    with pytest.raises(SFCError, match=r"val/1\.png: not a readable .* the masks of all other images are in"):
        drive(job, SEGMENT)
    folder = predicted(job)
    assert folder is not None
    paths = [mask_path(folder, record.id) for record in val.records]
    assert [path.exists() for path in paths] == [True, False, True, True]
    before = paths[0].stat().st_mtime_ns
    halves(tmp_path / "images", "val", 4)
    drive(job, SEGMENT)
    assert paths[1].exists()
    assert paths[0].stat().st_mtime_ns == before


def test_masks_of_another_segmenter_are_refused(tmp_path: Path) -> None:
    val = halves(tmp_path / "images", "val", 1)
    job = job_of(tmp_path, short(), val)
    drive(job, SEGMENT)
    shutil.rmtree(job.folder.segmenter("crf"))
    other = job_of(tmp_path, replace(short(), training=replace(short().training, head_factors=(1.0, 1.0))), val)
    for _ in range(2):  # the second time with a finished segmenter
        with pytest.raises(
            ConfigError, match=r"val/multi was made from something else \(segmenter/crf changed since\)"
        ):
            drive(other, SEGMENT)
    with pytest.raises(ConfigError, match=r"val/multi was made from something else \(segmenter/crf changed since\)"):
        predicted(other)


def test_masks_of_another_adjustment_are_refused(tmp_path: Path) -> None:
    val = halves(tmp_path / "images", "val", 1)
    job = job_of(tmp_path, short(), val)
    drive(job, SEGMENT)
    job.config = replace(job.config, predict=replace(PREDICT, logit_adjustment=0.5))
    register(job, STAGES)
    with pytest.raises(ConfigError, match=r"predict\.logit_adjustment was 0\.0 and is 0\.5\. Choose"):
        drive(job, SEGMENT)


def test_a_segmenter_of_other_settings_is_refused(tmp_path: Path) -> None:
    drive(job_of(tmp_path, short()), SEGMENT)
    with pytest.raises(ConfigError, match=r"segmenter/crf/origin\.json was begun with other settings: .*epochs was 1"):
        drive(job_of(tmp_path, CONFIG), SEGMENT)


def test_a_checkpoint_that_was_deleted_is_trained_again(tmp_path: Path) -> None:
    job = job_of(tmp_path, short())
    drive(job, SEGMENT)
    path = job.folder.segmenter("crf") / "checkpoint.pt"
    path.unlink()
    drive(job, SEGMENT)
    assert path.exists()


def test_without_validation_images_it_only_trains(tmp_path: Path) -> None:
    job = job_of(tmp_path, short())
    drive(job, SEGMENT)
    assert (job.folder.segmenter("crf") / "checkpoint.pt").exists()
    assert predicted(job) is None


def test_missing_masks_are_found_before_anything_is_trained(tmp_path: Path) -> None:
    job = job_of(tmp_path, short())
    for index in (5, 6):
        mask_path(job.folder.masks("crf"), f"train/{index}").unlink()
    with pytest.raises(ConfigError, match=r"train/5\.png: no such file \(crf masks\); run `sfc refine`"):
        drive(job, SEGMENT)
    assert not job.folder.segmenter("crf").exists()


def test_ground_truth_where_there_is_none(tmp_path: Path) -> None:
    job = job_of(tmp_path, replace(short(), masks="truth"), truth=False)
    with pytest.raises(ConfigError, match=r"segment\.masks is 'truth', but no training image has a mask"):
        drive(job, SEGMENT)


def test_predictions_keep_the_size_of_the_image(tmp_path: Path) -> None:
    val = halves(tmp_path / "images", "val", 3)
    job = job_of(tmp_path, short(), val)
    drive(job, SEGMENT)
    folder = predicted(job)
    assert folder is not None
    for record in val.records:
        mask = read_mask(mask_path(folder, record.id), 2)
        with Image.open(record.image) as image:
            assert mask.shape == (image.height, image.width)


def test_a_run_gets_a_segmenter_and_its_score(squares_run: Path, recipe: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(squares_run, tmp_path / "run"))
    config = replace(load_config([recipe]), methods=("sfc",))
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
    with pytest.raises(ConfigError, match=r"val/multi/origin\.json was begun with other settings: predict\.mirror was"):
        run(mirrored, folder, ("segment",))
    assert (folder / "config.yaml").read_bytes() == saved
    training = replace(config.segment.training, head_factors=(1.0, 3.0))
    changed = replace(config, segment=replace(config.segment, training=training))
    with pytest.raises(ConfigError, match=r"training\.head_factors was \[1\.0, 1\.0\] and is \[1\.0, 3\.0\]"):
        run(changed, folder, ("segment",))


def test_masks_of_other_settings_are_not_learnt_from(squares_run: Path, recipe: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(squares_run, tmp_path / "run"))
    config = replace(load_config([recipe]), methods=("sfc",))
    crf = replace(config.refine.crf, gaussian=(2.0, 3.0))
    other = replace(config, refine=replace(config.refine, crf=crf))
    with pytest.raises(
        ConfigError,
        match=r"masks/crf/origin\.json was begun with other settings: refine\.crf\.gaussian was \[3\.0, 3\.0\] and is",
    ):
        run(other, folder, ("segment",))
    none = replace(config, refine=replace(config.refine, method="irn"))
    with pytest.raises(ConfigError, match=r"masks/irn: no irn masks; run `sfc refine` first"):
        run(none, folder, ("segment",))
    assert not (folder / "sfc" / "segmenter" / "irn").exists()
