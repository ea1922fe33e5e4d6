"""The command line: parse, call, print. Heavy libraries are imported by what is called, so that help is instant."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from sfc.config import RunConfig
from sfc.errors import SFCError
from sfc.export import command as export
from sfc.predict import command as predict
from sfc.run.files import write_json
from sfc.run.folder import RunFolder
from sfc.settings import add_settings, load_config, parse, recipes, settings_of

if TYPE_CHECKING:
    from sfc.evaluate.scores import Scores

RECIPES = Path(__file__).parent / "configs"
"""Recipes that come with the package."""

SEEDS = (
    "data.synthetic_seed",
    "classify.training.seed",
    "refine.relation.training.seed",
    "segment.training.seed",
)
"""What `sfc demo --seed` sets."""

STAGE_HELP = {
    "classify": "train the classifier of a run",
    "localize": "make the CAMs of a run",
    "refine": "turn the CAMs of a run into pseudo masks",
    "segment": "train a segmenter on the masks of a run, and write its masks of the validation images",
    "evaluate": "score the CAMs and masks of a run",
    "report": "draw the page and pictures of a run from its saved scores",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; 0 if it worked, 2 if the user can mend what went wrong, 130 if interrupted."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        parser, commands = _parser()
        parsed = parse(parser, with_saved_settings(arguments))
        name = parsed.command
        code = commands[name](parsed[name])
        sys.stdout.flush()
    except SFCError as error:
        print(f"sfc: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("sfc: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whatever read our output has enough; Python must not complain about it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def with_saved_settings(arguments: list[str]) -> list[str]:
    """Puts a run folder's own settings first where a command names the folder but no recipe."""
    if not arguments or arguments[0] not in ("run", *STAGE_HELP):
        return arguments
    if recipes(arguments):
        return arguments
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        folder = following if argument == "--run" else argument.removeprefix("--run=") if "--run=" in argument else ""
        if folder and RunFolder(Path(folder)).config.is_file():
            return [arguments[0], f"--config={RunFolder(Path(folder)).config}", *arguments[1:]]
    return arguments


def _parser() -> tuple[ArgumentParser, dict[str, Callable[[Namespace], int]]]:
    parser = ArgumentParser(
        prog="sfc", description="Image-level labels in, segmentation masks out.", exit_on_error=False
    )
    subcommands = parser.add_subcommands(dest="command", required=True)
    commands: dict[str, Callable[[Namespace], int]] = {}

    def add(name: str, command: Callable[[ArgumentParser, Namespace], int], text: str) -> ArgumentParser:
        child = ArgumentParser(description=text[0].upper() + text[1:] + ".", exit_on_error=False)
        subcommands.add_subcommand(name, child, help=text)
        commands[name] = lambda parsed: command(child, parsed)
        return child

    child = add("demo", _demo, "the built-in benchmark: plain CAM and SFC, from training to scores and pictures")
    child.add_argument("--run", type=str, default="runs/demo", help="run folder")
    child.add_argument("--seed", type=int, default=0, help="seed of data and training")
    child = add("run", _run, "every stage, skipping what is done")
    _add_run_options(child)
    for name, text in STAGE_HELP.items():
        child = add(name, partial(_stage, name), text)
        _add_run_options(child)
    child = add("check", _check, "is a data set sound? counts, long tail, broken files, unknown labels")
    child.add_argument("source", nargs="?", type=str, default="", help="data set folder or table; or use --config")
    child.add_argument("--json", type=str, default="", help="also write the findings to this file")
    add_settings(child)
    predict.add_options(add("predict", predict.predict_command, predict.TEXT))
    export.add_options(add("export", export.export_command, export.TEXT))
    _add_prepare(add("prepare", _prepare, "official archives to what the readers want"))
    return parser, commands


def _add_run_options(parser: ArgumentParser) -> None:
    add_settings(parser)
    parser.add_argument("--run", type=str, default="", help="run folder; default: runs/ and the name of the recipe")


def _settings(parser: ArgumentParser, parsed: Namespace) -> tuple[RunConfig, Path]:
    """The settings and the run folder."""
    if parsed.run:
        return settings_of(parser, parsed), Path(parsed.run)
    if parsed.config:
        return settings_of(parser, parsed), Path("runs") / Path(str(parsed.config[-1])).stem
    raise SFCError("name a recipe with --config FILE, or a run folder with --run FOLDER")


def _run(parser: ArgumentParser, parsed: Namespace) -> int:
    from sfc.pipeline import run

    config, folder = _settings(parser, parsed)
    return _print_run(run(config, folder), folder)


def _stage(stage: str, parser: ArgumentParser, parsed: Namespace) -> int:
    from sfc.pipeline import run

    config, folder = _settings(parser, parsed)
    return _print_run(run(config, folder, stages=(stage,)), folder)


def _demo(_: ArgumentParser, parsed: Namespace) -> int:
    from sfc.pipeline import run

    seeds = [f"--{name}={parsed.seed}" for name in SEEDS]
    folder = Path(parsed.run)
    return _print_run(run(load_config([RECIPES / "synthetic.yaml"], seeds), folder), folder)


def _print_run(scores: list[Scores], folder: Path) -> int:
    if scores:
        from sfc.evaluate.tables import print_scores

        print_scores(scores)
    page = RunFolder(folder).report / "index.html"
    if page.exists():
        print(f"\nPage and pictures: {page}")
    for variant in (RunFolder(folder).variant(name) for name in ("plain", "sfc")):
        for what, pattern in (("cams", "*"), ("masks", "*"), ("predictions", "*/*")):
            for made in sorted((variant.root / what).glob(pattern)):
                print(f"{what}: {made}")
    return 0


def _check(parser: ArgumentParser, parsed: Namespace) -> int:
    from sfc.check.dataset import check_dataset
    from sfc.check.report import print_report
    from sfc.data.readers.detect import detect

    config = settings_of(parser, parsed)
    data = config.data
    if parsed.source:
        data = detect(Path(parsed.source), data)
    elif not parsed.config and data == RunConfig().data:
        raise SFCError("name a data set: a folder, a table, or a recipe with --config")
    report = check_dataset(data, config.classify.training.batch, config.classify.bank.draws)
    print_report(report)
    if parsed.json:
        write_json(Path(parsed.json), report.as_json())
    return 2 if report.broken else 0


def _add_prepare(parser: ArgumentParser) -> None:
    parser.add_argument("dataset", choices=["voc", "coco"])
    parser.add_argument("root", type=str, help="folder that gets the data set")
    parser.add_argument(
        "--archive", type=str, nargs="+", default=[], help="official archives: one or more paths or URLs"
    )
    parser.add_argument("--checksum", type=dict[str, str], default={}, help="MD5 or SHA-256 of archives, by file name")
    parser.add_argument("--download", choices=["", "2012", "2014", "2017"], default="", help="fetch that year's files")


def _prepare(_: ArgumentParser, parsed: Namespace) -> int:
    from sfc.data.prepare.official import prepare_coco, prepare_voc

    root = Path(parsed.root)
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
