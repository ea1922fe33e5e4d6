"""How sure a mask is: of how many pixels a second class could have been."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RIVAL = 0.5
"""Share of the strongest class's strength from which another class is a rival."""


def doubt(maps: NDArray[np.floating]) -> float:
    """Share of the pixels on which a second class has at least half of the strength of the strongest, 0 to 1.

    Args:
        maps: [K, H, W], not negative: probabilities, or CAMs with the background among them.
    """
    if len(maps) < 2:
        return 0.0
    rivals = (maps >= RIVAL * maps.max(axis=0)).sum(axis=0)
    return float((rivals > 1).mean())
