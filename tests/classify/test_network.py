"""The network against the golden figures, released checkpoints good and bad, grids, presets."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfc.classify.cam import correlate_pixels, prototype_cam, valid_mask, with_background
from sfc.classify.losses.total import MSDWLoss
from sfc.classify.network import SFCNetwork, SFCOutput
from sfc.classify.official import official_state
from sfc.errors import CheckpointError

HEADS = ("classifier.weight", "f9.weight", "side1.weight", "side2.weight", "side3.weight", "side4.weight")
RELEASED_NAMES = {
    "resnet50.layer3.0.conv1.weight": "backbone.model.layer3.0.conv1.weight",
    "resnet50.layer4.2.conv3.weight": "backbone.model.layer4.2.conv3.weight",
    "classifier.weight": "classifier.weight",
    "f9.weight": "correlation.weight",
    "side1.weight": "side.0.weight",
    "side2.weight": "side.1.weight",
    "side3.weight": "side.2.weight",
    "side4.weight": "side.3.weight",
}


def assert_relative(a: Tensor, figure: np.ndarray, tolerance: float = 1e-4) -> None:
    reference = torch.from_numpy(figure)
    assert a.shape == reference.shape
    assert float((a.detach() - reference).norm() / reference.norm()) < tolerance


def small_network(seed: int = 0, **options: Any) -> SFCNetwork:
    torch.manual_seed(seed)
    options = {"side_channels": (4, 4, 6, 6), "frozen_norm": False, "trained_from": 0, **options}
    return SFCNetwork("compact", 3, **options)


def small_batch(height: int = 48, width: int = 64) -> tuple[Tensor, Tensor, Tensor]:
    """Images, the second padded at its bottom and right; their labels and rectangles."""
    image = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))
    rectangle = torch.tensor([[0, 0, height, width], [0, 0, height // 2, width - 9]])
    image[1, :, height // 2 :] = 0
    image[1, :, :, width - 9 :] = 0
    return image, torch.tensor([[1.0, 0, 1], [0, 1, 0]]), rectangle


@pytest.fixture(scope="module")
def official_net(official_checkpoint) -> SFCNetwork:
    """The golden figures' network, shared: tests that train it restore its gradients."""
    return SFCNetwork.from_official(official_checkpoint)


@pytest.fixture(scope="module")
def official_step(official_net, golden) -> dict[str, Any]:
    """One training step of the released code: both passes, losses, gradients before clipping."""
    figures = golden("network_training")
    net = official_net
    image, label = torch.from_numpy(figures["image"]), torch.from_numpy(figures["label"])
    rectangle = torch.tensor([[0, 0, 128, 128], [0, 0, 128, 64]])
    net.train()
    full = net(image, valid_mask(rectangle, label, (128, 128), net.grid_size(128, 128)))
    small = F.interpolate(image, size=(64, 64), mode="bilinear", align_corners=True)
    half = net(small, valid_mask(rectangle, label, (128, 128), net.grid_size(64, 64)), prototypes=False)
    losses = MSDWLoss(torch.from_numpy(figures["distribution_coefficient"]))(full, half, label)
    losses.total.backward()
    gradients = {name: p.grad for name, p in net.named_parameters()}
    net.zero_grad(set_to_none=True)
    net.eval()
    return {"full": full, "half": half, "losses": losses, "gradients": gradients, "figures": figures}


# --- Golden figures ---------------------------------------------------------------------------------------------------


def test_training_passes_figures(official_step) -> None:
    full, half, figures = official_step["full"], official_step["half"], official_step["figures"]
    assert_relative(full.score, figures["score_full"][:, :, 0, 0])
    assert_relative(half.score, figures["score_half"][:, :, 0, 0])
    assert_relative(full.classifier_cam, figures["classifier_cam_full"])
    assert_relative(full.refined_cam, figures["refined_cam_full"])
    assert_relative(full.prototype_cam, figures["prototype_cam_full"])
    assert_relative(half.refined_cam, figures["refined_cam_half"])
    assert half.prototype_cam is None


@pytest.mark.parametrize("term", ["classification", "prototype", "scale", "total"])
def test_loss_figures(official_step, term: str) -> None:
    losses = official_step["losses"]
    values = {"classification": losses.classification, **losses.terms, "total": losses.total}
    loss = float(values[term].detach())
    assert loss == pytest.approx(float(official_step["figures"][f"loss_{term}"]), rel=1e-4)


def test_gradient_figures(official_step) -> None:
    figures, gradients = official_step["figures"], official_step["gradients"]
    for name, norm in zip(figures["grad_norm_names"], figures["grad_norms"], strict=True):
        gradient = gradients[RELEASED_NAMES[str(name)]]
        assert gradient is not None, name
        assert float(gradient.norm()) == pytest.approx(float(norm), rel=1e-3), name


def test_only_stages_3_and_4_and_the_heads_learn(official_net, official_step) -> None:
    learns = {name for name, gradient in official_step["gradients"].items() if gradient is not None}
    assert learns == {name for name, p in official_net.named_parameters() if p.requires_grad}
    prefixes = {".".join(name.split(".")[:3]) if name.startswith("backbone") else name.split(".")[0] for name in learns}
    assert prefixes == {"backbone.model.layer3", "backbone.model.layer4", "classifier", "correlation", "side"}
    # Affine parameters of frozen norms train.
    assert "backbone.model.layer3.0.bn1.weight" in learns
    assert "backbone.model.layer4.2.bn3.bias" in learns


def test_training_leaves_the_statistics_alone(official_net, official_checkpoint, official_step) -> None:
    state, released = official_net.state_dict(), official_checkpoint["net"]
    for name in ("layer1.0.bn1", "layer4.2.bn3"):
        for statistic in ("running_mean", "running_var"):
            ours = state[f"backbone.model.{name}.{statistic}"]
            assert torch.equal(ours, released[f"resnet50.{name}.{statistic}"])


# --- Released checkpoints ---------------------------------------------------------------------------------------------


def assert_same_network(net: SFCNetwork, reference: SFCNetwork) -> None:
    assert not net.training
    state, expected = net.state_dict(), reference.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in state)


def test_every_form_of_an_official_checkpoint_is_the_same_state(official_checkpoint, official_net) -> None:
    state = official_checkpoint["net"]
    parallel = {f"module.{name}": value for name, value in state.items()}
    copies = ("backbone.", "newly_added.", "stage")
    canonical = {name: value for name, value in state.items() if not name.startswith(copies)}
    assert len(canonical) < len(state) / 2
    expected = official_net.state_dict()
    for form in (state, {"net": state}, parallel, {"net": parallel}, canonical):
        mapped = official_state(form)
        assert mapped.keys() == expected.keys()
        assert all(torch.equal(mapped[name], expected[name]) for name in expected)


def test_official_checkpoint_as_a_dict(official_checkpoint, official_net) -> None:
    assert_same_network(SFCNetwork.from_official({"net": official_checkpoint["net"]}), official_net)


@pytest.fixture(scope="module")
def official_file(official_checkpoint, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("official") / "best.pth"
    torch.save(official_checkpoint, path)
    return path


def test_official_checkpoint_as_a_file(official_file, official_net) -> None:
    assert_same_network(SFCNetwork.from_official(str(official_file)), official_net)


@pytest.mark.parametrize("damage", ["half", "empty", "text", "no tail", "zeros"])
def test_damaged_files_are_refused(official_file, tmp_path: Path, damage: str) -> None:
    whole = official_file.read_bytes()
    content = {
        "half": whole[: len(whole) // 2],
        "empty": b"",
        "text": b"<!DOCTYPE html><html>Sign in</html>",
        "no tail": whole[:-1],
        "zeros": bytes(1000),
    }[damage]
    path = tmp_path / "damaged.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"damaged\.pth") as caught:
        SFCNetwork.from_official(path)
    assert "\n" not in str(caught.value)


def test_old_format_files_load_and_are_refused_when_cut(official_checkpoint, tmp_path: Path) -> None:
    small = {name: value for name, value in official_checkpoint["net"].items() if value.numel() < 100 or name in HEADS}
    path = tmp_path / "old.pth"
    torch.save({"net": small}, path, _use_new_zipfile_serialization=False)
    assert torch.equal(official_state(path)["classifier.weight"], small["classifier.weight"])
    whole = path.read_bytes()
    for length in (3, 10, 60, 300, 3000, 5000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"old\.pth: the checkpoint is damaged"):
            official_state(path)


def test_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nothing\.pth: no such checkpoint"):
        SFCNetwork.from_official(tmp_path / "nothing.pth")
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        SFCNetwork.from_official(tmp_path)


class Dangerous:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (print, ("code in a checkpoint ran",))


def test_a_file_that_would_run_code_is_refused(tmp_path: Path, capsys) -> None:
    path = tmp_path / "dangerous.pth"
    torch.save({"net": Dangerous()}, path)
    with pytest.raises(CheckpointError, match=r"dangerous\.pth"):
        SFCNetwork.from_official(path)
    assert not capsys.readouterr().out


def changed(state: dict[str, Tensor], **replacements: Tensor | None) -> dict[str, Tensor]:
    state = dict(state)
    for key, value in replacements.items():
        name = key.replace("__", ".")
        if value is None:
            del state[name]
        else:
            state[name] = value
    return state


def test_content_of_something_else_is_refused(official_checkpoint) -> None:
    state = official_checkpoint["net"]
    wrong: list[Any] = [
        {},
        {"net": {}},
        {"net": [1, 2]},
        {"net": 3},
        {"net": {"classifier.weight": "text"}},
        {"epoch": 3, "state": {}},
        nn.Linear(2, 2).state_dict(),
        changed(state, classifier__weight=None),
        changed(state, side4__weight=None),
        changed(state, resnet50__layer3__5__bn2__running_mean=None),
        changed(state, classifier__weight=torch.zeros(20, 1024, 1, 1)),
        changed(state, classifier__weight=torch.zeros(())),
        changed(state, side1__weight=torch.zeros(64, 256, 1, 1)),
        changed(state, resnet50__conv1__weight=torch.zeros(64, 3, 3, 3)),
        changed(state, resnet50__layer3__6__conv1__weight=torch.zeros(1)),
    ]
    for content in wrong:
        with pytest.raises(CheckpointError, match="not an SFC checkpoint") as caught:
            SFCNetwork.from_official(content)
        assert "\n" not in str(caught.value)


def test_a_file_of_something_else_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "linear.pth"
    for content in (nn.Linear(2, 2).state_dict(), [torch.zeros(2)], torch.zeros(2)):
        torch.save(content, path)
        with pytest.raises(CheckpointError, match=r"linear\.pth.*not an SFC checkpoint"):
            SFCNetwork.from_official(path)


def test_official_checkpoint_of_other_classes(official_checkpoint) -> None:
    net = SFCNetwork.from_official(changed(official_checkpoint["net"], classifier__weight=torch.zeros(7, 2048, 1, 1)))
    assert net.num_classes == 7


# --- Grids ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (2, 50), (17, 33), (31, 32), (96, 65)])
def test_grid_size_is_that_of_the_output(size: tuple[int, int]) -> None:
    net = small_network()
    grid = net.grid_size(*size)
    image = torch.randn(1, 3, *size)
    net.eval()
    out = net(image, torch.ones(1, 4, *grid))
    assert out.classifier_cam.shape == out.refined_cam.shape == out.prototype_cam.shape == (1, 4, *grid)
    assert out.score.shape == (1, 3)
    assert all(value.isfinite().all() for value in (out.score, out.refined_cam, out.prototype_cam))
    assert net.grid_size(*size) == grid


def test_grid_size_of_the_official_network(official_net) -> None:
    for size in ((33, 70), (100, 50)):
        grid = official_net.grid_size(*size)
        with torch.no_grad():
            stages = official_net.backbone(torch.zeros(1, 3, *size))
        assert grid == tuple(stages[2].shape[2:]) == tuple(stages[3].shape[2:])
        assert grid == tuple(-(-side // 16) for side in size)


@pytest.mark.parametrize("training", [True, False])
def test_grid_size_leaves_no_trace(training: bool) -> None:
    net = small_network().train(training)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    random = torch.get_rng_state()
    net.grid_size(40, 56)
    assert net.training == training
    assert all(module.training == training for module in net.modules())
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())


def test_a_mask_off_the_grid_is_refused() -> None:
    net = small_network()
    with pytest.raises(ValueError, match=r"valid_mask is \(48, 64\), the feature grid \(6, 8\)"):
        net(torch.randn(2, 3, 48, 64), torch.ones(2, 4, 48, 64))


# --- What a pass computes ---------------------------------------------------------------------------------------------


def by_the_book(net: SFCNetwork, image: Tensor, mask: Tensor) -> SFCOutput:
    """Section 2 of the method, step by step, from the stage features on."""
    stages = net.backbone(image)
    grid = stages[2].shape[2:]
    class_map = net.classifier(stages[3])
    cam = F.interpolate(with_background(class_map), size=grid, mode="bilinear", align_corners=True) * mask
    refined = cam
    if net.correlation is not None:
        small = F.interpolate(image, size=grid, mode="bilinear", align_corners=True)
        last = F.interpolate(stages[3], size=grid, mode="bilinear", align_corners=True)
        projected = net.correlation(torch.cat([small, last], dim=1))
        if net.centre_features:
            projected = projected - projected.mean(dim=(2, 3), keepdim=True)
        refined = correlate_pixels(cam, projected)
    parts = []
    for side, stage in zip(net.side, stages, strict=True):
        part = side(stage)
        if net.centre_features:
            part = part - part.mean(dim=(2, 3), keepdim=True)
        part = part / (part.norm(dim=1, keepdim=True) + 1e-5)
        parts.append(F.interpolate(part, size=grid, mode="bilinear", align_corners=False))
    prototype = prototype_cam(refined, torch.cat(parts, dim=1), mask, net.background_scale, net.seed_threshold)
    return SFCOutput(class_map.mean(dim=(2, 3)), cam, refined, prototype)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"pixel_correlation": False},
        {"centre_features": True},
        {"seed_threshold": 0.4, "pixel_correlation": False},
        {"background_scale": 0.9, "centre_features": True},
    ],
)
def test_a_pass_is_the_method_step_by_step(options: dict[str, Any]) -> None:
    net = small_network(**options).eval()
    image, label, rectangle = small_batch()
    mask = valid_mask(rectangle, label, (48, 64), net.grid_size(48, 64))
    with torch.no_grad():
        out, expected = net(image, mask), by_the_book(net, image, mask)
    assert torch.allclose(out.score, expected.score, atol=1e-6)
    assert torch.allclose(out.classifier_cam, expected.classifier_cam, atol=1e-6)
    assert torch.allclose(out.refined_cam, expected.refined_cam, atol=1e-5)
    assert torch.allclose(out.prototype_cam, expected.prototype_cam, atol=1e-5)
    absent = label == 0
    assert not out.refined_cam[:, 1:][absent].any()
    assert not out.prototype_cam[:, 1:][absent].any()
    assert not out.classifier_cam[mask == 0].any()


def test_the_half_size_pass_has_no_prototypes_and_reads_no_side_layer() -> None:
    net = small_network()
    image, label, rectangle = small_batch()
    mask = valid_mask(rectangle, label, (48, 64), net.grid_size(48, 64))
    full, half = net(image, mask), net(image, mask, prototypes=False)
    assert half.prototype_cam is None
    assert torch.equal(full.refined_cam, half.refined_cam)
    half.refined_cam.sum().backward()
    assert all(side.weight.grad is None for side in net.side)
    assert net.correlation.weight.grad is not None


def test_correlation_can_be_left_out_of_a_pass() -> None:
    net = small_network()
    image, label, rectangle = small_batch()
    mask = valid_mask(rectangle, label, (48, 64), net.grid_size(48, 64))
    out = net(image, mask, correlate=False)
    assert torch.equal(out.refined_cam, out.classifier_cam)
    assert not torch.equal(net(image, mask).refined_cam, out.refined_cam)


def test_prototype_loss_reaches_no_backbone_through_the_feature() -> None:
    """The hierarchical feature is a projection of detached stages: only the side layers learn from it."""
    net = small_network()
    image, label, rectangle = small_batch()
    mask = valid_mask(rectangle, label, (48, 64), net.grid_size(48, 64))
    net(image, mask).prototype_cam.sum().backward()
    learned = {name for name, p in net.named_parameters() if p.grad is not None}
    assert learned == {f"side.{i}.weight" for i in range(4)}


def test_bf16_stays_close_and_the_first_step_has_all_gradients() -> None:
    image, label, rectangle = small_batch()

    def step(net: SFCNetwork, bf16: bool) -> tuple[SFCOutput, dict[str, Tensor | None]]:
        net.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            out = net(image, valid_mask(rectangle, label, (48, 64), net.grid_size(48, 64)))
            (out.score.square().mean() + out.refined_cam.square().mean() + out.prototype_cam.mean()).backward()
        return out, {name: p.grad for name, p in net.named_parameters()}

    exact, reference = step(small_network(), bf16=False)
    net = small_network()
    out, first = step(net, bf16=True)
    assert all(value.dtype == torch.float32 for value in (out.score, out.refined_cam, out.prototype_cam))
    # An argmax that flips moves a seed, so prototypes are compared on average.
    with torch.no_grad():
        assert float((out.score - exact.score).norm() / exact.score.norm()) < 0.05
        assert float((out.refined_cam - exact.refined_cam).abs().mean()) < 0.02
        assert float((out.prototype_cam - exact.prototype_cam).abs().mean()) < 0.05
    _, second = step(net, bf16=True)
    for name, gradient in first.items():
        assert (gradient is None) == (reference[name] is None), name
        if gradient is not None and second[name] is not None:
            assert torch.allclose(gradient, second[name], rtol=1e-4, atol=1e-6), name


def test_channels_last_changes_nothing_but_rounding() -> None:
    image, label, rectangle = small_batch()
    net = small_network().eval()
    mask = valid_mask(rectangle, label, (48, 64), net.grid_size(48, 64))
    with torch.no_grad():
        plain = net(image, mask)
        moved = net.to(memory_format=torch.channels_last)(image.contiguous(memory_format=torch.channels_last), mask)
    assert torch.allclose(plain.score, moved.score, atol=1e-5)
    assert torch.allclose(plain.refined_cam, moved.refined_cam, atol=1e-4)
    assert torch.allclose(plain.prototype_cam, moved.prototype_cam, atol=1e-3)


def test_state_survives_a_file() -> None:
    net, other = small_network(0), small_network(1)
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    image, label, rectangle = small_batch()
    mask = valid_mask(rectangle, label, (48, 64), net.grid_size(48, 64))
    with torch.no_grad():
        assert torch.equal(net.eval()(image, mask).refined_cam, other.eval()(image, mask).refined_cam)
