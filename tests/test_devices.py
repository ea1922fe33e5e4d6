"""What computes on a GPU gives there what it gives on a CPU; on a machine without one the CPU stands in for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import sfc.engine.fit
from sfc.classify.inference import infer_cams
from sfc.classify.train import load_classifier
from sfc.config import RunConfig, load_config
from sfc.data.images import read_image
from sfc.data.readers.read import read_dataset
from sfc.engine.checkpoint import load_checkpoint
from sfc.engine.processes import make_fabric, precision_of, prepared_for_inference
from sfc.pipeline import run
from sfc.refine.crf.config import CRFConfig
from sfc.refine.walk.mask import walk_mask, walk_scores
from sfc.segment.probabilities import ImageLogits, smoothed
from sfc.segment.train import load_segmenter
from sfc.settings.shared import MachineConfig


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request: pytest.FixtureRequest) -> torch.device:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no GPU here")
    return torch.device(request.param)


@pytest.fixture
def exact(device: torch.device) -> float:
    """Tolerance: a GPU adds in another order."""
    return 0.0 if device.type == "cpu" else 1e-3


@pytest.fixture
def close(device: torch.device) -> float:
    """Tolerance where the layout of memory differs too."""
    return 1e-4 if device.type == "cpu" else 1e-3


def settings(recipe: Path, device: torch.device, *options: str) -> RunConfig:
    return load_config(
        [recipe], [f"--machine.accelerator={device.type}", "--machine.precision=fp32", '--methods=["sfc"]', *options]
    )


def test_maps_and_probabilities(squares_run: Path, recipe: Path, device: torch.device, close: float) -> None:
    """As stages prepare a network for its device, against the network as it was loaded."""
    config, folder = load_config([recipe]).of_method("sfc"), squares_run / "sfc"
    dataset = read_dataset(config.data, "train")
    image, label = read_image(dataset.records[0].image), dataset.label_matrix()[0]
    net = load_classifier(config.classify, config.seed, dataset.classes, folder / "classify")
    expected = infer_cams(net, image, label)
    fabric = make_fabric(MachineConfig(accelerator=device.type))  # type: ignore[arg-type]
    prepared_for_inference(fabric, net)
    assert {parameter.device.type for parameter in net.parameters()} == {device.type}
    for found, other in zip(infer_cams(net, image, label), expected, strict=True):
        np.testing.assert_allclose(found, other, atol=10 * close)
    segmenter = load_segmenter(
        config.segment, config.seed, dataset.classes, folder / "segmenter" / "crf", net.cpu().backbone
    )
    expected_logits = ImageLogits(segmenter, image).probabilities((1.0, 0.75), mirror=True)
    prepared_for_inference(fabric, segmenter)
    found_logits = ImageLogits(segmenter, image).probabilities((1.0, 0.75), mirror=True)
    np.testing.assert_allclose(found_logits, expected_logits, atol=close)
    crf = smoothed(image, found_logits, CRFConfig())
    assert (crf.argmax(axis=0) == smoothed(image, expected_logits, CRFConfig()).argmax(axis=0)).mean() >= 1 - 10 * close


def test_the_walk(golden, device: torch.device) -> None:
    figures = golden("walk_scores")
    cam, size = figures["cams"], figures["cams"].shape[1:]
    edge = torch.from_numpy(figures["edge"]).to(device)
    scores = walk_scores(cam, edge, size)
    assert scores.device.type == device.type
    np.testing.assert_allclose(scores.cpu().numpy(), walk_scores(cam, figures["edge"], size), atol=1e-4)
    mask = walk_mask(figures["keys"], cam, edge, size, second_walk=True)
    np.testing.assert_array_equal(mask, figures["pseudo_label"])


def test_an_interrupted_training_goes_on_as_if_it_had_not_been(
    recipe: Path, tmp_path: Path, device: torch.device, exact: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(recipe, device)
    run(config, tmp_path / "whole", ("classify",))
    save = sfc.engine.fit._Fit._save

    def interrupted(self, optimiser, step: int) -> None:
        save(self, optimiser, step)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sfc.engine.fit._Fit, "_save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(config, tmp_path / "parts", ("classify",))
    assert load_checkpoint(tmp_path / "parts" / "sfc" / "classify" / "checkpoint.pt")["step"] == 2
    run(config, tmp_path / "parts", ("classify",))
    whole, parts = (
        load_checkpoint(tmp_path / name / "sfc" / "classify" / "checkpoint.pt") for name in ("whole", "parts")
    )
    assert parts["step"] == whole["step"] == 6
    for name, value in whole["model"].items():
        torch.testing.assert_close(parts["model"][name].cpu(), value.cpu(), rtol=exact, atol=exact)


def test_every_stage_runs_there(recipe: Path, tmp_path: Path, device: torch.device) -> None:
    config = settings(recipe, device, "--refine.method=irn+crf", '--predict.ways=["multi+crf"]')
    scores = run(config, tmp_path / "run", ("classify", "localize", "refine", "segment", "evaluate"))
    assert [entry.split for entry in scores] == ["train", "val"]
    assert not any(entry.missing for entry in scores)


def test_the_precision_that_nobody_chose(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = MachineConfig(accelerator=device.type)  # type: ignore[arg-type]
    assert precision_of(machine) == ("fp32" if device.type == "cpu" else "bf16")
    assert precision_of(MachineConfig(accelerator="cpu", precision="bf16")) == "bf16"
    # Whatever this machine has: a GPU that cannot is asked first, and a CPU is never taken for one.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for able in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda able=able, **_: able)
        assert precision_of(MachineConfig()) == ("bf16" if able else "fp32")
        assert precision_of(MachineConfig(accelerator="cpu")) == "fp32"


@pytest.mark.cuda
def test_bf16_trains_like_float32(recipe: Path, tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU here")
    losses = {}
    for precision in ("fp32", "bf16"):
        config = settings(recipe, torch.device("cuda"), f"--machine.precision={precision}")
        assert make_fabric(config.machine).device.type == "cuda"
        run(config, tmp_path / precision, ("classify",))
        lines = (tmp_path / precision / "sfc" / "classify" / "log.csv").read_text().splitlines()
        column = lines[0].split(",").index("total")
        losses[precision] = np.mean([float(line.split(",")[column]) for line in lines[1:]])
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.02)
