"""The page of a study: its tables and a picture of every seed."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2

from sfc.pictures.style import FAINT, INK, run_colour, save, styled
from sfc.run.files import atomic_write
from sfc.study.statistics import Row
from sfc.study.tables import cells

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURE = "seeds.png"


def write_page(folder: Path, title: str, facts: Mapping[str, str], rows: Sequence[Row], methods: Sequence[str]) -> Path:
    """Writes index.html, which contains its picture, and the picture as a file beside it.

    Args:
        folder: gets both.
        title: of the page.
        facts: what has to be known about the numbers.
        rows: of all methods.
        methods: in order, the baseline first.

    Returns:
        The page.
    """
    picture = save(folder / PICTURE, seeds_figure(rows, methods))
    sections = []
    for stage, split in dict.fromkeys((row.stage, row.split) for row in rows):
        chosen = [row for row in rows if (row.stage, row.split) == (stage, split)]
        lines = [cells(row, number == 0 or chosen[number - 1].what != row.what) for number, row in enumerate(chosen)]
        sections.append({"title": f"{stage}, {split}", "lines": lines})
    template = resources.files("sfc.study").joinpath("page.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    page = environment.from_string(template).render(
        title=title,
        facts=facts,
        sections=sections,
        baseline=methods[0],
        picture="data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode(),
    )
    path = folder / "index.html"
    with atomic_write(path) as file:
        file.write(page.encode())
    return path


def seeds_figure(rows: Sequence[Row], methods: Sequence[str]) -> Figure:
    """mIoU of every seed as a dot, a line a row and a colour a method; the mean as a tick."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys((row.stage, row.split, row.what) for row in rows))
    with styled():
        figure = Figure(figsize=(8, 0.9 + 0.42 * len(names)), layout="constrained")
        axes = figure.add_subplot()
        for number, method in enumerate(methods):
            shift = 0.16 * (number - (len(methods) - 1) / 2)
            own = [row for row in rows if row.method == method]
            heights = {names.index((row.stage, row.split, row.what)) + shift: row for row in own}
            for height, row in heights.items():
                values = list(row.miou.values.values())
                axes.plot(values, [height] * len(values), "o", color=run_colour(number), markersize=4, alpha=0.75)
                axes.plot([row.miou.mean], [height], "|", color=run_colour(number), markersize=11)
            axes.plot([], [], "o", color=run_colour(number), label=method)
        axes.set_yticks(range(len(names)), [f"{what}  ·  {stage}, {split}" for stage, split, what in names], color=INK)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlabel("mIoU, percent", color=FAINT)
        axes.grid(axis="x", alpha=0.25)
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1))
    return figure
