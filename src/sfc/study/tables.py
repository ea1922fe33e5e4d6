"""A study's rows as tables for the terminal, and as plain values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from sfc.study.statistics import Row


def print_rows(rows: Sequence[Row], console: Console | None = None) -> None:
    """Prints a table a stage and split: mean ± standard deviation, and paired differences ± standard error."""
    console = console or Console()
    for stage, split in dict.fromkeys((row.stage, row.split) for row in rows):
        chosen = [row for row in rows if (row.stage, row.split) == (stage, split)]
        baseline = next((row.method for row in chosen if row.difference is None), "")
        table = Table(title=f"{stage}, {split}", title_justify="left")
        for name in ("", "method", "mIoU", "oracle", "h/m/t IoU", f"minus {baseline}"):
            table.add_column(name, justify="left" if name in ("", "method") else "right", no_wrap=True)
        for number, row in enumerate(chosen):
            last = number + 1 == len(chosen) or chosen[number + 1].what != row.what
            first = number == 0 or chosen[number - 1].what != row.what
            name, method, miou, oracle, groups, _, _, difference, _ = cells(row, first)
            table.add_row(name, method, miou, oracle, groups, difference, end_section=last)
        console.print(table)
    console.print(
        "mIoU in percent under the fixed rule, mean ± standard deviation over seeds; oracle: threshold searched on "
        "this ground truth; h/m/t: head, medium and tail classes; difference: paired by seed, over the "
        "classes that the truth shows, mean ± standard error",
        highlight=False,
    )


def cells(row: Row, first: bool) -> list[str]:
    """Name (of the first row of a kind), method, mIoU, oracle, groups, over, under, difference, differences by seed."""
    difference, by_seed = "", ""
    if row.difference is not None:
        difference = f"{row.difference.mean:+.1f}{_plus_minus(row.difference.error)}"
        by_seed = " ".join(f"{value:+.1f}" for value in row.difference.values.values())
    return [
        row.what if first else "",
        row.method,
        f"{row.miou.mean:.1f}{_plus_minus(row.miou.spread)}",
        "" if math.isnan(row.oracle) else f"{row.oracle:.1f}",
        *(_slashed(values) for values in (row.groups, row.over, row.under)),
        difference,
        by_seed,
    ]


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Every number of the rows, as plain values."""
    return [
        {
            "stage": row.stage,
            "split": row.split,
            "what": row.what,
            "method": row.method,
            "miou": {"values": row.miou.values, "mean": row.miou.mean, "spread": row.miou.spread},
            "oracle": row.oracle,
            "groups": row.groups,
            "over_activation": row.over,
            "under_activation": row.under,
            "difference": None
            if row.difference is None
            else {"values": row.difference.values, "mean": row.difference.mean, "error": row.difference.error},
        }
        for row in rows
    ]


def _plus_minus(value: float) -> str:
    return "" if math.isnan(value) else f" ± {value:.1f}"


def _slashed(values: Sequence[float]) -> str:
    return "/".join("–" if math.isnan(value) else f"{value:.0f}" for value in values)
