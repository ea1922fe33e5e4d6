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
    names, miou, values = [], [], []
    for name, score, row in found:
        if score >= arguments.above:
            names.append(name)
            miou.append(score)
            values.append(row)
    if len(names) < 3:
        raise SystemExit(f"{len(names)} systems with signs and scores; at least 3 are needed")
    print(f"{len(names)} systems, mIoU {min(miou):.1f} to {max(miou):.1f}")
    columns = np.array(values)
    rows = [
        (sign, *correlation(columns[:, number], np.array(miou))) for number, sign in enumerate(["soundness", *SIGNS])
    ]
    print("| sign | rank correlation | 90 % |\n|---|---|---|")
    for sign, value, low, high in rows:
        print(f"| {sign} | {value:+.2f} | {low:+.2f} to {high:+.2f} |")


def read(path: Path) -> list[tuple[str, float, list[float]]]:
    """Name, mIoU, soundness and mean signs of a system; nothing where it was not scored."""
    system, verdict = SystemFolder(path.parent), read_verdict(path)
    if verdict is None or not system.scores.exists() or not verdict.classes:
        return []
    maps = read_scores(system.scores)[0].scores[-1]
    means = [float(np.nanmean([getattr(entry, sign) for entry in verdict.classes])) for sign in SIGNS]
    return [(str(path.parent), maps.fixed, [verdict.soundness, *means])]


def correlation(sign: NDArray[np.float64], miou: NDArray[np.float64]) -> tuple[float, float, float]:
    """Spearman's ρ, and the 5th and 95th percentile over draws with replacement."""
    draws = np.random.default_rng(0).integers(len(miou), size=(DRAWS, len(miou)))
    values = [float(spearmanr(sign[draw], miou[draw]).statistic) for draw in draws if np.ptp(miou[draw]) > 0]
    low, high = np.nanpercentile(values, [5, 95])
    return float(spearmanr(sign, miou).statistic), float(low), float(high)


if __name__ == "__main__":
    main()
