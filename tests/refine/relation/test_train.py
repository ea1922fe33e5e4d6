"""Training of the relation network: what it learns, resumes, refuses; two processes against one."""

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

from sfc.data.images import write_mask
from sfc.data.labelled_set import PngLabels
from sfc.data.records import DataSet, Record
from sfc.engine.checkpoint import load_checkpoint, save_checkpoint
from sfc.engine.processes import make_fabric
from sfc.errors import CheckpointError, ConfigError, DataError
from sfc.networks.backbone import Backbone
from sfc.refine.relation.config import RelationConfig
from sfc.refine.relation.network import RelationNetwork
from sfc.refine.relation.samples import RelationSet, shrink_labels
from sfc.refine.relation.train import MakeBackbone, load_relation_network, train_relation_network
from sfc.settings.shared import MachineConfig, MaskedInputConfig, TrainingConfig

MACHINE = MachineConfig(accelerator="cpu", workers=0, threads=1, checkpoint_every=3)
SEED = 5
CONFIG = RelationConfig(
    radius=4, input=MaskedInputConfig(scale=(0.6, 1.4), crop=50), training=TrainingConfig(batch=4, epochs=3)
)


def compact(*, blank: bool) -> Backbone:
    """A backbone from random weights, as a training or a loading asks for one."""
    del blank
    return Backbone("compact")


def given(backbone: Backbone) -> MakeBackbone:
    return lambda *, blank: backbone


def halves(folder: Path, count: int = 10) -> DataSet:
    """Dark and bright halves, at any place and of several sizes; relation labels in `labels`, a band uncertain."""
    (folder / "labels").mkdir(parents=True, exist_ok=True)
    records = []
    for index in range(count):
        random = np.random.default_rng(index)
        height, width = (int(side) for side in random.integers(36, 72, 2))
        labels = np.zeros((height, width), dtype=np.uint8)
        border = width // 4 + int(random.integers(width // 2))
        labels[:, border:] = 1 + index % 2
        image = np.where(labels[:, :, None] > 0, 200, 50) + random.integers(0, 20, (height, width, 3))
        labels[: height // 8] = 255
        Image.fromarray(image.astype(np.uint8)).save(folder / f"{index}.png")
        write_mask(folder / "labels" / f"{index}.png", labels)
        records.append(Record(str(index), folder / f"{index}.png", (index % 2,)))
    return DataSet("halves", "train", ("a", "b"), tuple(records))


def train(folder: Path, config: RelationConfig = CONFIG, machine: MachineConfig = MACHINE, **options: Any) -> dict:
    options = {"backbone": compact, "seed": SEED, **options}
    data = halves(folder.parent / "images")
    labels = PngLabels(folder.parent / "images" / "labels", 2)
    train_relation_network(make_fabric(machine), config, machine, data, labels, folder, **options)
    return load_checkpoint(folder / "checkpoint.pt")


def load(config: RelationConfig, folder: Path, backbone: MakeBackbone = compact) -> RelationNetwork:
    return load_relation_network(config, folder, backbone, SEED)


def with_training(**options: object) -> RelationConfig:
    return replace(CONFIG, training=replace(CONFIG.training, **options))


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open() as file:
        return list(csv.DictReader(file))


def same_weights(a: dict, b: dict) -> bool:
    return all(torch.equal(a["model"][name], b["model"][name]) for name in a["model"])


def test_training_learns_where_the_halves_meet(tmp_path: Path) -> None:
    config = with_training(epochs=25)
    train(tmp_path / "run", config)
    losses = [float(row["total"]) for row in rows(tmp_path / "run")]
    assert np.mean(losses[-6:]) < 0.7 * np.mean(losses[:6])
    net = load(config, tmp_path / "run")
    image = torch.full((3, 48, 64), -1.5)
    image[:, :, 32:] = 1.5
    edge = net.infer(image, 50)
    at_border = edge[2:-2, 7:10].max(dim=1).values.mean()
    assert float(at_border) > 1.5 * float(torch.cat([edge[2:-2, 2:5], edge[2:-2, 12:14]], dim=1).mean())


def test_a_crop_without_pairs_is_refused(tmp_path: Path) -> None:
    radius, stride = CONFIG.radius, 4
    least = 2 * (radius - 1) * stride + 1
    for crop, refused in ((least - 1, True), (least, False)):
        config = replace(CONFIG, input=replace(CONFIG.input, crop=crop))
        if refused:
            with pytest.raises(ConfigError, match=f"needs crops of {least} pixels or more"):
                train(tmp_path / f"run{crop}", config)
        else:
            train(tmp_path / f"run{crop}", config)
            assert any(float(row["total"]) > 0 for row in rows(tmp_path / f"run{crop}"))


def test_edges_are_trained_as_they_were_beside_displacements(tmp_path: Path) -> None:
    """Recorded when the displacements were still trained along; bit for bit on the machine that recorded it."""
    saved = train(tmp_path / "run")
    with np.load(Path(__file__).parent / "recorded" / "edge_training.npz") as recorded:
        for term in ("background", "foreground", "negative"):
            logged = [float(row[term]) for row in rows(tmp_path / "run")]
            assert logged == pytest.approx(recorded[term].tolist(), rel=1e-5), term
        for name, value in saved["model"].items():
            if name.startswith("edge"):
                sums = value if value.numel() <= 160 else value.flatten(1).sum(dim=1)
                np.testing.assert_allclose(sums.numpy(), recorded[name], rtol=1e-4, atol=1e-6, err_msg=name)
    assert not any("displacement" in name for name in saved["model"])


def test_killed_between_checkpoints_and_resumed_is_bit_identical(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(tmp_path / "whole")
    import sfc.data.labelled_set as samples

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
            train(tmp_path / "parts")
    assert load_checkpoint(tmp_path / "parts" / "checkpoint.pt")["step"] == 3
    assert same_weights(train(tmp_path / "parts", machine=replace(MACHINE, workers=1)), whole)


def test_unfinished_training_is_not_used_and_a_finished_one_not_repeated(tmp_path: Path) -> None:
    train(tmp_path / "run")
    path = tmp_path / "run" / "checkpoint.pt"
    written = path.stat().st_mtime_ns
    train(tmp_path / "run")
    assert path.stat().st_mtime_ns == written
    save_checkpoint(path, {**load_checkpoint(path), "step": 3})
    with pytest.raises(CheckpointError, match="stopped at step 3 of 6; finish it first"):
        load(CONFIG, tmp_path / "run")


def test_frozen_backbone_is_the_classifiers(tmp_path: Path) -> None:
    torch.manual_seed(3)
    backbone = Backbone("compact", frozen_norm=False, trained_from=0)
    config = with_training(epochs=1)
    saved = train(tmp_path / "run", config, backbone=given(backbone))
    for name, value in backbone.state_dict().items():
        assert torch.equal(saved["model"][f"stages.backbone.{name}"], value)
    fresh = Backbone("compact", frozen_norm=False, trained_from=0)
    net = load(config, tmp_path / "run", given(fresh))
    assert all(torch.equal(saved["model"][name], value) for name, value in net.state_dict().items())


def test_network_of_another_backbone_or_stride_is_refused_by_name(tmp_path: Path) -> None:
    config = with_training(epochs=1)
    train(tmp_path / "run", config)
    with pytest.raises(ConfigError, match="seed was 5 and is 6"):
        load_relation_network(config, tmp_path / "run", compact, SEED + 1)
    with pytest.raises(ConfigError, match=r"relation\.radius was 4 and is 5"):
        train(tmp_path / "run", replace(config, radius=5))
    path = tmp_path / "run" / "checkpoint.pt"
    saved = load_checkpoint(path)
    save_checkpoint(path, {**saved, "fingerprint": {**saved["fingerprint"], "stride": 8}})
    with pytest.raises(ConfigError, match="stride was 8 and is 4"):
        load(config, tmp_path / "run")
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load(config, tmp_path / "nothing")


def test_classifier_of_another_architecture_is_refused(tmp_path: Path) -> None:
    config = with_training(epochs=1)
    train(tmp_path / "run", config)
    with pytest.raises(ConfigError, match=r"channels was \[16, 32, 48, 64, 96\] and is \[64, 64, 128, 256, 512\]"):
        load(config, tmp_path / "run", given(Backbone("resnet18")))


def test_labels_of_another_origin_are_refused(tmp_path: Path) -> None:
    config = with_training(epochs=1)
    train(tmp_path / "run", config, origin={"fusion_lambda": 0.7})
    with pytest.raises(ConfigError, match=r"origin\.fusion_lambda was 0\.7 and is 1"):
        train(tmp_path / "run", config, origin={"fusion_lambda": 1})


def test_images_without_a_certain_pixel_cost_nothing(tmp_path: Path) -> None:
    data = halves(tmp_path / "images", 4)
    uncertain = with_training(epochs=1)

    def labels(record: Record) -> np.ndarray:
        with Image.open(record.image) as image:
            return np.full((image.height, image.width), 255, dtype=np.uint8)

    train_relation_network(
        make_fabric(MACHINE), uncertain, MACHINE, data, labels, tmp_path / "run", backbone=compact, seed=SEED
    )
    assert [float(row["total"]) for row in rows(tmp_path / "run")] == [0.0]


def test_samples_are_functions_of_seed_epoch_and_image_with_labels_on_the_grid(tmp_path: Path) -> None:
    data = halves(tmp_path / "images")
    labels = PngLabels(tmp_path / "images" / "labels", 2)
    one, two, other = (RelationSet(data, labels, CONFIG.input, 4, seed) for seed in (5, 5, 6))
    sample = one[2, 3]
    assert isinstance(sample, dict)
    assert sample["image"].shape == (3, 50, 50)
    assert sample["label"].shape == (13, 13)
    for name, value in two[2, 3].items():
        assert torch.equal(value, sample[name])
    assert not torch.equal(other[2, 3]["image"], sample["image"])
    assert not torch.equal(one[1, 3]["image"], sample["image"])
    # Bright is class, dark is background, black padding is neither; only the pixel of a cell's centre decides.
    for index in range(10):
        sample = one[0, index]
        centre = np.minimum(np.arange(0, 50, 4) + 2, 49)
        brightness = sample["image"].numpy()[0][centre[:, None], centre]
        label = sample["label"].numpy()
        assert set(np.unique(label)) <= {0, 1 + index % 2, 255}
        assert (label[brightness == 0] == 255).all()
        certain = label != 255
        assert ((label > 0) == (brightness > 125))[certain].mean() > 0.97


def test_labels_are_shrunk_as_pillow_does() -> None:
    labels = np.random.default_rng(0).integers(0, 255, (64, 96), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(labels).resize((24, 16), Image.Resampling.NEAREST))
    np.testing.assert_array_equal(shrink_labels(labels, 4), expected)
    assert shrink_labels(labels[:1, :1], 4).shape == (1, 1)


def test_broken_labels_are_named(tmp_path: Path) -> None:
    data = halves(tmp_path / "images")
    folder = tmp_path / "images" / "labels"
    write_mask(folder / "3.png", np.zeros((4, 5), dtype=np.uint8))
    (folder / "4.png").unlink()
    samples = RelationSet(data, PngLabels(folder, 2), CONFIG.input, 4, 0)
    assert isinstance(samples[0, 3], DataError)
    assert "its labels are 5x4" in str(samples[0, 3])
    assert "4.png: no such file" in str(samples[0, 4])


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # where there is one core
@pytest.mark.parametrize(("options", "tolerance"), [({"precision": "bf16"}, 0.02), ({"workers": 2}, 1e-6)])
def test_machine_options_change_speed_not_losses(tmp_path: Path, options: dict, tolerance: float) -> None:
    config = with_training(epochs=1)
    train(tmp_path / "reference", config)
    train(tmp_path / "option", config, replace(MACHINE, **options))
    for a, b in zip(rows(tmp_path / "reference"), rows(tmp_path / "option"), strict=True):
        assert float(b["total"]) == pytest.approx(float(a["total"]), rel=tolerance)


PROCESSES = """
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
sys.path.insert(0, {tests!r})
import test_train as t
machine = replace(t.MACHINE, devices=int(sys.argv[2]))
t.train(Path(sys.argv[1]), t.with_training(epochs=2), machine)
"""


def test_two_processes_have_the_losses_of_one(tmp_path: Path) -> None:
    logs = []
    for devices in (1, 2):
        script = tmp_path / f"train{devices}.py"
        script.write_text(PROCESSES.format(tests=str(Path(__file__).parent)))
        folder = tmp_path / f"run{devices}"
        command = [sys.executable, str(script), str(folder), str(devices)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
        assert result.returncode == 0, result.stderr[-2000:]
        logs.append(rows(folder))
    assert len(logs[0]) == len(logs[1]) == 4
    for a, b in zip(*logs, strict=True):
        for name in ("background", "foreground", "negative", "total"):
            assert float(b[name]) == pytest.approx(float(a[name]), rel=1e-4, abs=1e-6)
