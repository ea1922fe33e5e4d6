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
from sfc.pipeline import run
from sfc.run.files import file_hash
from sfc.run.folder import RunFolder
from sfc.run.provenance import versions
from sfc.segment.config import PredictConfig
from sfc.segment.model import Model, load_run_model, save_model
from sfc.segment.networks import build_segmenter
from sfc.segment.probabilities import ImageLogits, smoothed
from sfc.segment.segmenter import SegmenterConfig

COMPACT = SegmenterConfig(backbone="compact", pretrained=False, atrous_rates=(1, 2), frozen_norm=False)
NETWORKS = {
    "compact": COMPACT,
    "timm": SegmenterConfig(backbone="resnet18", pretrained=False, atrous_rates=(2,)),
    "library": SegmenterConfig(architecture="FPN", backbone="resnet18", pretrained=False),
}
PREDICT = PredictConfig(scales=(1.0, 0.5), mirror=True, pooling="mean", tile=64, overlap=16)
PROVENANCE = {"data": {"input_hash": "abc"}, "masks": "crf", "manifest": {"command": ["sfc", "run", "é"]}}


def untrained(config: SegmenterConfig = COMPACT, predict: PredictConfig = PREDICT) -> Model:
    """Of random weights whose answers differ from pixel to pixel, norms included."""
    torch.manual_seed(3)
    net = build_segmenter(config, 3).eval()
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in net.state_dict().items():
            if name.endswith("running_var"):
                value.mul_(0.5 + torch.rand(value.shape, generator=random))
        logits = net(torch.randn(1, 3, 64, 64, generator=random))
        for name, value in net.state_dict().items():
            if name.startswith(("branches", "model.segmentation_head")) and name.endswith("weight"):
                value.mul_(3 / logits.std())
    return Model(net, ("cat", "dög"), config, predict, PROVENANCE)


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


def test_large_images_go_through_in_tiles() -> None:
    model, image = untrained(), picture(150, 60)
    tiled = model.probabilities(image)
    assert tiled.shape == (3, 150, 60)
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


def test_settings_that_would_fetch_weights_are_not_handed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = untrained(NETWORKS["timm"])
    save_model(replace(model, network=replace(model.network, pretrained=True, weights="mine.pth")), tmp_path / "model")
    edit(tmp_path / "model", lambda content: content["network"].update(pretrained=True))

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    loaded = sfc.load(tmp_path / "model")
    assert (loaded.network.pretrained, loaded.network.weights) == (False, "")
    assert loaded.weights_hash() == model.weights_hash()


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
        lambda folder: edit(folder, lambda content: content.update(format=2)),
        CheckpointError,
        r"config\.json: format 2; this version of sfc reads 1$",
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
        r"config\.json: .*colour",
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
        r"model\.safetensors: not the weights of the network in config\.json \(branches\.0\.weight does not fit\)$",
    ),
    "other weights": (
        lambda folder: edit(folder, lambda content: content["network"].update(atrous_rates=[1])),
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
    variant = folder.variant("sfc")
    model = load_run_model(variant, config, "crf")
    assert model.classes == ("red", "green", "blue")
    assert (model.network.backbone, model.network.pretrained) == ("compact", False)
    assert model.predict == config.predict
    weights = variant.segmenter("crf") / "checkpoint.pt"
    saved = torch.load(weights, weights_only=True)["model"]
    assert all(torch.equal(value, saved[name]) for name, value in model.net.state_dict().items())
    assert model.provenance["checkpoint"] == file_hash(weights)
    assert model.provenance["masks"] == "crf"
    assert model.provenance["data"]["settings"]["root"] == Path(config.data.root).name
    assert len(model.provenance["data"]["input_hash"]) == 64
    assert model.provenance["origin"]["classifier"] == file_hash(variant.classify / "checkpoint.pt")
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
    model = load_run_model(copy.variant("sfc"), moved, "crf")
    assert model.classes == ("red", "green", "blue")
    assert model.provenance["versions"]["torch"] == versions()["torch"]


def test_a_segmenter_of_the_truth_is_one_of_the_runs(
    finished: tuple[RunFolder, RunConfig], recipe: Path, tmp_path: Path
) -> None:
    folder, _ = finished
    copy = RunFolder(Path(shutil.copytree(folder.root, tmp_path / "run")))
    pseudo = load_config([recipe], ["--baseline=false"])
    run(load_config([recipe], ["--baseline=false", "--segment.masks=truth"]), copy.root, ("segment",))
    model = load_run_model(copy.variant("sfc"), pseudo, "truth")
    assert model.provenance["masks"] == model.provenance["origin"]["masks"] == "truth"
    assert model.weights_hash() != load_run_model(copy.variant("sfc"), pseudo, "crf").weights_hash()


def test_runs_without_a_finished_segmenter(finished: tuple[RunFolder, RunConfig], tmp_path: Path) -> None:
    folder, config = finished
    with pytest.raises(CheckpointError, match=r"segmenter/irn/checkpoint\.pt: no such checkpoint$"):
        load_run_model(folder.variant("sfc"), config, "irn")
    other = replace(config, segment=replace(config.segment, bias_factor=3.0))
    with pytest.raises(ConfigError, match=r"segment\.bias_factor was 20\.0 and is 3\.0"):
        load_run_model(folder.variant("sfc"), other, "crf")
    copy = RunFolder(tmp_path).variant("sfc")
    copy.segmenter("crf").mkdir(parents=True)
    shutil.copy(folder.variant("sfc").classify / "checkpoint.pt", copy.segmenter("crf") / "checkpoint.pt")
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt: not the checkpoint of a segmenter$"):
        load_run_model(copy, config, "crf")
