"""How one picture of the synthetic set is drawn: backgrounds, bodies with a family's texture, distinctive parts.

Lengths are in pixels of a 96 by 96 picture and scale with the size. Arithmetic is float64 throughout, so that two
machines that differ in the last bit of a cosine still round to the same bytes.
"""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass

import numpy as np

FAMILIES = ("striped", "checked", "dotted")
MEMBERS = ("disc", "triangle", "cross")
REFERENCE_SIZE = 96

_FAMILY_HUE = (0.08, 0.33, 0.62)
_PART_HUE = (0.0, 0.5, 0.83, 0.56, 0.92, 0.14, 0.75, 0.2, 0.42)
_PART_MISSING = 0.3
_DECOY = 0.15


@dataclass(frozen=True)
class Shape:
    """One object before it is drawn.

    Args:
        rank: its class, 0 the most frequent; family rank % 3, member rank // 3.
        body: bool [size, size].
        part: bool [size, size], outside or inside the body; None when it is missing.
        texture: float64 [size, size, 3], 0 to 1; the family's texture over the whole picture.
        part_color: RGB, 0 to 1.
    """

    rank: int
    body: np.ndarray
    part: np.ndarray | None
    texture: np.ndarray
    part_color: np.ndarray

    @property
    def area(self) -> np.ndarray:
        """bool [size, size]: body and part."""
        return self.body if self.part is None else self.body | self.part


def draw_background(rng: np.random.Generator, size: int) -> np.ndarray:
    """float64 [size, size, 3]: two octaves of smooth noise, up to five dull shapes, sometimes a textured square.

    The square carries a family's texture without a label: texture alone does not make an object.
    """
    image = rng.uniform(0.35, 0.65) + rng.uniform(-0.1, 0.1, 3)
    image = image + 0.18 * _smooth_noise(rng, 4, size) + 0.1 * _smooth_noise(rng, 24, size)
    for _ in range(rng.integers(0, 6)):
        image[_dull_shape(rng, size)] = _color(rng, rng.random(), (0.0, 0.25), (0.2, 0.8))
    if rng.random() < _DECOY:
        x, y = _rotated_grid(rng, size)
        half = rng.uniform(5, 9) * size / REFERENCE_SIZE
        square = np.maximum(np.abs(x), np.abs(y)) <= half
        image[square] = _family_texture(rng, int(rng.integers(len(FAMILIES))), size)[square]
    return image


def draw_shape(rng: np.random.Generator, rank: int, size: int) -> Shape:
    """An object of a class at a random place: superellipse body, textured by family; part at its long end by member."""
    scale = size / REFERENCE_SIZE
    member, family = divmod(rank, len(FAMILIES))
    long = rng.uniform(17, 28) * scale
    short = long * rng.uniform(0.6, 0.9)
    x, y = _rotated_grid(rng, size)
    body = _power_2_5(x / long) + _power_2_5(y / short) <= 1
    radius = max(4.5 * scale, 0.55 * short)
    part: np.ndarray | None = _part(member, x - 0.85 * long, y, radius)
    is_head = member == 0
    if is_head and rng.random() < _PART_MISSING:
        part = None
    hue = _PART_HUE[rank] + rng.uniform(-0.03, 0.03)
    color = _color(rng, hue, (0.85, 1.0), (0.8, 1.0))
    return Shape(rank, body, part, _family_texture(rng, family, size), color)


def _part(member: int, x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    """bool: disc, triangle or cross around the origin, all of about the same reach."""
    if member == 0:
        return x * x + y * y <= radius * radius
    if member == 1:
        edges = [x * math.cos(a) + y * math.sin(a) for a in (0.0, 2 * math.pi / 3, 4 * math.pi / 3)]
        return np.maximum.reduce(edges) <= 0.62 * radius
    arm = 0.36 * radius
    reach = 1.1 * radius
    return ((np.abs(x) <= reach) & (np.abs(y) <= arm)) | ((np.abs(y) <= reach) & (np.abs(x) <= arm))


def _family_texture(rng: np.random.Generator, family: int, size: int) -> np.ndarray:
    """float64 [size, size, 3]: stripes, checks or dots of two tones of about the family's hue, any direction."""
    hue = _FAMILY_HUE[family] + rng.uniform(-0.08, 0.08)
    dark = _color(rng, hue, (0.3, 0.6), (0.2, 0.4))
    light = _color(rng, hue, (0.2, 0.5), (0.75, 0.95))
    period = rng.uniform(7, 10) * size / REFERENCE_SIZE
    x, y = _rotated_grid(rng, size)
    u, v = x / period, y / period
    u, v = u - np.floor(u), v - np.floor(v)
    if family == 0:
        tone = u < 0.5
    elif family == 1:
        tone = (u < 0.5) != (v < 0.5)
    else:
        tone = (u - 0.5) ** 2 + (v - 0.5) ** 2 < 0.34**2
    return np.where(tone[..., None], dark, light)


def _dull_shape(rng: np.random.Generator, size: int) -> np.ndarray:
    """bool [size, size]: a rectangle, an ellipse, or a line right through the picture."""
    x, y = _rotated_grid(rng, size)
    long, short, width = rng.uniform((4, 4, 0.6), (16, 12, 1.6)) * size / REFERENCE_SIZE
    kind = rng.integers(3)
    if kind == 0:
        return (np.abs(x) <= long) & (np.abs(y) <= short)
    if kind == 1:
        return (x / long) ** 2 + (y / short) ** 2 <= 1
    return np.abs(y) <= width


def _rotated_grid(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixel centres in a frame with a random origin in the middle .7 of the picture and a random direction."""
    center_x, center_y = rng.uniform(0.15, 0.85, 2) * size
    angle = rng.uniform(0, 2 * math.pi)
    axis = np.arange(size) + 0.5
    dx, dy = axis[None, :] - center_x, axis[:, None] - center_y
    cos, sin = math.cos(angle), math.sin(angle)
    return dx * cos + dy * sin, dy * cos - dx * sin


def _smooth_noise(rng: np.random.Generator, cells: int, size: int) -> np.ndarray:
    """float64 [size, size, 3] in -1 to 1: random values on a coarse grid, bilinear in between."""
    grid = rng.uniform(-1, 1, (cells + 1, cells + 1, 3))
    position = (np.arange(size) + 0.5) * cells / size
    index = position.astype(np.int64)
    weight = (position - index)[:, None, None]
    rows = grid[index] * (1 - weight) + grid[index + 1] * weight
    weight = weight.reshape(1, size, 1)
    return rows[:, index] * (1 - weight) + rows[:, index + 1] * weight


def _power_2_5(value: np.ndarray) -> np.ndarray:
    """|value| ** 2.5 from correctly rounded operations only."""
    value = np.abs(value)
    return value * value * np.sqrt(value)


def _color(
    rng: np.random.Generator, hue: float, saturation: tuple[float, float], value: tuple[float, float]
) -> np.ndarray:
    return np.array(colorsys.hsv_to_rgb(hue % 1.0, rng.uniform(*saturation), rng.uniform(*value)))
