"""Training of the segmenter: what it learns, resumes, refuses; parts of a batch, and two processes, against one."""

from __future__ import annotations

import csv
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sfc.data.images import read_mask, write_mask
from sfc.data.labelled_set import PngLabels
from sfc.data.records import DataSet, Record
from sfc.engine.checkpoint import load_checkpoint
from sfc.engine.optimiser import POLY_POWER
from sfc.engine.processes import make_fabric
from sfc.errors import CheckpointError, ConfigError, DataError, SFCError
from sfc.networks.backbone import Backbone
from sfc.segment import train as module
from sfc.segment.config import SegmentConfig, SegmenterTrainingConfig
from sfc.segment.deeplab import DeepLabV2Settings
from sfc.segment.networks import SegmenterSection
from sfc.segment.train import PARTS, POLY_EVERY, load_segmenter, train_segmenter
from sfc.settings.shared import MachineConfig, MaskedInputConfig

MACHINE = MachineConfig(accelerator="cpu", workers=0, threads=1, checkpoint_every=3)
SEED = 5
CONFIG = SegmentConfig(
    network=SegmenterSection(backbone="compact", weights="none", deeplab_v2=DeepLabV2Settings(atrous_rates=(1, 2))),
    input=MaskedInputConfig(scale=(0.6, 1.4), crop=50),
    training=SegmenterTrainingConfig(
        optimiser="adamw", learning_rate=2e-3, head_factors=(1.0, 20.0), batch=4, epochs=3
    ),
)
# Nobody publishes weights of the compact network: its norms are frozen as they are drawn, and batches go in parts.
FROZEN = replace(CONFIG, network=replace(CONFIG.network, weights="published"))
CLASSES = ("bright", "red")


def halves(folder: Path, count: int = 10) -> DataSet:
    """Dark halves and bright or red ones, at any place and of several sizes; masks in `masks`, a band ignored."""
    (folder / "masks").mkdir(parents=True, exist_ok=True)
    records = []
    for index in range(count):
        random = np.random.default_rng(index)
        height, width = (int(side) for side in random.integers(36, 72, 2))
        mask = np.zeros((height, width), dtype=np.uint8)
        mask[:, width // 4 + int(random.integers(width // 2)) :] = 1 + index % 2
        colours = np.array([[40, 40, 40], [220, 220, 220], [220, 30, 30]])
        image = colours[mask] + random.integers(0, 20, (height, width, 3))
        mask[: height // 8] = 255
        Image.fromarray(image.astype(np.uint8)).save(folder / f"{index}.png")
        write_mask(folder / "masks" / f"{index}.png", mask)
        records.append(Record(str(index), folder / f"{index}.png", (index % 2,)))
    return DataSet("halves", "train", CLASSES, tuple(records))


def train(folder: Path, config: SegmentConfig = CONFIG, machine: MachineConfig = MACHINE, **options: object) -> dict:
    data = halves(folder.parent / "images")
    return train_on(data, folder, config, machine, **options)


def train_on(
    data: DataSet, folder: Path, config: SegmentConfig = CONFIG, machine: MachineConfig = MACHINE, **options: object
) -> dict:
    labels = PngLabels(folder.parent / "images" / "masks", len(data.classes))
    train_segmenter(make_fabric(machine), config, machine, data, labels, folder, **{"seed": SEED, **options})
    return load_checkpoint(folder / "checkpoint.pt")


def with_training(config: SegmentConfig = CONFIG, **options: object) -> SegmentConfig:
    return replace(config, training=replace(config.training, **options))


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open() as file:
        return list(csv.DictReader(file))


def same_weights(a: dict, b: dict) -> bool:
    return all(torch.equal(a["model"][name], b["model"][name]) for name in a["model"])


def test_training_learns_the_masks(tmp_path: Path) -> None:
    config = with_training(epochs=25)
    train(tmp_path / "run", config)
    log = rows(tmp_path / "run")
    assert list(log[0])[1:6] == ["scale_1", "scale_0.75", "scale_0.5", "maximum", "total"]
    assert float(log[3]["total"]) == pytest.approx(sum(float(log[3][name]) for name in list(log[0])[1:5]), rel=1e-4)
    totals = [float(row["total"]) for row in log]
    assert np.mean(totals[-5:]) < 0.3 * np.mean(totals[:5])
    net = load_segmenter(config, SEED, CLASSES, tmp_path / "run")
    image = torch.full((1, 3, 48, 64), -1.8)
    image[:, :, :, 32:] = 1.8
    with torch.no_grad():
        found = net(image)[0].argmax(dim=0)
    assert (found[:, :3] == 0).all()
    assert (found[:, 5:] == 1).all()


def test_images_of_rare_classes_are_shown_more_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = halves(tmp_path / "images", count=20)
    records = tuple(replace(record, labels=(0,)) for record in data.records[:18]) + tuple(
        replace(record, labels=(0, 1)) for record in data.records[18:]
    )
    data = replace(data, records=records)
    config = with_training(repeat_below=0.9, batch=5)
    shown: list[tuple[int, int]] = []
    read = module.LabelledSet.__getitem__

    def watched(self: Any, key: tuple[int, int]) -> Any:
        shown.append(key)
        return read(self, key)

    monkeypatch.setattr(module.LabelledSet, "__getitem__", watched)
    train_on(data, tmp_path / "run", config)
    for epoch in range(3):
        indices = [index for seen, index in shown if seen == epoch]
        assert len(indices) == 20
        # √(0.9 / 0.1) = 3 times as often: 2 · 20 · 3 / (18 + 2 · 3) = 5 of 20.
        assert sum(index >= 18 for index in indices) in (4, 5, 6)


def test_a_trained_network_knows_how_many_images_showed_each_class(tmp_path: Path) -> None:
    data = halves(tmp_path / "images")
    data = replace(data, records=data.records[:6:2] + data.records[1:2])  # three of "bright", one of "red"
    config = with_training(epochs=1)
    train_on(data, tmp_path / "run", config)
    net = load_segmenter(config, SEED, CLASSES, tmp_path / "run")
    assert net.log_share.tolist() == pytest.approx([0, 0, np.log(1 / 3)])


def test_factors_and_weight_decay_are_the_published_ones(tmp_path: Path) -> None:
    published = SegmentConfig().training
    config = replace(FROZEN, training=replace(published, batch=4, epochs=1))
    groups = train(tmp_path / "run", config)["optimiser"]["param_groups"]
    rates = [group["lr"] / groups[0]["lr"] for group in groups]
    assert rates == pytest.approx([1, 10, 20])
    assert [group["weight_decay"] for group in groups] == [5e-4, 5e-4, 0]
    assert [group["momentum"] for group in groups] == [0.9] * 3
    assert [len(group["params"]) for group in groups[1:]] == [2, 2]
    assert (published.learning_rate, POLY_POWER, POLY_EVERY) == (2.5e-4, 0.9, 10)
    assert {float(row["learning_rate"]) for row in rows(tmp_path / "run")} == {2.5e-4}


def train_in_parts(monkeypatch: pytest.MonkeyPatch, parts: int, *arguments: Any) -> dict:
    """Trains; every batch goes through the network in so many parts, which is looked at."""
    sizes: list[int] = []
    forward = module.SegmentObjective.forward

    def watched(self: module.SegmentObjective, image: torch.Tensor, label: torch.Tensor, counts: torch.Tensor) -> dict:
        sizes.append(len(image))
        return forward(self, image, label, counts)

    with monkeypatch.context() as patch:
        patch.setattr(module, "PARTS", parts)
        patch.setattr(module.SegmentObjective, "forward", watched)
        saved = train(*arguments)
    assert len(sizes) == parts * saved["steps"]
    return saved


@pytest.mark.parametrize("parts", [2, 3])
def test_a_batch_in_parts_has_the_result_of_the_whole(
    tmp_path: Path, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images ignore different shares of their pixels, and three parts of four images are not of one size."""
    config = with_training(FROZEN, optimiser="sgd", learning_rate=0.01, epochs=2)
    whole, split = (
        train_in_parts(monkeypatch, count, tmp_path / name, config) for name, count in (("whole", 1), ("parts", parts))
    )
    for name, value in whole["model"].items():
        torch.testing.assert_close(split["model"][name], value, rtol=1e-5, atol=1e-6)
    for a, b in zip(rows(tmp_path / "whole"), rows(tmp_path / "parts"), strict=True):
        assert float(b["total"]) == pytest.approx(float(a["total"]), rel=1e-5)


@pytest.mark.parametrize("config", [CONFIG, FROZEN], ids=["norms that learn", "in parts"])
def test_killed_between_checkpoints_and_resumed_is_bit_identical(
    config: SegmentConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sfc.data.labelled_set as samples

    whole = train(tmp_path / "whole", config)
    real, calls = samples.augment_with_labels, 0

    def failing(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls > 18:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(samples, "augment_with_labels", failing)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "parts", config)
    assert load_checkpoint(tmp_path / "parts" / "checkpoint.pt")["step"] == 3
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt: training stopped at step 3 of 6; finish it first"):
        load_segmenter(config, SEED, CLASSES, tmp_path / "parts")
    assert same_weights(train(tmp_path / "parts", config, replace(MACHINE, workers=1)), whole)


def test_resumed_training_needs_neither_weights_nor_network(tmp_path: Path) -> None:
    weights = tmp_path / "backbone.pth"
    torch.save(Backbone("test_resnet").model.state_dict(), weights)
    network = SegmenterSection(backbone="test_resnet", weights=str(weights))
    config = replace(with_training(epochs=1), network=network, scales=(1.0,))
    train(tmp_path / "run", config)
    weights.unlink()
    train(tmp_path / "run", config)
    assert not load_segmenter(config, SEED, CLASSES, tmp_path / "run").training


def test_backbone_starts_as_the_classifiers(tmp_path: Path) -> None:
    torch.manual_seed(3)
    classifier = Backbone("compact", frozen_norm=False, trained_from=0)
    network = replace(CONFIG.network, backbone="classifier")
    config = with_training(replace(CONFIG, network=network), learning_rate=0.0, epochs=1)
    saved = train(tmp_path / "run", config, classifier=classifier)
    for name, value in classifier.named_parameters():
        assert torch.equal(saved["model"][f"backbone.{name}"], value)
    fresh = Backbone("compact", frozen_norm=False, trained_from=0)
    net = load_segmenter(config, SEED, CLASSES, tmp_path / "run", fresh)
    assert all(torch.equal(saved["model"][name], value) for name, value in net.state_dict().items())


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # where there is but one core
@pytest.mark.parametrize(("options", "tolerance"), [({"precision": "bf16"}, 0.02), ({"workers": 2}, 1e-6)])
def test_machine_options_change_speed_not_losses(tmp_path: Path, options: dict, tolerance: float) -> None:
    config = with_training(optimiser="sgd", learning_rate=0.01, epochs=1)
    train(tmp_path / "reference", config)
    train(tmp_path / "option", config, replace(MACHINE, **options))
    for a, b in zip(rows(tmp_path / "reference"), rows(tmp_path / "option"), strict=True):
        assert float(b["total"]) == pytest.approx(float(a["total"]), rel=tolerance)


PROCESSES = """
import sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_train as t
machine = replace(t.MACHINE, devices=2)
assert t.PARTS == 2
t.train(Path(sys.argv[1]), t.with_training(t.FROZEN, optimiser="sgd", learning_rate=0.01, epochs=2), machine)
"""


def test_two_processes_with_parts_have_the_result_of_one_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = with_training(FROZEN, optimiser="sgd", learning_rate=0.01, epochs=2)
    one = train_in_parts(monkeypatch, 1, tmp_path / "one", config)
    script = tmp_path / "train.py"
    script.write_text(PROCESSES.format(tests=str(Path(__file__).parent)))
    command = [sys.executable, str(script), str(tmp_path / "two")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    two = load_checkpoint(tmp_path / "two" / "checkpoint.pt")
    for name, value in one["model"].items():
        torch.testing.assert_close(two["model"][name], value, rtol=1e-5, atol=1e-6)
    for a, b in zip(rows(tmp_path / "one"), rows(tmp_path / "two"), strict=True):
        assert float(b["total"]) == pytest.approx(float(a["total"]), rel=1e-5)


def test_no_more_parts_than_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = with_training(FROZEN, batch=1, epochs=1)
    assert PARTS > 1
    assert same_weights(train(tmp_path / "run", config), train_in_parts(monkeypatch, 1, tmp_path / "whole", config))


def test_norms_that_learn_see_the_whole_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = with_training(epochs=1)
    monkeypatch.setattr(module, "PARTS", 4)
    split = train(tmp_path / "run", config)
    assert same_weights(split, train_in_parts(monkeypatch, 1, tmp_path / "whole", config))


def test_missing_mask_is_named_and_what_was_trained_stays(tmp_path: Path) -> None:
    data = halves(tmp_path / "images")
    (tmp_path / "images" / "masks" / "7.png").unlink()
    with pytest.raises(DataError, match=r"masks/7\.png: no such file"):
        train_on(data, tmp_path / "run", machine=replace(MACHINE, checkpoint_every=1))


def test_mask_of_another_size_is_named(tmp_path: Path) -> None:
    data = halves(tmp_path / "images")
    write_mask(tmp_path / "images" / "masks" / "3.png", np.zeros((4, 5), dtype=np.uint8))
    with pytest.raises(DataError, match=r"images/3\.png: is \d+x\d+, but its labels are 5x4"):
        train_on(data, tmp_path / "run")


def test_masks_that_are_all_ignored_cost_nothing_and_nothing_else_is_refused(tmp_path: Path) -> None:
    data = halves(tmp_path / "images")
    path = tmp_path / "images" / "masks" / "0.png"
    write_mask(path, np.full_like(read_mask(path, 2), 255))
    empty = replace(data, records=data.records[:1])
    with pytest.raises(SFCError, match=r"halves train: every pixel of every mask is ignored \(255\)"):
        train_on(empty, tmp_path / "empty")
    train_on(data, tmp_path / "run", with_training(batch=1, epochs=1))
    totals = [float(row["total"]) for row in rows(tmp_path / "run")]
    assert totals.count(0.0) == 1
    assert len(totals) == 10


def test_run_of_another_class_count_or_other_masks_is_refused(tmp_path: Path) -> None:
    config = with_training(epochs=1)
    train(tmp_path / "run", config, origin={"masks": "irn"})
    more = replace(halves(tmp_path / "images"), classes=(*CLASSES, "blue"))
    with pytest.raises(ConfigError, match="classes was"):
        train_on(more, tmp_path / "run", config, origin={"masks": "irn"})
    with pytest.raises(ConfigError, match="classes was"):
        load_segmenter(config, SEED, more.classes, tmp_path / "run")
    with pytest.raises(ConfigError, match="seed was 5 and is 6"):
        train(tmp_path / "run", config, origin={"masks": "irn"}, seed=6)
    with pytest.raises(ConfigError, match="seed was 5 and is 6"):
        load_segmenter(config, 6, CLASSES, tmp_path / "run")
    with pytest.raises(ConfigError, match=r"origin\.masks was 'irn' and is 'crf'"):
        train(tmp_path / "run", config, origin={"masks": "crf"})
    one = tuple(replace(record, labels=(0,)) for record in more.records)
    with pytest.raises(DataError, match=r"mask values 2 are beyond the 1 classes"):
        train_on(replace(more, classes=("bright",), records=one), tmp_path / "fewer", config)


def test_weights_of_an_earlier_version_are_refused_by_name(tmp_path: Path) -> None:
    config, folder = with_training(epochs=1), tmp_path / "run"
    saved = train(folder, config)
    del saved["fingerprint"]["format"]
    torch.save(saved, folder / "checkpoint.pt")
    for use in (lambda: train(folder, config), lambda: load_segmenter(config, SEED, CLASSES, folder)):
        with pytest.raises(ConfigError, match=r"run/checkpoint\.pt was begun .*: format was None and is 2"):
            use()


def test_checkpoint_cut_in_half_is_named(tmp_path: Path) -> None:
    train(tmp_path / "run", with_training(epochs=1))
    path = tmp_path / "run" / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for use in (lambda: train(tmp_path / "run"), lambda: load_segmenter(CONFIG, SEED, CLASSES, tmp_path / "run")):
        with pytest.raises(CheckpointError, match=r"run/checkpoint\.pt: the checkpoint is damaged"):
            use()
