"""bfloat16 beside float32 on the built-in synthetic set: training losses, and the CAMs of one trained network.

Trains the synthetic recipe twice, for so few epochs that it takes minutes; both runs see the same images in the same
order. The CAMs of the float32 network are then made in both precisions and scored at the fixed background rule.
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from measure import Figure, begin, finish, has_fast_bf16
from sfc.classify.inference import infer_cams
from sfc.classify.train import load_classifier, train_classifier
from sfc.config import RunConfig, load_config
from sfc.data.images import read_image
from sfc.data.readers.splits import Data, read_data
from sfc.engine.processes import make_fabric
from sfc.metrics.counts import ConfusionMatrix

RECIPE = "synthetic"
STEPS = 100
Precision = Literal["fp32", "bf16"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")


def train(config: RunConfig, data: Data, precision: Precision, folder: Path) -> dict[str, float]:
    """Trains with a precision; the mean of every loss term over the first 100 steps."""
    config = replace(config, machine=replace(config.machine, precision=precision))
    fabric = make_fabric(config.machine)
    train_classifier(fabric, config.classify, config.machine, config.seed, data.train, None, folder, precision)
    with (folder / "log.csv").open() as file:
        rows = list(csv.DictReader(file))[:STEPS]
    terms = [name for name in rows[0] if name in ("classification", "prototype", "scale", "total")]
    return {term: float(np.mean([float(row[term]) for row in rows])) for term in terms}


def scores(config: RunConfig, data: Data, folder: Path, images: int) -> dict[str, dict[str, float]]:
    """mIoU in percent of W, P and W + P at the fixed rule, by precision."""
    net = load_classifier(config.classify, config.seed, data.train.classes, folder)
    assert data.scoring is not None
    confusions: dict[str, dict[str, ConfusionMatrix]] = {}
    for record in data.scoring.records[:: max(1, len(data.scoring) // images)]:
        assert record.mask is not None
        truth, image = record.mask.load(), read_image(record.image)
        label = np.isin(np.arange(net.num_classes), record.labels)
        for precision in PRECISIONS:
            keys, weight, prototype = infer_cams(net, image, label, config.localize.scales, precision=precision)
            for name, cam in (("W", weight), ("P", prototype), ("W + P", weight + prototype)):
                matrix = confusions.setdefault(precision, {}).setdefault(name, ConfusionMatrix(net.num_classes + 1))
                matrix.update(truth, keys[cam.argmax(axis=0)])
    return {
        precision: {name: 100 * float(matrix.areas().mean_iou()) for name, matrix in matrices.items()}
        for precision, matrices in confusions.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--images", type=int, default=400, help="about how many training images to make CAMs of")
    arguments = parser.parse_args()
    header = begin("bf16 beside fp32")
    config = load_config([RECIPE], [f"--classify.training.epochs={arguments.epochs}"])
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        data = read_data(config.data, root, config.seed)
        losses = {precision: train(config, data, precision, root / precision) for precision in PRECISIONS}
        miou = scores(config, data, root / "fp32", arguments.images)
    # Rounding is the same on every processor; only speed needs hardware, and so the bars hold where that is.
    loss_bar, miou_bar = (0.02, 0.2) if has_fast_bf16() else (None, None)
    rows = [
        Figure(
            f"mean {term} over {STEPS} steps, bf16 off fp32",
            abs(losses["bf16"][term] / value - 1),
            "",
            at_most=loss_bar,
        )
        for term, value in losses["fp32"].items()
        if value
    ]
    for which, value in miou["fp32"].items():
        rows += [
            Figure(f"mIoU of {which}, bf16 off fp32", abs(miou["bf16"][which] - value), "points", at_most=miou_bar)
        ]
    rows += [Figure(f"mean {term}, fp32", value, "") for term, value in losses["fp32"].items()]
    rows += [Figure(f"mIoU of {which}, fp32", value, "%") for which, value in miou["fp32"].items()]
    finish(header, rows)


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
