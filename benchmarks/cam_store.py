"""The CAM store beside float32 at full resolution: bytes an image, relative error, and what it does to the mIoU.

    cam_store.py                                                      the synthetic set, a network without training
    cam_store.py --recipe RUN/config.yaml --checkpoint RUN/sfc/classify      CAMs made here by a trained classifier
    cam_store.py --recipe configs/ccp.yaml --root data/ccp --cams FOLDER     lossless CAMs (localize.store: lossless)

`--baselines` also measures 8 bit maps at 1/4 and 1/8 of the resolution with a gradient predictor (what PNG does).
"""

from __future__ import annotations

import argparse
import lzma
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from measure import Figure, begin, finish
from sfc.classify.inference import infer_cams
from sfc.classify.train import build_network, load_classifier
from sfc.config import RunConfig, load_config
from sfc.data.images import read_image
from sfc.data.readers.splits import read_data
from sfc.data.records import DataSet, Record
from sfc.localize.store import SUFFIX, cam_path, load_cams, save_cams
from sfc.metrics.counts import ConfusionMatrix

Cams = tuple[np.ndarray, np.ndarray, np.ndarray]
MAPS = ("W", "P", "W + P")
SYNTHETIC = "synthetic"


@dataclass(frozen=True)
class Sample:
    """CAMs of one image at full precision, and its mask."""

    cams: Cams
    truth: np.ndarray


def samples(dataset: DataSet, cams_of: Callable[[Record], Cams | None]) -> Iterator[Sample]:
    """The images that have CAMs."""
    for record in dataset.records:
        cams = cams_of(record)
        if cams is not None:
            assert record.mask is not None
            yield Sample(cams, record.mask.load())


def cams_source(
    config: RunConfig, dataset: DataSet, cams: Path | None, checkpoint: Path | None
) -> Callable[[Record], Cams | None]:
    """What gives the CAMs of an image: a folder of lossless files, or a network."""
    if cams is not None:
        return lambda record: load_cams(cam_path(cams, record.id)) if cam_path(cams, record.id).exists() else None
    if checkpoint is not None:
        net = load_classifier(config.classify, config.seed, dataset.classes, checkpoint)
    else:
        torch.manual_seed(0)
        net = build_network(config.classify.network, len(dataset.classes))

    def infer(record: Record) -> Cams:
        label = np.isin(np.arange(net.num_classes), record.labels)
        return infer_cams(net, read_image(record.image), label, config.localize.scales)

    return infer


def predictive(cams: Cams, reduction: int) -> tuple[int, Cams]:
    """Bytes and result of 8 bit maps at a reduced resolution, gradient-predicted, LZMA."""
    size, total, back = cams[1].shape[1:], 0, []
    for cam in cams[1:]:
        small = (-(-size[0] // reduction), -(-size[1] // reduction))
        reduced = F.interpolate(torch.from_numpy(cam)[None], size=small, mode="bilinear", align_corners=False)[0]
        low = reduced.amin(dim=(1, 2), keepdim=True)
        step = (reduced.amax(dim=(1, 2), keepdim=True) - low).clamp(min=1e-6) / 255
        levels = ((reduced - low) / step).round()
        padded = F.pad(levels, (1, 0, 1, 0))
        residual = levels - (padded[:, :-1, 1:] + padded[:, 1:, :-1] - padded[:, :-1, :-1])
        total += len(lzma.compress((residual.long() % 256).to(torch.uint8).numpy().tobytes()))
        restored = F.interpolate((levels * step + low)[None], size=size, mode="bilinear", align_corners=False)
        back.append(restored[0].numpy())
    return total, (cams[0], back[0], back[1])


def stored(cams: Cams, folder: Path) -> tuple[int, Cams]:
    """Bytes and result of the store."""
    path = folder / f"image{SUFFIX}"
    save_cams(path, *cams)
    return path.stat().st_size, load_cams(path)


class Comparison:
    """Size, error and scores of one way to store, over images."""

    def __init__(self, num_classes: int) -> None:
        self.bytes: list[int] = []
        self.errors: list[float] = []
        self.scores = {name: ConfusionMatrix(num_classes) for name in MAPS}
        self.changed: list[float] = []

    def update(self, sample: Sample, size: int, result: Cams) -> None:
        """Adds one image."""
        self.bytes.append(size)
        for original, restored in zip(sample.cams[1:], result[1:], strict=True):
            norm = float(np.linalg.norm(original))
            self.errors.append(float(np.linalg.norm(restored - original)) / norm if norm else 0.0)
        for (name, before), after in zip(labels(sample.cams).items(), labels(result).values(), strict=True):
            self.scores[name].update(sample.truth, after)
            self.changed.append(float((before != after).mean()))

    def miou(self, name: str) -> float:
        """In percent."""
        return 100 * float(self.scores[name].areas().mean_iou())


def labels(cams: Cams) -> dict[str, np.ndarray]:
    """Classes at the fixed rule by W, P and W + P."""
    keys, weight, prototype = cams
    return {
        name: keys[cam.argmax(axis=0)] for name, cam in zip(MAPS, (weight, prototype, weight + prototype), strict=True)
    }


def measure(images_with_cams: Iterator[Sample], num_classes: int, baselines: bool) -> list[Figure]:
    """Goes through the images once."""
    exact = Comparison(num_classes)
    ways = {"store": Comparison(num_classes)}
    if baselines:
        ways |= {f"8 bit at 1/{reduction}": Comparison(num_classes) for reduction in (4, 8)}
    seconds, images, maps = 0.0, 0, 0
    with tempfile.TemporaryDirectory() as name:
        for sample in images_with_cams:
            images, maps = images + 1, maps + len(sample.cams[0])
            exact.update(sample, sum(cam.nbytes for cam in sample.cams[1:]), sample.cams)
            start = time.process_time()
            size, result = stored(sample.cams, Path(name))
            seconds += time.process_time() - start
            ways["store"].update(sample, size, result)
            for way, reduction in (("8 bit at 1/4", 4), ("8 bit at 1/8", 8)):
                if way in ways:
                    ways[way].update(sample, *predictive(sample.cams, reduction))
    rows = [
        Figure("images", images, ""),
        Figure("classes an image, background included", maps / images, ""),
        Figure("float32 at full resolution", float(np.mean(exact.bytes)) / 1024, "KB"),
        Figure("store: write and read", 1000 * seconds / images, "ms CPU"),
    ]
    for way, comparison in ways.items():
        bars = way == "store"
        rows.append(Figure(f"{way}: size", float(np.mean(comparison.bytes)) / 1024, "KB", at_most=60 if bars else None))
        rows.append(Figure(f"{way}: relative error, mean", 100 * float(np.mean(comparison.errors)), "%"))
        rows.append(
            Figure(f"{way}: relative error, largest", 100 * max(comparison.errors), "%", at_most=1 if bars else None)
        )
        rows.append(Figure(f"{way}: pixels with another label", 100 * float(np.mean(comparison.changed)), "%"))
        for which in MAPS:
            if exact.scores[which].counts.any():
                off = abs(comparison.miou(which) - exact.miou(which))
                label = f"{way}: mIoU of {which} off {exact.miou(which):.2f}"
                rows.append(Figure(label, off, "points", at_most=0.2 if bars else None))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=str, default=SYNTHETIC, help="settings: data, network, scales")
    parser.add_argument("--root", help="data root, where the recipe's is another")
    parser.add_argument("--split", choices=["train", "val"], default="val", help="images, scored by their masks")
    parser.add_argument("--checkpoint", type=Path, help="the classify folder of a run; default: no training")
    parser.add_argument("--cams", type=Path, help="a folder of lossless CAM files, instead of a network")
    parser.add_argument("--every", type=int, default=4, help="use every n-th image")
    parser.add_argument("--baselines", action="store_true", help="measure predictive 8 bit maps too")
    options = parser.parse_args()
    header = begin("CAM store")
    with tempfile.TemporaryDirectory() as name:
        config = load_config([options.recipe], [f"--data.root={options.root}"] if options.root else [])
        data = read_data(config.data, Path(name), config.seed)
        dataset = data.val if options.split == "val" else data.scoring
        if dataset is None:
            parser.error(f"{options.recipe} names no {options.split} images with masks")
        dataset = replace(dataset, records=dataset.with_masks().records[:: options.every])
        source = cams_source(config, dataset, options.cams, options.checkpoint)
        rows = measure(samples(dataset, source), len(dataset.classes) + 1, options.baselines)
    finish(header, rows)


if __name__ == "__main__":
    main()
