"""Masks of images by a trained segmenter, in several ways at once, whole or in tiles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from lightning_fabric import Fabric
from numpy.typing import NDArray

from sfc.data.images import image_size, mask_path, read_image, write_mask
from sfc.data.records import DataSet, Record
from sfc.engine.image_work import unfinished, work_through
from sfc.engine.processes import prepared_for_inference
from sfc.errors import DataError
from sfc.kernels.compiling import compile_once
from sfc.refine.crf.dense import compile_kernels
from sfc.segment.config import PredictConfig, Way
from sfc.segment.probabilities import ImageLogits, smoothed
from sfc.segment.segmenter import Segmenter
from sfc.segment.tiles import in_strips

TILE = 1024
"""Images that are higher or wider are predicted in tiles of at most this side."""

Strip = tuple[int, dict[Way, NDArray[np.float32]]]


class Predictor:
    """A segmenter's answers to one image in several ways; see `PredictConfig.ways`.

    Args:
        net: in evaluation mode.
        config: scales and CRF.
        precision: `fp32` or `bf16`.
        tile: side of the tiles of large images; neighbours share an eighth of it at least, where one fades into the
            other.
    """

    def __init__(self, net: Segmenter, config: PredictConfig, precision: str = "fp32", tile: int = TILE) -> None:
        self.net, self.config, self.precision, self.tile = net, config, precision, tile

    def strips(self, image: NDArray[np.uint8], ways: Sequence[Way]) -> Iterator[Strip]:
        """Probabilities of the image's rows, from top to bottom; an image of one tile is one strip.

        Args:
            image: uint8 [H, W, 3].
            ways: which, at least one.

        Yields:
            The strip's first row; and for each way float32 [K, rows, W], sums to 1 over K.
        """

        def predict(rows: slice, columns: slice) -> NDArray[np.float32]:
            tile = np.ascontiguousarray(image[rows, columns])
            return np.concatenate(list(self._ways(tile, ways)))

        height, width = image.shape[:2]
        for top, joined in in_strips((height, width), self.tile, self.tile // 8, predict):
            yield top, dict(zip(ways, np.split(joined, len(ways)), strict=True))

    def needs_tiles(self, record: Record) -> bool:
        """Whether an image is of several tiles; False for one that cannot be read."""
        try:
            return max(image_size(record.image)) > self.tile
        except DataError:
            return False

    def masks(self, image: NDArray[np.uint8], ways: Sequence[Way]) -> dict[Way, NDArray[np.uint8]]:
        """For each way uint8 [H, W]: 0 background, 1 + class index."""
        masks = {way: np.empty(image.shape[:2], np.uint8) for way in ways}
        for top, strip in self.strips(image, ways):
            for way, probabilities in strip.items():
                masks[way][top : top + probabilities.shape[1]] = probabilities.argmax(axis=0)
        return masks

    def _ways(self, image: NDArray[np.uint8], ways: Sequence[Way]) -> Iterator[NDArray[np.float32]]:
        """Each way's probabilities; what two of them share is computed once."""
        config = self.config
        logits = ImageLogits(self.net, image, self.precision)
        found: dict[str, NDArray[np.float32]] = {}
        for way in ways:
            size, _, crf = way.partition("+")
            if size not in found:
                multi = size == "multi"
                found[size] = (
                    logits.probabilities(config.scales, config.mirror, config.pooling)
                    if multi
                    else logits.probabilities()
                )
            yield smoothed(image, found[size], config.crf) if crf else found[size]


def predict_masks(
    fabric: Fabric, predictor: Predictor, dataset: DataSet, folders: Mapping[Way, Path], title: str
) -> None:
    """Writes the masks of every image that lacks one; processes share the list by rank.

    An image at fault does not stop the others.

    Args:
        fabric: devices and processes.
        predictor: its network is moved to the device.
        dataset: the images; neither labels nor masks are looked at.
        folders: where each way's masks go, a palette PNG for each image id.
        title: shown beside the progress bar.

    Raises:
        SFCError: some images were at fault, and all others are done.
    """
    if any(way.endswith("+crf") for way in folders):
        compile_once(fabric, compile_kernels)

    def missing(record: Record) -> list[Way]:
        return [way for way, folder in folders.items() if not mask_path(folder, record.id).exists()]

    def work(record: Record) -> None:
        ways = missing(record)
        for way, mask in predictor.masks(read_image(record.image), ways).items():
            write_mask(mask_path(folders[way], record.id), mask)

    todo = unfinished(fabric, dataset.records, lambda record: not missing(record))
    prepared_for_inference(fabric, predictor.net)
    where = next(iter(folders.values())).parent
    finished = f"the masks of all other images are in {where}"
    work_through(fabric, todo, work, title, finished, predictor.needs_tiles)
