"""The inter-pixel relation network: where classes meet (IRN, CVPR 2019)."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfc.engine.checkpoint import read_state
from sfc.errors import CheckpointError
from sfc.networks.backbone import Backbone
from sfc.refine.relation.branches import Part, branch, join
from sfc.refine.relation.displacement import Displacement
from sfc.refine.relation.frozen_stages import FrozenStages

EDGE_CHANNELS, EDGE_GROUPS = 32, 4


class RelationNetwork(nn.Module):
    """Edge logits on the grid of a frozen backbone's first stage.

    Args:
        backbone: `compact` or the name of a timm model, see `sfc.networks.backbone.Backbone`; or a backbone, for
            instance a trained classifier's, which is copied.
        pretrained: load timm's published backbone weights.
        weights: local file with backbone weights.
        output_stride: stride of the last stage.
        displacement: also build the branches to instance centres, which released files hold; the walk needs none.

    Attributes:
        displacement: those branches, or None.
        stride: pixels to a cell of the grid; 4 for ResNets and most others.

    Raises:
        ConfigError, CheckpointError: as `Backbone`.
    """

    def __init__(
        self,
        backbone: str | Backbone = "resnet50.tv_in1k",
        *,
        pretrained: bool = False,
        weights: str = "",
        output_stride: int = 16,
        displacement: bool = False,
    ) -> None:
        super().__init__()
        if isinstance(backbone, str):
            frozen = Backbone(backbone, pretrained=pretrained, weights=weights, output_stride=output_stride)
        else:
            frozen = deepcopy(backbone)
        self.stages = FrozenStages(frozen)
        channels, self.scales = self.stages.channels, self.stages.scales
        self.stride = self.stages.stride
        self.edge = nn.ModuleList(branch(count, EDGE_CHANNELS, EDGE_GROUPS) for count in channels)
        self.edge_logit = nn.Conv2d(EDGE_CHANNELS * len(channels), 1, 1)
        # Created last: the first weights of the edges do not depend on it.
        self.displacement = Displacement(channels, self.scales) if displacement else None

    def edge_parameters(self) -> list[nn.Parameter]:
        """What is trained."""
        return [*self.edge.parameters(), *self.edge_logit.parameters()]

    def forward(self, image: Tensor) -> Tensor:
        """One pass.

        Args:
            image: float [N, 3, H, W], normalised.

        Returns:
            Edge logits [N, 1, h, w], h = ⌈H / stride⌉.
        """
        maps = self.stages(image)
        parts = [Part(*part) for part in zip(maps, self.edge, self.scales, strict=True)]
        return join(self.edge_logit, parts, maps[-4])

    @torch.no_grad()
    def infer(self, image: Tensor, crop_size: int | None = None) -> Tensor:
        """Edge of one image, from it and its mirror.

        Both are padded with zeros, at the bottom and on the right, to the size of the training crops, as in the
        released code: the statistics of the group norms include the padding.

        Args:
            image: float [3, H, W], normalised.
            crop_size: side to pad to; None, or an axis that is as long already: no padding.

        Returns:
            Edge [h, w] in [0, 1], h = ⌈H / stride⌉.

        Raises:
            ValueError: not such an image.
        """
        edge = self._on_image(self, image, crop_size)[:, 0].float()
        mean = (edge[0] + edge[1].flip(-1)) / 2
        return torch.sigmoid(mean)

    @torch.no_grad()
    def infer_displacement(self, image: Tensor, crop_size: int | None = None) -> Tensor:
        """Displacement of one image, [2, h, w] in cells (channel 0 is dy); arguments and padding as for `infer`.

        Raises:
            ValueError: not such an image, or this network has no displacement branches.
        """
        branches = self.displacement
        if branches is None:
            raise ValueError("only a released relation network has displacements (RelationNetwork.from_official)")
        return self._on_image(lambda pair: branches(self.stages(pair)), image, crop_size)[0].float()

    def _on_image(self, network: Callable[[Tensor], Tensor], image: Tensor, crop_size: int | None) -> Tensor:
        """What a network gives for an image and its mirror, padded, in evaluation mode: [2, channels, h, w]."""
        if image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape or not image.is_floating_point():
            raise ValueError(f"image must be normalised float [3, H, W], not {image.dtype} {list(image.shape)}")
        height, width = image.shape[1:]
        below, right = (max(0, (crop_size or 0) - length) for length in (height, width))
        pair = F.pad(torch.stack([image, image.flip(-1)]), (0, right, 0, below))
        training = self.training
        self.eval()
        maps = network(pair)
        self.train(training)
        return maps[:, :, : -(-height // self.stride), : -(-width // self.stride)]

    @classmethod
    def from_official(cls, checkpoint: str | Path | dict[str, Any]) -> RelationNetwork:
        """Loads a checkpoint of the released code.

        Args:
            checkpoint: file, or what loading it gave: a state dict. The released modules register parameters several
                times; the canonical names are used, and the copies and index buffers ignored.

        Returns:
            The network (ResNet-50) with its displacement branches, in evaluation mode.

        Raises:
            CheckpointError: not such a checkpoint, or a damaged file.
        """
        state, where = read_state(checkpoint, "a relation network's checkpoint")
        net = cls("resnet50", displacement=True)
        mapped = {_our_name(name): value for name, value in state.items() if _our_name(name)}
        try:
            missing, unexpected = net.load_state_dict(mapped, strict=False)
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise CheckpointError(f"{where}not a relation network's checkpoint: {reason}") from error
        missing = [name for name in missing if not name.endswith("num_batches_tracked")]
        if missing or unexpected:
            raise CheckpointError(
                f"{where}not a relation network's checkpoint: {(missing + unexpected)[0]} does not fit"
            )
        return net.eval()


_OFFICIAL = {
    "resnet50": "stages.backbone.model",
    **{f"fc_edge{i + 1}": f"edge.{i}" for i in range(5)},
    "fc_edge6": "edge_logit",
    **{f"fc_dp{i + 1}": f"displacement.branches.{i}" for i in range(5)},
    "fc_dp6": "displacement.coarse",
    **{f"fc_dp7.{i}": f"displacement.fine.{i}" for i in range(2)},
    "fc_dp7.3": "displacement.out",
    "mean_shift.running_mean": "displacement.mean",
}
"""Names of the released code's modules, and ours."""


def _our_name(name: str) -> str:
    """Where a tensor of a released checkpoint belongs; empty for copies, indices and the ImageNet classifier."""
    if name.startswith("resnet50.fc."):
        return ""
    for theirs, ours in _OFFICIAL.items():
        if name == theirs or name.startswith(f"{theirs}."):
            return ours + name.removeprefix(theirs)
    return ""
