"""A segmenter on its own: out of a run, into a folder and back without a difference; what opening a folder refuses."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sfc
from sfc.config import RunConfig, load_config
from sfc.errors import CheckpointError, ConfigError, SFCError
from sfc.networks.backbone import Backbone
from sfc.pipeline import run
from sfc.predict.models import load_run_model
from sfc.run.files import file_hash
from sfc.run.folder import RunFolder
from sfc.run.provenance import versions
from sfc.segment.config import PredictConfig
from sfc.segment.deeplab import DeepLabV2Settings
from sfc.segment.model import Model, save_model
from sfc.segment.networks import SegmenterSection, build_segmenter
from sfc.segment.predict import TILE, Predictor
from sfc.segment.probabilities import ImageLogits, smoothed
from sfc.segment.segmenter import SegmenterConfig

COMPACT = SegmenterSection(backbone="compact", weights="none", deeplab_v2=DeepLabV2Settings(atrous_rates=(1, 2)))
NETWORKS = {
    "compact": COMPACT,
    "timm": SegmenterSection(backbone="resnet18", deeplab_v2=DeepLabV2Settings(atrous_rates=(2,))),
    "library": SegmenterSection(architecture="FPN", backbone="resnet18"),
}
PREDICT = PredictConfig(scales=(1.0, 0.5), mirror=True, pooling="mean")
PROVENANCE = {"data": {"input_hash": "abc"}, "masks": "crf", "manifest": {"command": ["sfc", "run", "é"]}}


def untrained(config: SegmenterConfig = COMPACT, predict: PredictConfig = PREDICT) -> Model:
    """Of random weights whose answers differ from pixel to pixel, norms included."""
    torch.manual_seed(3)
    net = build_segmenter(config, 3, blank=True).eval()
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in net.state_dict().items():
            if name.endswith("running_var"):
                value.mul_(0.5 + torch.rand(value.shape, generator=random))
        logits = net(torch.randn(1, 3, 64, 64, generator=random))
        for name, value in net.state_dict().items():
            if name.startswith(("branches", "model.segmentation_head")) and name.endswith("weight"):
                value.mul_(3 / logits.std())
    return Model(net, ("cat", "dög"), config, predict, None, PROVENANCE)


def picture(height: int = 45, width: int = 58) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(untrained(), tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("name", NETWORKS)
def test_a_loaded_model_answers_to_the_last_bit_as_the_saved_one(name: str, tmp_path: Path) -> None:
    model = untrained(NETWORKS[name])
    save_model(model, tmp_path / "model")
    before = torch.random.get_rng_state()
    loaded = sfc.load(str(tmp_path / "model"))
    assert torch.equal(torch.random.get_rng_state(), before)
    expected = model.probabilities(picture())
    assert expected.std(axis=(1, 2)).max() > 0.01
    np.testing.assert_array_equal(loaded.probabilities(picture()), expected)
    np.testing.assert_array_equal(loaded.mask(picture()), expected.argmax(axis=0))
    assert not loaded.net.training
    assert (loaded.classes, loaded.network, loaded.predict) == (model.classes, model.network, model.predict)
    assert loaded.provenance == PROVENANCE
    assert loaded.weights_hash() == model.weights_hash()


def test_probabilities_are_those_of_the_settings_and_the_way() -> None:
    model, image = untrained(), picture()
    single = ImageLogits(model.net, image).probabilities()
    multi = ImageLogits(model.net, image).probabilities((1.0, 0.5), mirror=True, pooling="mean")
    np.testing.assert_array_equal(model.probabilities(image), multi)
    np.testing.assert_array_equal(model.probabilities(image, "single"), single)
    np.testing.assert_array_equal(model.probabilities(image, "multi+crf"), smoothed(image, multi, PREDICT.crf))
    masks = [model.mask(image, way) for way in ("single", "multi", "multi+crf")]
    assert masks[0].dtype == np.uint8
    assert (masks[0] != masks[1]).any()
    assert (masks[1] != masks[2]).any()
    with pytest.raises(ValueError, match=r"image must be uint8"):
        model.probabilities(image.astype(np.float32))


def test_what_a_network_is_used_to_travels_with_it(tmp_path: Path) -> None:
    model = untrained(predict=replace(PREDICT, logit_adjustment=0.5))
    assert model.net.log_share.numel() == 3
    model.net.log_share.copy_(torch.tensor([0.0, -0.5, -3.0]))
    save_model(model, tmp_path / "model")
    found = sfc.load(tmp_path / "model").probabilities(picture())
    logits = ImageLogits(model.net, picture(), logit_adjustment=0.5)
    np.testing.assert_array_equal(found, logits.probabilities((1.0, 0.5), mirror=True, pooling="mean"))
    assert (found[2] > untrained().probabilities(picture())[2]).all()


def test_large_images_go_through_in_tiles() -> None:
    model, image = untrained(), picture(TILE + 70, 60)
    assert len(list(Predictor(model.net, PREDICT).strips(image, ("multi",)))) == 2
    tiled = model.probabilities(image)
    assert tiled.shape == (3, TILE + 70, 60)
    np.testing.assert_allclose(tiled.sum(axis=0), 1, atol=1e-5)
    np.testing.assert_array_equal(model.mask(image), tiled.argmax(axis=0))


def test_a_folder_holds_two_files_that_say_what_others_need(folder: Path, tmp_path: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert content["classes"] == ["background", "cat", "dög"]
    assert content["preprocessing"]["colours"] == "RGB"
    assert content["preprocessing"]["mean"] == [0.485, 0.456, 0.406]
    assert (content["sizes"]["stride"], content["sizes"]["padded_to_multiple"]) == (8, 1)
    assert content["predict"]["scales"] == [1.0, 0.5]
    save_model(untrained(), tmp_path / "again")
    save_model(sfc.load(folder), tmp_path / "copy")
    for other in ("again", "copy"):
        assert all(
            file_hash(folder / name.name) == file_hash(tmp_path / other / name.name) for name in folder.iterdir()
        )
    save_model(untrained(NETWORKS["library"]), tmp_path / "library")
    assert json.loads((tmp_path / "library" / "config.json").read_text())["sizes"]["padded_to_multiple"] == 32


@pytest.mark.parametrize("name", ["timm", "library"])
def test_settings_that_would_fetch_weights_fetch_none(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, folder = untrained(NETWORKS[name]), tmp_path / "model"
    save_model(replace(model, network=replace(model.network, weights=str(tmp_path / "mine.pth"))), folder)
    assert "mine.pth" not in (folder / "config.json").read_text(encoding="utf-8")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    loaded = sfc.load(folder)
    assert loaded.network.weights == "published"
    assert loaded.net.frozen_norm
    assert loaded.weights_hash() == model.weights_hash()
    edit(folder, lambda content: content["network"].update(weights="mine.pth"))
    assert sfc.load(folder).weights_hash() == model.weights_hash()


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


BROKEN: dict[str, tuple[Callable[[Path], object], type[SFCError], str]] = {
    "no folder": (shutil.rmtree, CheckpointError, r"model: there is no such model folder$"),
    "no settings": (
        lambda folder: (folder / "config.json").unlink(),
        CheckpointError,
        r"model: no model folder, or half of one \(config\.json is missing\)$",
    ),
    "half of the settings": (
        lambda folder: cut(folder / "config.json"),
        CheckpointError,
        r"config\.json: damaged, or cannot be read",
    ),
    "a list": (
        lambda folder: (folder / "config.json").write_text("[]"),
        CheckpointError,
        r"config\.json: damaged \(holds no names and values\)$",
    ),
    "another format": (
        lambda folder: edit(folder, lambda content: content.update(format=1)),
        CheckpointError,
        r"config\.json: format 1; this version of sfc reads 4$",
    ),
    "no background": (
        lambda folder: edit(folder, lambda content: content["classes"].pop(0)),
        ConfigError,
        r"config\.json: 'classes' must be background and then",
    ),
    "other pixels": (
        lambda folder: edit(folder, lambda content: content["preprocessing"].update(colours="BGR")),
        ConfigError,
        r"config\.json: this version of sfc prepares images otherwise than 'preprocessing' says$",
    ),
    "no network": (
        lambda folder: edit(folder, lambda content: content.pop("network")),
        ConfigError,
        r"config\.json: 'network' is missing or no section of settings$",
    ),
    "an unknown setting": (
        lambda folder: edit(folder, lambda content: content["predict"].update(colour=3)),
        ConfigError,
        r"config\.json: there is no setting 'predict\.colour'$",
    ),
    "a setting out of range": (
        lambda folder: edit(folder, lambda content: content["predict"].update(scales=[0.0])),
        ConfigError,
        r"config\.json: predict\.scales must be at least 0\.01, not 0\.0$",
    ),
    "an unknown backbone": (
        lambda folder: edit(folder, lambda content: content["network"].update(backbone="nonsense")),
        ConfigError,
        r"config\.json: network\.backbone: timm knows no model 'nonsense'$",
    ),
    "no weights": (
        lambda folder: (folder / "model.safetensors").unlink(),
        CheckpointError,
        r"model\.safetensors: there is no such file$",
    ),
    "half of the weights": (
        lambda folder: cut(folder / "model.safetensors"),
        CheckpointError,
        r"model\.safetensors: damaged, or not a safetensors file$",
    ),
    "a pickle": (
        lambda folder: torch.save({}, folder / "model.safetensors"),
        CheckpointError,
        r"model\.safetensors: damaged, or not a safetensors file$",
    ),
    "another class": (
        lambda folder: edit(folder, lambda content: content["classes"].append("fish")),
        CheckpointError,
        r"model\.safetensors: not the weights of the network in config\.json \(log_share does not fit\)$",
    ),
    "other weights": (
        lambda folder: edit(folder, lambda content: content["network"]["deeplab_v2"].update(atrous_rates=[1])),
        CheckpointError,
        r"model\.safetensors: not the weights of the network in config\.json \(branches\.1\.bias does not fit\)$",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_wrong_with_a_folder_is_said_in_one_sentence(name: str, folder: Path) -> None:
    spoil, kind, message = BROKEN[name]
    spoil(folder)
    with pytest.raises(kind, match=message) as caught:
        sfc.load(folder)
    assert "\n" not in str(caught.value)


def test_an_interrupted_overwrite_leaves_no_mixture(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sfc.segment.model.write_json", stop)
    with pytest.raises(KeyboardInterrupt):
        save_model(untrained(NETWORKS["library"]), folder)
    with pytest.raises(CheckpointError, match=r"half of one \(config\.json is missing\)"):
        sfc.load(folder)


@pytest.fixture
def finished(squares_run: Path, recipe: Path) -> tuple[RunFolder, RunConfig]:
    return RunFolder(squares_run), load_config([recipe])


def test_a_run_hands_its_segmenter_over(finished: tuple[RunFolder, RunConfig], tmp_path: Path) -> None:
    folder, config = finished
    system = folder.system("sfc")
    model = load_run_model(system, config, "crf")
    assert model.classes == ("red", "green", "blue")
    assert (model.network.backbone, model.network.weights) == ("compact", "none")
    assert model.predict == config.predict
    weights = system.segmenter("crf") / "checkpoint.pt"
    saved = torch.load(weights, weights_only=True)["model"]
    assert all(torch.equal(value, saved[name]) for name, value in model.net.state_dict().items())
    assert model.provenance["checkpoint"] == file_hash(weights)
    assert model.provenance["masks"] == "crf"
    assert model.provenance["data"]["settings"]["root"] == Path(config.data.root).name
    assert len(model.provenance["data"]["input_hash"]) == 64
    assert model.provenance["origin"]["inputs"]["classify"] == file_hash(system.classify / "checkpoint.pt")
    assert str(folder.root.parent) not in str(model.provenance)
    save_model(model, tmp_path / "model")
    loaded = sfc.load(tmp_path / "model")
    assert loaded.provenance == model.provenance
    np.testing.assert_array_equal(loaded.probabilities(picture()), model.probabilities(picture()))


def test_classes_are_those_of_the_training_wherever_the_data_went(
    finished: tuple[RunFolder, RunConfig], tmp_path: Path
) -> None:
    folder, config = finished
    copy = RunFolder(Path(shutil.copytree(folder.root, tmp_path / "run")))
    copy.manifest.unlink()  # it speaks of the run's last command, whoever's that was
    moved = replace(config, data=replace(config.data, root="/gone", classes="gone.txt"))
    model = load_run_model(copy.system("sfc"), moved, "crf")
    assert model.classes == ("red", "green", "blue")
    assert model.provenance["versions"]["torch"] == versions()["torch"]


def test_a_segmenter_of_the_truth_is_one_of_the_runs(
    finished: tuple[RunFolder, RunConfig], recipe: Path, tmp_path: Path
) -> None:
    folder, _ = finished
    copy = RunFolder(Path(shutil.copytree(folder.root, tmp_path / "run")))
    pseudo = replace(load_config([recipe]), methods=("sfc",))
    run(replace(pseudo, segment=replace(pseudo.segment, masks="truth")), copy.root, ("segment",))
    model = load_run_model(copy.system("sfc"), pseudo, "truth")
    origin = model.provenance["origin"]
    assert model.provenance["masks"] == origin["settings"]["segment"]["masks"] == "truth"
    assert set(origin["inputs"]) == {"images with masks", "classify"}
    assert model.weights_hash() != load_run_model(copy.system("sfc"), pseudo, "crf").weights_hash()


def test_where_backbone_weights_came_from_stays_at_home(
    finished: tuple[RunFolder, RunConfig], recipe: Path, tmp_path: Path
) -> None:
    copy = RunFolder(Path(shutil.copytree(finished[0].root, tmp_path / "run")))
    torch.save(Backbone("test_resnet").model.state_dict(), tmp_path / "weights.pth")
    options = ("backbone=test_resnet", f"weights={tmp_path / 'weights.pth'}")
    config = load_config([recipe], [f"--segment.network.{option}" for option in options])
    config = replace(config, methods=("sfc",), segment=replace(config.segment, masks="truth"))
    run(config, copy.root, ("segment",))
    save_model(load_run_model(copy.system("sfc"), config, "truth"), tmp_path / "model")
    text = (tmp_path / "model" / "config.json").read_text(encoding="utf-8")
    assert str(tmp_path) not in text
    assert '"weights": "weights.pth"' in text
    assert sfc.load(tmp_path / "model").network.weights == "published"


def test_runs_without_a_finished_segmenter(finished: tuple[RunFolder, RunConfig], tmp_path: Path) -> None:
    folder, config = finished
    with pytest.raises(CheckpointError, match=r"segmenter/irn/checkpoint\.pt: no such checkpoint$"):
        load_run_model(folder.system("sfc"), config, "irn")
    training = replace(config.segment.training, head_factors=(1.0, 3.0))
    other = replace(config, segment=replace(config.segment, training=training))
    with pytest.raises(ConfigError, match=r"segment\.training\.head_factors was \[1\.0, 1\.0\] and is \[1\.0, 3\.0\]"):
        load_run_model(folder.system("sfc"), other, "crf")
    copy = RunFolder(tmp_path).system("sfc")
    copy.segmenter("crf").mkdir(parents=True)
    shutil.copy(folder.system("sfc").classify / "checkpoint.pt", copy.segmenter("crf") / "checkpoint.pt")
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt: not the checkpoint of a segmenter$"):
        load_run_model(copy, config, "crf")
