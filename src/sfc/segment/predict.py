"""Masks of images by a trained segmenter, in several ways at once, whole or in tiles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from lightning_fabric import Fabric
from numpy.typing import NDArray

from sfc.data.enlargement import enlarged, enlarged_labels
from sfc.data.images import has_many_pixels, image_size, mask_path, read_image, shrunk_size, write_mask
from sfc.data.pixels import doubt, resize_image
from sfc.data.records import DataSet, Record
from sfc.engine.image_work import memory_of_each, one_by_one, unfinished, work_through
from sfc.engine.processes import prepared_for_inference
from sfc.errors import DataError
from sfc.kernels.compiling import compile_once
from sfc.refine.crf.dense import compile_kernels
from sfc.segment.config import PredictConfig, Way
from sfc.segment.probabilities import ImageLogits, only, smoothed
from sfc.segment.segmenter import Segmenter
from sfc.segment.tiles import in_strips

TILE = 1024
"""Images that are higher or wider are predicted in tiles of at most this side."""


class Strip(NamedTuple):
    """Some rows of an image, in several ways.

    Attributes:
        top: the first of them.
        labels: uint8 [rows, W]: 0 background, 1 + class index. Of a photograph that was shrunk they are drawn to its
            edges by themselves, and may differ there from the strongest of the probabilities.
        probabilities: float32 [K, rows, W], sums to 1 over K; empty where they were not wanted.
        doubt: see `sfc.data.pixels.doubt`, of the rows; of a photograph that was shrunk, of all of it.
    """

    top: int
    labels: dict[Way, NDArray[np.uint8]]
    probabilities: dict[Way, NDArray[np.float32]]
    doubt: dict[Way, float]


class Mask(NamedTuple):
    """A whole mask.

    Attributes:
        labels: uint8 [H, W]: 0 background, 1 + class index.
        doubt: see `sfc.data.pixels.doubt`.
    """

    labels: NDArray[np.uint8]
    doubt: float


class Predictor:
    """A segmenter's answers to one image in several ways; see `PredictConfig.ways`.

    Args:
        net: in evaluation mode.
        config: scales and CRF.
        precision: `fp32` or `bf16`.
        tile: side of the tiles of large images; neighbours share an eighth of it at least, where one fades into the
            other.
        longest: the network sees larger photographs at this long side, as in training; its answer is then drawn to the
            edges of the photograph. None: it sees them as they are.
    """

    def __init__(
        self,
        net: Segmenter,
        config: PredictConfig,
        precision: str = "fp32",
        tile: int = TILE,
        longest: int | None = None,
    ) -> None:
        self.net, self.config, self.precision, self.tile, self.longest = net, config, precision, tile, longest

    def strips(
        self,
        image: NDArray[np.uint8],
        ways: Sequence[Way],
        *,
        probabilities: bool = True,
        shown: NDArray[np.bool_] | None = None,
    ) -> Iterator[Strip]:
        """Answers for the image's rows, from top to bottom; an image of one tile is one strip.

        Args:
            image: uint8 [H, W, 3].
            ways: which, at least one.
            probabilities: False: of a photograph that was shrunk they are not enlarged, which takes seconds.
            shown: bool [C], the foreground classes that the image is known to show; the others get probability 0. None:
                nobody knows.
        """
        small = resize_image(image, shrunk_size((image.shape[0], image.shape[1]), self.longest))
        tiled = self._tiled(small, ways, shown)
        if small.shape == image.shape:
            for top, joined in tiled:
                found = dict(zip(ways, np.split(joined, len(ways)), strict=True))
                yield Strip(top, {way: _strongest(maps) for way, maps in found.items()}, found, _doubts(found))
            return
        whole = np.concatenate([joined for _, joined in tiled], axis=1)
        shrunk = dict(zip(ways, np.split(whole, len(ways)), strict=True))
        labels = {way: enlarged_labels(_strongest(maps), small, image) for way, maps in shrunk.items()}
        doubts = _doubts(shrunk)
        if not probabilities:
            yield Strip(0, labels, {}, doubts)
            return
        for top, joined in enlarged(whole, small, image):
            rows = slice(top, top + joined.shape[1])
            maps = joined.clip(min=0).reshape(len(ways), -1, *joined.shape[1:])
            maps /= maps.sum(axis=1, keepdims=True)
            of_rows = {way: mask[rows] for way, mask in labels.items()}
            yield Strip(top, of_rows, dict(zip(ways, maps, strict=True)), doubts)

    def _tiled(
        self, image: NDArray[np.uint8], ways: Sequence[Way], shown: NDArray[np.bool_] | None
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Strips of all ways on top of each other, float32 [ways × K, rows, W]."""

        def predict(rows: slice, columns: slice) -> NDArray[np.float32]:
            tile = np.ascontiguousarray(image[rows, columns])
            return np.concatenate(list(self._ways(tile, ways, shown)))

        return in_strips((image.shape[0], image.shape[1]), self.tile, self.tile // 8, predict)

    def needs_much_memory(self, record: Record) -> bool:
        """Whether an image is of several tiles, or is very large itself; False for one that cannot be read."""
        try:
            size = image_size(record.image)
        except DataError:
            return False
        return max(shrunk_size(size, self.longest)) > self.tile or has_many_pixels(record.image)

    def masks(self, image: NDArray[np.uint8], ways: Sequence[Way]) -> dict[Way, Mask]:
        """The mask of an image in each way, and its doubt."""
        masks = {way: np.empty(image.shape[:2], np.uint8) for way in ways}
        doubts = dict.fromkeys(ways, 0.0)
        for strip in self.strips(image, ways, probabilities=False):
            for way, labels in strip.labels.items():
                masks[way][strip.top : strip.top + len(labels)] = labels
                doubts[way] += strip.doubt[way] * len(labels) / len(image)
        return {way: Mask(masks[way], doubts[way]) for way in ways}

    def _ways(
        self, image: NDArray[np.uint8], ways: Sequence[Way], shown: NDArray[np.bool_] | None
    ) -> Iterator[NDArray[np.float32]]:
        """Each way's probabilities; what two of them share is computed once."""
        config = self.config
        logits = ImageLogits(self.net, image, self.precision, config.logit_adjustment)
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
                if shown is not None:
                    found[size] = only(found[size], shown)
            yield smoothed(image, found[size], config.crf) if crf else found[size]


def _strongest(maps: NDArray[np.float32]) -> NDArray[np.uint8]:
    return maps.argmax(axis=0).astype(np.uint8)


def _doubts(maps: Mapping[Way, NDArray[np.float32]]) -> dict[Way, float]:
    return {way: doubt(each) for way, each in maps.items()}


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
            write_mask(mask_path(folders[way], record.id), mask.labels, mask.doubt)

    todo = unfinished(fabric, dataset.records, lambda record: not missing(record))
    prepared_for_inference(fabric, predictor.net)
    where = next(iter(folders.values())).parent
    finished = f"the masks of all other images are in {where}"
    scales = predictor.config.scales if any(way.startswith("multi") for way in folders) else (1.0,)
    each = memory_of_each(todo, max(scales))
    work_through(fabric, *one_by_one(todo, work), title, finished, predictor.needs_much_memory, each)
