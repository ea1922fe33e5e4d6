"""The built-in benchmark: a procedural long-tailed data set on which every stage can be judged in minutes.

Nine classes in three families of three. Members of a family share the texture of their body, as cars and buses share
wheels and windows; each class owns a small saturated part. The first member of each family is frequent, the last one
rare, so a classifier tends to learn bodies as evidence for the frequent member: the situation that shared feature
calibration is about.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from sfc.data.palette import write_mask_png
from sfc.data.synthetic.shapes import FAMILIES, MEMBERS, REFERENCE_SIZE, Shape, draw_background, draw_shape
from sfc.errors import SFCError

Split = Literal["train", "val"]

CLASSES = tuple(f"{family}-{member}" for member in MEMBERS for family in FAMILIES)
"""Names by rank, the most frequent first: rank = 3 * member + family."""

PARAMETERS_FILE = "synthetic.json"
"""Written last; a folder without it is not a finished set."""

_VERSION = 1
_IMBALANCE = 18.0
_MIN_VISIBLE = 40
_MAX_OVERLAP = 0.25
_TRIES = 12
_SPLIT_STREAM: dict[Split, int] = {"train": 0, "val": 1}


@dataclass(frozen=True)
class SyntheticImage:
    """One picture with its truth.

    Args:
        image: uint8 [size, size, 3], RGB.
        mask: uint8 [size, size]: 0 background, 1 + class.
        labels: the classes in the mask, ascending.
    """

    image: np.ndarray
    mask: np.ndarray
    labels: tuple[int, ...]


def class_quotas(head_images: int) -> list[int]:
    """Images by rank, head_images * 18 ** (-rank / 8): 480, 334, 233, 162, 113, 79, 55, 38, 27 for 480."""
    last = len(CLASSES) - 1
    return [max(1, round(head_images * _IMBALANCE ** (-rank / last))) for rank in range(len(CLASSES))]


def generate(
    seed: int, head_images: int = 480, size: int = REFERENCE_SIZE, split: Split = "train"
) -> Iterator[SyntheticImage]:
    """The pictures of one split, in a shuffled order; the same on every machine.

    Args:
        seed: not negative; `train` and `val` of one seed have nothing in common.
        head_images: quota of the most frequent class; the counts fall short of the quotas by the few objects that
            others hide.
        size: height and width in pixels.
        split: which stream of random numbers.

    Raises:
        SFCError: an argument is out of range.
    """
    if seed < 0 or head_images < 1 or size < 16:
        raise SFCError(
            f"synthetic set: needs seed >= 0, head images >= 1 and size >= 16, not {seed}, {head_images} and {size}"
        )
    stream = np.random.SeedSequence([seed, _SPLIT_STREAM[split]])
    plan_seed, picture_seed = stream.spawn(2)
    plan = _plan_labels(np.random.default_rng(plan_seed), class_quotas(head_images))
    for classes, child in zip(plan, picture_seed.spawn(len(plan)), strict=True):
        yield _draw_picture(np.random.default_rng(child), classes, size)


def write_synthetic(root: Path, seed: int, head_images: int = 480) -> None:
    """Writes the set as PNG files and tables that the table reader understands; a finished one is left alone.

    `root` gets train.csv (image, labels), train_with_masks.csv and val.csv (image, labels, mask), classes.txt with
    background first, and folders images and masks. The validation split is a third of the size. The folder appears
    complete or not at all; one with other parameters is replaced.

    Raises:
        SFCError: the folder cannot be written, or `root` holds something else.
    """
    parameters = {"version": _VERSION, "seed": seed, "head_images": head_images, "size": REFERENCE_SIZE}
    if _read_parameters(root) == parameters:
        return
    if root.exists() and not (root / PARAMETERS_FILE).is_file() and (not root.is_dir() or any(root.iterdir())):
        raise SFCError(f"{root}: is in the way of the synthetic set; name another folder")
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{root.name}.", suffix=".tmp", dir=root.parent))
        try:
            _write_files(temporary / "new", seed, head_images, parameters)
            if root.exists():
                os.rename(root, temporary / "old")
            os.rename(temporary / "new", root)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        # Another process may have finished the same set in between; its files are as good as ours.
        if _read_parameters(root) != parameters:
            raise SFCError(f"{root}: the synthetic set cannot be written ({error.strerror})") from error


def _write_files(folder: Path, seed: int, head_images: int, parameters: dict[str, Any]) -> None:
    folder.mkdir()
    train = _write_pictures(folder, "train", generate(seed, head_images))
    _write_table(folder / "train.csv", ("image", "labels"), (row[:2] for row in train))
    _write_table(folder / "train_with_masks.csv", ("image", "labels", "mask"), train)
    val = _write_pictures(folder, "val", generate(seed, max(1, head_images // 3), split="val"))
    _write_table(folder / "val.csv", ("image", "labels", "mask"), val)
    (folder / "classes.txt").write_text("\n".join(("background", *CLASSES)) + "\n")
    (folder / PARAMETERS_FILE).write_text(json.dumps(parameters, indent=1) + "\n")


def _write_pictures(folder: Path, split: str, pictures: Iterable[SyntheticImage]) -> list[tuple[str, str, str]]:
    """Rows of the table: image, labels, mask."""
    for kind in ("images", "masks"):
        (folder / kind / split).mkdir(parents=True)
    rows = []
    for number, picture in enumerate(pictures):
        image, mask = (f"{kind}/{split}/{number:05d}.png" for kind in ("images", "masks"))
        # Noise hardly compresses: the quickest level costs a few per cent of size.
        Image.fromarray(picture.image).save(folder / image, compress_level=1)
        write_mask_png(str(folder / mask), picture.mask)
        rows.append((image, ";".join(CLASSES[label] for label in picture.labels), mask))
    return rows


def _write_table(path: Path, header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _read_parameters(root: Path) -> Any:
    try:
        return json.loads((root / PARAMETERS_FILE).read_text())
    except (OSError, ValueError):
        return None


def _plan_labels(rng: np.random.Generator, quotas: list[int]) -> list[list[int]]:
    """Which classes each image shows: quotas are filled from the rarest class, companions drawn as they remain."""
    remaining = np.array(quotas)
    plan = []
    for first in reversed(range(len(quotas))):
        while remaining[first] > 0:
            classes = [first]
            remaining[first] -= 1
            if rng.random() < 0.6:
                _add_companion(rng, classes, remaining, prefer_head=bool(rng.random() < 0.5))
                if rng.random() < 0.25:
                    _add_companion(rng, classes, remaining, prefer_head=False)
            plan.append(classes)
    return [plan[index] for index in rng.permutation(len(plan))]


def _add_companion(rng: np.random.Generator, classes: list[int], remaining: np.ndarray, prefer_head: bool) -> None:
    """One more class for the image, if any has quota left: the family's head, or by remaining quota."""
    open_quota = remaining.astype(np.float64)
    open_quota[classes] = 0
    if not open_quota.any():
        return
    head = classes[0] % len(FAMILIES)
    if prefer_head and open_quota[head] > 0:
        chosen = head
    else:
        chosen = int(rng.choice(len(remaining), p=open_quota / open_quota.sum()))
    classes.append(chosen)
    remaining[chosen] -= 1


def _draw_picture(rng: np.random.Generator, classes: list[int], size: int) -> SyntheticImage:
    image = draw_background(rng, size)
    shapes: list[Shape] = []
    for rank in classes:
        shapes.append(_place(rng, rank, shapes, size))
    shapes = _without_hidden([shapes[index] for index in rng.permutation(len(shapes))], size)
    mask = np.zeros((size, size), dtype=np.uint8)
    for shape in shapes:
        image[shape.body] = shape.texture[shape.body]
        if shape.part is not None:
            image[shape.part] = shape.part_color
        mask[shape.area] = 1 + shape.rank
    image = image * rng.uniform(0.85, 1.1) + rng.normal(0, 0.05, image.shape)
    pixels = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    return SyntheticImage(pixels, mask, tuple(sorted(shape.rank for shape in shapes)))


def _place(rng: np.random.Generator, rank: int, others: list[Shape], size: int) -> Shape:
    """A place with at most a quarter of it, or of any other object, overlapping; the last try is taken anyway."""
    for _ in range(_TRIES):
        shape = draw_shape(rng, rank, size)
        area = shape.area
        if all((area & other.area).sum() <= _MAX_OVERLAP * min(area.sum(), other.area.sum()) for other in others):
            break
    return shape


def _without_hidden(shapes: list[Shape], size: int) -> list[Shape]:
    """Leaves out, in drawing order, the objects of which later ones leave too little to see."""
    least = _MIN_VISIBLE * (size / REFERENCE_SIZE) ** 2
    covered = np.zeros((size, size), dtype=bool)
    kept = []
    for shape in reversed(shapes):
        area = shape.area
        if (area & ~covered).sum() >= least:
            covered |= area
            kept.append(shape)
    return kept[::-1]
