"""One training step of the `official` preset against the plain implementation: time, peak memory, agreement.

ResNet-50, 4 images and 4 from the bank at 512 × 512. Peak memory is that of a fresh process that takes two steps:
the whole process, and what it needs beyond weights and libraries.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from measure import Figure, begin, finish, has_fast_bf16, in_fresh_process, interleaved, memory_bytes
from sfc.classify.cam import valid_mask
from sfc.classify.losses.total import MSDWLoss
from sfc.classify.network import SFCNetwork
from yardstick import PlainSFC, plain_step

IMAGES = 8
Terms = dict[str, float]


@dataclass(frozen=True)
class Task:
    """One batch: images [N, 3, H, W], labels [N, C], rectangles of real pixels [N, 4], coefficients [C]."""

    image: Tensor
    label: Tensor
    rectangle: Tensor
    coefficient: Tensor


def make_task(num_classes: int, crop: int) -> Task:
    """Smooth random images, some of them padded, each showing three of the first twenty classes."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(IMAGES, 3, crop // 16, crop // 16, generator=generator)
    image = F.interpolate(noise, size=(crop, crop), mode="bicubic", align_corners=False)
    sides = torch.randint(crop * 3 // 4, crop + 1, (IMAGES, 2), generator=generator)
    rectangle = torch.cat([torch.zeros_like(sides), sides], dim=1)
    for one, (_, _, bottom, right) in zip(image, rectangle.tolist(), strict=True):
        one[:, bottom:] = 0
        one[:, :, right:] = 0
    label = torch.zeros(IMAGES, num_classes)
    for row in label:
        row[torch.randperm(20, generator=generator)[:3]] = 1
    return Task(image, label, rectangle, torch.linspace(0.5, 1.5, num_classes))


def make_network(num_classes: int) -> SFCNetwork:
    """Random weights that make maps worth comparing.

    Norms do something (as initialised, every residual branch is zero); the rows of classifier and correlation are
    centred (features are positive, so others give maps that are nearly constant).
    """
    torch.manual_seed(0)
    net = SFCNetwork("resnet50", num_classes)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.3, 0.7)
            nn.init.normal_(module.bias, 0, 0.05)
    for head in (net.classifier, net.correlation):
        assert head is not None
        head.weight.data -= head.weight.data.mean(dim=1, keepdim=True)
    return net.to(memory_format=torch.channels_last).train()


def make_optimiser(backbone: list[nn.Parameter], heads: list[nn.Parameter]) -> torch.optim.Optimizer:
    """The `official` optimiser."""
    groups = [{"params": backbone, "lr": 0.1}, {"params": heads, "lr": 1.0}]
    return torch.optim.SGD(groups, lr=0.1, momentum=1e-4, weight_decay=1e-4)


def plain_variant(num_classes: int, crop: int, cut: bool) -> Callable[[], Terms]:
    """Steps of the yardstick."""
    task = make_task(num_classes, crop)
    net = PlainSFC(num_classes, cut)
    net.load_state_dict(make_network(num_classes).state_dict())
    heads = [*net.classifier.parameters(), *net.correlation.parameters(), *net.side.parameters()]
    known = {id(parameter) for parameter in heads}
    optimiser = make_optimiser([p for p in net.learning() if id(p) not in known], heads)
    mask = torch.zeros(IMAGES, num_classes + 1, crop, crop)
    for one, label, (top, left, bottom, right) in zip(mask, task.label, task.rectangle.tolist(), strict=True):
        one[:, top:bottom, left:right] = torch.cat([torch.ones(1), label])[:, None, None]

    def step() -> Terms:
        losses = plain_step(net, optimiser, task.image, task.label, mask, task.coefficient)
        names = ("classification", "prototype", "scale", "total")
        return {name: float(getattr(losses, name).detach()) for name in names}

    return step


def our_variant(num_classes: int, crop: int, bf16: bool) -> Callable[[], Terms]:
    """Steps of the package."""
    task = make_task(num_classes, crop)
    net = make_network(num_classes)
    criterion = MSDWLoss(task.coefficient)
    heads = [parameter for head in net.heads() for parameter in head.parameters()]
    known = {id(parameter) for parameter in heads}
    learning = [parameter for parameter in net.parameters() if parameter.requires_grad]
    optimiser = make_optimiser([p for p in learning if id(p) not in known], heads)
    full_mask, half_mask = (
        valid_mask(task.rectangle, task.label, (crop, crop), net.grid_size(side, side)) for side in (crop, crop // 2)
    )

    def step() -> Terms:
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            full = net(task.image, full_mask)
            small = F.interpolate(task.image, size=(crop // 2, crop // 2), mode="bilinear", align_corners=True)
            losses = criterion(full, net(small, half_mask, prototypes=False), task.label)
        losses.total.backward()
        nn.utils.clip_grad_norm_(learning, 1.0)
        optimiser.step()
        names = ("classification", "prototype", "scale", "total")
        return {name: float(getattr(losses, name).detach()) for name in names}

    return step


def make_variant(name: str, num_classes: int, crop: int) -> Callable[[], Terms]:
    """A step function by its name on the command line."""
    if name.startswith("plain"):
        return plain_variant(num_classes, crop, cut=name == "plain-cut")
    return our_variant(num_classes, crop, bf16=name == "bf16")


def measure_memory(name: str, num_classes: int, crop: int) -> None:
    """Two steps in this fresh process; prints bytes before them and the peak."""
    step = make_variant(name, num_classes, crop)
    before = memory_bytes("VmRSS")
    first = step()
    step()
    print(json.dumps({"before": before, "peak": memory_bytes("VmHWM"), "first": first}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds after one to warm up")
    parser.add_argument("--crop", type=int, default=512)
    parser.add_argument("--memory", choices=["plain", "plain-cut", "fp32", "bf16"], help="(internal) one fresh process")
    parser.add_argument("--classes", type=int, default=20)
    arguments = parser.parse_args()
    crop, classes = arguments.crop, arguments.classes
    if arguments.memory:
        measure_memory(arguments.memory, classes, crop)
        return
    header = begin("training step")
    names = ["plain", "plain-cut", "fp32", "bf16"]
    memory = {name: in_fresh_process("--memory", name, "--crop", str(crop)) for name in names}
    variants = {name: make_variant(name, classes, crop) for name in names}
    variants["fp32, 80 classes"] = make_variant("fp32", 80, crop)
    seconds = interleaved(variants, arguments.rounds)
    finish(header, figures(seconds, memory))


def figures(seconds: dict[str, float], memory: dict[str, dict[str, Any]]) -> list[Figure]:
    """Everything measured, ratios against the plain step first."""
    peak: dict[str, float] = {name: float(entry["peak"]) for name, entry in memory.items()}
    need = {name: peak[name] - float(entry["before"]) for name, entry in memory.items()}
    first = {name: dict(entry["first"]) for name, entry in memory.items()}
    bf16_bar = 0.3 if has_fast_bf16() else None
    rows = [
        Figure("time, fp32 / plain", seconds["fp32"] / seconds["plain"], at_most=0.6),
        Figure("time, bf16 / plain", seconds["bf16"] / seconds["plain"], at_most=bf16_bar),
        Figure("time, fp32 / plain with the graph cut", seconds["fp32"] / seconds["plain-cut"]),
        Figure("time, bf16 / plain with the graph cut", seconds["bf16"] / seconds["plain-cut"]),
        Figure("time, fp32, 80 classes / 20", seconds["fp32, 80 classes"] / seconds["fp32"], at_most=1.1),
        Figure("peak memory of the process, fp32 / plain", peak["fp32"] / peak["plain"], at_most=0.5),
        Figure("peak memory of the step, fp32 / plain", need["fp32"] / need["plain"], at_most=0.5),
        Figure("peak memory of the process, bf16 / plain", peak["bf16"] / peak["plain"]),
        Figure("peak memory of the process, fp32 / plain with the graph cut", peak["fp32"] / peak["plain-cut"]),
    ]
    for name, reference, bar in (("fp32", "plain", 1e-4), ("bf16", "fp32", 0.02)):
        for term in ("classification", "prototype", "scale", "total"):
            difference = abs(first[name][term] / first[reference][term] - 1)
            rows += [Figure(f"first-step {term}, {name} off {reference}", difference, "", at_most=bar)]
    rows += [Figure(f"seconds a step, {name}", value, "s") for name, value in seconds.items()]
    rows += [Figure(f"peak memory of the process, {name}", value / 2**30, "GiB") for name, value in peak.items()]
    return rows


if __name__ == "__main__":
    main()
