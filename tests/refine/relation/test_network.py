"""The relation network: golden figures, released checkpoints, other backbones, sizes, what it refuses."""

from __future__ import annotations

import threading
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sfc.errors import CheckpointError
from sfc.networks.backbone import Backbone
from sfc.refine.relation.loss import relation_loss
from sfc.refine.relation.network import RelationNetwork

GRADIENTS = {
    "fc_edge1.0.weight": "edge.0.0.weight",
    "fc_edge6.weight": "edge_logit.weight",
}
"""Those of the edge branches, which the displacements' losses do not reach."""


@pytest.fixture(scope="module")
def released(released_relation_state: dict[str, Tensor]) -> RelationNetwork:
    return RelationNetwork.from_official(released_relation_state)


@pytest.fixture
def compact() -> RelationNetwork:
    torch.manual_seed(0)
    return RelationNetwork("compact").eval()


def relative(ours: Tensor, expected: np.ndarray) -> float:
    reference = torch.from_numpy(expected)
    return float((ours.detach() - reference).norm() / reference.norm())


def test_inference_equals_the_released_code(released: RelationNetwork, golden) -> None:
    figures = golden("relation_inference")
    image, crop = torch.from_numpy(figures["image"]), int(figures["crop_size"])
    edge, displacement = released.infer(image, crop), released.infer_displacement(image, crop)
    assert edge.shape == (23, 31)
    assert relative(edge, figures["edge"][0]) < 1e-5
    assert relative(displacement, figures["displacement"]) < 1e-5


def test_training_pass_equals_the_released_code(released: RelationNetwork, golden) -> None:
    figures = golden("relation_training")
    net = deepcopy(released).train()
    image = torch.from_numpy(figures["image"])
    edge = net(image)
    assert relative(edge, figures["edge_logits"]) < 1e-5
    assert net.displacement is not None
    assert relative(net.displacement(net.stages(image)), figures["displacement"]) < 1e-5
    losses = relation_loss(edge, torch.from_numpy(figures["label_quarter"])[None], 10)
    losses.total.backward()
    norms = dict(zip(figures["grad_norm_names"].tolist(), figures["grad_norms"].tolist(), strict=True))
    for name, ours in GRADIENTS.items():
        gradient = net.get_parameter(ours).grad
        assert float(gradient.norm()) == pytest.approx(norms[name], rel=1e-3), name


def test_released_file_loads_with_the_prefix_of_parallel_training(
    released: RelationNetwork, released_relation_state: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "irn.pth"
    torch.save({f"module.{name}": value for name, value in released_relation_state.items()}, path)
    loaded = RelationNetwork.from_official(path)
    assert not loaded.training
    for name, value in released.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name


def test_what_is_not_a_released_checkpoint_is_refused(
    released_relation_state: dict[str, Tensor], tmp_path: Path
) -> None:
    def without(name: str) -> dict[str, Tensor]:
        return {key: value for key, value in released_relation_state.items() if key != name}

    wide = {**released_relation_state, "fc_edge2.0.weight": torch.zeros(32, 64, 1, 1)}
    for state, reason in (
        (without("fc_dp6.0.weight"), r"displacement\.coarse\.0\.weight does not fit"),
        (without("mean_shift.running_mean"), r"displacement\.mean does not fit"),
        (wide, r"size mismatch for edge\.1\.0\.weight"),
        ({"edge": 1}, "no state dict"),
    ):
        with pytest.raises(CheckpointError, match=f"^not a relation network's checkpoint: .*{reason}"):
            RelationNetwork.from_official(state)
    path = tmp_path / "linear.pth"
    torch.save(torch.nn.Linear(2, 2).state_dict(), path)
    with pytest.raises(CheckpointError, match=r"linear\.pth: not a relation network's checkpoint"):
        RelationNetwork.from_official(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(CheckpointError, match="damaged"):
        RelationNetwork.from_official(str(path))


@pytest.mark.parametrize("size", [(41, 70), (90, 122)])
def test_branches_equal_the_plain_network_where_grids_do_not_divide(size: tuple[int, int]) -> None:
    """Every map convolved, normed, enlarged by its factor, cropped, rectified, and put side by side."""
    torch.manual_seed(1)
    net = RelationNetwork("resnet18", displacement=True).train()
    branches = net.displacement
    assert branches is not None
    for module in net.modules():
        if isinstance(module, torch.nn.GroupNorm):
            torch.nn.init.normal_(module.bias)
    image = torch.randn(2, 3, *size)
    maps = net.stages(image)

    def enlarged(x: Tensor, scale: int, grid: Tensor) -> Tensor:
        if scale > 1:
            x = torch.nn.functional.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)
        return torch.relu(x)[:, :, : grid.shape[2], : grid.shape[3]]

    parts = [enlarged(net.edge[i](maps[i]), scale, maps[1]) for i, scale in enumerate((1, 1, 2, 4, 4))]
    coarse = [enlarged(branches.branches[i](maps[i]), scale, maps[2]) for i, scale in ((2, 1), (3, 2), (4, 2))]
    fine = [enlarged(branches.branches[i](maps[i]), 1, maps[1]) for i in (0, 1)]
    fine.append(enlarged(branches.coarse(torch.cat(coarse, dim=1)), 2, maps[1]))
    expected = (
        net.edge_logit(torch.cat(parts, dim=1)),
        branches.out(torch.relu(branches.fine(torch.cat(fine, dim=1)))),
    )
    learning = [p for p in net.parameters() if p.requires_grad]
    cotangents = [torch.randn_like(one) for one in expected]
    gradients = torch.autograd.grad(expected, learning, cotangents)
    ours = (net(image), branches(net.stages(image)))
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    for a, b in zip(torch.autograd.grad(ours, learning, cotangents), gradients, strict=True):
        assert float((a - b).norm()) < 1e-4 * float(b.norm())


def test_mean_displacement_acts_in_evaluation_only() -> None:
    net = RelationNetwork("compact", displacement=True).eval()
    assert net.displacement is not None
    net.displacement.mean.copy_(torch.tensor([0.25, -0.5]))
    maps = net.stages(torch.randn(1, 3, 40, 48))
    shifted = net.displacement(maps)
    raw = net.train().displacement(maps)
    torch.testing.assert_close(raw - shifted, net.displacement.mean[None, :, None, None].expand_as(raw))


def test_displacements_are_built_for_released_files_alone(compact: RelationNetwork) -> None:
    assert compact.displacement is None
    assert not any("displacement" in name for name in compact.state_dict())
    with pytest.raises(ValueError, match="only a released relation network has displacements"):
        compact.infer_displacement(torch.zeros(3, 8, 8))
    torch.manual_seed(0)
    whole = RelationNetwork("compact", displacement=True).state_dict()
    assert all(torch.equal(value, whole[name]) for name, value in compact.state_dict().items())


def test_backbone_never_learns_and_its_statistics_stay(compact: RelationNetwork) -> None:
    net = compact.train()
    before = {name: value.clone() for name, value in net.stages.state_dict().items()}
    optimiser = torch.optim.SGD(net.parameters(), lr=1.0, weight_decay=0.1)
    net(torch.randn(2, 3, 40, 48)).mean().backward()
    optimiser.step()
    assert all(torch.equal(before[name], value) for name, value in net.stages.state_dict().items())
    assert not any(p.requires_grad for p in net.stages.parameters())
    learning = {id(p) for p in net.parameters() if p.requires_grad}
    assert {id(p) for p in net.edge_parameters()} == learning
    assert all(p.grad is not None for p in net.parameters() if p.requires_grad)


def test_norms_of_a_classifier_backbone_that_learnt_them_are_frozen(compact: RelationNetwork) -> None:
    backbone = Backbone("compact", frozen_norm=False, trained_from=0).train()
    net = RelationNetwork(backbone).train()
    before = deepcopy(net.stages.state_dict())
    net(torch.randn(2, 3, 32, 32))
    assert all(torch.equal(value, before[name]) for name, value in net.stages.state_dict().items())
    # The classifier's own copy goes on as it was.
    assert backbone.training
    assert all(p.requires_grad for p in backbone.parameters())
    assert before.keys() == compact.stages.state_dict().keys()


@pytest.mark.parametrize(
    ("name", "stride", "scales"),
    [
        ("compact", 4, (1, 1, 2, 2, 2)),
        ("resnet18", 4, (1, 1, 2, 4, 4)),
        ("convnext_atto", 4, (1, 1, 2, 4, 4)),
        ("swin_tiny_patch4_window7_224", 4, (1, 1, 2, 4, 8)),
        ("efficientnet_lite0", 4, (1, 1, 2, 4, 4)),
        ("vit_tiny_patch16_224", 16, (1, 1, 1, 1)),
        ("eva02_tiny_patch14_224", 14, (1, 1, 1, 1)),
    ],
)
@pytest.mark.parametrize("size", [(90, 122), (33, 17), (1, 1)])
def test_backbones_of_all_kinds_at_any_size(
    name: str, stride: int, scales: tuple[int, ...], size: tuple[int, int], networks: dict[str, RelationNetwork]
) -> None:
    if name not in networks:
        networks[name] = RelationNetwork(name)
    net = networks[name]
    assert net.stride == stride
    assert net.scales == scales
    grid = tuple(-(-length // stride) for length in size)
    edge = net.eval()(torch.randn(2, 3, *size))
    assert edge.shape == (2, 1, *grid)
    assert torch.isfinite(edge).all()


@pytest.fixture(scope="module")
def networks() -> dict[str, RelationNetwork]:
    return {}


def test_stem_is_what_enters_the_first_stage() -> None:
    net = RelationNetwork("resnet18").eval()
    model = net.stages.backbone.model
    image = torch.randn(1, 3, 50, 66)
    stem = model.maxpool(model.act1(model.bn1(model.conv1(image))))
    assert torch.equal(net.stages(image)[0], stem)
    assert net.stages.channels == (64, 64, 128, 256, 512)


def test_threads_that_share_a_network_do_not_mix_their_images(compact: RelationNetwork) -> None:
    images = [torch.randn(3, 40 + 4 * i, 64, generator=torch.Generator().manual_seed(i)) for i in range(6)]
    expected = [compact.infer(image) for image in images]
    results: dict[int, list[Tensor]] = {}

    def work(index: int) -> None:
        results[index] = [compact.infer(images[index]) for _ in range(10)]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(images))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, edge in enumerate(expected):
        assert all(torch.equal(result, edge) for result in results[index])


def test_inference_without_padding_and_of_images_larger_than_the_crop(compact: RelationNetwork) -> None:
    image = torch.randn(3, 41, 70)
    plain = compact.infer(image)
    for crop in (None, 16, 41):
        assert torch.equal(compact.infer(image, crop), plain)
    # One axis shorter than the crop is padded, the other stays.
    pair = torch.zeros(2, 3, 64, 70)
    pair[0, :, :41], pair[1, :, :41] = image, image.flip(-1)
    edge = compact(pair)
    expected = torch.sigmoid((edge[0, 0, :11, :18] + edge[1, 0, :11, :18].flip(-1)) / 2)
    padded = compact.infer(image, 64)
    torch.testing.assert_close(padded, expected)
    assert not torch.allclose(padded, plain, rtol=1e-3)


def test_edge_of_a_mirrored_image_is_the_mirrored_edge(compact: RelationNetwork) -> None:
    image = torch.randn(3, 40, 48)
    torch.testing.assert_close(compact.infer(image.flip(-1)), compact.infer(image).flip(-1))


def test_inference_during_training_is_inference(compact: RelationNetwork) -> None:
    image = torch.randn(3, 40, 48)
    expected = compact.infer(image)
    assert torch.equal(compact.train().infer(image), expected)
    assert compact.training


@pytest.mark.parametrize(
    "image",
    [torch.zeros(1, 3, 8, 8), torch.zeros(1, 8, 8), torch.zeros(3, 0, 8), torch.zeros(3, 8, 8, dtype=torch.uint8)],
)
def test_what_is_no_normalised_image_is_refused(compact: RelationNetwork, image: Tensor) -> None:
    with pytest.raises(ValueError, match=r"image must be normalised float \[3, H, W\]"):
        compact.infer(image)
