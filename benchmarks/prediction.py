"""Prediction of large photographs: peak memory of 40 megapixels in tiles, network and CRF included.

The photograph is as wide as one of 40 megapixels and two rows of tiles high, while 40 megapixels of pixels and mask are
held in memory: every further row would only repeat the second one.
"""

from __future__ import annotations

import argparse
import json

import numpy as np

from measure import Figure, begin, finish, in_fresh_process, memory_bytes
from sfc.refine.crf.dense import compile_kernels
from sfc.segment.config import PredictConfig
from sfc.segment.networks import SegmenterSection, build_segmenter
from sfc.segment.predict import Predictor

WIDTH, HEIGHT, ROWS = 7296, 5472, 1900
CLASSES = 20


def peak_memory(backbone: str) -> dict[str, float]:
    """Bytes of the whole process while it predicts, in a process of its own."""
    compile_kernels()
    net = build_segmenter(SegmenterSection(backbone=backbone, weights="none"), CLASSES + 1).eval()
    # Weights at random say the same everywhere; scattered ones give the CRF many labels to weigh up.
    y, x = np.mgrid[:ROWS, :WIDTH]
    photograph = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    photograph[:ROWS] = np.stack([(x // 40 * 37) % 256, (y // 30 * 53) % 256, (x + y) // 90 % 256], axis=2)
    predictor = Predictor(net, PredictConfig())
    held = np.full((HEIGHT, WIDTH), 255, np.uint8)
    held[:ROWS] = predictor.masks(photograph[:ROWS], ("multi+crf",))["multi+crf"].labels
    return {"bytes": memory_bytes("VmHWM"), "labels": len(np.unique(held))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--backbone", default="resnet50.tv_in1k", help="of DeepLab-v2; the published one is a ResNet-101"
    )
    parser.add_argument("--only-memory", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only_memory:
        print(json.dumps(peak_memory(arguments.backbone)))
        return
    header = begin("prediction of large photographs")
    memory = in_fresh_process("--only-memory", "--backbone", arguments.backbone)
    name = f"40 megapixels, DeepLab-v2 on {arguments.backbone}, 3 scales, CRF: peak memory"
    finish(header, [Figure(name, memory["bytes"] / 2**30, "GiB", at_most=6)])


if __name__ == "__main__":
    main()
