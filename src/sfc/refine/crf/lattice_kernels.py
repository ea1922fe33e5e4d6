"""Building the permutohedral lattice, compiled: locating pixels, numbering vertices, finding rows of vertices.

The hash table is asked only where it must be: for the first vertex of a simplex that differs from the pixel's before,
and once for each vertex and axis. The other vertices of a simplex follow each other along the axes of the lattice, so
they are found through the table of next vertices, which blurring needs anyway.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from sfc.kernels.compiling import inlined, kernel

BLOCK = 128
"""Pixels that are located together, so that loops over them become vector instructions; a multiple of 4."""
FIRST_BITS = 12


class Vertices(NamedTuple):
    """A hash table of vertices; `shift` leaves the upper bits of a fingerprint, which are its slot."""

    slots: Any  # int32 [2^bits], vertex or -1
    shift: Any  # uint64
    fingerprints: Any  # uint64 [capacity], linear in the coordinates
    coordinates: Any  # int32 [capacity, d]
    following: Any  # int32 [capacity, d + 1], next vertex along each axis, -1 where none is known


@kernel
def _elevate(feature: Any, scale: Any) -> Any:
    """Features [d, n] in the plane of the lattice, [d + 1, n] (Adams et al., section 3.2)."""
    d, pixels = feature.shape
    elevated = np.zeros((d + 1, pixels), np.float32)
    for j in range(d, 0, -1):
        for p in range(pixels):
            scaled = feature[j - 1, p] * scale[j - 1]
            elevated[j, p] = elevated[0, p] - np.float32(j) * scaled
            elevated[0, p] += scaled
    return elevated


@kernel
def _enclose(elevated: Any) -> Any:
    """First vertex of the simplex around each point, float32 [d + 1, n], and the ranks of the residuals, int32."""
    d, pixels = elevated.shape[0] - 1, elevated.shape[1]
    inverse, period = np.float32(1) / np.float32(d + 1), np.float32(d + 1)
    nearest = np.empty((d + 1, pixels), np.float32)
    excess = np.zeros(pixels, np.float32)
    for i in range(d + 1):
        for p in range(pixels):
            multiple = np.rint(inverse * elevated[i, p])
            nearest[i, p] = multiple * period
            excess[p] += multiple
    rank = np.empty((d + 1, pixels), np.int32)
    for i in range(d + 1):
        for p in range(pixels):
            rank[i, p] = np.int32(excess[p])
    for i in range(d):
        for j in range(i + 1, d + 1):
            for p in range(pixels):
                below = np.int32(elevated[i, p] - nearest[i, p] < elevated[j, p] - nearest[j, p])
                rank[i, p] += below
                rank[j, p] += 1 - below
    # Rounding may have left the plane of the lattice; the ranks say which coordinates bring it back.
    for i in range(d + 1):
        for p in range(pixels):
            wrap = np.int32(rank[i, p] < 0) - np.int32(rank[i, p] > d)
            rank[i, p] += wrap * np.int32(d + 1)
            nearest[i, p] += np.float32(wrap) * period
    return nearest, rank


@kernel
def _locate(feature: Any, scale: Any, corner: Any, axis: Any, weight: Any) -> None:
    """The simplex of each pixel of a block.

    feature [d, n] to the coordinates [d + 1, n] of the simplex's first vertex, the axes [d + 1, n] along which the
    others follow, and the barycentric weights [d + 1, n].
    """
    d, pixels = feature.shape
    inverse = np.float32(1) / np.float32(d + 1)
    elevated = _elevate(feature, scale)
    nearest, rank = _enclose(elevated)
    residual = np.empty((d + 1, pixels), np.float32)
    for i in range(d + 1):
        for p in range(pixels):
            corner[i, p] = np.int32(nearest[i, p])
            place = d - rank[i, p]
            axis[place, p] = i
            residual[place, p] = (elevated[i, p] - nearest[i, p]) * inverse
    for p in range(pixels):
        weight[0, p] = residual[0, p] + (np.float32(1) - residual[d, p])
    for i in range(1, d + 1):
        for p in range(pixels):
            weight[i, p] = residual[i, p] - residual[i - 1, p]


@inlined
def _find(slots: Any, shift: Any, fingerprints: Any, coordinates: Any, fingerprint: Any, coordinate: Any) -> Any:
    """The slot of a vertex, or the empty slot where it belongs."""
    mask = slots.size - 1
    slot = np.int64(fingerprint >> shift)
    while True:
        vertex = slots[slot]
        if vertex < 0:
            return slot
        if fingerprints[vertex] == fingerprint:
            same = True
            for i in range(coordinate.size):
                same &= coordinates[vertex, i] == coordinate[i]
            if same:
                return slot
        slot = (slot + 1) & mask


@inlined
def _follow(coordinates: Any, vertex: Any, axis: Any, coordinate: Any) -> None:
    """Writes the coordinates of the next position along an axis."""
    for i in range(coordinate.size):
        coordinate[i] = coordinates[vertex, i] + 1
    if axis < coordinate.size:
        coordinate[axis] -= coordinate.size + 1


@kernel
def _empty_table(dimensions: Any, bits: Any) -> Any:
    """A table of 2^bits slots, for half as many vertices."""
    capacity = 1 << (bits - 1)
    return Vertices(
        np.full(1 << bits, -1, np.int32),
        np.uint64(64 - bits),
        np.empty(capacity, np.uint64),
        np.empty((capacity, dimensions), np.int32),
        np.full((capacity, dimensions + 1), -1, np.int32),
    )


@kernel
def _grow(table: Any, size: Any, bits: Any) -> Any:
    """A table of 2^bits slots with the first `size` vertices of another one."""
    grown = _empty_table(table.coordinates.shape[1], bits)
    grown.coordinates[:size] = table.coordinates[:size]
    grown.fingerprints[:size] = table.fingerprints[:size]
    grown.following[:size] = table.following[:size]
    for vertex in range(size):
        slot = np.int64(grown.fingerprints[vertex] >> grown.shift)
        while grown.slots[slot] >= 0:
            slot = (slot + 1) & (grown.slots.size - 1)
        grown.slots[slot] = vertex
    return grown


@kernel
def _number(table: Any, size: Any, corner: Any, axis: Any, unit: Any, along: Any, simplices: Any) -> Any:
    """Writes the vertices of located pixels to simplices [count, d + 1]; the number of vertices after that."""
    slots, shift, fingerprints, coordinates, following = table
    d = unit.size
    origin = np.empty(d, np.int32)
    coordinate = np.empty(d, np.int32)
    first = np.int64(-1)
    for p in range(simplices.shape[0]):
        moved = first < 0
        for i in range(d):
            moved |= origin[i] != corner[i, p]
        if moved:
            fingerprint = np.uint64(0)
            for i in range(d):
                origin[i] = corner[i, p]
                fingerprint += np.uint64(np.int64(corner[i, p])) * unit[i]
            slot = _find(slots, shift, fingerprints, coordinates, fingerprint, origin)
            first = np.int64(slots[slot])
            if first < 0:
                first = size
                slots[slot] = size
                fingerprints[size] = fingerprint
                coordinates[size] = origin
                size += 1
        simplices[p, 0] = first
        vertex = first
        for i in range(d):
            step = axis[i, p]
            after = np.int64(following[vertex, step])
            if after < 0:
                fingerprint = fingerprints[vertex] + along[step]
                _follow(coordinates, vertex, step, coordinate)
                slot = _find(slots, shift, fingerprints, coordinates, fingerprint, coordinate)
                after = np.int64(slots[slot])
                if after < 0:
                    after = size
                    slots[slot] = size
                    fingerprints[size] = fingerprint
                    coordinates[size] = coordinate
                    size += 1
                following[vertex, step] = after
            simplices[p, i + 1] = after
            vertex = after
    return size


@kernel
def build(
    image: Any, width: Any, first: Any, second: Any, rows_first: Any, tones: Any, scale: Any, unit: Any, along: Any
) -> Any:
    """Numbers the vertices of all pixels' simplices.

    image uint8 [pixels, channels]; `first` and `second` are the scaled positions (rows, then columns, if `rows_first`),
    `tones` the scaled colours, `unit` and `along` the steps of fingerprints. Returns vertices int32 [pixels, d + 1],
    weights float32 [pixels, d + 1], the table of vertices, and how many it has.
    """
    pixels, channels = image.shape
    d = scale.size
    # pydensecrf fills up the last four pixels with features of zero, and their vertices take part in the blur.
    located = pixels + (pixels % 4 > 0)
    simplices = np.empty((located, d + 1), np.int32)
    weights = np.empty((located, d + 1), np.float32)
    table = _empty_table(d, FIRST_BITS)
    bits = FIRST_BITS
    size = row = column = 0
    feature = np.empty((d, BLOCK), np.float32)
    corner = np.empty((d + 1, BLOCK), np.int32)
    axis = np.empty((d + 1, BLOCK), np.int32)
    weight = np.empty((d + 1, BLOCK), np.float32)
    for start in range(0, located, BLOCK):
        count = min(BLOCK, located - start)
        feature[:] = 0
        for p in range(min(count, pixels - start)):
            feature[0, p] = first[row] if rows_first else first[column]
            feature[1, p] = second[column] if rows_first else second[row]
            for channel in range(channels):
                feature[2 + channel, p] = tones[image[start + p, channel]]
            column += 1
            if column == width:
                row, column = row + 1, 0
        _locate(feature, scale, corner, axis, weight)
        for p in range(count):
            for i in range(d + 1):
                weights[start + p, i] = weight[i, p]
        while size + count * (d + 1) > table.fingerprints.size:
            bits += 1
            table = _grow(table, size, bits)
        size = _number(table, size, corner, axis, unit, along, simplices[start : start + count])
    return simplices[:pixels], weights[:pixels], table, size


@kernel
def chain(table: Any, size: Any, along: Any) -> Any:
    """Rows of vertices along each axis, as `Lattice.chains` and `Lattice.starts` have them."""
    slots, shift, fingerprints, coordinates, following = table
    d = coordinates.shape[1]
    chains = np.empty((d + 1) * size, np.int32)
    starts = np.zeros(d + 2, np.int64)
    coordinate = np.empty(d, np.int32)
    follows = np.empty(size, np.bool_)
    used = 0
    for axis in range(d + 1):
        for vertex in range(size):
            follows[vertex] = False
        for vertex in range(size):
            after = following[vertex, axis]
            if after < 0:
                _follow(coordinates, vertex, axis, coordinate)
                fingerprint = fingerprints[vertex] + along[axis]
                after = slots[_find(slots, shift, fingerprints, coordinates, fingerprint, coordinate)]
                following[vertex, axis] = after
            if after >= 0:
                follows[after] = True
        for vertex in range(size):
            if follows[vertex] or following[vertex, axis] < 0:
                continue
            current = np.int32(vertex)
            while following[current, axis] >= 0:
                chains[used] = current
                current = following[current, axis]
                used += 1
            chains[used] = ~current
            used += 1
        starts[axis + 1] = used
    return chains[:used], starts
