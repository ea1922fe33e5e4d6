"""Pictures of CAMs while a training runs: photograph, classifier CAM and prototype CAM, with the classes in colour."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sfc.data.palette import mask_palette
from sfc.pictures.overlay import overlay, pale
from sfc.run.files import atomic_write

HEIGHT = 192
GAP = 6
CAPTION = 16


@dataclass(frozen=True)
class CamPicture:
    """What one row shows.

    Args:
        title: the image's id.
        image: uint8 [H, W, 3].
        keys: int64 [M], as `infer_cams` gives them.
        weight_cam: float32 [M, H, W].
        prototype_cam: float32 [M, H, W].
    """

    title: str
    image: np.ndarray
    keys: np.ndarray
    weight_cam: np.ndarray
    prototype_cam: np.ndarray


def draw_cams(path: Path, rows: Sequence[CamPicture], classes: Sequence[str]) -> None:
    """Writes a PNG: one row an image, with id and classes above; photograph, W and P below.

    Raises:
        SFCError: the file cannot be written.
    """
    from PIL import Image, ImageDraw

    colours = np.array(mask_palette()).reshape(-1, 3)
    strips = []
    for row in rows:
        ground = pale(row.image)
        masks = (row.keys[cam.argmax(axis=0)] for cam in (row.weight_cam, row.prototype_cam))
        panels = (row.image, *(overlay(ground, mask) for mask in masks))
        width = max(1, round(row.image.shape[1] * HEIGHT / row.image.shape[0]))
        strip = Image.new("RGB", (3 * width + 2 * GAP, HEIGHT + CAPTION), "white")
        draw = ImageDraw.Draw(strip)
        position = 2.0
        draw.text((position, 2), row.title, fill="black")
        position += draw.textlength(row.title) + 10
        for key in row.keys[1:]:
            draw.text((position, 2), classes[key - 1], fill=tuple(int(c) for c in colours[key]))
            position += draw.textlength(classes[key - 1]) + 8
        for column, panel in enumerate(panels):
            strip.paste(Image.fromarray(panel).resize((width, HEIGHT)), (column * (width + GAP), CAPTION))
        strips.append(strip)
    if not strips:
        return
    page = Image.new("RGB", (max(s.width for s in strips), sum(s.height + GAP for s in strips)), "white")
    top = 0
    for strip in strips:
        page.paste(strip, (0, top))
        top += strip.height + GAP
    content = io.BytesIO()
    page.save(content, "PNG")
    with atomic_write(path) as file:
        file.write(content.getvalue())
