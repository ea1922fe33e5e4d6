"""A page with all masks of a list of photographs as overlays, to look through, sort, filter and mark."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image

from sfc.data.images import mask_doubt, read_image, read_mask
from sfc.data.palette import mask_palette
from sfc.data.pixels import resize_labels
from sfc.data.records import IGNORE, artifact_path
from sfc.errors import DataError
from sfc.pictures.overlay import overlay
from sfc.run.files import atomic_write

LONG_SIDE = 320
"""Of the pictures on the page, in pixels."""
QUALITY = 80
THREADS = 4
PAGE = "index.html"


@dataclass(frozen=True)
class Entry:
    """One photograph of a gallery.

    Args:
        id: names its picture, and what a mark is saved under.
        image: the photograph; it may be gone.
        mask: its mask, a palette PNG.
        tags: classes that it is said to show; None where nobody said.
    """

    id: str
    image: Path
    mask: Path
    tags: tuple[str, ...] | None


def write_gallery(
    folder: Path,
    title: str,
    entries: Sequence[Entry],
    classes: Sequence[str],
    done: Callable[[], None] = lambda: None,
) -> Path:
    """Writes the page and, for each photograph whose picture is not there or older than its mask, a small picture.

    Args:
        folder: gets index.html and overlays/ID.jpg.
        title: of the page.
        entries: the photographs.
        classes: names of the foreground classes; mask value k + 1 is class k.
        done: called after each photograph, from several threads.

    Returns:
        The page.

    Raises:
        DataError: a mask is missing or damaged.
        SFCError: a file cannot be written.
    """

    def item(entry: Entry) -> dict[str, Any]:
        found = _item(folder, entry, classes)
        done()
        return found

    with ThreadPoolExecutor(THREADS) as pool:
        items = list(pool.map(item, entries))
    colours = [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in mask_palette()[1 : len(classes) + 1].tolist()]
    content = {"title": title, "classes": list(classes), "colours": colours, "items": items}
    template = resources.files("sfc.gallery").joinpath("page.html").read_text(encoding="utf-8")
    # Inside a script element nothing but its end may look like a tag.
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    page = folder / PAGE
    with atomic_write(page) as file:
        file.write(template.replace("CONTENT", text, 1).encode())
    return page


def _item(folder: Path, entry: Entry, classes: Sequence[str]) -> dict[str, Any]:
    """What the page knows of a photograph; its picture is drawn where it has to be."""
    mask = read_mask(entry.mask, len(classes))
    counts = np.bincount(mask.ravel(), minlength=IGNORE + 1) / mask.size
    picture = artifact_path(folder / "overlays", entry.id, ".jpg")
    if not picture.exists() or picture.stat().st_mtime_ns < entry.mask.stat().st_mtime_ns:
        _draw(picture, entry.image, mask)
    return {
        "id": entry.id,
        "image": _address(entry.image, folder) if entry.image.exists() else "",
        "mask": _address(entry.mask, folder),
        "picture": _address(picture, folder) if picture.exists() else "",
        "size": [mask.shape[1], mask.shape[0]],
        "shares": {str(k): round(float(counts[k + 1]), 4) for k in range(len(classes)) if counts[k + 1]},
        "open": round(float(counts[IGNORE]), 4),
        "tags": None if entry.tags is None else [classes.index(tag) for tag in entry.tags],
        "doubt": mask_doubt(entry.mask),
    }


def _draw(picture: Path, image: Path, mask: np.ndarray) -> None:
    """The small picture; none where the photograph cannot be read, and an old one goes."""
    try:
        small = read_image(image, LONG_SIDE)
    except DataError:
        picture.unlink(missing_ok=True)
        return
    labels = resize_labels(mask, (small.shape[0], small.shape[1]))
    with atomic_write(picture) as file:
        Image.fromarray(overlay(small, labels)).save(file, format="JPEG", quality=QUALITY)


def _address(path: Path, folder: Path) -> str:
    """A file as a page in `folder` names it: relative, or whole where there is no way, as between drives."""
    try:
        return quote(Path(os.path.relpath(path, folder)).as_posix())
    except ValueError:
        return path.absolute().as_uri()
