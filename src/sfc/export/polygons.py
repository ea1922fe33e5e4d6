"""Outlines of regions along the edges of their pixels, exact: filled, they are the region again."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_EAST, _SOUTH, _WEST, _NORTH = range(4)
_STEP = np.array([(0, 1), (1, 0), (0, -1), (-1, 0)])
"""y and x of a step along an edge in each direction."""

Points = NDArray[np.int64]


def region_polygons(inside: np.ndarray) -> list[Points]:
    """One closed polygon for each connected region, ordered by its first pixel row by row.

    Pixels that touch at a corner are connected. A hole is joined to the outline by a bridge: a horizontal line inside
    the region, or a mere corner, that is walked to the hole and back. The outline runs clockwise on the screen and its
    holes against it, so filling by the even-odd and by the non-zero rule both give the region, and the shoelace formula
    its area. Points are only where the polygon turns.

    Args:
        inside: bool [H, W].

    Returns:
        int64 [points, 2] each: x and y of pixel corners; 0, 0 is the top left corner of the image. The last point is
        not the first one again.
    """
    solid = np.pad(inside, 1)
    edges = _Edges(solid)
    following = edges.successors()
    outlines, holes = _rings(edges, following)
    xs, ys = edges.x.tolist(), edges.y.tolist()
    for hole in holes:
        _join(solid, edges, hole, following, xs, ys)
    return [_corners(_walk(start, following), xs, ys) for start in outlines]


def polygon_area(points: Points) -> int:
    """Pixels inside a polygon of `region_polygons`."""
    (x, y), (next_x, next_y) = points.T, np.roll(points, -1, axis=0).T
    return int((x * next_y - next_x * y).sum()) // 2


def simplified(points: Points, tolerance: float) -> Points:
    """A closed polygon with fewer points, none of whose left-out points lies farther from it than `tolerance`.

    Douglas and Peucker (1973), from the first point and the one that is farthest from it.

    Args:
        points: int64 [points, 2], closed as those of `region_polygons`.
        tolerance: in pixels.

    Returns:
        Some of the points in their order, at least three of them where there are three.
    """
    if len(points) <= 4:
        return points
    far = int(((points - points[0]) ** 2).sum(axis=1).argmax())
    ring = np.concatenate([points, points[:1]])
    kept = np.zeros(len(ring), bool)
    kept[[0, far, -1]] = True
    pending = [(0, far), (far, len(ring) - 1)]
    while pending:
        first, last = pending.pop()
        if last - first < 2:
            continue
        distance = _distance(ring[first + 1 : last], ring[first], ring[last])
        worst = int(distance.argmax())
        if distance[worst] > tolerance:
            middle = first + 1 + worst
            kept[middle] = True
            pending += [(first, middle), (middle, last)]
    found: Points = points[kept[:-1]]
    return found if len(found) >= 3 else points


def _distance(points: Points, start: Points, end: Points) -> NDArray[np.float64]:
    """Of points from the way between two others."""
    along = (end - start).astype(np.float64)
    offset = (points - start).astype(np.float64)
    part = (offset @ along / max(float(along @ along), 1.0)).clip(0, 1)
    return np.hypot(*(offset - part[:, None] * along).T)


class _Edges:
    """Every pixel edge between a region and the rest, a step long, with the region to its right.

    Corner (y, x) is the top left one of pixel (y, x), which is pixel (y + 1, x + 1) of `solid`.
    """

    def __init__(self, solid: np.ndarray) -> None:
        above_left, above_right = solid[:-1, :-1], solid[:-1, 1:]
        below_left, below_right = solid[1:, :-1], solid[1:, 1:]
        self.leaves = np.empty((4, *above_left.shape), dtype=bool)
        """Whether an edge starts at a corner in a direction."""
        self.leaves[_EAST] = below_right & ~above_right
        self.leaves[_SOUTH] = below_left & ~below_right
        self.leaves[_WEST] = above_left & ~below_left
        self.leaves[_NORTH] = above_right & ~above_left
        self._places = np.flatnonzero(self.leaves)
        self.direction, self.y, self.x = np.unravel_index(self._places, self.leaves.shape)

    def number(self, direction: np.ndarray | int, y: np.ndarray | int, x: np.ndarray | int) -> np.ndarray:
        """Which edge it is that starts at a corner."""
        _, height, width = self.leaves.shape
        return np.searchsorted(self._places, (np.asarray(direction) * height + y) * width + x)

    def successors(self) -> list[int]:
        """The edge to go on with after each; where two pixels touch at a corner, the one that keeps them together."""
        y, x = self.y + _STEP[self.direction, 0], self.x + _STEP[self.direction, 1]
        left, right = (self.direction + 3) % 4, (self.direction + 1) % 4
        straight_or_right = np.where(self.leaves[self.direction, y, x], self.direction, right)
        turned = np.where(self.leaves[left, y, x], left, straight_or_right)
        following: list[int] = self.number(turned, y, x).tolist()
        return following


def _rings(edges: _Edges, following: list[int]) -> tuple[list[int], list[int]]:
    """The first edge of each outline and of each hole, row by row: east of an outline's first corner, or south."""
    seen = bytearray(len(following))
    outlines: list[int] = []
    holes: list[int] = []
    for start in np.lexsort((edges.x, edges.y)).tolist():
        if seen[start]:
            continue
        (outlines if edges.direction[start] == _EAST else holes).append(start)
        for edge in _walk(start, following):
            seen[edge] = 1
    return outlines, holes


def _join(solid: np.ndarray, edges: _Edges, hole: int, following: list[int], xs: list[int], ys: list[int]) -> None:
    """Leads the ring to the left of a hole into it and back.

    From the first corner of a hole, to the left, lies the region above and below, until another ring is met: one whose
    first corner comes earlier, so that no two rings are joined twice.
    """
    y, x = ys[hole], xs[hole]
    met = int(np.flatnonzero(~(solid[y, : x + 1] & solid[y + 1, : x + 1]))[-1])
    ring = int(edges.number(_WEST if solid[y, met] else _NORTH, y, met))
    if met == x:
        following[ring], following[hole] = following[hole], following[ring]
        return
    back, entry = len(following), len(following) + 1
    following += [following[ring], following[hole]]
    following[ring], following[hole] = entry, back
    xs += [met, x]
    ys += [y, y]


def _walk(start: int, following: list[int]) -> list[int]:
    """Round a ring, once."""
    ring, edge = [start], following[start]
    while edge != start:
        ring.append(edge)
        edge = following[edge]
    return ring


def _corners(ring: list[int], xs: list[int], ys: list[int]) -> Points:
    """Points of a ring at which it turns."""
    points = np.array([(xs[edge], ys[edge]) for edge in ring], dtype=np.int64)
    heading = np.sign(np.roll(points, -1, axis=0) - points)
    return points[(heading != np.roll(heading, 1, axis=0)).any(axis=1)]
