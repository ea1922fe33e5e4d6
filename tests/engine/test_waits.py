"""A training step does not wait for its device: nothing of it is asked for on the host but every so many steps.

What would wait on a GPU (a value read, a count of matches) is an operation of torch on a CPU too, so it can be counted
where there is no GPU.
"""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import sfc.engine.fit
from sfc.config import load_config
from sfc.pipeline import run

WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal.default")
"""Parts of the names of operations whose result the host needs before it goes on."""
HOST = (
    "/torch/optim/",  # its counters of steps lie in the host's memory
    "put",  # the bank looks at labels that the host has (`shown`)
    "_single_seeds",  # only on a CPU: see `prototype_cam`
)
"""Files or functions that may."""
COMPETING = (
    "--classify.network.prototypes=competing",
    "--classify.network.pixel_correlation=false",
    "--classify.loss.half_size_pass=false",
    "--classify.loss.coefficient=off",
    "--classify.loss.prototype.weight=0",
    "--classify.loss.scale.weight=0",
    "--classify.loss.guide.weight=0.3",
)


class Watch(TorchDispatchMode):
    """Where the host waits: also for how many elements a mask selects."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        by_mask = "index" in str(func) and any(
            isinstance(index, torch.Tensor) and index.dtype == torch.bool
            for index in (args[1] if len(args) > 1 and isinstance(args[1], list | tuple) else ())
        )
        if by_mask or any(name in str(func) for name in WAITS):
            frames = traceback.extract_stack()
            if not any(part in frame.filename or part == frame.name for frame in frames for part in HOST):
                ours = [frame for frame in frames if "/src/sfc/" in frame.filename] or frames
                self.places.append(f"{func} at {ours[-1].filename}:{ours[-1].lineno}")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("options", [(), COMPETING], ids=["sfc", "competing"])
def test_no_step_of_any_training_waits(
    options: tuple[str, ...], recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, watch, steps = sfc.engine.fit._Fit._step, Watch(), []

    def watched(self, *arguments: Any) -> Any:
        steps.append(self.log_folder.name)
        with watch:
            return step(self, *arguments)

    monkeypatch.setattr(sfc.engine.fit._Fit, "_step", watched)
    config = load_config([recipe], ['--methods=["sfc"]', "--refine.method=irn", *options])
    run(config, tmp_path / "run", ("classify", "localize", "refine", "segment"))
    assert set(steps) == {"classify", "relation", "irn"}  # classifier, relation network, segmenter
    assert watch.places == []


def test_a_wait_is_seen() -> None:
    with Watch() as watch:
        values = torch.rand(4)
        float(values[0])
        values[values > 0.5]
    assert [place.split(" at ")[0] for place in watch.places] == [
        "aten._local_scalar_dense.default",
        "aten.index.Tensor",
    ]
