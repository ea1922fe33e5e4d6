"""The classifier stage: what it trains, resumes, refuses; two processes against one; precision and layout options."""

from __future__ import annotations

import csv
import subprocess
import sys
from dataclasses import replace
from functools import partialmethod
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from sfc.classify.config import ClassifierTrainingConfig, ClassifyConfig, InputConfig, LossSection, NetworkConfig
from sfc.classify.losses.prototype import PrototypeSettings
from sfc.classify.losses.scale import ScaleSettings
from sfc.classify.network import SFCNetwork
from sfc.classify.train import (
    BatchMaker,
    build_network,
    checkpoint_choice,
    coefficient,
    load_classifier,
    train_classifier,
)
from sfc.config import RunConfig
from sfc.data.images import PngMask
from sfc.data.records import DataSet, Record
from sfc.engine.checkpoint import load_checkpoint
from sfc.engine.processes import make_fabric
from sfc.errors import CheckpointError, ConfigError
from sfc.settings.shared import MachineConfig

CONFIG = RunConfig(
    seed=5,
    classify=ClassifyConfig(
        network=NetworkConfig(backbone="compact", weights="none", trained_from=0, centre_features=True),
        input=InputConfig(long_side=(40, 56), crop=48, batch_sizes=(40, 48)),
        training=ClassifierTrainingConfig(
            # AdamW warms up for longer than these trainings: 2e-3 at their last step but for the decay.
            optimiser="adamw",
            learning_rate=1e-2,
            head_factor=1,
            batch=4,
            epochs=3,
        ),
    ),
    machine=MachineConfig(accelerator="cpu", workers=0, threads=1, checkpoint_every=3),
)
CLASSES = ("red", "green", "blue")


def squares(folder: Path, count: int = 16) -> DataSet:
    """Photographs of one or two coloured squares, with masks; every seventh is a negative."""
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    for index in range(count):
        random = np.random.default_rng(index)
        image = random.integers(90, 130, (48, 48, 3), dtype=np.uint8)
        mask = np.zeros((48, 48), dtype=np.uint8)
        labels = () if index % 7 == 6 else tuple(sorted({index % 3, int(random.integers(3))}))
        for label in labels:
            y, x = random.integers(0, 28, 2)
            image[y : y + 20, x : x + 20] = 30
            image[y : y + 20, x : x + 20, label] = 220
            mask[y : y + 20, x : x + 20] = label + 1
        shown = tuple(label for label in labels if (mask == label + 1).any())
        Image.fromarray(image).save(folder / f"{index}.png")
        Image.fromarray(mask).save(folder / f"{index}_mask.png")
        source = PngMask(folder / f"{index}_mask.png", 3, folder / f"{index}.png")
        records.append(Record(str(index), folder / f"{index}.png", shown, source))
    return DataSet("squares", "train", CLASSES, tuple(records))


def train(folder: Path, config: RunConfig = CONFIG, data: DataSet | None = None) -> dict:
    data = data or squares(folder.parent / "images")
    machine = config.machine
    train_classifier(make_fabric(machine), config.classify, machine, config.seed, data, data, folder, "test")
    return load_checkpoint(folder / "checkpoint.pt")


def load(config: RunConfig, folder: Path, classes: tuple[str, ...] = CLASSES) -> SFCNetwork:
    return load_classifier(config.classify, config.seed, classes, folder)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open() as file:
        return list(csv.DictReader(file))


def with_classify(config: RunConfig, **options: object) -> RunConfig:
    return replace(config, classify=replace(config.classify, **options))


def with_network(config: RunConfig, **options: object) -> RunConfig:
    return with_classify(config, network=replace(config.classify.network, **options))


def with_training(config: RunConfig, **options: object) -> RunConfig:
    return with_classify(config, training=replace(config.classify.training, **options))


def same_weights(a: dict, b: dict) -> bool:
    return all(torch.equal(a["model"][name], b["model"][name]) for name in a["model"])


def test_all_terms_act_from_the_first_step_and_the_bank_is_in_the_checkpoint(tmp_path: Path) -> None:
    saved = train(tmp_path / "run")
    for row in rows(tmp_path / "run"):
        parts = [float(row[name]) for name in ("classification", "prototype", "scale")]
        assert min(parts) > 0
        assert float(row["total"]) == pytest.approx(sum(parts), rel=1e-4)
    slots = saved["states"]["bank"]["slots"]
    assert [bool(label[index]) for index, (_, label, _) in enumerate(slots)] == [True] * 3


def test_plain_cam_trains_the_classification_alone(tmp_path: Path) -> None:
    config = CONFIG.of_method("cam")
    saved = train(tmp_path / "run", config)
    for row in rows(tmp_path / "run"):
        assert not row.keys() & {"prototype", "scale"}
        assert row["total"] == row["classification"]
    torch.manual_seed(config.seed)
    untrained = build_network(config.classify.network, 3).state_dict()
    moved = [name for name, value in untrained.items() if not torch.equal(value, saved["model"][name])]
    assert any(name.startswith("backbone") for name in moved)
    assert "classifier.weight" in moved
    assert not any(name.startswith("side") for name in moved)
    assert saved["states"]["bank"]["slots"] == [None] * 3


def test_each_loss_has_a_weight_of_its_own(tmp_path: Path) -> None:
    data = squares(tmp_path / "images")
    loss = LossSection(prototype=PrototypeSettings(weight=3.2), scale=ScaleSettings(weight=0.0), half_size_pass=False)
    train(tmp_path / "both", CONFIG, data)
    train(tmp_path / "one", with_classify(CONFIG, loss=loss), data)
    both, one = rows(tmp_path / "both"), rows(tmp_path / "one")
    assert "scale" not in one[0]
    assert float(one[0]["prototype"]) == pytest.approx(2 * float(both[0]["prototype"]), rel=1e-4)


def test_losses_on_cams_start_where_the_settings_say(tmp_path: Path) -> None:
    """Until then it is the training of classification alone."""
    data = squares(tmp_path / "images")
    loss = replace(CONFIG.classify.loss, start=0.5)
    late, alone = (
        with_classify(CONFIG, loss=loss),
        LossSection(prototype=PrototypeSettings(weight=0.0), scale=ScaleSettings(weight=0.0)),
    )
    train(tmp_path / "late", late, data)
    train(tmp_path / "alone", with_classify(CONFIG, loss=alone), data)
    found, plain = rows(tmp_path / "late"), rows(tmp_path / "alone")
    counts = [float(row["prototype"]) > 0 for row in found]
    assert counts == [2 * step >= len(found) for step in range(len(found))]
    begun = counts.index(True)
    assert [row["classification"] for row in found[:begun]] == [row["classification"] for row in plain[:begun]]
    assert found[-1]["classification"] != plain[-1]["classification"]


@pytest.mark.parametrize("weight", [0.1, 0.8])
def test_a_loss_that_looks_at_half_size_needs_that_pass(tmp_path: Path, weight: float) -> None:
    loss = LossSection(half_size_pass=False, scale=ScaleSettings(weight=weight))
    with pytest.raises(
        ConfigError, match=r"^classify\.loss\.scale needs classify\.loss\.half_size_pass; set the weight"
    ):
        train(tmp_path / "run", with_classify(CONFIG, loss=loss))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("threads", "start"), [(1, 0.0), (2, 0.75)])
def test_killed_between_checkpoints_and_resumed_is_bit_identical(tmp_path: Path, threads: int, start: float) -> None:
    config = with_classify(CONFIG, loss=replace(CONFIG.classify.loss, start=start))
    config = replace(config, machine=replace(config.machine, threads=threads, workers=1))
    data = squares(tmp_path / "images")
    whole = train(tmp_path / "whole", config, data)

    broken = tmp_path / "images" / "3.png"
    content = broken.read_bytes()
    from sfc.data.transforms import augment as real

    calls = 0

    def failing(*arguments: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        if calls > 20:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sfc.classify.samples.augment", failing)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "parts", replace(config, machine=replace(config.machine, workers=0)), data)
    assert load_checkpoint(tmp_path / "parts" / "checkpoint.pt")["step"] == 3
    assert broken.read_bytes() == content
    assert same_weights(train(tmp_path / "parts", config, data), whole)


@pytest.mark.parametrize(
    ("weights", "start"),
    [("published", (True, "")), ("imagenet.safetensors", (False, "imagenet.safetensors")), ("none", (False, ""))],
)
def test_weights_to_start_from_are_needed_only_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: str, start: tuple[bool, str]
) -> None:
    import sfc.classify.train as stage

    asked, norms = [], []

    def watched(*arguments: object, pretrained: bool = False, weights: str = "", **options: object) -> SFCNetwork:
        asked.append((pretrained, weights))
        norms.append(options["frozen_norm"])
        return SFCNetwork(*arguments, pretrained=pretrained, weights=weights, **options)

    monkeypatch.setattr(stage, "SFCNetwork", watched)
    config = with_training(with_network(CONFIG, weights=weights), epochs=1)
    first = train(tmp_path / "run", config)
    assert same_weights(train(tmp_path / "run", config), first)
    load(config, tmp_path / "run")
    assert asked == [start, (False, ""), (False, "")]
    # Statistics that somebody else's images gave are kept, also where the weights come from a checkpoint.
    assert norms == [weights != "none"] * 3


def test_bank_draws_change_what_is_trained_on(tmp_path: Path) -> None:
    data = squares(tmp_path / "images")
    off = with_classify(CONFIG, bank_draws=0)
    assert not same_weights(train(tmp_path / "on", CONFIG, data), train(tmp_path / "off", off, data))


def test_processes_share_the_bank_images_of_a_step() -> None:
    net, config = build_network(CONFIG.classify.network, 3), replace(CONFIG.classify, bank_draws=4)
    images = {"image": torch.zeros(2, 3, 48, 48, dtype=torch.uint8), "label": torch.eye(3)[:2]}
    batch = {**images, "rectangle": torch.tensor([[0, 0, 48, 48]] * 2)}
    for world, expected in ((1, 4), (2, 2), (4, 1)):
        made = [BatchMaker(config, net, 8, 0, rank, world)(batch, batch, 0) for rank in range(world)]
        assert [len(each["image"]) - 2 for each in made] == [expected] * world
    with pytest.raises(ConfigError, match=r"^classify\.bank_draws 4 cannot be shared equally by 3 processes$"):
        BatchMaker(config, net, 8, 0, 0, 3)
    BatchMaker(replace(config, bank_draws=0), net, 8, 0, 0, 3)


def test_selection_by_ground_truth_is_labelled(tmp_path: Path) -> None:
    data = squares(tmp_path / "images")
    config = with_training(CONFIG, select="ground_truth", epochs=2)
    train(tmp_path / "run", config, data)
    net, choice = load(config, tmp_path / "run"), checkpoint_choice(config.classify, tmp_path / "run")
    assert "GROUND-TRUTH MASKS of 16 training images" in choice
    assert checkpoint_choice(CONFIG.classify, tmp_path / "run") == "last"
    best = load_checkpoint(tmp_path / "run" / "best.pt")
    assert torch.equal(net.classifier.weight, best["model"]["classifier.weight"])


def test_selection_by_ground_truth_needs_masks(tmp_path: Path) -> None:
    data = squares(tmp_path / "images")
    without = replace(data, records=tuple(replace(record, mask=None) for record in data.records))
    with pytest.raises(ConfigError, match="needs training images with masks"):
        train(tmp_path / "run", with_training(CONFIG, select="ground_truth"), without)


def test_what_is_trained_next_does_not_depend_on_when_the_classifier_was_loaded(tmp_path: Path) -> None:
    """A relation network draws its weights after that, in a process that trained the classifier, or in a later one."""
    train(tmp_path / "run")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load(CONFIG, tmp_path / "run")
    assert torch.equal(torch.rand(3), expected)


def test_pictures_at_intervals(tmp_path: Path) -> None:
    train(tmp_path / "run", with_training(CONFIG, picture_every=2))
    (picture,) = (tmp_path / "run" / "pictures").glob("*.png")
    assert picture.name == "epoch_002.png"
    with Image.open(picture) as page:
        assert page.width > 300


def test_checkpoint_of_another_class_count_or_unfinished_is_refused(tmp_path: Path) -> None:
    train(tmp_path / "run")
    with pytest.raises(ConfigError, match="classes"):
        load(CONFIG, tmp_path / "run", (*CLASSES, "grey"))
    with pytest.raises(ConfigError, match=r"checkpoint\.pt was begun with other settings: seed was 5 and is 6"):
        load(replace(CONFIG, seed=6), tmp_path / "run")
    saved = load_checkpoint(tmp_path / "run" / "checkpoint.pt")
    torch.save({**saved, "step": 3}, tmp_path / "run" / "checkpoint.pt")
    with pytest.raises(CheckpointError, match="stopped at step 3 of 12"):
        load(CONFIG, tmp_path / "run")
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load(CONFIG, tmp_path / "nothing")


def test_changed_data_is_refused(tmp_path: Path) -> None:
    data = squares(tmp_path / "images")
    train(tmp_path / "run", CONFIG, data)
    fewer = replace(data, records=data.records[:-1])
    with pytest.raises(ConfigError, match="data was"):
        train(tmp_path / "run", CONFIG, fewer)


def test_data_without_any_label_is_refused(tmp_path: Path) -> None:
    data = squares(tmp_path / "images")
    nothing = replace(data, records=tuple(replace(record, labels=()) for record in data.records))
    with pytest.raises(ConfigError, match="no training image has a label"):
        train(tmp_path / "run", CONFIG, nothing)


def test_class_without_images_takes_no_part(tmp_path: Path) -> None:
    data = replace(squares(tmp_path / "images"), classes=(*CLASSES, "grey"))
    saved = train(tmp_path / "run", CONFIG, data)
    assert saved["states"]["bank"]["slots"][3] is None
    weight = coefficient(CONFIG.classify, data.label_matrix(), 4)
    assert weight[3] == 0
    assert torch.isfinite(weight).all()


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than cores, on a machine with one
@pytest.mark.parametrize(
    ("options", "tolerance"),
    [
        ({"precision": "bf16"}, 0.02),
        ({"workers": 2}, 1e-6),
        ({"compile": True}, 1e-4),
    ],
)
def test_machine_options_change_speed_not_losses(
    tmp_path: Path, options: dict, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The whole step is traced; the minute that a compiler then takes would test the compiler.
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="eager"))
    data = squares(tmp_path / "images")
    # One size of batch, so that there is one graph to compile.
    config = with_classify(CONFIG, input=replace(CONFIG.classify.input, batch_sizes=()))
    config = with_training(config, epochs=1)
    train(tmp_path / "reference", config, data)
    train(tmp_path / "option", replace(config, machine=replace(config.machine, **options)), data)
    reference, option = rows(tmp_path / "reference"), rows(tmp_path / "option")
    assert len(reference) == len(option) == 4
    assert float(option[0]["total"]) == pytest.approx(float(reference[0]["total"]), rel=tolerance)
    # Adam's first steps have the size of the learning rate whatever the gradient, and so enlarge rounding.
    for a, b in zip(reference, option, strict=True):
        assert float(b["total"]) == pytest.approx(float(a["total"]), rel=0.05)


PROCESSES = """
import sys
from dataclasses import replace
from functools import partialmethod
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_train as t
from sfc.classify.bank import ImageBank
draw = ImageBank.draw
ImageBank.draw = lambda bank, count, random: print(f"drawn: {{count}}") or draw(bank, count, random)
machine = replace(t.CONFIG.machine, devices=int(sys.argv[2]))
# `compact` has no published weights: the word only says that its norms are kept.
config = t.with_classify(t.with_network(t.CONFIG, weights={weights!r}), bank_draws={draws})
fabric, data = t.make_fabric(machine), t.squares(Path(sys.argv[3]))
t.train_classifier(fabric, config.classify, machine, config.seed, data, None, Path(sys.argv[1]), "test")
"""


def run_processes(tmp_path: Path, devices: int, frozen: bool = True, draws: int = 0) -> subprocess.CompletedProcess:
    script = tmp_path / f"train{devices}.py"
    script.write_text(
        PROCESSES.format(tests=str(Path(__file__).parent), weights="published" if frozen else "none", draws=draws)
    )
    squares(tmp_path / "images")
    command = [sys.executable, str(script), str(tmp_path / f"run{devices}"), str(devices), str(tmp_path / "images")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    return result


def test_two_processes_have_the_losses_of_one_with_the_same_global_batch(tmp_path: Path) -> None:
    for devices in (1, 2):
        run_processes(tmp_path, devices)
    one, two = (rows(tmp_path / f"run{devices}") for devices in (1, 2))
    assert len(one) == len(two) == 12
    for a, b in zip(one, two, strict=True):
        for name in ("classification", "prototype", "scale", "total"):
            assert float(b[name]) == pytest.approx(float(a[name]), rel=1e-5, abs=1e-7)


def test_processes_with_ordinary_norms_say_that_a_cpu_does_not_synchronise_them(tmp_path: Path) -> None:
    result = run_processes(tmp_path, 2, frozen=False, draws=2)
    assert result.stderr.count("batch norm is not synchronised between CPU processes") == 1
    # Each process keeps its own bank, and draws its share of a step's images from it.
    assert result.stdout.count("drawn: 1") == 2 * 12
    rank = list((tmp_path / "run2").glob("checkpoint.rank1.*.pt"))
    assert [path.name for path in rank] == ["checkpoint.rank1.step12.pt"]
