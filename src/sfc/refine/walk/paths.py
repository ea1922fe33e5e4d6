"""Pairs of cells that lie near each other, and the straight path between them (IRN, CVPR 2019, section 4).

Cells are (y, x) on any grid; everything here is relative to a pair's first cell, its source.
"""

from __future__ import annotations

import numpy as np


def half_plane_offsets(radius: int) -> np.ndarray:
    """Offsets (dy, dx) to all cells strictly nearer than `radius`, one of each pair of opposite directions.

    dy > 0, or dy = 0 and dx > 0. Ascending in the number of cells of the path, then in dy, then in dx: the order of
    the channels in the released code.

    Args:
        radius: in cells, at least 1; 1 has no pairs.

    Returns:
        int64 [pairs, 2], 0 < dy² + dx² < radius².

    Raises:
        ValueError: the radius is not a positive whole number.
    """
    if radius < 1 or not float(radius).is_integer():
        raise ValueError(f"radius must be a positive whole number, not {radius}")
    reach = int(radius) - 1
    offsets = [
        (dy, dx)
        for dy in range(reach + 1)
        for dx in range(-reach, reach + 1)
        if (dy, dx) > (0, 0) and dy**2 + dx**2 < radius**2
    ]
    offsets.sort(key=lambda offset: len(path_cells(*offset)))
    return np.array(offsets, dtype=np.int64).reshape(-1, 2)


def path_cells(dy: int, dx: int) -> np.ndarray:
    """Cells of the straight path from (0, 0) to (dy, dx): those nearer than 1 to the line, both ends included.

    They lie in the rectangle between the two ends and have (dy·x − dx·y)² < dy² + dx².

    Args:
        dy: rows from source to destination, any sign; not 0 together with dx.
        dx: columns from source to destination, any sign.

    Returns:
        int64 [cells, 2], (y, x) ascending; the path of the opposite offset holds the same cells, negated.

    Raises:
        ValueError: both are 0.
    """
    if dy == 0 and dx == 0:
        raise ValueError("a path needs two cells, but the offset is (0, 0)")
    y, x = np.mgrid[min(dy, 0) : max(dy, 0) + 1, min(dx, 0) : max(dx, 0) + 1]
    near = (dy * x - dx * y) ** 2 < dy**2 + dx**2
    return np.stack([y[near], x[near]], axis=1)
