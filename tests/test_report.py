"""The page of a run: which files, which images, which numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfc.data.images import PngMask, write_mask
from sfc.data.records import DataSet, Record
from sfc.evaluate import Scores, evaluate_cams
from sfc.localize.store import cam_path, save_cams
from sfc.report import Source, examples, write_report

CLASSES = ("cup & <saucer>", "spoon")
GROUPS = ("head", "tail")


@pytest.fixture
def dataset(tmp_path: Path) -> DataSet:
    """Four photographs; the second class is in the last one alone."""
    records = []
    for index in range(4):
        labels = (0, 1) if index == 3 else (0,)
        image, mask = tmp_path / f"{index}.png", tmp_path / f"{index}_mask.png"
        Image.fromarray(np.random.default_rng(index).integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(image)
        truth = np.zeros((24, 32), dtype=np.uint8)
        truth[:12, :16] = 1
        truth[12:, 16:] = 2 if index == 3 else 255
        write_mask(mask, truth)
        records.append(Record(str(index), image, labels, PngMask(mask, 2, image)))
    return DataSet("kitchen", "train", CLASSES, tuple(records))


def store(folder: Path, dataset: DataSet, shift: int) -> Path:
    for record in dataset.records:
        keys = np.array([0, *(label + 1 for label in record.labels)])
        cams = np.zeros((len(keys), 24, 32), dtype=np.float32)
        cams[0], cams[1, shift : 12 + shift, :16] = 0.9, 2
        save_cams(cam_path(folder, record.id), keys, cams, cams)
    return folder


def scores(dataset: DataSet, folder: Path, run: str) -> Scores:
    return evaluate_cams(dataset, folder, run=run, class_groups=GROUPS, provenance={"CRF": "none"})


def test_page_has_every_number_and_its_pictures(tmp_path: Path, dataset: DataSet) -> None:
    plain, ours = store(tmp_path / "plain", dataset, 4), store(tmp_path / "ours", dataset, 0)
    entries = [scores(dataset, plain, "plain CAM"), scores(dataset, ours, "SFC")]
    sources = [Source("plain CAM", plain, 1.0), Source("SFC", ours, 1.0)]
    page = write_report(tmp_path / "report", "SFC on <kitchen>", entries, dataset, np.array([4, 1]), sources)
    text = page.read_text()
    assert "SFC on &lt;kitchen&gt;" in text
    for entry in entries:
        for score in entry.scores:
            assert f"<td>{score.fixed:.1f}</td>" in text
    pictures = sorted(path.name for path in page.parent.glob("*.png"))
    assert pictures == ["classes_train.png", "masks.png", "thresholds_train.png"]
    for name in pictures:
        assert f'src="{name}"' in text
        with Image.open(page.parent / name) as picture:
            assert np.asarray(picture).std() > 10
    assert entries[1].best().fixed > entries[0].best().fixed


def test_examples_show_the_rarest_class_first_and_need_all_cams(tmp_path: Path, dataset: DataSet) -> None:
    folder = store(tmp_path / "cams", dataset, 0)
    assert [record.id for record in examples(dataset, np.array([4, 1]), [folder])] == ["3", "0"]
    cam_path(folder, "3").unlink()
    assert [record.id for record in examples(dataset, np.array([4, 1]), [folder])] == ["0"]
    assert examples(dataset, np.array([4, 1]), [tmp_path / "empty"]) == []
