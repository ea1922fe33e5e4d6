"""The methods of refinement, and the table of them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from sfc.data.labelled_set import PngLabels
from sfc.engine.processes import precision_of, prepared_for_inference
from sfc.kernels.compiling import compile_once
from sfc.refine.crf import dense
from sfc.refine.crf.labels import LabelCRF, relation_labels
from sfc.refine.refiner import MakeMask, Maps, RefineJob, Refiner
from sfc.refine.relation.config import RelationConfig
from sfc.refine.relation.train import load_relation_network, train_relation_network
from sfc.refine.walk import kernels
from sfc.refine.walk.mask import walk_mask


class ArgmaxRefiner:
    """The strongest class of W + λP at every pixel."""

    settings = None
    uses: tuple[str, ...] = ()
    after = ""
    words, undecided_words = "argmax of {cam}", ""

    def start(self, job: RefineJob) -> MakeMask:
        """See `Refiner`."""
        fusion_lambda = job.config.label_lambda

        def mask(_: NDArray[np.uint8], maps: Maps) -> NDArray[np.uint8]:
            return maps.keys[maps.fused(fusion_lambda).argmax(axis=0)].astype(np.uint8)

        return mask


class CrfRefiner:
    """Relation labels: a dense CRF on the argmax of W + λP, and 255 where the class is not to be trusted."""

    settings = None
    uses: tuple[str, ...] = ("crf",)
    after = ""
    # Where relation labels are open, the CRF's own answer was background.
    words, undecided_words = "CRF of {cam}", "relation labels"

    def start(self, job: RefineJob) -> MakeMask:
        """See `Refiner`."""
        compile_once(job.fabric, dense.compile_kernels)
        config = job.config

        def mask(image: NDArray[np.uint8], maps: Maps) -> NDArray[np.uint8]:
            return relation_labels(image, maps.keys, maps.fused(config.label_lambda), config.crf)

        return mask


class WalkRefiner:
    """Random walk over the edges of a relation network that was trained on the CRF's masks.

    Args:
        smooth: put a dense CRF behind it.
    """

    uses: tuple[str, ...] = ("crf", "irn")
    after = "crf"
    undecided_words = ""

    def __init__(self, smooth: bool) -> None:
        self.smooth = smooth
        self.settings = None if smooth else RelationConfig
        self.words = "walk, CRF" if smooth else "walk"

    def start(self, job: RefineJob) -> MakeMask:
        """Trains the relation network first; see `Refiner`."""
        compile_once(job.fabric, dense.compile_kernels, kernels.compile_kernels)
        settings: RelationConfig = job.config.irn  # type: ignore[attr-defined]
        train_relation_network(
            job.fabric,
            settings,
            job.machine,
            job.dataset,
            PngLabels(job.masks("crf"), len(job.dataset.classes)),
            job.relation,
            backbone=job.backbone,
            seed=job.seed,
            origin=job.origin("crf"),
            title=f"{job.title}: relation network",
        )
        return _Walk(job, settings, self.smooth)


class _Walk:
    """Image and CAMs to the walked mask, and through a CRF where the method says so."""

    def __init__(self, job: RefineJob, settings: RelationConfig, smooth: bool) -> None:
        self.config, self.settings, self.smooth = job.config, settings, smooth
        self.fusion_lambda = job.config.walk_lambda if settings.fusion_lambda is None else settings.fusion_lambda
        self.device, self.bf16 = job.fabric.device, precision_of(job.machine) == "bf16"
        self.net = load_relation_network(settings, job.relation, job.backbone, job.seed)
        prepared_for_inference(job.fabric, self.net)

    def __call__(self, image: NDArray[np.uint8], maps: Maps) -> NDArray[np.uint8]:
        height, width = image.shape[:2]
        pixels = torch.from_numpy(np.require(image, requirements=["C", "W"])).to(self.device).permute(2, 0, 1)[None]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            edge = self.net.infer(self.net.stages.backbone.pixels.normalise(pixels)[0], self.settings.input.crop)
        mask = walk_mask(
            maps.keys,
            maps.fused(self.fusion_lambda),
            edge.float(),
            (height, width),
            background=self.settings.background,
            steps=self.settings.steps,
            second_walk=self.config.is_released,
            stride=self.net.stride,
        )
        if self.smooth:
            smooth = LabelCRF(image, len(maps.keys), self.config.crf)
            mask = maps.keys[smooth(np.searchsorted(maps.keys, mask))].astype(np.uint8)
        return mask


REFINERS: dict[str, Refiner] = {
    "none": ArgmaxRefiner(),
    "crf": CrfRefiner(),
    "irn": WalkRefiner(smooth=False),
    "irn+crf": WalkRefiner(smooth=True),
}
"""By the name that `refine.method` gives and their folder of masks has, each after those that it builds on."""
