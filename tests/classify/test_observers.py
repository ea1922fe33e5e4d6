"""What looks at a training from outside: the choice of an epoch by ground truth, and which images are drawn."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sfc.classify import observers
from sfc.classify.inference import infer_cams
from sfc.classify.network import SFCNetwork
from sfc.classify.observers import GroundTruthSelection, Pictures
from sfc.classify.train import build_network
from sfc.config import load_config
from sfc.data.images import read_image
from sfc.data.readers.read import read_dataset, read_training_masks
from sfc.data.records import DataSet, Record, evenly
from sfc.engine.checkpoint import load_checkpoint, save_checkpoint
from sfc.errors import ConfigError
from sfc.settings.shared import MachineConfig

FIRST = SimpleNamespace(is_global_zero=True)
OTHER = SimpleNamespace(is_global_zero=False)
MACHINE = MachineConfig(accelerator="cpu", threads=1)


@pytest.fixture
def scoring(recipe: Path) -> DataSet:
    found = read_training_masks(load_config([recipe]).data)
    assert found is not None
    return replace(found, records=found.records[:3])


@pytest.fixture(scope="module")
def net(recipe: Path) -> SFCNetwork:
    torch.manual_seed(3)
    return build_network(load_config([recipe]).classify.network, 3)


@pytest.mark.parametrize(("count", "wanted"), [(0, 4), (3, 4), (4, 4), (9, 4), (1000, 7)])
def test_evenly(count: int, wanted: int) -> None:
    records = [Record(str(index), Path(str(index)), ()) for index in range(count)]
    chosen = [int(record.id) for record in evenly(records, wanted)]
    assert len(chosen) == min(count, wanted)
    gaps = np.diff(chosen)
    assert len(gaps) == 0 or (gaps.min() >= 1 and gaps.max() - gaps.min() <= 1)
    assert count == 0 or chosen[0] == 0


def test_the_best_epoch_is_kept_and_of_equals_the_first(
    net: SFCNetwork, scoring: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted = iter([0.2, 0.5, 0.5, 0.4])

    class Scripted:
        def __init__(self, _: int) -> None:
            self.score = next(scripted)

        def update(self, *_: object) -> None:
            pass

        def areas(self) -> SimpleNamespace:
            return SimpleNamespace(mean_iou=lambda: self.score)

    monkeypatch.setattr(observers, "ConfusionMatrix", Scripted)
    select = GroundTruthSelection(FIRST, net, scoring, MACHINE, tmp_path)
    kept = []
    for epoch in (1, 2, 3, 4):
        select(epoch)
        kept.append(load_checkpoint(tmp_path / "best.pt")["epoch"])
    assert kept == [1, 2, 2, 2]


def test_the_score_is_that_of_the_fused_argmax(net: SFCNetwork, scoring: DataSet, tmp_path: Path) -> None:
    net.train()
    GroundTruthSelection(FIRST, net, scoring, MACHINE, tmp_path)(1)
    assert net.training
    truth, prediction = [], []
    for record in scoring.records:
        label = np.isin(np.arange(3), record.labels)
        keys, weight, prototype = infer_cams(net, read_image(record.image), label, (1.0,))
        truth.append(record.mask.load().ravel())
        prediction.append(keys[(weight + prototype).argmax(axis=0)].ravel())
    a, b = np.concatenate(truth), np.concatenate(prediction)
    overlaps = [((a == k) & (b == k)).sum() / ((a == k) | (b == k)).sum() for k in np.union1d(a, b)]
    saved = load_checkpoint(tmp_path / "best.pt")
    assert saved["score"] == pytest.approx(np.mean(overlaps), abs=1e-12)
    assert saved["images"] == 3
    assert torch.equal(saved["model"]["classifier.weight"], net.classifier.weight)


def test_other_processes_do_not_score(net: SFCNetwork, scoring: DataSet, tmp_path: Path) -> None:
    GroundTruthSelection(OTHER, net, scoring, MACHINE, tmp_path)(1)
    assert list(tmp_path.iterdir()) == []


def test_the_best_of_a_deleted_training_does_not_count(net: SFCNetwork, scoring: DataSet, tmp_path: Path) -> None:
    """A resumed training keeps it; one that begins again would otherwise be judged by another's score."""
    save_checkpoint(tmp_path / "best.pt", {"score": 2.0, "epoch": 9})
    save_checkpoint(tmp_path / "checkpoint.pt", {})
    select = GroundTruthSelection(FIRST, net, scoring, MACHINE, tmp_path)
    select(1)
    assert load_checkpoint(tmp_path / "best.pt")["epoch"] == 9
    (tmp_path / "checkpoint.pt").unlink()
    GroundTruthSelection(OTHER, net, scoring, MACHINE, tmp_path)
    assert (tmp_path / "best.pt").exists()
    GroundTruthSelection(FIRST, net, scoring, MACHINE, tmp_path)(1)
    assert load_checkpoint(tmp_path / "best.pt")["epoch"] == 1


@pytest.mark.parametrize("without", [None, ()])
def test_masks_are_needed(net: SFCNetwork, scoring: DataSet, tmp_path: Path, without: tuple | None) -> None:
    data = None if without is None else replace(scoring, records=without)
    with pytest.raises(ConfigError, match="needs training images with masks"):
        GroundTruthSelection(FIRST, net, data, MACHINE, tmp_path)


def test_pictures_show_the_rarest_classes_at_intervals(
    net: SFCNetwork, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = read_dataset(load_config([recipe]).data, "train")
    rare = [record for record in train.records if 2 in record.labels][:1]
    common = [record for record in train.records if 2 not in record.labels]
    again = [replace(record, id=f"{record.id}-again") for record in common]
    data = replace(train, records=(*common, *rare, *again))
    pictures = Pictures(FIRST, net, data, MACHINE, 2, tmp_path)
    assert pictures.records[0] == rare[0]
    assert len(pictures.records) == 6
    assert all(record.labels for record in pictures.records)
    drawn = []
    monkeypatch.setattr("sfc.pictures.cams.draw_cams", lambda path, rows, classes: drawn.append((path, rows, classes)))
    for epoch in range(1, 5):
        pictures(epoch)
        Pictures(OTHER, net, data, MACHINE, 2, tmp_path)(epoch)
    assert [path for path, _, _ in drawn] == [tmp_path / "pictures" / f"epoch_00{epoch}.png" for epoch in (2, 4)]
    assert [row.keys.tolist() for row in drawn[0][1]] == [[0, *(1 + k for k in r.labels)] for r in pictures.records]


def test_pictures_so_far_are_on_a_page(
    net: SFCNetwork, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = Pictures(FIRST, net, read_dataset(load_config([recipe]).data, "train"), MACHINE, 1, tmp_path)
    for epoch in (1, 2):
        pictures(epoch)
    page = tmp_path / "pictures" / "index.html"
    assert re.findall(r'src="([^"]+)"', page.read_text()) == ["epoch_002.png", "epoch_001.png"]
    assert capsys.readouterr().err.count(str(page)) == 1
