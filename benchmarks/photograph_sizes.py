"""What shrinking and enlarging cost: masks of small photographs against those of the same ones enlarged.

    python benchmarks/photograph_sizes.py data/voc_animals [RUN METHOD]

Without a run: the ground truth of every third validation photograph shrunk 2 and 4 times and enlarged again, by nearest
and along the photograph's edges. With one: its CAMs and CRF masks of those photographs, and of the same ones enlarged 4
times (bicubic, JPEG) and worked on at the run's size.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from measure import Figure, begin, finish
from sfc.classify.inference import infer_cams
from sfc.data.enlargement import enlarged_labels
from sfc.data.images import read_image, shrunk_size
from sfc.data.pixels import resize_image, resize_labels
from sfc.data.readers import DataSection
from sfc.data.readers.table import read_table
from sfc.data.records import IGNORE, Record
from sfc.metrics.boundary import BoundaryCounts
from sfc.metrics.counts import ConfusionMatrix, mean_of_present
from sfc.predict.models import open_classifier
from sfc.refine.crf.labels import LabelCRF

EVERY, FACTOR = 3, 4
Mask = NDArray[np.uint8]


class Counts:
    """What two scores are made of."""

    def __init__(self, classes: int) -> None:
        self.area, self.contour = ConfusionMatrix(classes + 1), BoundaryCounts(classes + 1)

    def add(self, truth: Mask, mask: Mask) -> None:
        """One photograph."""
        self.area.update(truth, mask)
        self.contour.update(truth, mask)

    def figures(self, name: str) -> list[Figure]:
        """Both scores."""
        area = float(100 * self.area.areas().mean_iou())
        contour = float(100 * mean_of_present(self.contour.iou()))
        return [Figure(f"{name}: mIoU", area, "%"), Figure(f"{name}: boundary IoU", contour, "%")]


def enlarged_truth(records: list[Record], classes: int, factor: int) -> list[Figure]:
    """Ground truth that was shrunk, enlarged in two ways."""
    nearest, guided = Counts(classes), Counts(classes)
    for record in records:
        image, truth = read_image(record.image), record.mask.load()  # type: ignore[union-attr]
        size = shrunk_size(truth.shape, max(truth.shape) // factor)
        labels = resize_labels(np.where(truth == IGNORE, 0, truth).astype(np.uint8), size)
        nearest.add(truth, resize_labels(labels, truth.shape))
        guided.add(truth, enlarged_labels(labels, resize_image(image, size), image))
    return nearest.figures(f"truth, {factor} times, nearest") + guided.figures(f"truth, {factor} times, along edges")


def maps_of_enlarged(records: list[Record], run: str, method: str) -> list[Figure]:
    """CRF masks by a run's classifier of photographs as they are and enlarged."""
    net, classes, config, _ = open_classifier(run, method)
    shrunk, large = Counts(len(classes)), Counts(len(classes))

    def mask(path: Path, record: Record) -> Mask:
        image = read_image(path)
        small = resize_image(image, shrunk_size((image.shape[0], image.shape[1]), config.longest))
        label = np.isin(np.arange(len(classes)), record.labels)
        keys, weight, prototype = infer_cams(net, small, label, config.localize.scales)
        cam = weight + np.float32(config.refine.label_lambda) * prototype
        labels = LabelCRF(small, len(keys), config.refine.crf)(cam.argmax(axis=0))
        return enlarged_labels(keys[labels].astype(np.uint8), small, image)

    with TemporaryDirectory() as folder:
        path = Path(folder) / "large.jpg"
        for record in records:
            truth = record.mask.load()  # type: ignore[union-attr]
            height, width = truth.shape
            picture = Image.fromarray(read_image(record.image))
            picture.resize((FACTOR * width, FACTOR * height), Image.Resampling.BICUBIC).save(path, quality=92)
            shrunk.add(truth, mask(record.image, record))
            large.add(truth.repeat(FACTOR, axis=0).repeat(FACTOR, axis=1), mask(path, record))
    return shrunk.figures("CRF masks, as they are") + large.figures(f"CRF masks, enlarged {FACTOR} times")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="folder with val.csv (image, labels, mask) and classes.txt")
    parser.add_argument("run", nargs="*", help="a run folder, and one of its methods")
    arguments = parser.parse_args()
    header = begin("sizes of photographs")
    dataset = read_table(DataSection(format="table", root=arguments.data, val="val.csv", classes="classes.txt"), "val")
    records = list(dataset.with_masks().records[::EVERY])
    figures = [figure for factor in (2, 4) for figure in enlarged_truth(records, len(dataset.classes), factor)]
    if arguments.run:
        figures += maps_of_enlarged(records, *arguments.run)
    finish(header, figures)


if __name__ == "__main__":
    main()
