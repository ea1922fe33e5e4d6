"""ONNX files: the same probabilities as torch at sizes that were never traced; what is refused."""

from __future__ import annotations

import json
import signal
import time
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from sfc.errors import SFCError
from sfc.export import onnx as module
from sfc.export.onnx import export_onnx
from sfc.segment.config import PredictConfig
from sfc.segment.deeplab import DeepLabV2Settings
from sfc.segment.model import Model
from sfc.segment.networks import SegmenterSection, build_segmenter
from sfc.segment.segmenter import Segmenter, SegmenterConfig

COMPACT = SegmenterSection(backbone="compact", weights="none", deeplab_v2=DeepLabV2Settings(atrous_rates=(1, 2)))
NETWORKS = {
    "compact": COMPACT,
    "timm, folded norms": SegmenterSection(backbone="resnet18", deeplab_v2=DeepLabV2Settings(atrous_rates=(2, 4))),
    "library, padded": SegmenterSection(architecture="DeepLabV3Plus", backbone="resnet18"),
}
SIZES = ((1, 37, 53), (1, 96, 64), (2, 128, 131))


class Padded(Segmenter):
    """Logits on a grid of stride 4, of an image padded to a multiple of 16 and a grid cropped as `Backbone` crops."""

    def __init__(self) -> None:
        super().__init__(frozen_norm=False)
        self.stride = 4
        self.layer = nn.Conv2d(3, 3, 4, 4)

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[2:]
        logits = self.layer(nn.functional.pad(image, (0, -width % 16, 0, -height % 16)))
        return logits[:, :, : -(-height // 4), : -(-width // 4)]


@torch.no_grad()
def sharpen(net: Segmenter) -> None:
    """Fresh weights answer 1 / K everywhere, or nearly; these do not."""
    logits = net.eval()(torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    for name, value in net.state_dict().items():
        if name.startswith(("branches", "model.segmentation_head", "layer")) and name.endswith("weight"):
            value.div_(logits.std())


def model_of(net: Segmenter, config: SegmenterConfig = COMPACT) -> Model:
    """Random weights whose answers differ from pixel to pixel."""
    sharpen(net)
    return Model(net, ("cat", "dög"), config, PredictConfig(), 320, {"data": {"input_hash": "abc"}, "commit": "123"})


def images(count: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def disagreement(path: Path, model: Model) -> float:
    """Largest difference between the probabilities of a file and of torch, over all sizes."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    largest = 0.0
    for size in SIZES:
        (found,) = session.run(None, {"image": images(*size)})
        expected = np.stack([model.probabilities(image, "single") for image in images(*size)])
        assert expected.std(axis=(2, 3)).min() > 0.01
        assert found.dtype == np.float32
        assert found.shape == expected.shape
        largest = max(largest, float(np.abs(found - expected).max()))
    return largest


@pytest.mark.parametrize("name", NETWORKS)
def test_onnxruntime_agrees_with_torch_at_any_size(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(2)
    model = model_of(build_segmenter(NETWORKS[name], 3, blank=True), NETWORKS[name])
    before = {key: value.clone() for key, value in model.net.state_dict().items()}
    export_onnx(model, tmp_path / "model.onnx")
    assert capfd.readouterr() == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    assert all(torch.equal(value, before[key]) for key, value in model.net.state_dict().items())
    assert disagreement(tmp_path / "model.onnx", model) < 1e-4


def test_what_a_network_is_used_to_is_in_the_file(tmp_path: Path) -> None:
    torch.manual_seed(2)
    model = model_of(build_segmenter(COMPACT, 3, blank=True))
    model = replace(model, predict=PredictConfig(logit_adjustment=0.5))
    model.net.log_share.copy_(torch.tensor([0.0, -0.5, -3.0]))
    export_onnx(model, tmp_path / "model.onnx")
    assert disagreement(tmp_path / "model.onnx", model) < 1e-4


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Model]:
    torch.manual_seed(2)
    path, model = tmp_path_factory.mktemp("onnx") / "padded.onnx", model_of(Padded())
    export_onnx(model, path)
    return path, model


def test_grids_are_rounded_up_as_in_python(exported: tuple[Path, Model]) -> None:
    assert disagreement(*exported) < 1e-4


def test_a_file_says_what_it_is_and_not_where_it_was_made(exported: tuple[Path, Model]) -> None:
    proto: Any = onnx.load(exported[0])
    (image,), (probabilities,) = proto.graph.input, proto.graph.output
    shapes = [[d.dim_param or d.dim_value for d in each.type.tensor_type.shape.dim] for each in (image, probabilities)]
    assert (image.name, probabilities.name) == ("image", "probabilities")
    assert image.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert shapes == [["images", "height", "width", 3], ["images", 3, "height", "width"]]
    properties = {entry.key: json.loads(entry.value) for entry in proto.metadata_props}
    assert properties["classes"] == ["background", "cat", "dög"]
    assert properties["provenance"] == {"data": {"input_hash": "abc"}, "commit": "123"}
    assert properties["longest"] == 320
    assert b".py" not in exported[0].read_bytes()


def test_what_computes_something_else_is_not_written(
    exported: tuple[Path, Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_exported", lambda *_: exported[0].read_bytes())
    net = deepcopy(exported[1].net)
    export_onnx(replace(exported[1], net=net), tmp_path / "same.onnx")
    with torch.no_grad():
        net.layer.weight[0, 0, 0, 0] += 0.01
    with pytest.raises(
        SFCError, match=r"other\.onnx: the exported network's probabilities differ from torch's by 0\.0"
    ):
        export_onnx(replace(exported[1], net=net), tmp_path / "other.onnx")
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "onnxruntime" else name)
    export_onnx(replace(exported[1], net=net), tmp_path / "unseen.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["same.onnx", "unseen.onnx"]


class Branching(Padded):
    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image if image.sum() > 0 else -image)


def test_what_cannot_be_traced_is_said_in_one_sentence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SFCError, match=r"model\.onnx: deeplab_v2 with compact cannot be exported to ONNX \(.+\)$") as e:
        export_onnx(model_of(Branching()), tmp_path / "model.onnx")
    assert "\n" not in str(e.value)
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())


def endless() -> None:
    """What the exporter does with windows of attention: it swallows errors and begins anew."""
    while True:
        with suppress(Exception):
            time.sleep(60)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system cannot interrupt a call")
def test_an_export_without_end_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.5)
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: endless())
    begun = time.monotonic()
    with pytest.raises(SFCError, match=r"cannot be exported to ONNX \(no end of it in 0 minutes\)$"):
        export_onnx(model_of(Padded()), tmp_path / "model.onnx")
    assert time.monotonic() - begun < 20
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    assert not list(tmp_path.iterdir())


def test_a_network_that_one_file_does_not_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST", 100)
    with pytest.raises(SFCError, match=r"model\.onnx: an ONNX file holds 2 GB, and the weights are 0\.0$"):
        export_onnx(model_of(Padded()), tmp_path / "model.onnx")


@pytest.mark.parametrize("missing", ["onnx", "onnxscript"])
def test_packages_that_are_not_installed(missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == missing else name)
    with pytest.raises(SFCError, match=r"pip install 'sfc-wsss\[onnx\]'$"):
        export_onnx(model_of(Padded()), tmp_path / "model.onnx")
