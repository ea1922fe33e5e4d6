"""How well signs that need no masks rank systems by their true mIoU, over finished runs of one data set.

    python benchmarks/signs.py runs/study-voc_animals runs/voc_animals [--test runs/study-camvid]

Takes run folders, or folders of them such as those of `sfc study`, in which `sfc judge` and `sfc evaluate` were run.
For each sign: Spearman's rank correlation with the mIoU of W + P at the fixed rule, and its central 90 % over draws of
the systems with replacement. With `--test`, runs of another data set: the same there, and the combinations of one, two
and three signs (each standardised, its direction that of the first set, equal weights) that rank the first set best,
with what they do on the other.
"""

from __future__ import annotations

import argparse
from dataclasses import fields
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from sfc.evaluate.scores import read_scores
from sfc.run.folder import SystemFolder
from sfc.signs.system import ClassSigns
from sfc.signs.verdict import read_verdict

DRAWS = 2000
SIGNS = [field.name for field in fields(ClassSigns) if field.name not in ("name", "photographs")]
COLUMNS = ["soundness", *SIGNS]


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument(
        "--above", type=float, default=0, help="leave out systems with a lower mIoU, such as broken ones"
    )
    parser.add_argument("--test", nargs="+", type=Path, default=[], help="runs of another data set")
    arguments = parser.parse_args()
    fitted = systems(arguments.folders, arguments.above)
    print_signs(*fitted)
    if arguments.test:
        tested = systems(arguments.test, arguments.above)
        print_signs(*tested)
        print_combinations(fitted, tested)


def systems(folders: list[Path], above: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """mIoU [systems] and signs [systems, len(COLUMNS)] of all runs in the folders."""
    found = [entry for folder in folders for path in sorted(folder.rglob("signs.json")) for entry in read(path)]
    kept = [(score, row) for score, row in found if score >= above]
    if len(kept) < 3:
        raise SystemExit(f"{len(kept)} systems with signs and scores of training images; at least 3 are needed")
    return np.array([score for score, _ in kept]), np.array([row for _, row in kept])


def print_signs(miou: NDArray[np.float64], columns: NDArray[np.float64]) -> None:
    """A table: each sign alone."""
    print(f"{len(miou)} systems, mIoU {min(miou):.1f} to {max(miou):.1f}")
    print("| sign | rank correlation | 90 % |\n|---|---|---|")
    for number, sign in enumerate(COLUMNS):
        value, low, high = correlation(columns[:, number], miou)
        print(f"| {sign} | {value:+.2f} | {low:+.2f} to {high:+.2f} |")


def print_combinations(
    fitted: tuple[NDArray[np.float64], NDArray[np.float64]], tested: tuple[NDArray[np.float64], NDArray[np.float64]]
) -> None:
    """A table: the best combinations on the first set, and what they are worth on the other."""
    varying = [number for number in range(len(COLUMNS)) if np.ptp(fitted[1][:, number]) > 0]
    direction = np.array([np.sign(rank(column, fitted[0])) for column in fitted[1].T])
    first, other = (standardised(columns) * direction for _, columns in (fitted, tested))
    print("| combination, chosen on the first set | there | on the other | 90 % |\n|---|---|---|---|")
    for size in (1, 2, 3):
        pairs = [list(chosen) for chosen in combinations(varying, size)]
        there, chosen = max((rank(first[:, pair].sum(axis=1), fitted[0]), pair) for pair in pairs)
        names = " ".join(f"{'+' if direction[number] > 0 else '−'} {COLUMNS[number]}" for number in chosen)
        value, low, high = correlation(other[:, chosen].sum(axis=1), tested[0])
        print(f"| {names} | {there:+.2f} | {value:+.2f} | {low:+.2f} to {high:+.2f} |")


def standardised(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean 0 and standard deviation 1 over the systems of a set."""
    return (columns - columns.mean(axis=0)) / np.maximum(columns.std(axis=0), 1e-9)


def read(path: Path) -> list[tuple[float, list[float]]]:
    """mIoU on training images, soundness and mean signs of a system; nothing where it was not scored on them."""
    system, verdict = SystemFolder(path.parent), read_verdict(path)
    scores = read_scores(system.scores) if system.scores.exists() else []
    maps = [entry.scores[-1] for entry in scores if entry.split == "train"]
    if not maps or not verdict.classes:
        return []
    means = [float(np.nanmean([getattr(entry, sign) for entry in verdict.classes])) for sign in SIGNS]
    return [(maps[0].fixed, [verdict.soundness, *means])]


def rank(sign: NDArray[np.float64], miou: NDArray[np.float64]) -> float:
    """Spearman's ρ; NaN where either is the same for all systems."""
    varies = np.ptp(sign) > 0 and np.ptp(miou) > 0
    return float(spearmanr(sign, miou).statistic) if varies else float("nan")


def correlation(sign: NDArray[np.float64], miou: NDArray[np.float64]) -> tuple[float, float, float]:
    """Spearman's ρ, and the 5th and 95th percentile over draws with replacement that have one."""
    draws = np.random.default_rng(0).integers(len(miou), size=(DRAWS, len(miou)))
    values = np.array([rank(sign[draw], miou[draw]) for draw in draws])
    known = values[~np.isnan(values)]
    low, high = np.percentile(known, [5, 95]) if len(known) else (float("nan"), float("nan"))
    return rank(sign, miou), float(low), float(high)


if __name__ == "__main__":
    main()
