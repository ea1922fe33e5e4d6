"""One training step of a depthwise network on a CPU beside its bare forward and backward, and SFC's beside plain CAM's.

16 crops of 224 pixels, the recipe `voc_animals` (EfficientNet-Lite0), one thread. "Bare" is timm's network alone,
the same layers learning and the same norms frozen, and the gradient of the sum of its last stage; a step goes from
pixels to changed weights.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from measure import Figure, begin, finish, interleaved
from sfc.classify.config import ClassifyConfig
from sfc.classify.network import SFCNetwork
from sfc.classify.train import CLIP, BatchMaker, SFCObjective, build_loss, build_network
from sfc.config import load_config
from sfc.engine.fit import Batch
from sfc.engine.optimiser import ParameterGroup, make_optimiser
from sfc.methods import METHODS
from sfc.networks.convolution import QuickConv2d
from sfc.networks.timm_models import timm_features

RECIPE = "voc_animals"
CLASSES = 12


def make_batch(images: int, crop: int) -> Batch:
    """Smooth random images as a loader gives them, each with two of the classes, all of their pixels real."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 256, (images, 3, crop // 16, crop // 16), generator=generator).float()
    image = F.interpolate(coarse, size=(crop, crop), mode="bicubic").clamp(0, 255).to(torch.uint8)
    label = torch.zeros(images, CLASSES)
    for row in label:
        row[torch.randperm(CLASSES, generator=generator)[:2]] = 1
    return {"image": image, "label": label, "rectangle": torch.tensor([[0, 0, crop, crop]]).repeat(images, 1)}


def bare_passes(net: SFCNetwork, config: ClassifyConfig, image: Tensor) -> Callable[[], None]:
    """Forward and backward of timm's network alone, with the weights of ours and the same of them learning."""
    name, weights = config.network.backbone, config.network.weights
    model = timm_features(name, pretrained=False, weights=weights, output_stride=16, dilated=False).to(
        memory_format=torch.channels_last
    )
    model.eval()  # its norms are frozen, and it has nothing else that is different in training
    ours = dict(net.backbone.model.named_parameters())
    for key, parameter in model.named_parameters():
        parameter.requires_grad_(ours[key].requires_grad)

    def passes() -> None:
        model.zero_grad(set_to_none=True)
        model(image)[-1].sum().backward()

    return passes


def method_step(net: SFCNetwork, config: ClassifyConfig, batch: Batch) -> Callable[[], None]:
    """Whole steps of a method."""
    objective = SFCObjective(net, build_loss(config, batch["label"].numpy(), 1), config)
    optimiser = make_optimiser(config.training, [ParameterGroup(list(net.parameters()))])
    learning = [parameter for parameter in net.parameters() if parameter.requires_grad]
    ready = BatchMaker(config, net, 1, 0)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        losses: dict[str, Tensor] = objective(**ready(batch, batch, 0))
        losses["total"].backward()
        nn.utils.clip_grad_norm_(learning, CLIP)
        optimiser.step()

    return step


def convolution_gradient(module: nn.Conv2d, x: Tensor) -> Callable[[], None]:
    """Forward and backward of one convolution."""
    x = x.detach().requires_grad_()
    gradient = torch.ones_like(module(x))

    def passes() -> None:
        torch.autograd.grad(module(x), (x, module.weight), gradient)

    return passes


def convolutions(images: int, rounds: int) -> list[Figure]:
    """Depthwise convolutions of the network, and of others: ours over torch's own."""
    rows = []
    for channels, grid, side, dilation in ((1152, 14, 5, 1), (1152, 14, 5, 2), (672, 28, 5, 2), (96, 28, 7, 1)):
        plain = nn.Conv2d(channels, channels, side, 1, side // 2 * dilation, dilation, channels, bias=False)
        x = torch.randn(images, channels, grid, grid).contiguous(memory_format=torch.channels_last)
        variants = {"ours": convolution_gradient(QuickConv2d(plain), x), "torch": convolution_gradient(plain, x)}
        seconds = interleaved(variants, rounds)
        name = f"depthwise {side} x {side}, dilation {dilation}, {channels} channels at {grid} x {grid}: ours / torch"
        rows += [Figure(name, seconds["ours"] / seconds["torch"], at_most=0.6)]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="timed rounds after two to warm up")
    parser.add_argument("--images", type=int, default=16)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    header = begin("training step of a depthwise network")
    config = load_config([RECIPE], []).classify
    batch = make_batch(arguments.images, config.input.crop)
    variants: dict[str, Callable[[], None]] = {}
    for name in ("cam", "sfc"):
        changed = METHODS[name].change(config)
        net = build_network(changed.network, CLASSES).train().to(memory_format=torch.channels_last)
        variants[name] = method_step(net, changed, batch)
        if name == "cam":
            pixels = BatchMaker(changed, net, 1, 0)(batch, batch, 0)["image"]
            variants["bare"] = bare_passes(net, changed, pixels)
    seconds = interleaved(variants, arguments.rounds, warm_up=2)
    rows = [
        Figure("step of plain CAM / bare passes", seconds["cam"] / seconds["bare"], at_most=1.15),
        Figure("step of SFC / bare passes", seconds["sfc"] / seconds["bare"], at_most=1.15),
        Figure("step of SFC / step of plain CAM", seconds["sfc"] / seconds["cam"], at_most=1.5),
        *(Figure(f"seconds, {name}", value, "s") for name, value in seconds.items()),
    ]
    finish(header, rows + convolutions(arguments.images, arguments.rounds))


if __name__ == "__main__":
    main()
