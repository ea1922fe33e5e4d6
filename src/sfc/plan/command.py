"""`sfc plan`, and what `sfc run DATA` does where there is no plan yet."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sfc.config import RunConfig, add_run_settings, checked
from sfc.data.readers.detect import detect
from sfc.errors import ConfigError, SFCError
from sfc.plan.plan import Plan, make_plan, planned_budget, write_plan
from sfc.run.clock import in_words
from sfc.run.folder import RunFolder
from sfc.settings.read import load_settings, options_of, parse

BUDGET = "--budget"
BUDGET_HELP = "time that the run may take, such as 30m or 1h30m; the plan is cut to fit and says where"
SOURCE_HELP = "data set: a folder or a table"
FIRST_MASKS = ("classify", "localize", "judge", "refine")
"""Stages until pseudo masks are there."""


def plan_command(parser: ArgumentParser, arguments: list[str]) -> int:
    """Runs `sfc plan`; prints the plan and where it is."""
    parser.add_argument("source", type=str, help=SOURCE_HELP)
    parser.add_argument("--run", type=str, help="run folder; default: runs/ and the name of the data set")
    parser.add_argument(BUDGET, type=str, default="", help=BUDGET_HELP)
    add_run_settings(parser)
    parsed = parse(parser, arguments, RunConfig, defaults=False)
    if parsed.get("config"):
        raise ConfigError("a plan chooses the settings itself; give those that you want as options, without --config")
    source = Path(parsed.source)
    folder = RunFolder(Path(parsed.get("run") or default_folder(source)))
    plan_run(source, options_of(parsed, RunConfig), folder, parsed.get("budget") or "")
    print(f"\nWritten: {folder.plan}. To do it: sfc run {parsed.source} --run {folder.root}")  # noqa: T201
    return 0


def default_folder(source: Path) -> Path:
    """`runs/` and the name of a data set: of the folder, or of the table's folder."""
    place = source.resolve()
    return Path("runs") / (place.name if place.is_dir() else place.parent.name)


def settle(
    source: str, run: str, recipes: Sequence[str], options: Mapping[str, Any], budget: str = ""
) -> tuple[RunConfig, Path]:
    """The settings of a run and its folder: recipes, or else the folder's own settings, its plan, or a plan made now.

    Args:
        source: data set; empty: what the settings say.
        run: run folder; empty: `runs/` and the name of the data set or of the last recipe.
        recipes: files, or names of recipes of the package.
        options: settings on top, nested.
        budget: for a plan that is made now, as `--budget` takes it.

    Raises:
        SFCError: nothing is named; the folder is no run, or one of another data set; a budget, and neither a plan to
            make nor one that was made for it.
    """
    if not (source or run or recipes):
        raise SFCError("name a data set, a recipe with --config NAME, or a run folder with --run FOLDER")
    folder = Path(run) if run else default_folder(Path(source)) if source else Path("runs") / Path(recipes[-1]).stem
    own = RunFolder(folder)
    is_new = not recipes and source and not own.config.is_file() and not own.plan.is_file()
    # A stopped command is given again as it was, and to every further process: with the budget of the plan.
    if budget and not is_new and (recipes or planned_budget(own) != seconds_of(budget)):
        raise SFCError(f"{BUDGET} is for a plan that is not made yet: sfc run DATA {BUDGET} 30m, in a new run folder")
    if recipes:
        config = load_settings(RunConfig, recipes, options)
        return checked(replace(config, data=detect(Path(source), config.data)) if source else config), folder
    if is_new:
        plan_run(Path(source), options, own, budget)
    found = [path for path in (own.config, own.plan) if path.is_file()][:1]
    config = checked(load_settings(RunConfig, found, options))
    if not found and "data" not in options:
        raise ConfigError(f"{folder}: there is no run here; name a data set, or a recipe with --config NAME")
    if source:
        require_source(config, Path(source), own)
    return config, folder


def plan_run(source: Path, options: Mapping[str, Any], folder: RunFolder, budget: str = "") -> Plan:
    """Makes a plan, prints and writes it.

    Args:
        source: data set.
        options: settings that the user gave, nested; they are kept.
        folder: of the run.
        budget: as `--budget` takes it.

    Raises:
        SFCError: the data or the settings cannot be used, or the plan not be written.
    """
    if folder.config.is_file():
        raise ConfigError(f"{folder.root}: a run has begun here with its settings; choose another folder with --run")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise SFCError(
            "a plan is made by one process: `sfc plan DATA --run FOLDER` first, then the processes of the run"
        )
    config = load_settings(RunConfig, (), options)
    seconds = seconds_of(budget) if budget else None
    sys.stderr.write("plan: trying a few steps of every stage on this machine, a minute or two\n")
    sys.stderr.flush()
    plan = make_plan(detect(source, config.data), options, folder.root, seconds)
    write_plan(plan, folder)
    print_plan(plan)
    return plan


def seconds_of(words: str) -> float:
    """Seconds of a time such as `30m`, `1h`, `1h30m` or `90s`.

    Raises:
        ConfigError: it is none.
    """
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", words.strip().lower())
    seconds = sum(int(n or 0) * unit for n, unit in zip(found.groups(), (3600, 60, 1), strict=True)) if found else 0
    if not seconds:
        raise ConfigError(f"{BUDGET} is a time such as 30m, 1h or 1h30m, not '{words}'")
    return float(seconds)


def print_plan(plan: Plan, console: Console | None = None) -> None:
    """Prints what was seen, each choice with its reason, and what the run will take.

    Args:
        plan: from `make_plan`.
        console: where to; standard output by default.
    """
    console = console or Console()
    data, machine = plan.data, plan.machine
    (most, many), (least, few) = data.classes[0], data.classes[-1]
    negatives = f", {data.negatives:,} without a tag" if data.negatives else ""
    scored = (
        f"; masks to score against: {data.scored:,} and {data.val:,} of validation" if data.scored + data.val else ""
    )
    console.print(
        f"[bold]{escape(data.name)}[/]: {data.images:,} photographs with tags{negatives}; {len(data.classes)} classes, "
        f"from {escape(most)} ({many:,}) to {escape(least)} ({few:,}){scored}",
        highlight=False,
    )
    console.print(
        f"machine: {machine.cores} core{'' if machine.cores == 1 else 's'}, {machine.gpu or 'no GPU'}, "
        f"{_gigabytes(machine.memory)} of memory and {_gigabytes(machine.disk)} of disk free",
        highlight=False,
    )
    table = Table(show_header=True, box=None, pad_edge=False)
    for name in ("decided", "for", "because"):
        table.add_column(name, overflow="fold")
    for choice in plan.choices:
        table.add_row(escape(choice.what), escape(choice.value), escape(choice.because))
    console.print(table)
    masks = sum(plan.seconds.get(name, 0.0) for name in FIRST_MASKS)
    stages = ", ".join(f"{name} {in_words(seconds)}" for name, seconds in plan.seconds.items())
    console.print(
        f"time: about [bold]{in_words(sum(plan.seconds.values()))}[/], first masks after {in_words(masks)} ({stages})",
        highlight=False,
    )
    console.print(f"needs {_gigabytes(plan.memory)} of memory, {_gigabytes(plan.disk)} of disk", highlight=False)
    if plan.disk > machine.disk:
        console.print("[red]The disk is too small for that.[/]")
    if plan.memory > machine.memory:
        console.print("[red]The memory is too small for that.[/]")


def _gigabytes(count: float) -> str:
    return f"{count / 2**30:.1f} GiB"


def require_source(config: RunConfig, source: Path, folder: RunFolder) -> None:
    """Refuses the settings of a run of another data set than a command names.

    Raises:
        DataError: there is no data set.
        ConfigError: the run has another one.
    """
    found, own = detect(source), Path(config.data.root)
    # Several tables may lie in one folder; whoever names the folder takes what the run has.
    if source.is_file() and config.data.train != found.train:
        own /= config.data.train
    if own.resolve() != Path(found.root).resolve():
        raise ConfigError(f"{folder.root}: a run of {own}, not of {source}; choose another with --run")
