"""One training step of the relation network: what the losses on pairs cost, and the memory of the index-tensor way.

ResNet-50, 4 images at 512 × 512, radius 10. The yardstick is the obvious way to the same numbers: every path's cells
are gathered through index tensors of [paths, length, pixels], all pairs lie side by side in memory, and autograd keeps
every map of the network's branches. `mixed` has the yardstick's pairs and our network. Peak memory is that of a fresh
process that takes two steps: the whole process, and what it needs beyond libraries.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from measure import Figure, begin, finish, in_fresh_process, interleaved, memory_bytes
from sfc.refine.relation.loss import EPSILON, relation_loss
from sfc.refine.relation.network import RelationNetwork
from sfc.refine.walk.paths import half_plane_offsets, path_cells

IMAGES, RADIUS = 4, 10
NAMES = ("ours", "indexed", "mixed")
Losses = Callable[[Tensor, Tensor], dict[str, Tensor]]


class IndexedPairs(nn.Module):
    """The losses by index tensors; terms as in `sfc.refine.relation.loss.RelationLosses`.

    Args:
        height: rows of the grid.
        width: its columns.
        radius: of pairs, in cells.
    """

    sources: Tensor
    destinations: Tensor

    def __init__(self, height: int, width: int, radius: int) -> None:
        super().__init__()
        offsets, reach = half_plane_offsets(radius), radius - 1
        cells = torch.arange(height * width).view(height, width)
        self.register_buffer("sources", cells[: height - reach, reach : width - reach].flatten())
        ends = torch.from_numpy(offsets @ [width, 1])
        self.register_buffer("destinations", ends[:, None] + self.sources)
        by_length: dict[int, list[Tensor]] = {}
        for offset in offsets.tolist():
            steps = torch.from_numpy(path_cells(*offset) @ [width, 1])
            by_length.setdefault(len(steps), []).append(steps[:, None] + self.sources)
        self.lengths = list(by_length)
        for length, paths in by_length.items():
            self.register_buffer(f"paths{length}", torch.stack(paths))

    def forward(self, edge: Tensor, label: Tensor) -> dict[str, Tensor]:
        """Logits [N, 1, h, w] and labels [N, h, w] to terms by name."""
        probability = torch.sigmoid(edge).flatten(1)
        highest = [
            probability[:, getattr(self, f"paths{length}").flatten()].view(len(edge), -1, length, len(self.sources))
            for length in self.lengths
        ]
        affinity = 1 - torch.cat([paths.amax(dim=2) for paths in highest], dim=1)
        flat = label.flatten(1)
        source, destination = flat[:, None, self.sources], flat[:, self.destinations]
        valid = (source < 255) & (destination < 255)
        same = valid & (source == destination)
        background, foreground = (same & (source == 0)).float(), (same & (source > 0)).float()
        negative = (valid & (source != destination)).float()
        positive_loss = -torch.log(affinity + EPSILON)
        negative_loss = -torch.log(1 + EPSILON - affinity)
        terms = {
            "background": _mean(positive_loss, background),
            "foreground": _mean(positive_loss, foreground),
            "negative": _mean(negative_loss, negative),
        }
        positive = (terms["background"] + terms["foreground"]) / 2
        return {**terms, "total": (positive + terms["negative"]) / 2}


def _mean(loss: Tensor, mask: Tensor) -> Tensor:
    return (loss * mask).sum() / (mask.sum() + EPSILON)


def plain_pass(net: RelationNetwork, image: Tensor) -> Tensor:
    """Edge logits of a training pass through the same layers, written plainly (ResNets only)."""
    maps = net.stages(image)
    rows, columns = maps[0].shape[2:]

    def enlarged(x: Tensor, scale: int, height: int, width: int) -> Tensor:
        x = x if scale == 1 else F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)
        return torch.relu(x)[:, :, :height, :width]

    parts = [enlarged(net.edge[i](maps[i]), scale, rows, columns) for i, scale in enumerate((1, 1, 2, 4, 4))]
    return net.edge_logit(torch.cat(parts, dim=1))


def ours(edge: Tensor, label: Tensor) -> dict[str, Tensor]:
    """The package's losses, terms by name."""
    return dict(vars(relation_loss(edge, label, RADIUS)))


def make_losses(name: str, grid: int) -> Losses:
    """`ours`, or by index tensors."""
    if name == "ours":
        return ours
    return IndexedPairs(grid, grid, RADIUS)


def make_batch(crop: int, grid: int) -> tuple[Tensor, Tensor]:
    """Smooth random images, and smooth label maps of three classes and background with uncertain seams."""
    random = torch.Generator().manual_seed(0)
    noise = torch.randn(IMAGES, 3, crop // 16, crop // 16, generator=random)
    image = F.interpolate(noise, size=(crop, crop), mode="bicubic", align_corners=False)
    score = F.interpolate(torch.randn(IMAGES, 4, 6, 6, generator=random), size=(grid, grid), mode="bicubic")
    best = score.topk(2, dim=1)
    label = best.indices[:, 0].to(torch.uint8)
    label[best.values[:, 0] - best.values[:, 1] < 0.1] = 255
    return image.to(memory_format=torch.channels_last), label


def make_step(name: str, crop: int) -> Callable[[], dict[str, float]]:
    """A training step with the released optimiser; gives its terms. `ours`, `indexed` or `mixed`."""
    torch.manual_seed(0)
    net = RelationNetwork("resnet50").to(memory_format=torch.channels_last).train()
    optimiser = torch.optim.SGD(net.edge_parameters(), lr=0.1, momentum=1e-4, weight_decay=1e-4)
    grid = crop // net.stride
    image, label = make_batch(crop, grid)
    losses = make_losses(name, grid)

    def step() -> dict[str, float]:
        optimiser.zero_grad(set_to_none=True)
        edge = plain_pass(net, image) if name == "indexed" else net(image)
        terms = losses(edge, label)
        terms["total"].backward()
        optimiser.step()
        return {term: value.item() for term, value in terms.items()}

    return step


def make_losses_alone(name: str, crop: int) -> Callable[[], None]:
    """Forward and backward of the losses on a map like that of the step."""
    grid = crop // 4
    random = torch.Generator().manual_seed(1)
    edge = torch.randn(IMAGES, 1, grid, grid, generator=random).requires_grad_()
    label = make_batch(crop, grid)[1]
    losses = make_losses(name, grid)

    def run() -> None:
        torch.autograd.grad(losses(edge, label)["total"], edge)

    return run


def measure_memory(name: str, crop: int, alone: bool) -> None:
    """Two rounds in this fresh process; prints bytes before them and the peak."""
    before = memory_bytes("VmRSS")
    work: Callable[[], object] = make_losses_alone(name, crop) if alone else make_step(name, crop)
    first = work()
    work()
    print(json.dumps({"before": before, "peak": memory_bytes("VmHWM"), "first": first}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds after one to warm up")
    parser.add_argument("--crop", type=int, default=512)
    parser.add_argument("--memory", choices=NAMES, help="(internal) one fresh process")
    parser.add_argument("--alone", action="store_true", help="(internal) the losses without the network")
    arguments = parser.parse_args()
    crop = arguments.crop
    if arguments.memory:
        measure_memory(arguments.memory, crop, arguments.alone)
        return
    header = begin("relation network training step")
    memory = {
        (name, alone): in_fresh_process("--memory", name, "--crop", str(crop), *["--alone"] * alone)
        for name in NAMES
        for alone in ([False] if name == "mixed" else [False, True])
    }
    variants: dict[str, Callable[[], object]] = {
        "step": make_step("ours", crop),
        "step, indexed": make_step("indexed", crop),
        "step, mixed": make_step("mixed", crop),
        "losses": make_losses_alone("ours", crop),
        "losses, indexed": make_losses_alone("indexed", crop),
    }
    seconds = interleaved(variants, arguments.rounds)
    finish(header, figures(seconds, memory))


def figures(seconds: dict[str, float], memory: dict[tuple[str, bool], dict[str, Any]]) -> list[Figure]:
    """Everything measured, the bars first."""
    peak = {key: float(entry["peak"]) for key, entry in memory.items()}
    need = {key: peak[key] - float(entry["before"]) for key, entry in memory.items()}
    step, alone = (("ours", False), ("indexed", False)), (("ours", True), ("indexed", True))
    rows = [
        Figure("time, pair losses / step", seconds["losses"] / seconds["step"], at_most=0.1),
        Figure("peak memory of the process, step, ours / indexed", peak[step[0]] / peak[step[1]], at_most=0.5),
        Figure("peak memory beyond libraries, step, ours / indexed", need[step[0]] / need[step[1]], at_most=0.5),
        Figure("peak memory of the process, step, ours / mixed", peak[step[0]] / peak["mixed", False]),
        Figure("peak memory beyond libraries, pair losses, ours / indexed", need[alone[0]] / need[alone[1]]),
        Figure("time, pair losses, ours / indexed", seconds["losses"] / seconds["losses, indexed"]),
        Figure("time, step, ours / indexed", seconds["step"] / seconds["step, indexed"]),
    ]
    ours_first, indexed_first = (memory[key]["first"] for key in step)
    for term, value in indexed_first.items():
        rows.append(Figure(f"first-step {term}, ours off indexed", abs(ours_first[term] / value - 1), "", at_most=1e-4))
    rows += [Figure(f"seconds, {name}", value, "s") for name, value in seconds.items()]
    for (name, is_alone), value in peak.items():
        rows.append(Figure(f"peak memory, {'losses' if is_alone else 'step'}, {name}", value / 2**30, "GiB"))
    return rows


if __name__ == "__main__":
    main()
