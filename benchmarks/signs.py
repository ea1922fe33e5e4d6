"""How well signs that need no masks rank systems by their true mIoU, over finished runs of one data set.

    python benchmarks/signs.py runs/study-voc_animals runs/voc_animals

Takes run folders, or folders of them such as those of `sfc study`, in which `sfc judge` and `sfc evaluate` were run.
For each sign: Spearman's rank correlation with the mIoU of W + P at the fixed rule, and its central 90 % over draws of
the systems with replacement.
"""

from __future__ import annotations

import argparse
from dataclasses import fields
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


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument(
        "--above", type=float, default=0, help="leave out systems with a lower mIoU, such as broken ones"
    )
    arguments = parser.parse_args()
    found = [
        entry for folder in arguments.folders for path in sorted(folder.rglob("signs.json")) for entry in read(path)
    ]
    kept = [(score, row) for score, row in found if score >= arguments.above]
    if len(kept) < 3:
        raise SystemExit(f"{len(kept)} systems with signs and scores of training images; at least 3 are needed")
    miou, columns = np.array([score for score, _ in kept]), np.array([row for _, row in kept])
    print(f"{len(kept)} systems, mIoU {min(miou):.1f} to {max(miou):.1f}")
    rows = [(sign, *correlation(columns[:, number], miou)) for number, sign in enumerate(["soundness", *SIGNS])]
    print("| sign | rank correlation | 90 % |\n|---|---|---|")
    for sign, value, low, high in rows:
        print(f"| {sign} | {value:+.2f} | {low:+.2f} to {high:+.2f} |")


def read(path: Path) -> list[tuple[float, list[float]]]:
    """mIoU on training images, soundness and mean signs of a system; nothing where it was not scored on them."""
    system, verdict = SystemFolder(path.parent), read_verdict(path)
    scores = read_scores(system.scores) if system.scores.exists() else []
    maps = [entry.scores[-1] for entry in scores if entry.split == "train"]
    if not maps or not verdict.classes:
        return []
    means = [float(np.nanmean([getattr(entry, sign) for entry in verdict.classes])) for sign in SIGNS]
    return [(maps[0].fixed, [verdict.soundness, *means])]


def correlation(sign: NDArray[np.float64], miou: NDArray[np.float64]) -> tuple[float, float, float]:
    """Spearman's ρ, and the 5th and 95th percentile over draws with replacement."""
    draws = np.random.default_rng(0).integers(len(miou), size=(DRAWS, len(miou)))
    values = [float(spearmanr(sign[draw], miou[draw]).statistic) for draw in draws if np.ptp(miou[draw]) > 0]
    low, high = np.nanpercentile(values, [5, 95])
    return float(spearmanr(sign, miou).statistic), float(low), float(high)


if __name__ == "__main__":
    main()
