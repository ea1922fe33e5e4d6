"""Plain CAM against SFC and its parts on the built-in benchmark, over several seeds of data and training.

Every variant of a seed sees the same data, epochs and schedule; nothing is chosen by masks. Run folders are kept, so
that an interrupted study goes on where it stopped and several processes can share the seeds.

    python benchmarks/synthetic_study.py --seeds 101 102 103 104 105 --variants plain plain-long sfc coefficient
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from sfc.config import plain_cam
from sfc.evaluate.scores import Scores
from sfc.pipeline import run
from sfc.run.provenance import versions
from sfc.settings import load_config

RECIPE = Path(__file__).parents[1] / "configs" / "synthetic.yaml"
LOSS, NETWORK = "--classify.loss", "--classify.network"
PLAIN = ("plain", "plain-long", "plain-half")
VARIANTS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "plain-long": ("--classify.training.epochs=44",),
    "plain-half": (),
    "sfc": (),
    "coefficient": (f"{LOSS}.coefficient=exact",),
    "coefficient-official": (f"{LOSS}.coefficient=official",),
    "full-gradient": (f"{NETWORK}.consistency_gradient=1",),
    "no-bank": ("--classify.bank.draws=0",),
    "no-prototype": (f"{LOSS}.prototype_weight=0",),
    "no-scale": (f"{LOSS}.scale_weight=0",),
    "no-correlation": (f"{NETWORK}.pixel_correlation=false",),
    "no-centring": (f"{NETWORK}.centre_features=false",),
    "paper-seeds": (f"{NETWORK}.seed_threshold=0.5", f"{NETWORK}.pixel_correlation=false"),
}
"""Overrides of the recipe. `plain-long` trains plain CAM for about the wall time of SFC (2.2 times a plain epoch);
`plain-half` is plain CAM that classifies every image at half its size too, as SFC does."""
MASKS = "CRF of W + P"


def score(folder: Path, seed: int, variant: str, threads: int) -> tuple[Scores, float]:
    """Trains and scores one variant; its scores on the training images and the seconds it took (0 if done before)."""
    overrides = [
        f"--data.synthetic_seed={seed}",
        f"--classify.training.seed={seed}",
        "--data.val=",
        "--baseline=false",
        f"--name={variant}",
        f"--machine.threads={threads}",
    ]
    config = load_config([RECIPE], [*overrides, *VARIANTS[variant]])
    if variant in PLAIN:
        config = plain_cam(config)
    if variant == "plain-half":
        loss = replace(config.classify.loss, half_size_pass=True)
        config = replace(config, classify=replace(config.classify, loss=loss))
    started = time.perf_counter()
    scores = run(config, folder / f"{seed}-{variant}", stages=("classify", "localize", "refine", "evaluate"))
    train = next(entry for entry in scores if entry.split == "train")
    return train, time.perf_counter() - started


def spread_of(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


def row(results: Sequence[Scores], baseline: Sequence[Scores]) -> list[str]:
    """Cells of one variant: mean ± standard deviation of each map and of the CRF's masks, and the paired gain."""
    cells = []
    for index in range(3):
        fixed = [entry.scores[index].fixed for entry in results]
        oracle = [entry.scores[index].oracle for entry in results]
        mean, spread = spread_of(fixed)
        cells.append(f"{mean:.1f} ± {spread:.1f} / {np.mean(oracle):.1f}")
    total = [entry.scores[2] for entry in results]
    for name in ("groups", "under_activation", "over_activation"):
        values = [list(getattr(entry, name).values()) for entry in total]
        cells.append(" / ".join(f"{value:.0f}" for value in np.mean(values, axis=0)))
    masks = [next(mask for mask in entry.masks if mask.what == MASKS) for entry in results]
    groups = np.mean([list(mask.groups.values()) for mask in masks], axis=0)
    mean, spread = spread_of([mask.fixed for mask in masks])
    cells.append(f"{mean:.1f} ± {spread:.1f} ({' / '.join(f'{value:.0f}' for value in groups)})")
    # Ours by its default map, W + P; the baseline by whichever of its maps is best on that seed.
    gain = np.array([a.scores[2].fixed - b.best().fixed for a, b in zip(results, baseline, strict=True)])
    error = gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else float("nan")
    cells.append(f"{gain.mean():+.1f} ± {error:.1f} ({' '.join(f'{value:+.1f}' for value in gain)})")
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[101, 102, 103, 104, 105])
    parser.add_argument(
        "--variants", nargs="+", choices=VARIANTS, default=["plain", "plain-long", "sfc", "coefficient"]
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/synthetic-study"))
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    variants = ["plain", *(name for name in options.variants if name != "plain")]
    results: dict[str, list[Scores]] = {name: [] for name in variants}
    for seed in options.seeds:
        for name in variants:
            scores, seconds = score(options.runs, seed, name, options.threads)
            results[name].append(scores)
            print(
                f"seed {seed} {name}: " + ", ".join(f"{s.what} {s.fixed:.1f}" for s in scores.scores),
                f"{seconds:.0f} s",
            )
    table = Table(title=f"CAM mIoU on the training images, seeds {options.seeds}")
    columns = ("variant", "W fixed / oracle", "P", "W + P", "head / medium / tail", "under-act. %", "over-act. %")
    for column in (*columns, MASKS, "W + P minus plain's best map: mean ± standard error"):
        table.add_column(column)
    for name in variants:
        table.add_row(name, *row(results[name], results["plain"]))
    console = Console(width=200)
    console.print(table)
    commit = versions().get("commit", "unknown")
    console.print(f"{datetime.now(UTC):%Y-%m-%d}, commit {commit}, {platform.machine()}, {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
