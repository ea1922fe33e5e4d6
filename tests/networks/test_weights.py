"""Weights of a file or of an installed package: what fits is loaded, what does not is named in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from sfc.errors import CheckpointError
from sfc.networks.backbone import Backbone


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
    with pytest.raises(CheckpointError, match=r"nothing\.pth: no such file \(network\.weights\)"):
        Backbone("test_resnet", weights=str(tmp_path / "nothing.pth"))
