"""Permutohedral lattice: Gaussian filtering of values given at pixels (Adams, Baek and Davis, Eurographics 2010).

A pixel's feature vector (position, colour) lies in a simplex of a lattice in d dimensions. Filtering puts the pixel's
value on the d + 1 vertices of its simplex by barycentric weights (splat), blurs along the d + 1 axes of the lattice,
and reads the value back with the same weights (slice). Choices, and the order of float32 operations that decides in
which simplex a pixel lies, are those of pydensecrf.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sfc.refine.crf.lattice_filter import blur, scale_weights, splat_ones
from sfc.refine.crf.lattice_kernels import build, chain

LARGEST_COORDINATE = 2**22
"""float32 counts lattice steps exactly up to here, with room for the arithmetic."""
CACHE_BYTES = 2**28


@dataclass(frozen=True)
class Lattice:
    """Where pixels lie in the lattice, and which vertices follow each other.

    Args:
        vertices: int32 [pixels, d + 1], the vertices of each pixel's simplex.
        weights: float32 [pixels, d + 1], barycentric, times the symmetric normalisation.
        size: number of vertices.
        chains: int32, vertices in rows along each axis, axis by axis; the last of a row as its complement, ~vertex.
            A vertex without neighbours on an axis does not appear, for blurring leaves it as it is.
        starts: int64 [d + 2], where each axis begins in `chains`.
    """

    vertices: NDArray[np.int32]
    weights: NDArray[np.float32]
    size: int
    chains: NDArray[np.int32]
    starts: NDArray[np.int64]

    @property
    def nbytes(self) -> int:
        """Memory of all arrays."""
        return self.vertices.nbytes + self.weights.nbytes + self.chains.nbytes + self.starts.nbytes


def image_lattice(image: NDArray[np.uint8], sxy: float, srgb: float) -> Lattice:
    """Lattice of position / sxy and colour / srgb.

    Args:
        image: uint8 [H, W, channels]; with no channels the lattice is that of the positions alone.
        sxy: standard deviation in pixels.
        srgb: standard deviation in grey levels.

    Raises:
        ValueError: a standard deviation is so small that float32 cannot count the lattice's steps.
    """
    height, width, channels = image.shape
    dimensions = channels + 2
    across = np.arange(width, dtype=np.float32) / np.float32(sxy)
    down = np.arange(height, dtype=np.float32) / np.float32(sxy)
    tones = np.arange(256, dtype=np.float32) / np.float32(srgb)
    scale = _axis_scale(dimensions)
    farthest = float(max(across[-1], down[-1])) * scale[:2].sum() + float(tones[-1]) * scale[2:].sum()
    if not farthest * dimensions < LARGEST_COORDINATE:
        raise ValueError(f"sxy {sxy:g} or srgb {srgb:g} is too small for an image of {height} × {width} pixels")
    # DenseCRF2D, for three channels, counts x before y; pydensecrf's helper for other images the other way round.
    positions = (down, across) if channels not in {0, 3} else (across, down)
    hashing = _hash_steps(dimensions)
    flat = np.ascontiguousarray(image).reshape(height * width, channels)
    simplices, weights, vertices, size = build(flat, width, *positions, positions[0] is down, tones, scale, *hashing)
    chains, starts = chain(vertices, size, hashing[1])
    lattice = Lattice(simplices, weights, size, chains, starts)
    _normalise(lattice)
    return lattice


def _axis_scale(dimensions: int) -> NDArray[np.float32]:
    """Scale of each feature that gives the blur below unit variance (Adams et al., section 3.2)."""
    index = np.arange(1, dimensions + 1, dtype=np.float64)
    deviation = np.float32(np.sqrt(2 / 3) * (dimensions + 1))
    return (1 / np.sqrt(index * (index + 1)) * np.float64(deviation)).astype(np.float32)


def _hash_steps(dimensions: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """What a step of 1 in each coordinate, and one along each lattice axis, adds to a fingerprint (modulo 2^64).

    Along axis j every coordinate grows by 1 and coordinate j falls by d + 1 (the last axis: coordinate d, not stored).
    """
    golden = 0x9E3779B97F4A7C15  # 2^64 / the golden ratio spreads multiples evenly over the upper bits
    unit = [pow(golden, power + 1, 2**64) for power in range(dimensions)]
    along = [(sum(unit) - (dimensions + 1) * fall) % 2**64 for fall in [*unit, 0]]
    return np.array(unit, np.uint64), np.array(along, np.uint64)


def _normalise(lattice: Lattice) -> None:
    """Folds the symmetric normalisation, 1 / sqrt(filtered ones) at both ends, into the weights."""
    dimensions = lattice.vertices.shape[1] - 1
    alpha = np.float32(1 / (1 + 2.0**-dimensions))
    ones = np.zeros(lattice.size, np.float32)
    splat_ones(lattice.vertices, lattice.weights, ones)
    blur(ones, lattice.chains, lattice.starts, (0,), 1)
    scale_weights(lattice.vertices, lattice.weights, ones, alpha)


class PositionLattices:
    """Lattices of positions alone, kept for images of the same size; the least recently used go first.

    Args:
        limit: bytes that all lattices together may take.
    """

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._lattices: OrderedDict[tuple[int, int, float], Lattice] = OrderedDict()

    def get(self, height: int, width: int, sxy: float) -> Lattice:
        """The lattice for images of this size, made where it is not at hand."""
        key = (height, width, float(sxy))
        with self._lock:
            if key in self._lattices:
                self._lattices.move_to_end(key)
                return self._lattices[key]
        lattice = image_lattice(np.empty((height, width, 0), np.uint8), sxy, 1.0)
        with self._lock:
            self._lattices[key] = lattice
            while sum(kept.nbytes for kept in self._lattices.values()) > self._limit:
                self._lattices.popitem(last=False)
        return lattice
