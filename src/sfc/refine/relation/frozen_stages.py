"""A backbone that never learns, as the maps that the relation network builds on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfc.networks.backbone import Backbone
from sfc.networks.compact import CompactNetwork


class FrozenStages(nn.Module):
    """What goes into a backbone's first stage (its stem's output), and its four stages; no gradient, no training mode.

    The stem's map is pooled to the grid of the first stage where it is finer (ResNets pool it themselves). Networks
    whose first stage gets no map, such as plain ViTs, have only their four stages.

    Args:
        backbone: becomes part of this module: its parameters get no gradient any more.

    Attributes:
        channels: of the maps: five, or four without a stem.
        scales: how many times smaller each map is than that of the first stage.
        stride: pixels of the image to a cell of the first stage.
        has_stem: whether the first map is the stem's.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(False)
        self.train(False)
        # Not square, so that axes can be told apart.
        height, width = backbone.probed, backbone.probed * 3 // 2
        stem, stages = self._maps(next(backbone.parameters()).new_zeros(1, 3, height, width))
        rows, columns = stages[0].shape[2:]
        self.stride = height // rows
        self._last_axis = False
        if stem is not None and stem.ndim == 4 and stem.shape[2] * columns != stem.shape[3] * rows:
            stem, self._last_axis = stem.permute(0, 3, 1, 2), True
        self.has_stem = stem is not None and stem.ndim == 4 and stem.shape[2] * columns == stem.shape[3] * rows
        maps = stages
        if self.has_stem:
            assert stem is not None
            self._pool = stem.shape[2] // rows
            maps = [stem[:, :, :rows, :columns], *stages]
        self.channels = tuple(one.shape[1] for one in maps)
        self.scales = tuple(rows // one.shape[2] for one in maps)

    def train(self, mode: bool = True) -> FrozenStages:  # noqa: ARG002
        """Always in evaluation mode: norms keep their statistics, nothing is dropped."""
        return super().train(False)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Normalised image [N, 3, H, W] to maps [N, channels, h, w] at `stride` times `scales`."""
        stem, stages = self._maps(image)
        if not self.has_stem:
            return stages
        assert stem is not None
        if self._last_axis:
            stem = stem.permute(0, 3, 1, 2)
        if self._pool > 1:
            stem = F.max_pool2d(stem, self._pool, ceil_mode=True)
        return [stem[:, :, : stages[0].shape[2], : stages[0].shape[3]], *stages]

    @torch.compiler.disable  # hooks and threads are beyond it
    @torch.no_grad()
    def _maps(self, image: Tensor) -> tuple[Any, list[Tensor]]:
        with _input_of(_first_stage(self.backbone)) as inputs:
            stages = self.backbone(image)
        return (inputs[0] if inputs else None), stages


def _first_stage(backbone: Backbone) -> nn.Module | None:
    """The module whose output is the first stage's map; None where it is not known."""
    model = backbone.model
    if isinstance(model, CompactNetwork):
        return model.stages[0]
    name = model.feature_info.module_name()[0]  # type: ignore[union-attr, operator]
    # Feature networks of timm wrap the plain one, or hold its modules under flat names.
    modules = dict(model.named_modules())
    return next((modules[key] for key in (name, name.replace(".", "_"), f"model.{name}") if key in modules), None)


@contextmanager
def _input_of(module: nn.Module | None) -> Iterator[list[Any]]:
    """The first argument that a module is called with by this thread."""
    inputs: list[Any] = []
    if module is None:
        yield inputs
        return
    thread = threading.get_ident()

    def note(_: nn.Module, arguments: tuple[Any, ...]) -> None:
        if threading.get_ident() == thread:
            inputs.append(arguments[0])

    handle = module.register_forward_pre_hook(note)
    try:
        yield inputs
    finally:
        handle.remove()
