"""The page of a run: tables and pictures from saved scores and stored CAMs; nothing is computed anew but overlays."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sfc.data.images import read_image
from sfc.data.palette import mask_palette
from sfc.data.records import IGNORE, DataSet, Record
from sfc.evaluate import Scores
from sfc.localize.store import cam_path, load_cams
from sfc.run_folder import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXAMPLES = 6
FADE = 0.55
"""Share of the class colour over the photograph."""


@dataclass(frozen=True)
class Source:
    """Where the CAMs of one variant lie, and what to call it."""

    name: str
    folder: Path
    fusion_lambda: float


def examples(dataset: DataSet, counts: np.ndarray, folders: Sequence[Path]) -> list[Record]:
    """A few images with masks and CAMs of all variants, one for each of the rarest classes; always the same ones."""
    chosen: dict[str, Record] = {}
    order = [index for index in np.argsort(counts, kind="stable") if counts[index] > 0]
    for index in order:
        for record in dataset.with_masks().records:
            stored = all(cam_path(folder, record.id).exists() for folder in folders)
            if index in record.labels and record.id not in chosen and stored:
                chosen[record.id] = record
                break
        if len(chosen) == EXAMPLES:
            break
    return list(chosen.values())


def write_report(
    folder: Path, title: str, scores: Sequence[Scores], dataset: DataSet, counts: np.ndarray, sources: Sequence[Source]
) -> Path:
    """Writes index.html and its pictures.

    Args:
        folder: gets the page and PNG files.
        title: of the page.
        scores: of all variants and splits.
        dataset: images with masks for the examples.
        counts: int [C], training images of each class; rare classes are shown first.
        sources: the stores of the same split as `dataset`, one a variant.

    Returns:
        The page.

    Raises:
        SFCError: the folder cannot be written.
        DataError: an image or a CAM file is damaged.
    """
    import jinja2
    import matplotlib as mpl

    mpl.use("Agg")
    records = examples(dataset, counts, [source.folder for source in sources])
    pictures = []
    if records:
        pictures.append(_save(folder / "masks.png", _masks_figure(records, dataset.classes, sources)))
    for split in dict.fromkeys(entry.split for entry in scores):
        entries = [entry for entry in scores if entry.split == split]
        pictures.append(_save(folder / f"classes_{split}.png", _classes_figure(entries)))
        pictures.append(_save(folder / f"thresholds_{split}.png", _curve_figure(entries)))
    template = resources.files("sfc").joinpath("report.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    page = environment.from_string(template).render(title=title, scores=scores, pictures=pictures)
    path = folder / "index.html"
    with atomic_write(path) as file:
        file.write(page.encode())
    return path


def _save(path: Path, figure: Figure) -> str:
    import matplotlib.pyplot as plt

    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    plt.close(figure)
    with atomic_write(path) as file:
        file.write(content.getvalue())
    return escape(path.name)


def _tinted(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The photograph in grey where nothing is predicted, in the class's colour elsewhere; ignored pixels white."""
    grey = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2)
    tinted = (1 - FADE) * grey + FADE * mask_palette()[mask].astype(np.float64)
    shown = np.where(((mask > 0) & (mask != IGNORE))[..., None], tinted, 0.5 * grey + 110)
    return np.where((mask == IGNORE)[..., None], 255, shown).astype(np.uint8)


def _masks_figure(records: Sequence[Record], classes: Sequence[str], sources: Sequence[Source]) -> Figure:
    import matplotlib.pyplot as plt
    from matplotlib.patches import Patch

    columns = ["photograph", "truth", *(source.name for source in sources)]
    figure, axes = plt.subplots(
        len(records),
        len(columns),
        figsize=(2.2 * len(columns), 2.35 * len(records)),
        squeeze=False,
        layout="constrained",
    )
    for row, record in zip(axes, records, strict=True):
        image = read_image(record.image)
        assert record.mask is not None
        panels = [image, _tinted(image, record.mask.load())]
        for source in sources:
            keys, weight, prototype = load_cams(cam_path(source.folder, record.id))
            panels.append(_tinted(image, keys[(weight + source.fusion_lambda * prototype).argmax(axis=0)]))
        for axis, panel in zip(row, panels, strict=True):
            axis.imshow(panel)
            axis.set_xticks([])
            axis.set_yticks([])
            axis.spines[:].set_visible(False)
        patches = [Patch(color=mask_palette()[label + 1] / 255, label=classes[label]) for label in record.labels]
        row[0].legend(
            handles=patches, loc="upper center", bbox_to_anchor=(0.5, 0.0), frameon=False, fontsize=7, ncols=2
        )
    for axis, name in zip(axes[0], columns, strict=True):
        axis.set_title(name, fontsize=11)
    return figure


def _classes_figure(entries: Sequence[Scores]) -> Figure:
    import matplotlib.pyplot as plt

    classes = entries[0].classes
    figure, axis = plt.subplots(figsize=(max(6.0, 0.55 * len(classes)), 3.6), layout="constrained")
    width = 0.8 / len(entries)
    for index, entry in enumerate(entries):
        values = [0.0 if value is None else value for value in entry.best().iou]
        position = np.arange(len(classes)) + (index - (len(entries) - 1) / 2) * width
        axis.bar(position, values, width, label=f"{entry.run}, {entry.best().what}: {entry.best().fixed:.1f}")
    groups = ["", *entries[0].class_groups]
    labels = [f"{name}\n{group}" for name, group in zip(classes, groups, strict=True)]
    axis.set_xticks(range(len(classes)), labels, rotation=40, ha="right", fontsize=8)
    axis.set_ylabel("IoU in percent, fixed rule")
    axis.set_title(f"{entries[0].dataset}, {entries[0].split}: IoU by class, head to tail as grouped", fontsize=11)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    return figure


def _curve_figure(entries: Sequence[Scores]) -> Figure:
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 3.6), layout="constrained")
    for index, entry in enumerate(entries):
        for score, style in zip(entry.scores, ("-", "--", ":"), strict=True):
            scale = score.background_score / entry.scores[0].background_score
            position = np.asarray(score.curve["background_score"]) / scale
            axis.plot(position, score.curve["miou"], style, color=f"C{index}", label=f"{entry.run} {score.what}")
    axis.axvline(entries[0].scores[0].background_score, color="0.6", linewidth=1)
    axis.text(entries[0].scores[0].background_score, 1, " fixed rule", color="0.4", fontsize=8)
    axis.set_xlabel("background score (per map)")
    axis.set_ylabel("mIoU in percent")
    axis.set_title(f"{entries[0].dataset}, {entries[0].split}: every background threshold", fontsize=11)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=8, ncols=len(entries))
    return figure
