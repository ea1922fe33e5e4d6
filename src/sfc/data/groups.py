"""Head, medium and tail: the classes of a long-tailed data set by how many training images show them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from sfc.errors import ConfigError

Group = Literal["head", "medium", "tail", "absent"]
GROUPS: tuple[Group, ...] = ("head", "medium", "tail")


def class_groups(counts: Sequence[int] | np.ndarray, shares: tuple[float, float] = (1 / 3, 1 / 3)) -> list[Group]:
    """The group of each class.

    Classes with images are sorted by their count, equal ones in class order; the first share of them, rounded, is the
    head, the last one the tail, the rest medium.

    Args:
        counts: training images that show each class, not negative.
        shares: of the classes in head and tail, each 0 to 1.

    Returns:
        One of `head`, `medium`, `tail` for each class; `absent` for one without images, which takes no part.

    Raises:
        ConfigError: a share is out of range, or the two exceed 1 together.
    """
    head_share, tail_share = shares
    if not (0 <= head_share <= 1 and 0 <= tail_share <= 1 and head_share + tail_share <= 1 + 1e-9):
        raise ConfigError(f"data.group_shares are {head_share:g} and {tail_share:g}, but must be 0 to 1 together")
    count = np.asarray(counts)
    present = [int(index) for index in np.argsort(-count, kind="stable") if count[index] > 0]
    head, tail = round(head_share * len(present)), round(tail_share * len(present))
    tail = min(tail, len(present) - head)
    groups: list[Group] = ["absent"] * len(count)
    for position, index in enumerate(present):
        groups[index] = "head" if position < head else "tail" if position >= len(present) - tail else "medium"
    return groups
