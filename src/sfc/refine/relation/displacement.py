"""The other half of the released relation network: displacements to instance centres (IRN, CVPR 2019).

Nothing here uses them, since the walk needs the edges alone; released files hold them, and keep their meaning.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sfc.refine.relation.branches import Part, branch, join

WIDE, WIDE_GROUPS = 256, 16


class Displacement(nn.Module):
    """Displacement of every cell from the centre of its instance, on the grid of the first stage.

    Args:
        channels: of the frozen maps: five, or four without a stem.
        scales: how many times smaller each is than that of the first stage.
    """

    mean: Tensor

    def __init__(self, channels: Sequence[int], scales: Sequence[int]) -> None:
        super().__init__()
        self.scales = tuple(scales)
        # Stem and first stage get fewer channels; a network without a stem's map starts with its first stage.
        widths = [(64, 8), (128, 16), *[(WIDE, WIDE_GROUPS)] * 3][-len(channels) :]
        self.branches = nn.ModuleList(
            branch(count, width, groups) for count, (width, groups) in zip(channels, widths, strict=True)
        )
        fine = sum(width for width, _ in widths[:-3])
        self.coarse = branch(3 * WIDE, WIDE, WIDE_GROUPS)
        self.fine = branch(fine + WIDE, WIDE, WIDE_GROUPS)
        self.out = nn.Conv2d(WIDE, 2, 1, bias=False)
        self.register_buffer("mean", torch.zeros(2))

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Frozen maps to displacements [N, 2, h, w] in cells (channel 0 is dy).

        In evaluation mode the mean over the training set, which the file holds, is subtracted.
        """
        own = [Part(*part) for part in zip(maps, self.branches, self.scales, strict=True)]
        coarse_scale = self.scales[-3]
        coarse = [part._replace(scale=part.scale // coarse_scale) for part in own[-3:]]
        joined = join(self.coarse[0], coarse, maps[-3])
        fine = [*own[:-3], Part(joined, self.coarse[1], coarse_scale)]
        joined = join(self.fine[0], fine, maps[-4])
        displacement = join(self.out, [Part(joined, self.fine[1], 1)], maps[-4])
        return displacement if self.training else displacement - self.mean[:, None, None]
