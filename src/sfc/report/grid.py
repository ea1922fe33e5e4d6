"""The picture of examples: photographs beside the truth and what each run makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sfc.pictures.overlay import overlay, pale
from sfc.pictures.style import FAINT, INK, class_colours, run_colour, shorten, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Panel:
    """What one run makes of one image.

    Args:
        mask: integers [H, W], 0 background, 1 + class index.
        heat: float [H, W] in [0, 1], the map of the example's class; None if the run found no such class.
    """

    mask: np.ndarray
    heat: np.ndarray | None


@dataclass(frozen=True)
class Example:
    """One row of the picture.

    Args:
        id: of the image.
        image: uint8 [H, W, 3].
        truth: uint8 [H, W]; None without a mask.
        labels: indices of the classes that the image shows.
        shown: index of the class whose heat maps are drawn.
        panels: one a run.
    """

    id: str
    image: np.ndarray
    truth: np.ndarray | None
    labels: Sequence[int]
    shown: int
    panels: Sequence[Panel]


def examples_figure(examples: Sequence[Example], classes: Sequence[str], runs: Sequence[str]) -> Figure:
    """A row an image: photograph, truth (if any image has one), and for each run its mask and a heat map.

    Args:
        examples: at least one.
        classes: names of the foreground classes.
        runs: what stands above each run's two columns.
    """
    with styled():
        return _Grid(examples, classes, runs).draw()


class _Grid:
    """Places the panels; all lengths in inches, from the top left."""

    CELL, GAP, PAIR_GAP, MARGIN = 1.75, 0.06, 0.2, 0.1
    HEAD, LINE, ROW_GAP = 0.62, 0.17, 0.1
    CLASSES_A_LINE = 4

    def __init__(self, examples: Sequence[Example], classes: Sequence[str], runs: Sequence[str]) -> None:
        from matplotlib.figure import Figure

        self.examples, self.classes, self.runs = examples, classes, runs
        self.colours = class_colours(len(classes))
        self.has_truth = any(example.truth is not None for example in examples)
        self.lefts = [self.MARGIN]
        if self.has_truth:
            self.lefts.append(self.lefts[-1] + self.CELL + self.GAP)
        for _ in runs:
            first = self.lefts[-1] + self.CELL + self.PAIR_GAP
            self.lefts += [first, first + self.CELL + self.GAP]
        self.width = self.lefts[-1] + self.CELL + self.MARGIN
        # Tall photographs are squeezed no further than this; the aspect ratio is kept, the panel made narrower.
        self.heights = [self.CELL * min(1.5, e.image.shape[0] / e.image.shape[1]) for e in examples]
        self.strips = [self._strip(example) for example in examples]
        self.height = self.HEAD + sum(self.heights) + sum(self.strips)
        self.figure = Figure(figsize=(self.width, self.height))

    def _strip(self, example: Example) -> float:
        lines = -(-len(example.labels) // self.CLASSES_A_LINE)
        return 0.06 + self.LINE * max(1, lines) + self.ROW_GAP

    def draw(self) -> Figure:
        self._draw_head()
        top = self.HEAD
        for example, height, strip in zip(self.examples, self.heights, self.strips, strict=True):
            self._draw_row(example, top, height)
            top += height + strip
        return self.figure

    def _draw_head(self) -> None:
        from matplotlib.lines import Line2D

        words = ["photograph", "truth"] if self.has_truth else ["photograph"]
        words += ["mask", "heat map"] * len(self.runs)
        for left, word in zip(self.lefts, words, strict=True):
            self._text(left, self.HEAD - 0.08, word, color=FAINT, fontsize=8)
        for index, run in enumerate(self.runs):
            left = self.lefts[len(self.lefts) - 2 * len(self.runs) + 2 * index]
            self._text(left, self.HEAD - 0.34, shorten(run, 40), weight="bold", fontsize=10)
            ends = [left / self.width, (left + 2 * self.CELL + self.GAP) / self.width]
            y = 1 - (self.HEAD - 0.27) / self.height
            self.figure.add_artist(Line2D(ends, [y, y], color=run_colour(index), linewidth=1.8))

    def _draw_row(self, example: Example, top: float, height: float) -> None:
        grey = pale(example.image)
        axes = [self._axes(column, top, height) for column in range(len(self.lefts))]
        self._show(axes[0], example.image)
        if example.truth is not None:
            self._show_mask(axes[1], grey, example.truth)
        first = len(axes) - 2 * len(self.runs)
        for index, panel in enumerate(example.panels):
            mask_axes, heat_axes = axes[first + 2 * index : first + 2 * index + 2]
            self._show_mask(mask_axes, grey, panel.mask)
            self._show_heat(heat_axes, grey, panel.heat)
            words = shorten(self.classes[example.shown], 26)
            left = self.lefts[first + 2 * index + 1]
            self._text(left, top + height + 0.16, words, fontsize=7.5, color=FAINT)
        self._draw_legend(example, top + height + 0.06)

    def _draw_legend(self, example: Example, top: float) -> None:
        """Names of the classes in the image, each after a square in its colour."""
        from matplotlib.offsetbox import AnnotationBbox, DrawingArea, HPacker, TextArea, VPacker
        from matplotlib.patches import Rectangle

        names: list[Any] = []
        for label in example.labels:
            square = DrawingArea(7, 7)
            square.add_artist(Rectangle((0, -0.5), 7, 7, color=self.colours[label + 1]))
            name = TextArea(shorten(self.classes[label], 20), textprops={"fontsize": 7.5, "color": INK})
            names.append(HPacker(children=[square, name], align="baseline", pad=0, sep=3))
        lines: list[Any] = [
            HPacker(children=names[start : start + self.CLASSES_A_LINE], align="baseline", pad=0, sep=9)
            for start in range(0, len(names), self.CLASSES_A_LINE)
        ]
        if lines:
            place = (self.lefts[0] / self.width, 1 - top / self.height)
            box = VPacker(children=lines, align="left", pad=0, sep=2)
            self.figure.add_artist(
                AnnotationBbox(box, place, xycoords="figure fraction", box_alignment=(0, 1), frameon=False, pad=0)
            )

    def _text(self, x: float, y: float, words: str, **style: Any) -> None:
        self.figure.text(x / self.width, 1 - y / self.height, words, **style)

    def _axes(self, column: int, top: float, height: float) -> Axes:
        left, bottom = self.lefts[column] / self.width, 1 - (top + height) / self.height
        axes = self.figure.add_axes((left, bottom, self.CELL / self.width, height / self.height), anchor="NW")
        axes.set_axis_off()
        return axes

    @staticmethod
    def _show(axes: Axes, image: np.ndarray, alpha: float = 1.0) -> None:
        axes.imshow(image, interpolation="bicubic", alpha=alpha)

    def _show_mask(self, axes: Axes, grey: np.ndarray, mask: np.ndarray) -> None:
        colours = np.round(255 * self.colours).astype(np.uint8)
        axes.imshow(overlay(grey, mask, colours, cover=62), interpolation="nearest")
        labels = [int(value) for value in np.unique(mask) if 0 < value < len(self.colours)]
        for label in labels:
            if min(mask.shape) > 1:
                axes.contour(mask == label, levels=[0.5], colors=[self.colours[label] * 0.75], linewidths=0.8)

    def _show_heat(self, axes: Axes, grey: np.ndarray, heat: np.ndarray | None) -> None:
        if heat is None:
            self._show(axes, grey, alpha=0.35)
            axes.text(0.5, 0.5, "not found", transform=axes.transAxes, ha="center", va="center", color=FAINT)
            return
        self._show(axes, grey)
        heat = np.clip(heat, 0, 1)
        axes.imshow(heat, cmap="inferno", vmin=0, vmax=1, alpha=np.minimum(1.2 * heat, 0.9), interpolation="bilinear")
