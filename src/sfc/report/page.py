"""The page of a run: tables and pictures from saved scores and stored CAMs, in one file that needs no other."""

from __future__ import annotations

import base64
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from sfc.data.groups import class_groups
from sfc.data.records import DataSet
from sfc.evaluate.headlines import headlines
from sfc.evaluate.scores import Scores, fused_name
from sfc.pictures.style import run_colour, save
from sfc.report.examples import Gallery, Source, choose_examples, load_example
from sfc.report.grid import examples_figure
from sfc.report.plots import class_order, classes_figure, thresholds_figure
from sfc.run.files import atomic_write
from sfc.signs.verdict import Verdict


@dataclass(frozen=True)
class Picture:
    """A PNG of the page.

    Attributes:
        path: the file, beside the page.
        caption: what it shows.
    """

    path: Path
    caption: str

    @property
    def data(self) -> str:
        """The file as a data URI, so that the page can be sent around alone."""
        return "data:image/png;base64," + base64.b64encode(self.path.read_bytes()).decode()


def write_report(
    folder: Path,
    title: str,
    scores: Sequence[Scores],
    galleries: Sequence[Gallery],
    counts: Sequence[int] | np.ndarray,
    verdicts: Mapping[str, Verdict] | None = None,
    pages: Mapping[str, Path] | None = None,
) -> Path:
    """Writes index.html, which contains its pictures, and the pictures as PNG files beside it.

    Args:
        folder: gets the page and masks_SPLIT.png, classes_SPLIT.png and thresholds_SPLIT.png.
        title: of the page.
        scores: of all methods and splits; none where the data set has no masks.
        galleries: images for the examples, a picture for each split. Shown is each method's map with the best score
            under the fixed rule, or W + λP without scores.
        counts: int [C], training images of each class; rare classes are shown first.
        verdicts: what the maps of a method say of themselves, by its name; of those that were looked at.
        pages: galleries of all masks, by what they show.

    Returns:
        The page.

    Raises:
        SFCError: the folder cannot be written.
        DataError: an image, a mask or a CAM file is missing or damaged.
    """
    groups = scores[0].class_groups if scores else class_groups(counts)
    splits = [[entry for entry in scores if entry.split == split] for split in dict.fromkeys(e.split for e in scores)]
    sections = [
        {
            "entries": entries,
            "facts": _facts(entries),
            "order": class_order(entries[0]),
            "groups": ["", *entries[0].class_groups],
            "classes": Picture(
                save(folder / f"classes_{entries[0].split}.png", classes_figure(entries)),
                "IoU by class under the fixed rule; training images in brackets.",
            ),
            "thresholds": Picture(
                save(folder / f"thresholds_{entries[0].split}.png", thresholds_figure(entries)),
                "mIoU at every background score. Dots: the fixed rule. Rings: the best, searched on this ground truth.",
            ),
        }
        for entries in splits
    ]
    pictures = [
        _examples_picture(
            folder / f"masks_{gallery.dataset.split}.png",
            gallery.dataset,
            counts,
            groups,
            _with_best_maps(gallery.sources, scores, gallery.dataset),
        )
        for gallery in galleries
    ]
    page = _render(
        title=title,
        headlines=headlines(scores),
        sections=sections,
        examples=[picture for picture in pictures if picture is not None],
        verdicts=verdicts or {},
        pages={what: Path(os.path.relpath(page, folder)).as_posix() for what, page in (pages or {}).items()},
        colours=[run_colour(i) for i in range(max(len(gallery.sources) for gallery in galleries))],
    )
    path = folder / "index.html"
    with atomic_write(path) as file:
        file.write(page.encode())
    return path


def _with_best_maps(sources: Sequence[Source], scores: Sequence[Scores], dataset: DataSet) -> list[Source]:
    best = {entry.run: entry.best().what for entry in scores if entry.split == dataset.split}
    return [replace(source, what=source.what or best.get(source.name, "")) for source in sources]


def _examples_picture(
    path: Path, dataset: DataSet, counts: Sequence[int] | np.ndarray, groups: Sequence[str], sources: Sequence[Source]
) -> Picture | None:
    chosen = choose_examples(dataset, counts, groups, [source.folder for source in sources])
    if not chosen:
        return None
    examples = [load_example(record, shown, sources) for record, shown in chosen]
    fused = [fused_name(source.fusion_lambda) for source in sources]
    maps = [source.what or sum_ for source, sum_ in zip(sources, fused, strict=True)]
    runs = [
        f"{source.name} · {f'{source.method}, ' if source.masks else ''}{what}"
        for source, what in zip(sources, maps, strict=True)
    ]
    save(path, examples_figure(examples, dataset.classes, runs))
    images = ", ".join(example.id for example in examples)
    methods = dict.fromkeys(source.method for source in sources if source.masks)
    shown = f"Masks ({', '.join(methods)})" if methods else "Masks under the fixed rule"
    caption = (
        f"{shown}, and the heat map of one class of each image (named below it), by each run's best map. "
        f"{dataset.name}, {dataset.split}, images chosen by their tags, mostly for rare classes: {images}."
    )
    return Picture(path, caption)


def _facts(entries: Sequence[Scores]) -> list[tuple[str, str]]:
    """What has to be known about the numbers: once where the runs agree, a line a run where they differ."""
    facts = []
    for name in dict.fromkeys(key for entry in entries for key in entry.provenance):
        said = {entry.run: entry.provenance.get(name, "not recorded") for entry in entries}
        if len(set(said.values())) == 1:
            facts.append((name, next(iter(said.values()))))
        else:
            facts += [(f"{name}, {run}", words) for run, words in said.items()]
    for entry in entries:
        if entry.missing:
            facts.append((f"not scored, {entry.run}", f"{len(entry.missing):,} images without CAMs"))
    return facts


def _number(value: float | None, digits: int = 1) -> str:
    """A number for a table; a dash where there is none."""
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def _render(**context: Any) -> str:
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = _number
    template = resources.files("sfc.report").joinpath("page.html").read_text(encoding="utf-8")
    return environment.from_string(template).render(**context)
