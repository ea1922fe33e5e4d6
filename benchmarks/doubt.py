"""Does the doubt that a mask's file keeps say how wrong it is? Over the photographs of a run that have a truth.

    python benchmarks/doubt.py RUN [--method sfc]

Error: share of the pixels with a known truth whose class is wrong. Printed for each kind of masks: Spearman's rank
correlation of doubt and error, and the mean error of the quarter that is least certain, of the one that is most, and of
all.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from sfc.config import load_config
from sfc.data.images import mask_doubt, mask_path, read_mask
from sfc.data.pixels import resize_labels
from sfc.data.readers.splits import read_data
from sfc.data.records import IGNORE, DataSet
from sfc.run.folder import RunFolder
from sfc.segment.stage import source_of


def errors(dataset: DataSet, folder: Path) -> np.ndarray:
    """Doubt and error of each photograph, float [photographs, 2]."""
    rows = []
    for record in dataset.records:
        path = mask_path(folder, record.id)
        assert record.mask is not None
        truth, mask = record.mask.load(), read_mask(path, len(dataset.classes))
        mask = resize_labels(mask, (truth.shape[0], truth.shape[1]))
        known = (truth != IGNORE) & (mask != IGNORE)
        if known.any():
            rows.append((mask_doubt(path) or 0.0, (truth[known] != mask[known]).mean()))
    return np.array(rows)


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--method", default="sfc")
    given = parser.parse_args()
    folder = RunFolder(given.run)
    config = load_config([folder.config])
    data, system = read_data(config.data, folder.own_data, config.seed), folder.system(given.method)
    kinds = []
    if data.scoring is not None:
        kinds.append((f"train, {config.refine.method}", data.scoring, system.masks(config.refine.method)))
    if data.val is not None:
        places = {way: system.predictions(source_of(config), "val", way) for way in config.predict.ways}
        kinds += [(f"val, {way}", data.val.with_masks(), place) for way, place in places.items()]
    print("| masks | photographs | rank correlation | error: least certain quarter | most certain quarter | all |")
    print("|---|---|---|---|---|---|")
    for name, dataset, place in kinds:
        found = errors(dataset, place)
        order = found[np.argsort(-found[:, 0], kind="stable"), 1] * 100
        quarter = max(1, len(order) // 4)
        means = (order[:quarter].mean(), order[-quarter:].mean(), order.mean())
        words = " | ".join(f"{value:.1f}" for value in means)
        print(f"| {name} | {len(found)} | {spearmanr(found[:, 0], found[:, 1]).statistic:+.2f} | {words} |")


if __name__ == "__main__":
    main()
