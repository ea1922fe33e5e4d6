"""Where masks of new photographs come from: a segmenter, or CAMs with given or predicted labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import nn

from sfc.classify.inference import infer_cams
from sfc.classify.network import SFCNetwork
from sfc.data.enlargement import enlarged_labels
from sfc.data.images import has_many_pixels, shrunk_size
from sfc.data.pixels import doubt, resize_image
from sfc.data.records import Record
from sfc.engine.image_work import memory_of_each
from sfc.errors import DataError
from sfc.localize.config import LocalizeConfig
from sfc.predict.outputs import Strip
from sfc.refine.crf.labels import LabelCRF
from sfc.refine.refiner import Maps, RefineConfig
from sfc.segment.config import Way
from sfc.segment.predict import Predictor
from sfc.settings.read import plain_values


class Source(Protocol):
    """Turns a photograph into its mask."""

    @property
    def net(self) -> nn.Module:
        """What has to be on the device."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Foreground classes; mask value k + 1 is class k."""
        ...

    @property
    def crf(self) -> bool:
        """Whether a dense CRF is behind it."""
        ...

    @property
    def has_probabilities(self) -> bool:
        """Whether its strips come with them."""
        ...

    def is_large(self, record: Record) -> bool:
        """Whether a photograph needs so much memory that it has to be worked on alone."""
        ...

    def bytes_each(self, records: Sequence[Record]) -> float:
        """Memory that one of some photographs takes, beside those that have to be worked on alone."""
        ...

    def origin(self) -> dict[str, Any]:
        """What the masks depend on, plain values."""
        ...

    def strips(self, record: Record, image: NDArray[np.uint8], probabilities: bool) -> Iterator[Strip]:
        """The mask of uint8 [H, W, 3], from top to bottom, with probabilities where they are wanted.

        Raises:
            DataError: the photograph is at fault.
        """
        ...


@dataclass(frozen=True)
class GivenTags:
    """What photographs are known to show.

    Args:
        by_image: class indices, by resolved path of the photograph.
        digest: of the table that they come from.
        num_classes: foreground classes.
    """

    by_image: Mapping[Path, tuple[int, ...]]
    digest: str
    num_classes: int

    def of(self, record: Record) -> NDArray[np.bool_]:
        """bool [classes]: which of them a photograph shows.

        Raises:
            DataError: nobody said.
        """
        given = self.by_image.get(record.image.resolve())
        if given is None:
            raise DataError(record.image, "has no row in the table of labels")
        return np.isin(np.arange(self.num_classes), given)


class SegmenterSource:
    """Masks by a segmenter, at the scales of its prediction settings.

    Args:
        predictor: the segmenter.
        classes: its foreground classes.
        weights: identifies its weights.
        crf: put the dense CRF behind it.
        tags: what the photographs show, so that nothing else is found in them; None: nobody knows.
    """

    has_probabilities = True

    def __init__(
        self, predictor: Predictor, classes: tuple[str, ...], weights: str, crf: bool, tags: GivenTags | None = None
    ) -> None:
        self.net, self.classes = predictor.net, classes
        self._predictor, self._weights, self.crf, self._tags = predictor, weights, crf, tags

    def is_large(self, record: Record) -> bool:
        """Whether it is of several tiles, or has very many pixels."""
        return self._predictor.needs_much_memory(record)

    def bytes_each(self, records: Sequence[Record]) -> float:
        """See `Source`."""
        at_work = self._predictor.longest or self._predictor.tile
        return _bytes_each(records, at_work, max(self._predictor.config.scales))

    def origin(self) -> dict[str, Any]:
        """Weights and prediction settings."""
        settings = plain_values(asdict(self._predictor.config))
        settings |= {"tile": self._predictor.tile, "longest": self._predictor.longest}
        del settings["ways"]
        if self._tags is not None:
            settings["labels"] = self._tags.digest
        if not self.crf:
            settings["crf"] = None
        return {"masks by": "segmenter", "weights": self._weights, "settings": settings}

    def strips(self, record: Record, image: NDArray[np.uint8], probabilities: bool) -> Iterator[Strip]:
        """See `Source`."""
        way: Way = "multi+crf" if self.crf else "multi"
        shown = None if self._tags is None else self._tags.of(record)
        for strip in self._predictor.strips(image, (way,), probabilities=probabilities, shown=shown):
            yield Strip(strip.top, strip.labels[way], strip.probabilities.get(way), strip.doubt[way])


def _bytes_each(records: Sequence[Record], longest: int, largest_scale: float) -> float:
    return memory_of_each([replace(record, longest=longest) for record in records], largest_scale)


class CamSource:
    """Masks by the CAMs of a classifier at the fixed background rule, without a segmenter.

    Args:
        net: the classifier.
        classes: its foreground classes.
        weights: identifies its weights.
        localize: scales.
        refine: λ of W + λP, and the dense CRF.
        labels: indices of the classes that each photograph shows, by resolved path; None: the classifier says.
        labels_hash: identifies the table that they are from.
        crf: put the dense CRF behind them.
        longest: larger photographs are shrunk to this long side for the classifier, as in training; masks have the full
            size all the same, and the photograph's edges.
        precision: `fp32` or `bf16`.
    """

    has_probabilities = False

    def __init__(
        self,
        net: SFCNetwork,
        classes: tuple[str, ...],
        weights: str,
        localize: LocalizeConfig,
        refine: RefineConfig,
        tags: GivenTags | None,
        *,
        crf: bool,
        longest: int,
        precision: str,
    ) -> None:
        self.net, self.classes = net, classes
        self._classifier, self._weights = net, weights
        self._localize, self._refine, self._tags = localize, refine, tags
        self.crf, self._longest, self._precision = crf, longest, precision

    def is_large(self, record: Record) -> bool:
        """Whether it has very many pixels; the classifier sees it shrunk."""
        return has_many_pixels(record.image)

    def bytes_each(self, records: Sequence[Record]) -> float:
        """See `Source`."""
        return _bytes_each(records, self._longest, max(self._localize.scales))

    def origin(self) -> dict[str, Any]:
        """Weights, scales, labels and CRF."""
        refine = plain_values(asdict(self._refine))
        return {
            "masks by": "CAMs",
            "weights": self._weights,
            "settings": {
                "scales": list(self._localize.scales),
                "fusion_lambda": self._refine.label_lambda,
                "labels": "predicted" if self._tags is None else self._tags.digest,
                "crf": refine["crf"] if self.crf else None,
                "longest": self._longest,
            },
        }

    def strips(self, record: Record, image: NDArray[np.uint8], probabilities: bool) -> Iterator[Strip]:  # noqa: ARG002
        """One strip; it has no probabilities.

        Raises:
            DataError: no labels are given for the photograph.
        """
        small = resize_image(image, shrunk_size((image.shape[0], image.shape[1]), self._longest))
        keys, weight, prototype = infer_cams(
            self._classifier,
            small,
            None if self._tags is None else self._tags.of(record),
            self._localize.scales,
            precision=self._precision,
        )
        fused = Maps(keys, weight, prototype).fused(self._refine.label_lambda)
        labels = fused.argmax(axis=0)
        if self.crf:
            labels = LabelCRF(small, len(keys), self._refine.crf)(labels)
        yield Strip(0, enlarged_labels(keys[labels].astype(np.uint8), small, image), None, doubt(fused))
