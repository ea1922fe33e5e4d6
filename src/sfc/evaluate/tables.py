"""Scores as tables for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sfc.evaluate.scores import MaskScore, Score, Scores


def print_scores(scores: Sequence[Scores], console: Console | None = None) -> None:
    """Prints a table a split: every method and map, then IoU by class; above it, all that the numbers depend on."""
    console = console or Console()
    for split in dict.fromkeys(entry.split for entry in scores):
        entries = [entry for entry in scores if entry.split == split]
        _print_heading(console, entries)
        console.print(_summary(entries))
        if any(entry.masks for entry in entries):
            console.print(_contours(entries))
        console.print(_by_class(entries))
        for entry in entries:
            for masks in entry.masks:
                if masks.undecided:
                    words = f"{masks.what} leave {masks.undecided:.1f} % of the pixels open; those are not scored"
                    console.print(f"{entry.run}: {words}", markup=False, highlight=False)
            if entry.missing:
                missing = f"{entry.run}: {len(entry.missing)} images have no CAMs, such as {entry.missing[0]}"
                console.print(missing, markup=False)


def _print_heading(console: Console, entries: Sequence[Scores]) -> None:
    first = entries[0]
    title = f"CAMs on {first.dataset}, split {first.split}, {first.images} images"
    console.print(f"\n[bold]{escape(title)}[/bold]")
    for name in dict.fromkeys(key for entry in entries for key in entry.provenance):
        said = {entry.run: entry.provenance.get(name, "") for entry in entries}
        if len(set(said.values())) == 1:
            console.print(f"  {name}: {said[first.run]}", highlight=False, markup=False)
        else:
            for run, words in said.items():
                console.print(f"  {name} ({run}): {words}", highlight=False, markup=False)


def _summary(entries: Sequence[Scores]) -> Table:
    table = Table(
        caption="mIoU in percent at the fixed background rule (bold: a method's best map); oracle: the same with the "
        "threshold searched on this ground truth; IoU, over-activation (false positives) and under-activation (false "
        "negatives, both in percent of the true area) of head / medium / tail classes at the fixed rule"
    )
    for name in ("", "map or masks", "fixed", "oracle", "h/m/t IoU", "over", "under"):
        table.add_column(name, justify="left" if name in ("", "map or masks") else "right", no_wrap=name != "")
    for entry in entries:
        best = entry.best()
        rows: list[MaskScore] = [*entry.scores, *entry.masks]
        for score in rows:
            table.add_row(
                escape(entry.run) if score is rows[0] else "",
                score.what,
                f"{score.fixed:.1f}",
                f"{score.oracle:.1f}" if isinstance(score, Score) else "",
                *(_slashed(group) for group in (score.groups, score.over_activation, score.under_activation)),
                style="bold" if score is best else "",
                end_section=score is rows[-1],
            )
    return table


def _contours(entries: Sequence[Scores]) -> Table:
    table = Table(
        caption="masks along their contours, in percent, means over classes: IoU of the pixels within 2 % of the image "
        "diagonal of a class's contour (boundary IoU), and of contour pixels the share that meets its counterpart "
        "within 0.75 % (boundary F)"
    )
    for name in ("", "masks", "mIoU", "boundary IoU", "boundary F"):
        table.add_column(name, justify="left" if name in ("", "masks") else "right", no_wrap=True)
    for entry in entries:
        for score in entry.masks:
            table.add_row(
                escape(entry.run) if score is entry.masks[0] else "",
                score.what,
                f"{score.fixed:.1f}",
                *("–" if value is None else f"{value:.1f}" for value in (score.boundary_iou, score.boundary_f)),
                end_section=score is entry.masks[-1],
            )
    return table


def _by_class(entries: Sequence[Scores]) -> Table:
    table = Table(caption="IoU in percent of each method's best map at the fixed rule; – occurs nowhere")
    table.add_column("class")
    table.add_column("group")
    for entry in entries:
        table.add_column(f"{escape(entry.run)}\n{entry.best().what}", justify="right")
    groups = ["", *entries[0].class_groups]
    for index, name in enumerate(entries[0].classes):
        values = [entry.best().iou[index] for entry in entries]
        table.add_row(escape(name), groups[index], *("–" if value is None else f"{value:.1f}" for value in values))
    return table


def _slashed(group: Mapping[str, float]) -> str:
    return "/".join("–" if math.isnan(value) else f"{value:.0f}" for value in group.values())
