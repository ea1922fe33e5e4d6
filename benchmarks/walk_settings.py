"""Which background and which λ suit the walk? Over the training photographs of a run that have a truth.

    python benchmarks/walk_settings.py RUN [--method sfc] [--lambdas 0 0.3 1] [--backgrounds 0.25 0.35 0.45] [--every 3]

RUN has CAMs and a relation network (`sfc refine --refine.method irn`). Every mask is walked anew, and printed is its
mIoU as it is and with a dense CRF behind it. Whoever chooses by these figures has chosen by masks: other photographs or
another seed must tell whether it holds.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

import numpy as np
import torch

from sfc.data.images import read_image
from sfc.data.pixels import resize_labels
from sfc.data.readers.splits import read_data
from sfc.localize.store import cam_path, load_cams
from sfc.metrics.counts import ConfusionMatrix
from sfc.networks.backbone import Backbone
from sfc.predict.models import open_system
from sfc.refine.crf.labels import LabelCRF
from sfc.refine.refiner import Maps
from sfc.refine.relation.config import RelationConfig
from sfc.refine.relation.train import load_relation_network
from sfc.refine.walk.mask import walk_scores
from sfc.run.folder import RunFolder


def main() -> None:
    """Prints a line for each pair of settings."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("run", help="its folder")
    parser.add_argument("--method", default="", help="of the run; default: its last")
    parser.add_argument("--lambdas", type=float, nargs="+", default=[0, 0.3, 1], help="weights of P in W + λP")
    parser.add_argument("--backgrounds", type=float, nargs="+", default=[0.25, 0.35, 0.45], help="after the walk")
    parser.add_argument("--every", type=int, default=1, help="only every so many of the photographs")
    arguments = parser.parse_args()
    config, folder = open_system(arguments.run, arguments.method)
    settings: RelationConfig = config.refine.irn  # type: ignore[attr-defined]
    network = config.classify.network

    def backbone(*, blank: bool) -> Backbone:
        del blank
        return Backbone(network.backbone)

    net = load_relation_network(settings, folder.relation, backbone, config.seed)
    scoring = read_data(config.data, RunFolder(Path(arguments.run)).own_data, config.seed).scoring
    if scoring is None:
        raise SystemExit(f"{arguments.run}: no training photograph has a mask (data.train_masks)")
    records = scoring.records[:: arguments.every]
    pairs = list(product(arguments.lambdas, arguments.backgrounds))
    counts = {(*pair, crf): ConfusionMatrix(1 + len(scoring.classes)) for pair in pairs for crf in (False, True)}
    for record in records:
        assert record.mask is not None
        image, truth = read_image(record.image, record.longest), record.mask.load()
        size = (image.shape[0], image.shape[1])
        maps = Maps(*load_cams(cam_path(folder.cams("train"), record.id)))
        smooth = LabelCRF(image, len(maps.keys), config.refine.crf)
        pixels = net.stages.backbone.pixels.normalise(torch.from_numpy(image.copy()).permute(2, 0, 1)[None])
        with torch.inference_mode():
            edge = net.infer(pixels[0], settings.input.crop).float()
            for fusion_lambda in arguments.lambdas:
                scores = np.asarray(
                    walk_scores(maps.fused(fusion_lambda), edge, size, steps=settings.steps, stride=net.stride)
                )
                for background in arguments.backgrounds:
                    scores[0] = background
                    mask = scores.argmax(axis=0)
                    for crf, labels in ((False, mask), (True, smooth(mask))):
                        found = resize_labels(maps.keys[labels].astype(np.uint8), (truth.shape[0], truth.shape[1]))
                        counts[fusion_lambda, background, crf].update(truth, found)
    print(f"{len(records)} photographs; mIoU of the walk, and with a CRF behind it")
    for fusion_lambda, background in pairs:
        alone, behind = (float(counts[fusion_lambda, background, crf].areas().mean_iou()) for crf in (False, True))
        print(f"λ {fusion_lambda:g}, background {background:g}: {100 * alone:.1f}, {100 * behind:.1f}")


if __name__ == "__main__":
    main()
