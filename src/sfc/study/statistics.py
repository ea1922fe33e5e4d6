"""Means, spreads and paired differences over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sfc.data.groups import GROUPS
from sfc.evaluate.scores import MaskScore, Score, Scores

BySeed = Mapping[int, Sequence[Scores]]
"""Scores of one method: those of each seed, an entry a split."""


@dataclass(frozen=True)
class Summary:
    """One number of one method over seeds.

    Attributes:
        values: by seed.
        mean: of them.
        spread: standard deviation (n − 1); NaN for a single seed.
    """

    values: dict[int, float]

    @property
    def mean(self) -> float:
        """See above."""
        return float(np.mean(list(self.values.values())))

    @property
    def spread(self) -> float:
        """See above."""
        return float(np.std(list(self.values.values()), ddof=1)) if len(self.values) > 1 else math.nan


@dataclass(frozen=True)
class Difference:
    """A method minus the baseline, seed by seed: mIoU over the classes that the truth shows.

    mIoU itself also averages in a 0 for a class that only one of the two shows, and no truth.

    Attributes:
        values: by seed; only seeds that both have.
        mean: of them.
        error: standard error of the mean; NaN for a single seed.
    """

    values: dict[int, float]

    @property
    def mean(self) -> float:
        """See above."""
        return float(np.mean(list(self.values.values())))

    @property
    def error(self) -> float:
        """See above."""
        count = len(self.values)
        return float(np.std(list(self.values.values()), ddof=1) / math.sqrt(count)) if count > 1 else math.nan


@dataclass(frozen=True)
class Row:
    """One kind of maps or masks of one method.

    Attributes:
        stage: `CAMs`, `masks` or `segmenter`.
        split: which images.
        what: which maps or masks, in words.
        method: whose.
        miou: in percent, under the fixed rule.
        oracle: of maps: mean mIoU with the threshold searched on this ground truth; NaN for masks.
        groups: mean IoU in percent of head, medium and tail classes.
        over: over-activation in percent, by group.
        under: under-activation in percent, by group.
        difference: to the baseline's row of the same name; None for the baseline.
    """

    stage: str
    split: str
    what: str
    method: str
    miou: Summary
    oracle: float
    groups: tuple[float, ...]
    over: tuple[float, ...]
    under: tuple[float, ...]
    difference: Difference | None


def rows_of(scores: Mapping[str, BySeed]) -> list[Row]:
    """Every row of a study: by stage, split and name, and within those by method.

    Args:
        scores: of each method, the baseline first.
    """
    cells: dict[tuple[str, str, str], dict[str, dict[int, MaskScore]]] = {}
    for method, by_seed in scores.items():
        for seed, entries in by_seed.items():
            for stage, split, score in _named(entries):
                cells.setdefault((stage, split, score.what), {}).setdefault(method, {})[seed] = score
    order = {"CAMs": 0, "masks": 1, "segmenter": 2}
    baseline = next(iter(scores))
    return [
        _row(key, method, by_seed, None if method == baseline else methods.get(baseline))
        for key, methods in sorted(cells.items(), key=lambda item: (order[item[0][0]], item[0][1]))
        for method, by_seed in methods.items()
    ]


def _named(entries: Sequence[Scores]) -> list[tuple[str, str, MaskScore]]:
    """Stage, split and score of everything that was scored."""
    named: list[tuple[str, str, MaskScore]] = []
    for entry in entries:
        named += [("CAMs", entry.split, score) for score in entry.scores]
        named += [("masks" if entry.split == "train" else "segmenter", entry.split, score) for score in entry.masks]
    return named


def _row(
    key: tuple[str, str, str],
    method: str,
    by_seed: Mapping[int, MaskScore],
    baseline: Mapping[int, MaskScore] | None,
) -> Row:
    difference = None
    if baseline is not None:
        values = {
            seed: score.miou_of_true_classes() - baseline[seed].miou_of_true_classes()
            for seed, score in by_seed.items()
            if seed in baseline
        }
        difference = Difference(values) if values else None
    oracles = [score.oracle for score in by_seed.values() if isinstance(score, Score)]

    def means(name: str) -> tuple[float, ...]:
        table = [[getattr(score, name)[group] for group in GROUPS] for score in by_seed.values()]
        return tuple(float(value) for value in np.mean(table, axis=0))

    return Row(
        *key,
        method=method,
        miou=Summary({seed: score.fixed for seed, score in by_seed.items()}),
        oracle=float(np.mean(oracles)) if oracles else math.nan,
        groups=means("groups"),
        over=means("over_activation"),
        under=means("under_activation"),
        difference=difference,
    )
