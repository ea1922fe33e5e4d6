"""The command line: parse, call, print. A command's own options and heavy libraries are loaded when it is called."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from sfc.errors import SFCError
from sfc.export import command as export
from sfc.pipeline import STAGES
from sfc.predict import command as predict
from sfc.run.files import write_json
from sfc.run.folder import RunFolder
from sfc.settings.read import new_parser, options_of, parse

if TYPE_CHECKING:
    from sfc.config import RunConfig
    from sfc.data.config import DataConfig
    from sfc.evaluate.scores import Scores

DEMO = "synthetic"
"""The recipe of the built-in benchmark."""
AMEND_TEXT = "tags or photographs of a run were corrected: keep the classifier, make again what changed"
DETAILS = "every score, in tables; they are on the page too"

Command = Callable[[ArgumentParser, list[str]], int]

COMMANDS: dict[str, tuple[str, Command]] = {}
"""Help and function of each command; the function adds its options to a parser, parses and does it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; 0 if it worked, 2 if the user can mend what went wrong, 130 if interrupted."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        name = _command_name(arguments[:1])
        text, command = COMMANDS[name]
        code = command(new_parser(prog=f"sfc {name}", description=text[0].upper() + text[1:] + "."), arguments[1:])
        sys.stdout.flush()
    except SFCError as error:
        print(f"sfc: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("sfc: interrupted; the same command goes on from the last checkpoint or finished image", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whatever read our output has enough; Python must not complain about it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def _command_name(first: list[str]) -> str:
    parser = argparse.ArgumentParser(prog="sfc", description="Image-level labels in, segmentation masks out.")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", title="commands")
    for name, (text, _) in COMMANDS.items():
        subparsers.add_parser(name, help=text, add_help=False)
    return str(parser.parse_known_args(first)[0].command)


def _command(name: str, text: str) -> Callable[[Command], Command]:
    """Decorator: enters a command."""

    def enter(command: Command) -> Command:
        COMMANDS[name] = (text, command)
        return command

    return enter


@_command("demo", "the built-in benchmark: plain CAM and SFC, from training to scores and pictures")
def _demo(parser: ArgumentParser, arguments: list[str]) -> int:
    from sfc.config import load_config
    from sfc.pipeline import run

    parser.add_argument("--run", type=str, default="runs/demo", help="run folder")
    parser.add_argument("--seed", type=int, default=0, help="seed of data and training")
    parser.add_argument("--details", action="store_true", help=DETAILS)
    parsed = parse(parser, arguments)
    folder = Path(parsed.run)
    config = load_config([DEMO], [f"--seed={parsed.seed}"])
    return _print_run(run(config, folder), config, folder, tables=parsed.details)


@_command("plan", "look at data and machine: what to do, why, and how long it takes")
def _plan(parser: ArgumentParser, arguments: list[str]) -> int:
    from sfc.plan.command import plan_command

    return plan_command(parser, arguments)


@_command("run", "every stage, skipping what is done; of a data set, as planned, or of a recipe")
def _run(parser: ArgumentParser, arguments: list[str]) -> int:
    from sfc.pipeline import run
    from sfc.plan.plan import planned_seconds

    parser.add_argument("--details", action="store_true", help=DETAILS)
    config, folder, parsed = _settings(parser, arguments, takes_source=True)
    expected = planned_seconds(RunFolder(folder), config)
    scores = run(config, folder, expected=expected)
    return _print_run(scores, config, folder, tables=parsed.get("details", False), expected=expected)


def _stage(name: str) -> Command:
    def command(parser: ArgumentParser, arguments: list[str]) -> int:
        from sfc.pipeline import run

        config, folder, _ = _settings(parser, arguments)
        return _print_run(run(config, folder, stages=(name,)), config, folder)

    return command


for _one in STAGES:
    COMMANDS[_one.name] = (_one.text, _stage(_one.name))
COMMANDS["report"] = ("draw the page and pictures of a run from its saved scores", _stage("report"))


def _settings(
    parser: ArgumentParser, arguments: list[str], *, takes_source: bool = False
) -> tuple[RunConfig, Path, Namespace]:
    """The settings and the run folder; a folder's own settings, or its plan, stand in for a recipe."""
    from sfc.config import RunConfig, add_run_settings
    from sfc.plan import command as plan

    if takes_source:
        parser.add_argument("source", nargs="?", type=str, help=f"{plan.SOURCE_HELP}; or a recipe with --config")
        parser.add_argument(plan.BUDGET, type=str, help=plan.BUDGET_HELP)
    add_run_settings(parser)
    parser.add_argument("--run", type=str, help="run folder; default: runs/ and the name of the data set or recipe")
    parsed = parse(parser, arguments, RunConfig, defaults=False)
    source, run, budget = (parsed.get(name) or "" for name in ("source", "run", "budget"))
    config, folder = plan.settle(source, run, parsed.get("config") or [], options_of(parsed, RunConfig), budget)
    return config, folder, parsed


def _print_run(
    scores: list[Scores],
    config: RunConfig,
    folder: Path,
    *,
    tables: bool = True,
    expected: Mapping[str, float] | None = None,
) -> int:
    from sfc.data.readers.table import unused_neighbours
    from sfc.engine.processes import is_first_process
    from sfc.report.summary import summary

    if not is_first_process():
        return 0
    if scores and tables:
        from sfc.evaluate.tables import print_scores

        print_scores(scores)
    for key, name in unused_neighbours(config.data).items():
        print(f"{name} lies beside {config.data.train} and was not read; with --data.{key} {name} it is")
    for line in summary(config, RunFolder(folder), scores, expected):
        print(line)
    return 0


@_command("amend", AMEND_TEXT)
def _amend(parser: ArgumentParser, arguments: list[str]) -> int:
    from sfc.amend.command import amend_command

    return amend_command(parser, arguments)


@_command("study", "methods over several seeds: means, spreads and paired differences after each stage")
def _study(parser: ArgumentParser, arguments: list[str]) -> int:
    from sfc.study.command import study_command

    return study_command(parser, arguments)


@_command("recipes", "list the recipes that come with the package")
def _recipes(parser: ArgumentParser, arguments: list[str]) -> int:
    from sfc.settings.recipes import built_in_recipes

    parse(parser, arguments)
    recipes = built_in_recipes()
    width = max(len(recipe.name) for recipe in recipes)
    for recipe in recipes:
        print(f"{recipe.name:{width}}  {recipe.text}")
    return 0


@_command("check", "is a data set sound? counts, long tail, broken files, unknown labels")
def _check(parser: ArgumentParser, arguments: list[str]) -> int:
    from sfc.check.dataset import check_dataset
    from sfc.check.report import print_report
    from sfc.config import RunConfig, add_run_settings
    from sfc.data.readers.detect import detect
    from sfc.settings.read import load_settings

    parser.add_argument("source", nargs="?", type=str, help="data set folder or table; or use --config")
    parser.add_argument("--json", type=str, help="also write the findings to this file")
    parser.add_argument("--fix", type=str, help="of a table: write what is safe to mend into this new table")
    add_run_settings(parser)
    parsed = parse(parser, arguments, RunConfig, defaults=False)
    recipes = parsed.get("config") or []
    config = load_settings(RunConfig, recipes, options_of(parsed, RunConfig))
    data = config.data
    if parsed.get("fix"):
        return _fix(parsed.get("source"), Path(parsed.fix), data)
    if parsed.get("source"):
        data = detect(Path(parsed.source), data)
    elif not recipes and data == RunConfig().data:
        raise SFCError("name a data set: a folder, a table, or a recipe with --config")
    report = check_dataset(data, config.classify.training.batch, config.classify.bank_draws)
    print_report(report)
    if parsed.get("json"):
        write_json(Path(parsed.json), report.as_json())
    return 2 if report.broken else 0


def _fix(source: str | None, new: Path, data: DataConfig) -> int:
    from sfc.check.fix import fix_table
    from sfc.data.readers.table import separator_of

    if not source:
        raise SFCError("name the table that is to be mended: sfc check TABLE --fix NEW")
    table = Path(source) / data.train if Path(source).is_dir() else Path(source)
    mended = fix_table(table, new, separator_of(data))
    for words in mended:
        print(f"mended: {words}")
    print(f"next: sfc check {new}" if mended else "there was nothing to mend, and nothing is written")
    return 0


@_command("predict", predict.TEXT)
def _predict(parser: ArgumentParser, arguments: list[str]) -> int:
    predict.add_options(parser)
    return predict.predict_command(parser, parse(parser, arguments))


@_command("export", export.TEXT)
def _export(parser: ArgumentParser, arguments: list[str]) -> int:
    export.add_options(parser)
    return export.export_command(parse(parser, arguments))


@_command("prepare", "official archives, or exports of other programs, to what the readers want")
def _prepare(parser: ArgumentParser, arguments: list[str]) -> int:
    from sfc.data.prepare.official import prepare_coco, prepare_voc
    from sfc.data.prepare.tags import prepare_tags

    parser.add_argument("dataset", choices=["voc", "coco", "tags"])
    parser.add_argument("root", type=str, help="folder that gets the data set; tags: folder of the export")
    parser.add_argument(
        "--archive", type=str, nargs="+", default=[], help="official archives: one or more paths or URLs"
    )
    parser.add_argument("--checksum", type=dict[str, str], default={}, help="MD5 or SHA-256 of archives, by file name")
    parser.add_argument("--download", choices=["", "2012", "2014", "2017"], default="", help="fetch that year's files")
    parsed = parse(parser, arguments)
    root = Path(parsed.root)
    if parsed.dataset == "tags":
        if parsed.archive or parsed.download or parsed.checksum:
            raise SFCError("--archive, --download and --checksum are for voc and coco")
        for table in prepare_tags(root):
            print(table)
        print(f"next: sfc check {root}")
        return 0
    if parsed.dataset == "voc":
        if parsed.download not in ("", "2012"):
            raise SFCError("--download for voc takes 2012 only")
        prepared = prepare_voc(root, parsed.archive, parsed.checksum, bool(parsed.download))
    else:
        if parsed.download == "2012":
            raise SFCError("--download for coco takes 2014 or 2017")
        prepared = prepare_coco(root, parsed.archive, parsed.checksum, parsed.download)
    for note in prepared.notes:
        print(note)
    print(f"data.root: {prepared.root}")
    return 0
