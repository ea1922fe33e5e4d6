"""Is a segmenter better if frequent classes are not preferred for being frequent? Its masks at several strengths.

    python benchmarks/logit_adjustment.py RUN [--method sfc] [--strengths 0 0.3 0.5] [--every 1]

RUN has a segmenter, and validation photographs with masks. Printed is the mIoU over the classes that the truth shows,
and by groups, of multi and multi+crf (`predict.*`) for each strength of `predict.logit_adjustment`. Whoever chooses by
these figures has chosen by masks: other photographs or another seed must tell whether it holds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from sfc.data.groups import class_groups
from sfc.data.images import read_image
from sfc.data.pixels import resize_labels
from sfc.data.readers.splits import read_data
from sfc.metrics.counts import ConfusionMatrix, group_means
from sfc.predict.models import load_run_model, open_system
from sfc.run.folder import RunFolder
from sfc.segment.probabilities import ImageLogits, smoothed
from sfc.segment.stage import source_of


def main() -> None:
    """Prints a line for each strength and way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("run", help="its folder")
    parser.add_argument("--method", default="", help="of the run; default: its last")
    parser.add_argument("--strengths", type=float, nargs="+", default=[0, 0.3, 0.5])
    parser.add_argument("--every", type=int, default=1, help="only every so many of the photographs")
    arguments = parser.parse_args()
    config, folder = open_system(arguments.run, arguments.method)
    net, predict = load_run_model(folder, config, source_of(config)).net, config.predict
    data = read_data(config.data, RunFolder(Path(arguments.run)).own_data, config.seed)
    records = data.split("val").records[:: arguments.every]
    ways = ("multi", "multi+crf")
    counts = {(s, way): ConfusionMatrix(1 + len(data.train.classes)) for s in arguments.strengths for way in ways}
    for record in records:
        if record.mask is None:
            raise SystemExit(f"{record.image}: has no mask to score against")
        image, truth = read_image(record.image, record.longest), record.mask.load()
        for strength in arguments.strengths:
            logits = ImageLogits(net, image, logit_adjustment=strength)
            found = logits.probabilities(predict.scales, predict.mirror, predict.pooling)
            for way, maps in zip(ways, (found, smoothed(image, found, predict.crf)), strict=True):
                labels = resize_labels(maps.argmax(axis=0).astype(np.uint8), (truth.shape[0], truth.shape[1]))
                counts[strength, way].update(truth, labels)
    print(f"{len(records)} photographs; mIoU over the classes that they show, and head, medium, tail")
    groups = class_groups(data.train.class_counts(), config.data.group_shares)
    for (strength, way), matrix in counts.items():
        areas = matrix.areas()
        iou = np.where(areas.truth > 0, 100 * areas.iou(), np.nan)
        by_group = ", ".join(f"{value:.1f}" for value in group_means(iou[1:], groups).values())
        print(f"strength {strength:g}, {way}: {np.nanmean(iou):.1f} ({by_group})")


if __name__ == "__main__":
    main()
