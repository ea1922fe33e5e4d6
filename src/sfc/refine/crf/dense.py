"""Fully connected CRF with Gaussian pairwise terms, by mean field (Krähenbühl and Koltun, NeurIPS 2011)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sfc.refine.crf.lattice import Lattice, PositionLattices, image_lattice
from sfc.refine.crf.lattice_filter import blur
from sfc.refine.crf.mean_field import LOWEST, Filter, update

CLIP = 1e-5
"""The smallest probability that a unary is made from."""
WIDEST = 8
_POSITIONS = PositionLattices()


class _Unary(NamedTuple):
    """Scores (minus the unary) as the compiled step reads them.

    Args:
        score: float32 [rows, lanes]: a row for each pixel, or for each label that occurs.
        rows: int32 [pixels], the row of each pixel; empty where row = pixel.
        channels: int32 [labels], the lane of each label.
    """

    score: NDArray[np.float32]
    rows: NDArray[np.int32]
    channels: NDArray[np.int32]


def dense_crf(
    image: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    probabilities: ArrayLike | None = None,
    logits: ArrayLike | None = None,
    num_labels: int | None = None,
    gt_prob: float = 0.7,
    gaussian: tuple[float, float] = (3, 3),
    bilateral: tuple[float, float, float] = (50, 5, 10),
    iterations: int = 10,
) -> NDArray[np.float32]:
    """Marginals of a dense CRF with Potts compatibility, as pydensecrf computes them, in float32.

    Energy and update are eq. 1 to 3 and algorithm 1 of Krähenbühl and Koltun (NeurIPS 2011); both Gaussians are
    filtered on a permutohedral lattice and normalised symmetrically. Exactly one unary is given. One image takes one
    core and releases the GIL: for several images at once, call it from threads.

    An image of three channels agrees with `DenseCRF2D.addPairwiseBilateral`. Other images agree with the features of
    `pydensecrf.utils.create_pairwise_bilateral`, which count rows before columns; the lattice is not isotropic, so
    this order matters.

    Args:
        image: uint8 [H, W] or [H, W, channels].
        labels: integers [H, W] from 0 to num_labels − 1; unary −log(gt_prob) for the given label and
            −log((1 − gt_prob) / (num_labels − 1)) for the others.
        probabilities: float [num_labels, H, W] in [0, 1]; unary −log of them, clipped at 1e-5 below.
        logits: float [num_labels, H, W]; unary −log of their softmax over the labels.
        num_labels: number of labels; by default the largest of `labels` + 1, or the first size of the other unaries.
        gt_prob: how sure a given label is, inside (0, 1).
        gaussian: (sxy, compatibility) of the smoothness term; sxy in pixels.
        bilateral: (sxy, srgb, compatibility) of the appearance term; srgb in grey levels.
        iterations: mean-field updates; with none the result is the softmax of the unary.

    Returns:
        float32 [num_labels, H, W], sums to 1 over the labels (all ones with a single label).

    Raises:
        ValueError: a dtype, a shape or a value is not as described above, or not exactly one unary is given.
    """
    crf = DenseCRF(image, gaussian=gaussian, bilateral=bilateral)
    return crf.marginals(
        labels=labels,
        probabilities=probabilities,
        logits=logits,
        num_labels=num_labels,
        gt_prob=gt_prob,
        iterations=iterations,
    )


class DenseCRF:
    """The dense CRF of one image, for several unaries: its lattices are built once. See `dense_crf`.

    Args:
        image: uint8 [H, W] or [H, W, channels].
        gaussian: (sxy, compatibility) of the smoothness term.
        bilateral: (sxy, srgb, compatibility) of the appearance term.

    Raises:
        ValueError: as `dense_crf`.
    """

    def __init__(
        self,
        image: ArrayLike,
        *,
        gaussian: tuple[float, float] = (3, 3),
        bilateral: tuple[float, float, float] = (50, 5, 10),
    ) -> None:
        self._pixels = _check_image(image)
        _check_terms(gaussian, bilateral)
        self._size = (self._pixels.shape[0], self._pixels.shape[1])
        self._gaussian, self._bilateral = gaussian, bilateral
        self._lattice: Lattice | None = None

    def _colour(self) -> Lattice:
        # Not a cached_property: before Python 3.12 its one lock would let a single image at a time build its lattice.
        if self._lattice is None:
            self._lattice = image_lattice(self._pixels, self._bilateral[0], self._bilateral[1])
        return self._lattice

    def marginals(
        self,
        *,
        labels: ArrayLike | None = None,
        probabilities: ArrayLike | None = None,
        logits: ArrayLike | None = None,
        num_labels: int | None = None,
        gt_prob: float = 0.7,
        iterations: int = 10,
    ) -> NDArray[np.float32]:
        """float32 [num_labels, H, W]; arguments and errors as of `dense_crf`."""
        size = self._size
        if not 0 < gt_prob < 1:
            raise ValueError(f"gt_prob must lie inside (0, 1), not {gt_prob}")
        if iterations != int(iterations) or iterations < 0:
            raise ValueError(f"iterations must be a whole number from 0, not {iterations}")
        if sum(unary is not None for unary in (labels, probabilities, logits)) != 1:
            raise ValueError("give exactly one of labels, probabilities and logits")
        if labels is not None:
            unary, counts = _unary_of_labels(_check_labels(labels, size, num_labels), num_labels, gt_prob)
        else:
            unary, counts = _unary_of_scores(*_check_scores(probabilities, logits, size, num_labels))
        if unary.channels.size == 1:
            return np.ones((1, *size), np.float32)
        position = _POSITIONS.get(size[0], size[1], self._gaussian[0])
        filters = (self._colour(), self._bilateral[2]), (position, self._gaussian[1])
        return _mean_field(unary, counts, *filters, iterations).reshape(-1, *size)


def _mean_field(
    unary: _Unary,
    counts: NDArray[np.float32],
    colour: tuple[Lattice, float],
    position: tuple[Lattice, float],
    iterations: int,
) -> NDArray[np.float32]:
    """Marginals [labels, pixels] after some updates; each filter is a lattice and its compatibility."""
    stride = counts.size
    lanes = (0,) * min(stride, WIDEST)
    filters = [_new_filter(lattice, compatibility, stride) for lattice, compatibility in (colour, position)]
    lattices = (colour[0], position[0])
    marginals = np.empty((unary.channels.size, colour[0].vertices.shape[0]), np.float32)
    score = unary.score.reshape(-1)
    nothing = np.empty(0, np.int32)
    everything = np.unique(unary.channels, return_index=True)[1].astype(np.int32)  # the first label of each lane
    for iteration in range(iterations + 1):
        written = everything if iteration == iterations else nothing
        update(score, unary.rows, *filters, lanes, counts, marginals, written, iteration == 0)
        if iteration < iterations:
            for index, lattice in enumerate(lattices):
                used = filters[index]
                blur(used.sums, lattice.chains, lattice.starts, lanes, stride // len(lanes))
                used.blurred.fill(0)
                filters[index] = used._replace(blurred=used.sums, sums=used.blurred)
    for label, lane in enumerate(unary.channels):
        if label != everything[lane]:
            marginals[label] = marginals[everything[lane]]
    return marginals


def _new_filter(lattice: Lattice, compatibility: float, stride: int) -> Filter:
    """A filter with both its buffers at zero."""
    blurred, sums = np.zeros((2, lattice.size * stride), np.float32)
    corners = (0,) * lattice.vertices.shape[1]
    return Filter(lattice.vertices, lattice.weights, corners, blurred, sums, np.float32(compatibility))


def _lane_count(channels: int) -> int:
    """Channels filled up to whole vectors: 2, 4 or a multiple of 8."""
    return 2 if channels <= 2 else 4 if channels <= 4 else -(-channels // WIDEST) * WIDEST


def _unary_of_labels(
    labels: NDArray[Any], num_labels: int | None, gt_prob: float
) -> tuple[_Unary, NDArray[np.float32]]:
    """Unary of a label map, and how many labels each lane stands for.

    Labels that do not occur have the same unary everywhere, hence the same marginals: one lane stands for them all.
    """
    occurrences = np.bincount(labels.reshape(-1), minlength=num_labels or 0)
    occurs = occurrences > 0
    present, total = int(occurs.sum()), occurs.size
    channels = np.where(occurs, np.cumsum(occurs) - 1, present).astype(np.int32)
    used = min(present + 1, total)
    score = np.full((present, _lane_count(used)), LOWEST, np.float32)
    score[:, :used] = np.log((1 - gt_prob) / max(total - 1, 1))
    score[np.arange(present), np.arange(present)] = np.log(gt_prob)
    counts = np.bincount(channels, minlength=score.shape[1]).astype(np.float32)
    return _Unary(score, channels[labels.reshape(-1)], channels), counts


def _unary_of_scores(values: NDArray[Any], are_logits: bool) -> tuple[_Unary, NDArray[np.float32]]:
    """Unary of probabilities or logits, one lane a label."""
    total = values.shape[0]
    flat = values.reshape(total, -1)
    score = np.full((flat.shape[1], _lane_count(total)), LOWEST, np.float32)
    # A softmax does not change when a pixel's logits move together, so its normalisation can be left out.
    top = flat.max(axis=0) if are_logits else None
    for label in range(total):
        score[:, label] = flat[label] - top if are_logits else np.log(np.clip(flat[label], CLIP, 1))
    counts = (np.arange(score.shape[1]) < total).astype(np.float32)
    return _Unary(score, np.empty(0, np.int32), np.arange(total, dtype=np.int32)), counts


def _check_image(image: ArrayLike) -> NDArray[np.uint8]:
    """The image as [H, W, channels]."""
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8 or pixels.ndim not in {2, 3} or pixels.size == 0:
        raise ValueError(f"image must be uint8 [H, W] or [H, W, channels], not {pixels.dtype} {list(pixels.shape)}")
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _check_terms(gaussian: tuple[float, float], bilateral: tuple[float, float, float]) -> None:
    if not all(np.isfinite(value) for value in (*gaussian, *bilateral)):
        raise ValueError(f"gaussian {gaussian} and bilateral {bilateral} must be finite")
    if min(gaussian[0], *bilateral[:2]) <= 0:
        raise ValueError(f"sxy and srgb must be positive, not gaussian {gaussian} and bilateral {bilateral}")


def _check_labels(labels: ArrayLike, size: tuple[int, int], num_labels: int | None) -> NDArray[Any]:
    values = np.asarray(labels)
    if values.dtype.kind not in "iu" or values.shape != size:
        raise ValueError(f"labels must be integers {list(size)} as the image, not {values.dtype} {list(values.shape)}")
    lowest, highest = int(values.min()), int(values.max())
    if lowest < 0:
        raise ValueError(f"labels must not be negative, but {lowest} is among them")
    if num_labels is not None and highest >= num_labels:
        raise ValueError(f"labels must be below num_labels {num_labels}, but {highest} is among them")
    return values


def _check_scores(
    probabilities: ArrayLike | None, logits: ArrayLike | None, size: tuple[int, int], num_labels: int | None
) -> tuple[NDArray[Any], bool]:
    """The unary that is given, and whether it is logits."""
    name, given = ("logits", logits) if probabilities is None else ("probabilities", probabilities)
    values = np.asarray(given)
    if values.dtype.kind != "f" or values.ndim != 3 or values.shape[1:] != size or len(values) == 0:
        found = f"{values.dtype} {list(values.shape)}"
        raise ValueError(f"{name} must be floats [labels, {size[0]}, {size[1]}] as the image, not {found}")
    if num_labels is not None and num_labels != len(values):
        raise ValueError(f"{name} have {len(values)} labels, not num_labels {num_labels}")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} must be finite")
    if probabilities is not None and (values.min() < 0 or values.max() > 1 + CLIP):
        raise ValueError(f"probabilities must lie in [0, 1], not in [{values.min():g}, {values.max():g}]")
    return values, probabilities is None


def compile_kernels() -> None:
    """Compiles what images of three channels need, for any number of labels."""
    image = np.zeros((2, 2, 3), np.uint8)
    for total in (2, 4, WIDEST):
        scores = np.zeros((total, 2, 2), np.float32)
        dense_crf(image, logits=scores, iterations=1)
