"""The findings of `sfc check` as tables."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sfc.check.dataset import CheckReport, Range

_GROUP_STYLE = {"head": "green", "medium": "yellow", "tail": "red", "absent": "dim"}
_BAR = 20
_LONGEST_LIST = 50


def print_report(report: CheckReport, console: Console | None = None) -> None:
    """Prints splits, classes from head to tail, remarks and broken files.

    Args:
        report: from `check_dataset`.
        console: where to; standard output by default.
    """
    console = console or Console()
    console.print(_splits(report))
    console.print(_classes(report))
    for remark in report.remarks:
        more = ", ..." if remark.count > len(remark.examples) else ""
        console.print(f"[yellow]{remark.count:,}[/] {escape(remark.text)}: {escape(', '.join(remark.examples))}{more}")
    if not report.broken:
        console.print("[green]All files can be read.[/]")
        looks = f"{len(report.remarks)} remark{'s' if len(report.remarks) > 1 else ''} above to look at"
        verdict = f"usable, with {looks}" if report.remarks else "sound"
        console.print(f"verdict: {verdict}; next: sfc plan, with the same data set", highlight=False)
        return
    console.print(f"[red]{len(report.broken):,} broken:[/]")
    for broken in report.broken[:_LONGEST_LIST]:
        console.print(f"  {escape(broken.path)}: {escape(broken.reason)}", soft_wrap=True, highlight=False)
    if len(report.broken) > _LONGEST_LIST:
        console.print(f"  ... and {len(report.broken) - _LONGEST_LIST:,} more; --json FILE lists them all")
    console.print("verdict: not usable until these are mended or their rows removed", highlight=False)


def _splits(report: CheckReport) -> Table:
    table = Table(title=f"{escape(report.name)} ({report.format})")
    table.add_column("split")
    for name in ("images", "negatives", "masks", "labels an image", "sizes", "height", "width"):
        table.add_column(name, justify="right")
    for split in report.splits:
        table.add_row(
            split.split,
            f"{split.images:,}",
            f"{split.negatives:,}",
            f"{split.masks:,}",
            f"{split.labels:.2f}",
            f"{split.sizes:,}" if split.sizes else "",
            _range(split.height),
            _range(split.width),
        )
    return table


def _range(values: Range | None) -> str:
    """Minimum, median and maximum; one number where they are equal."""
    if values is None:
        return ""
    if values.minimum == values.maximum:
        return f"{values.minimum:g}"
    return f"{values.minimum:g} / {values.median:g} / {values.maximum:g}"


def _classes(report: CheckReport) -> Table:
    table = Table(title="classes by training images")
    table.add_column("class")
    table.add_column("train", justify="right")
    table.add_column("")
    table.add_column("group")
    table.add_column("coefficient", justify="right")
    has_val = any(split.split == "val" for split in report.splits)
    if has_val:
        table.add_column("val", justify="right")
    most = max((item.train for item in report.classes), default=0) or 1
    for item in report.classes:
        style = _GROUP_STYLE[item.group]
        bar = "█" * max(round(_BAR * item.train / most), 1 if item.train else 0)
        coefficient = "" if item.group == "absent" else f"{item.coefficient:.2f}"
        cells = (escape(item.name), f"{item.train:,}", f"[{style}]{bar}[/]", item.group, coefficient)
        table.add_row(*cells, *((f"{item.val:,}",) if has_val else ()))
    return table
