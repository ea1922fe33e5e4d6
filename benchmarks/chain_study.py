"""From tags to a scored segmenter on the built-in benchmark: plain CAM against SFC over several seeds.

Every seed has data of its own; both systems see the same images, epochs and settings, and nothing is chosen by masks.
Segmenters are scored on validation images. Run folders are kept, so that a stopped study goes on where it was and
several processes can share the seeds; the last call with all seeds prints the tables.

    python benchmarks/chain_study.py --seeds 301 302 303 304 305
"""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from sfc.cli import SEEDS
from sfc.config import RunConfig, plain_cam
from sfc.evaluate.scores import MaskScore, Scores
from sfc.pipeline import run
from sfc.run.provenance import versions
from sfc.settings import load_config

RECIPE = Path(__file__).parents[1] / "configs" / "synthetic.yaml"
METHODS = ("crf", "irn+crf", "none")
"""Masks to train a segmenter on; the first is the recipe's."""

Rows = dict[str, MaskScore]


def systems(seed: int, threads: int) -> dict[str, RunConfig]:
    """Settings of both systems."""
    overrides = [*(f"--{name}={seed}" for name in SEEDS), "--baseline=false", f"--machine.threads={threads}"]
    config = load_config([RECIPE], overrides)
    return {"plain": plain_cam(config), "sfc": config}


def score(config: RunConfig, folder: Path, methods: Sequence[Any], truth: bool) -> Rows:
    """Runs the whole chain of one system, a segmenter for each method; every row of its scores by split and name."""
    rows: Rows = {}
    chain = ("classify", "localize", "refine", "segment", "evaluate")
    for method in methods:
        with_method = replace(config, refine=replace(config.refine, method=method))
        for entry in run(with_method, folder, chain):
            rows |= named(entry, method)
    if truth:
        bound = replace(config, segment=replace(config.segment, masks="truth"))
        for entry in run(bound, folder, ("segment", "evaluate")):
            rows |= named(entry, "truth")
    return rows


def named(entry: Scores, material: str) -> Rows:
    """Rows of one split by name; those of a segmenter say what it learned from."""
    maps = {f"{entry.split}: {row.what}": row for row in entry.scores}
    prefix = "" if entry.split == "train" else f"segmenter on {material}, "
    return maps | {f"{entry.split}: {prefix}{row.what}": row for row in entry.masks}


def print_tables(console: Console, results: dict[str, list[Rows]]) -> None:
    """mIoU of both systems, mean ± standard deviation, and the mean paired difference ± its standard error."""
    table = Table(title="mIoU in percent; difference: mean ± standard error (by seed)")
    for column in ("", "plain CAM", "head / medium / tail", "SFC", "head / medium / tail", "SFC − plain CAM"):
        table.add_column(column)
    names = [name for name in results["sfc"][0] if all(name in rows for rows in results["sfc"])]
    for name in names:
        cells = []
        for system in ("plain", "sfc"):
            values = [rows[name].fixed for rows in results[system] if name in rows]
            if not values:
                cells += ["", ""]
                continue
            groups = np.mean([list(rows[name].groups.values()) for rows in results[system]], axis=0)
            spread = np.std(values, ddof=1) if len(values) > 1 else float("nan")
            cells += [f"{np.mean(values):.1f} ± {spread:.1f}", " / ".join(f"{value:.0f}" for value in groups)]
        pairs = [
            (theirs[name].fixed, ours[name].fixed)
            for theirs, ours in zip(results["plain"], results["sfc"], strict=True)
            if name in theirs
        ]
        gain = np.array([ours - theirs for theirs, ours in pairs])
        if len(gain) > 1:
            error = gain.std(ddof=1) / np.sqrt(len(gain))
            cells.append(f"{gain.mean():+.1f} ± {error:.1f} ({' '.join(f'{value:+.1f}' for value in gain)})")
        table.add_row(name, *cells)
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[301, 302, 303, 304, 305])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS[:1]))
    parser.add_argument("--truth", action="store_true", help="train a segmenter on the ground truth too (beside SFC)")
    parser.add_argument("--runs", type=Path, default=Path("runs/synthetic-study"))
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    results: dict[str, list[Rows]] = {"plain": [], "sfc": []}
    for seed in options.seeds:
        for name, config in systems(seed, options.threads).items():
            folder = options.runs / f"{seed}-{name}"
            results[name].append(score(config, folder, options.methods, options.truth and name == "sfc"))
    console = Console(width=160)
    print_tables(console, results)
    commit = versions().get("commit", "unknown")
    console.print(f"{datetime.now(UTC):%Y-%m-%d}, commit {commit}, {platform.machine()}, {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
