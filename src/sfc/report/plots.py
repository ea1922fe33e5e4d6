"""Plots of scores: IoU by class, and mIoU by background threshold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sfc.data.groups import GROUPS
from sfc.evaluate.scores import Score, Scores
from sfc.pictures.style import FAINT, INK, RULE, run_colour, shorten, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAP_STYLES: tuple[Literal["--", ":", "-"], ...] = ("--", ":", "-")
"""Line styles of W, P and W + λP."""


def classes_figure(entries: Sequence[Scores]) -> Figure:
    """IoU of every class under the fixed rule, a bar a run (its best map); head to tail, by training images.

    Args:
        entries: scores of the runs on one split.
    """
    from matplotlib.figure import Figure

    first = entries[0]
    order = class_order(first)
    with styled():
        figure = Figure(figsize=(7.2, 1.5 + 0.17 * len(order) * (1 + len(entries)) / 1.5), layout="constrained")
        axes = figure.add_subplot()
        for index, entry in enumerate(entries):
            _draw_bars(axes, entry, order, index, len(entries))
        axes.set_yticks(range(len(order)), [_class_label(first, k) for k in order])
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.set_ylim(len(order) - 0.5, -0.5)
        axes.set_xlim(0, 100)
        axes.set_xlabel("IoU in percent, fixed background rule")
        axes.spines["left"].set_visible(False)
        _mark_groups(axes, first, order)
        axes.set_title(f"IoU by class · {first.dataset}, {first.split}, {first.images:,} images")
        figure.legend(loc="outside lower left", ncols=2)
    return figure


def class_order(entry: Scores) -> list[int]:
    """Positions in `entry.classes`: background, then the groups from head to tail, each by training images."""
    groups = (*GROUPS, "absent")
    count = entry.class_counts or [0] * len(entry.class_groups)
    foreground = sorted(range(len(count)), key=lambda k: (groups.index(entry.class_groups[k]), -count[k]))
    return [0, *(k + 1 for k in foreground)]


def _draw_bars(axes: Axes, entry: Scores, order: Sequence[int], index: int, runs: int) -> None:
    best = entry.best()
    height = 0.8 / runs
    rows = [(row + (index - (runs - 1) / 2) * height, best.iou[k]) for row, k in enumerate(order)]
    known = [(row, value) for row, value in rows if value is not None]
    axes.barh(
        [row for row, _ in known],
        [value for _, value in known],
        0.9 * height,
        color=run_colour(index),
        label=f"{entry.run}, {best.what}: mIoU {best.fixed:.1f}",
    )
    for row, value in known:
        axes.text(value + 0.7, row, f"{value:.0f}", va="center_baseline", fontsize=6.5, color=FAINT)
    if index == 0:
        for position, k in enumerate(order):
            if best.iou[k] is None:
                axes.text(0.7, position, "occurs nowhere", va="center_baseline", fontsize=6.5, color=FAINT)


def _class_label(entry: Scores, index: int) -> str:
    name = shorten(entry.classes[index], 26)
    return f"{name}  ({entry.class_counts[index - 1]:,})" if index and entry.class_counts else name


def _mark_groups(axes: Axes, entry: Scores, order: Sequence[int]) -> None:
    groups = ["", *entry.class_groups]
    for group in dict.fromkeys(groups[k] for k in order if groups[k]):
        row = next(row for row, k in enumerate(order) if groups[k] == group)
        axes.axhline(row - 0.5, color=RULE, linewidth=0.8)
        axes.text(1.0, row - 0.4, group, transform=axes.get_yaxis_transform(), ha="right", va="top", color=FAINT)


def thresholds_figure(entries: Sequence[Scores]) -> Figure:
    """mIoU by background score: a colour a run, a line style a map; dot: fixed rule, ring: oracle.

    Args:
        entries: scores of the runs on one split.
    """
    from matplotlib.figure import Figure

    first = entries[0]
    rule = first.scores[0].background_score
    with styled():
        figure = Figure(figsize=(7.2, 3.6), layout="constrained")
        axes = figure.add_subplot()
        axes.axvline(rule, color=RULE, linewidth=1, zorder=0)
        for index, entry in enumerate(entries):
            for score, style in zip(entry.scores, MAP_STYLES, strict=True):
                _draw_curve(axes, score, score.background_score / rule, run_colour(index), style)
        axes.set_xlim(-1, 2)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("background score t (of W + λP: t ÷ (1 + λ))")
        axes.set_ylabel("mIoU in percent")
        axes.set_title(f"Background threshold · {first.dataset}, {first.split}, {first.images:,} images")
        figure.legend(handles=_curve_handles(entries), loc="outside right upper")
    return figure


def _draw_curve(axes: Axes, score: Score, scale: float, colour: str, style: str) -> None:
    position = np.divide(score.curve["background_score"], scale)
    axes.plot(position, score.curve["miou"], style, color=colour, linewidth=1.4)
    dot: dict[str, Any] = {"marker": "o", "markersize": 4.5, "color": colour, "zorder": 3}
    axes.plot([score.oracle_background_score / scale], [score.oracle], markerfacecolor="white", **dot)
    axes.plot([score.background_score / scale], [score.fixed], **dot)


def _curve_handles(entries: Sequence[Scores]) -> list[Any]:
    from matplotlib.lines import Line2D

    runs = [Line2D([], [], color=run_colour(i), linewidth=2, label=entry.run) for i, entry in enumerate(entries)]
    maps = [
        Line2D([], [], color=INK, linewidth=1.2, linestyle=style, label=score.what)
        for score, style in zip(entries[0].scores, MAP_STYLES, strict=True)
    ]
    fixed = Line2D([], [], color=INK, linestyle="", marker="o", markersize=4.5, label="fixed rule")
    oracle = Line2D(
        [], [], color=INK, linestyle="", marker="o", markersize=4.5, markerfacecolor="white", label="oracle"
    )
    return [*runs, *maps, fixed, oracle]
