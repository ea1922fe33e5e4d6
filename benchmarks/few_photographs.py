"""Methods on a few photographs of VOC animals, drawn by seed: maps and masks of those of them that have a mask.

    python benchmarks/few_photographs.py DATA FOLDER [--photographs 300] [--seeds 1 2 3] [--methods sfc cam cam-half]
        [--segmenter]

With `--segmenter` also segmenters, trained on the CRF masks of all that were drawn and scored on the photographs of
val.csv. DATA holds train.csv, train_with_masks.csv, val.csv and classes.txt (recipe `voc_animals`). Each seed draws its
own photographs and seeds its trainings, so differences between methods are paired. What is there already is not
computed again. Two commands with different seeds or methods can share a folder, for instance one a core.
"""

from __future__ import annotations

import argparse
import csv
import math
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np

from sfc.evaluate.scores import read_scores
from sfc.run.folder import RunFolder

EPOCHS = {300: 17, 1000: 5}
"""As `sfc plan` chooses them: 300 steps."""


def draw(data: Path, folder: Path, count: int, seed: int) -> None:
    """Tables of the drawn photographs: train.csv, and train_masks.csv with those of them that have a mask."""
    folder.mkdir(parents=True, exist_ok=True)
    with (data / "train.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    chosen = np.random.default_rng(seed).choice(len(rows), count, replace=False)
    rows = [rows[i] for i in sorted(chosen.tolist())]
    names = {row["image"] for row in rows}
    with (data / "train_with_masks.csv").open(newline="") as file:
        scored = [row for row in csv.DictReader(file) if row["image"] in names]
    for name, table, columns in (("train.csv", rows, 2), ("train_masks.csv", scored, 3)):
        with (folder / name).open("w", newline="") as file:
            writer = csv.writer(file)
            keys = ("image", "labels", "mask")[:columns]
            writer.writerow(keys)
            writer.writerows([row[key] for key in keys] for row in table)


def train(data: Path, folder: Path, tables: Path, method: str, seed: int, epochs: int) -> None:
    """One method on one draw, until its CRF masks are scored."""
    options = {
        "methods": method,
        "seeds": 1,
        "first-seed": seed,
        "until": "refine",
        "data.root": data.resolve(),
        "data.train": (tables / "train.csv").resolve(),
        "data.train_masks": (tables / "train_masks.csv").resolve(),
        "data.val": "",
        "classify.training.epochs": epochs,
        "machine.threads": 1,
        "machine.workers": 0,
        "run": folder,
    }
    flat = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    subprocess.run([sys.executable, "-m", "sfc", "study", "--config", "voc_animals", *flat], check=True)


def train_segmenter(data: Path, folder: Path, method: str, seed: int, epochs: int) -> None:
    """Goes on with the trial of a method until its segmenter is scored, for as many steps as the classifier had."""
    options = {
        "run": folder / f"{seed}-{method}",
        "data.val": (data / "val.csv").resolve(),
        "segment.training.epochs": epochs,
        "segment.training.repeat_below": 0,  # as `sfc plan` has it for so few
        "predict.logit_adjustment": 0,
        "predict.ways": '["multi", "multi+crf"]',
    }
    flat = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    subprocess.run([sys.executable, "-m", "sfc", "run", *flat], check=True)


def scores(folder: Path, method: str, seed: int) -> dict[str, tuple[float, dict[str, float]]]:
    """mIoU, over the classes that the truth shows, and groups of each map and of the masks."""
    entries = read_scores(RunFolder(folder / f"{seed}-{method}").system(method).scores)
    return {
        f"{entry.split}: {score.what}": (score.miou_of_true_classes(), score.groups)
        for entry in entries
        for score in (*entry.scores, *entry.masks)
    }


def spread(values: list[float]) -> str:
    """Mean and standard error."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return f"{statistics.mean(values):5.1f} ± {error:.1f}"


def main() -> None:
    """Draws, trains, prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photographs", type=int, default=300, choices=EPOCHS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--methods", nargs="+", default=["sfc", "cam", "cam-half"])
    parser.add_argument("--segmenter", action="store_true")
    given = parser.parse_args()
    found: dict[str, list[dict[str, tuple[float, dict[str, float]]]]] = {method: [] for method in given.methods}
    for seed in given.seeds:
        tables = given.folder / f"draw-{seed}"
        draw(given.data, tables, given.photographs, seed)
        for method in given.methods:
            folder = given.folder / f"{seed}-{method}"
            if not (folder / f"{seed}-{method}" / method / "segmenter").exists():
                train(given.data, folder, tables, method, seed, EPOCHS[given.photographs])
            if given.segmenter:
                train_segmenter(given.data, folder, method, seed, EPOCHS[given.photographs])
            found[method].append(scores(folder, method, seed))
    first = given.methods[0]
    for what in found[first][0]:
        print(what)
        for method, runs in found.items():
            values = [run[what][0] for run in runs]
            groups = " / ".join(f"{statistics.mean(run[what][1][g] for run in runs):.0f}" for g in runs[0][what][1])
            minus = [a[what][0] - b[what][0] for a, b in zip(found[first], runs, strict=True)]
            each = ", ".join(f"{value:.1f}" for value in values)
            difference = "" if method == first else f"  {first} minus it {spread(minus)}"
            print(f"  {method:10} {spread(values)} ({groups})  {each}{difference}")


if __name__ == "__main__":
    main()
