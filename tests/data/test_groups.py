"""Head, medium, tail."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfc.data.groups import class_groups
from sfc.errors import ConfigError


def test_thirds_of_the_sorted_classes() -> None:
    assert class_groups([27, 480, 113, 334, 38, 162, 55, 233, 79]) == [
        "tail", "head", "medium", "head", "tail", "medium", "tail", "head", "medium",
    ]  # fmt: skip


def test_absent_classes_take_no_part() -> None:
    assert class_groups([0, 9, 5, 0, 1]) == ["absent", "head", "medium", "absent", "tail"]
    assert class_groups([0, 0]) == ["absent", "absent"]
    assert class_groups([]) == []


def test_ties_go_by_class_order_and_shares_are_settings() -> None:
    assert class_groups([5, 5, 5]) == ["head", "medium", "tail"]
    assert class_groups([4, 3, 2, 1], (0.25, 0.5)) == ["head", "medium", "tail", "tail"]
    assert class_groups([4, 3, 2, 1], (0.0, 0.0)) == ["medium"] * 4
    assert class_groups([1, 2], (0.5, 0.5)) == ["tail", "head"]
    assert class_groups([3, 2, 1], (0.5, 0.5)) == ["head", "head", "tail"]


@given(
    counts=st.lists(st.integers(0, 50), max_size=30),
    shares=st.tuples(st.floats(0, 1), st.floats(0, 1)).filter(lambda pair: sum(pair) <= 1),
)
def test_groups_are_ordered_and_complete(counts: list[int], shares: tuple[float, float]) -> None:
    groups = class_groups(np.array(counts, dtype=np.int64), shares)
    assert [group == "absent" for group in groups] == [count == 0 for count in counts]
    of = {name: [count for count, group in zip(counts, groups, strict=True) if group == name] for name in set(groups)}
    for above, below in (("head", "medium"), ("medium", "tail"), ("head", "tail")):
        if of.get(above) and of.get(below):
            assert min(of[above]) >= max(of[below])


@pytest.mark.parametrize(("head", "tail"), [(-0.1, 0.5), (0.5, 1.1), (0.6, 0.6), (float("nan"), 0.1)])
def test_impossible_shares(head: float, tail: float) -> None:
    with pytest.raises(ConfigError, match="group_shares"):
        class_groups([1, 2, 3], (head, tail))
