"""`sfc study`: its options, and what they call."""

from __future__ import annotations

import os
import platform
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from jsonargparse import ArgumentParser

from sfc.config import RunConfig, add_run_settings, checked
from sfc.data.readers.detect import detect
from sfc.errors import ConfigError, SFCError
from sfc.methods import METHODS
from sfc.pipeline import STAGES
from sfc.refine.methods import REFINERS
from sfc.run.files import write_json
from sfc.run.provenance import versions
from sfc.settings.read import earlier_settings_kept, load_settings, options_of, parse, write_settings
from sfc.signs.stage import JUDGE
from sfc.study.page import write_page
from sfc.study.statistics import rows_of
from sfc.study.tables import as_json, print_rows
from sfc.study.trials import run_trials, trials_of

UNTIL = ("localize", "refine", "segment")


def study_command(parser: ArgumentParser, arguments: list[str]) -> int:
    """Runs `sfc study`; prints the tables and where the page is."""
    parser.add_argument("source", nargs="?", type=str, help="data set folder or table; or use --config")
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--first-seed", type=int, default=0, help="the first of them; the others follow it")
    parser.add_argument("--until", choices=UNTIL, default="segment", help="the last stage before the scores")
    parser.add_argument("--processes", type=int, default=1, help="trials at once; the cores are shared out")
    parser.add_argument("--run", type=str, default="", help="folder; default: runs/study- and the name of the recipe")
    add_run_settings(parser)
    given = parse(parser, arguments, RunConfig, defaults=False)
    options = parse(parser, arguments, RunConfig)
    recipes: list[str] = given.get("config") or []
    if not recipes and not options.source:
        raise SFCError("name a recipe with --config NAME, or a data set")
    if options.seeds < 1 or options.first_seed < 0 or options.processes < 1:
        raise ConfigError("--seeds and --processes are at least 1, --first-seed at least 0")
    changes = options_of(given, RunConfig)
    if "seed" in changes:
        raise ConfigError("--seed has no say in a study: --first-seed is the first of its seeds, --seeds how many")
    config = load_settings(RunConfig, recipes, changes)
    if options.source:
        config = replace(config, data=detect(Path(options.source), config.data))
    checked(config)
    name = Path(recipes[-1]).stem if recipes else Path(options.source).resolve().name
    folder = Path(options.run or Path("runs") / f"study-{name}")
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    trials = trials_of(folder, config.methods, seeds)
    settings = folder / "config.yaml"
    stages = [stage.name for stage in STAGES]
    chosen = [*stages[: stages.index(options.until) + 1], JUDGE.name, "evaluate"]
    with earlier_settings_kept(settings):
        write_settings(settings, config)
        run_trials(trials, settings, chosen, options.processes, only_scored=_masks_suffice(options.until, config))
    scores = {
        method: {trial.seed: trial.scores() for trial in trials if trial.method == method} for method in config.methods
    }
    rows = rows_of(scores)
    if not rows:
        raise SFCError(f"{folder}: the data set has no masks, so there is nothing to score")
    first = trials[0].scores()[0]
    facts = {
        "data": f"{first.dataset}, {first.images} scored images of {first.split}",
        "methods": "; ".join(f"{method}: {METHODS[method].text}" for method in config.methods),
        "seeds": ", ".join(map(str, seeds)),
        "epochs": f"{config.classify.training.epochs} for every method",
        **first.provenance,
        "made": f"{datetime.now(UTC):%Y-%m-%d}, commit {versions().get('commit', 'unknown')}, {platform.machine()}, "
        f"{os.cpu_count()} cores",
    }
    print_rows(rows)
    write_json(folder / "study.json", {"facts": facts, "rows": as_json(rows)})
    title = f"{', '.join(config.methods)} on {first.dataset}"
    page = write_page(folder, title, facts, rows, config.methods)
    print(f"\nPage: {page}")  # noqa: T201
    return 0


def _masks_suffice(until: str, config: RunConfig) -> bool:
    """Whether images without a mask need no CAMs: nothing behind the CAMs learns from those of all images."""
    return until == "localize" or (until == "refine" and not REFINERS[config.refine.method].after)
