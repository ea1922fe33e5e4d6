"""Limits of numbers, said at the setting: `epochs: Annotated[int, Limits(1)]`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated


@dataclass(frozen=True, repr=False)
class Limits:
    """What a number, or each member of a list, may be.

    Args:
        least: the smallest value.
        most: the largest value.
        ascending: the list is a lower and an upper end.
        may_be_empty: of a list.
    """

    least: float
    most: float = math.inf
    ascending: bool = False
    may_be_empty: bool = False

    def __repr__(self) -> str:
        return f"at least {self.least:g}" + (f", at most {self.most:g}" if self.most < math.inf else "")

    def fault(self, value: float | Sequence[float]) -> str:
        """What is wrong with a value, as the end of a sentence about it; empty where nothing is."""
        numbers: Sequence[float] = value if isinstance(value, Sequence) else [value]
        said = ", ".join(map(str, numbers))
        if not numbers and not self.may_be_empty:
            return "must not be empty"
        # Not by any(): a NaN is on no side of a limit.
        if not all(number >= self.least for number in numbers):
            return f"must be at least {self.least:g}, not {said}"
        if not all(number <= self.most for number in numbers):
            return f"must be at most {self.most:g}, not {said}"
        if self.ascending and list(numbers) != sorted(numbers):
            return f"is a range, from {numbers[0]} to {numbers[1]}: put the smaller number first"
        return ""


Count = Annotated[int, Limits(1)]
"""A whole number from 1."""
NaturalNumber = Annotated[int, Limits(0)]
"""A whole number from 0."""
Weight = Annotated[float, Limits(0)]
"""A number from 0."""
Share = Annotated[float, Limits(0, 1)]
"""From 0 to 1."""
Scales = Annotated[tuple[float, ...], Limits(0.01)]
"""Factors on the size of an image."""
Crop = Annotated[int, Limits(16)]
"""Side of a square crop in pixels."""
