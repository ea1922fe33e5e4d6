"""Prototype CAM, forward and backward, as the number of classes grows: time, and memory beside inputs and output.

N = 4, D = 768, 32 × 32, every class valid in every image. The plain way, by tensors of [N, K, D, h, w], is shown too.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from measure import Figure, begin, finish, interleaved
from sfc.classify.cam import prototype_cam
from yardstick import plain_prototype_cam

IMAGES, CHANNELS, SIDE = 4, 768, 32
Function = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Task:
    """Inputs of `prototype_cam` and the gradient of its output."""

    cam: Tensor
    feature: Tensor
    valid_mask: Tensor
    cotangent: Tensor

    def run(self, function: Function) -> Tensor:
        """Forward and backward; the output, with the gradient at `feature.grad`."""
        self.feature.grad = None
        output = function(self.cam, self.feature, self.valid_mask)
        output.backward(self.cotangent)
        return output

    def bytes(self) -> int:
        """Size of the inputs and the output together."""
        return sum(tensor.nbytes for tensor in (self.cam, self.feature, self.valid_mask, self.cotangent))


def make_task(channels: int) -> Task:
    """Random maps, the background a little ahead, so that all classes win seeds."""
    generator = torch.Generator().manual_seed(0)
    shape = (IMAGES, channels, SIDE, SIDE)
    feature = torch.rand(IMAGES, CHANNELS, SIDE, SIDE, generator=generator).requires_grad_()
    cam = torch.rand(shape, generator=generator)
    return Task(cam, feature, torch.ones(shape), torch.randn(shape, generator=generator))


def allocated_bytes(task: Task, function: Function) -> tuple[int, int]:
    """The most memory that was allocated at one time, and everything that was ever allocated."""
    task.run(function)
    task.feature.grad = None
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        task.run(function)
    kineto = profiler.profiler
    assert kineto is not None
    assert kineto.kineto_results is not None
    events = [event for event in kineto.kineto_results.events() if event.name() == "[memory]"]
    held = peak = total = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
        total += max(event.nbytes(), 0)
    return peak, total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    arguments = parser.parse_args()
    header = begin("prototype CAM")
    few, many = make_task(21), make_task(81)
    seconds = interleaved(
        {"K=21": lambda: few.run(prototype_cam), "K=81": lambda: many.run(prototype_cam)}, arguments.rounds
    )
    plain_seconds = interleaved({"K=21": lambda: few.run(plain_prototype_cam)}, 1)["K=21"]
    rows = [Figure("time, K=81 / K=21", seconds["K=81"] / seconds["K=21"], at_most=1.6)]
    peaks = {}
    for name, task in (("K=21", few), ("K=81", many)):
        peaks[name], total = allocated_bytes(task, prototype_cam)
        rows += [
            Figure(f"{name}: memory held at once / inputs and output", peaks[name] / task.bytes(), at_most=3),
            Figure(f"{name}: memory ever allocated / inputs and output", total / task.bytes(), at_most=3),
            Figure(f"{name}: milliseconds", seconds[name] * 1000, "ms"),
        ]
    rows += [
        Figure("K=21: largest difference from plain", difference(few), "", at_most=1e-4),
        Figure("K=21: time, plain / ours", plain_seconds / seconds["K=21"]),
        Figure("K=21: memory held at once, plain / ours", allocated_bytes(few, plain_prototype_cam)[0] / peaks["K=21"]),
    ]
    finish(header, rows)


def difference(task: Task) -> float:
    """Relative difference of outputs and gradients between the two implementations, the larger of both."""
    results = []
    for function in (prototype_cam, plain_prototype_cam):
        output = task.run(function).detach()
        assert task.feature.grad is not None
        results.append((output, task.feature.grad))
    return max(float((ours - plain).norm() / plain.norm()) for ours, plain in zip(*results, strict=True))


if __name__ == "__main__":
    main()
