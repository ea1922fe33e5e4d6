"""The command line: parse, call, print. Heavy libraries are imported by what is called, so that help is instant."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from sfc.config import RunConfig
from sfc.errors import SFCError
from sfc.run_folder import RunFolder
from sfc.settings import add_settings, settings_of

STAGE_HELP = {
    "classify": "train the classifier of a run",
    "localize": "make the CAMs of a run",
    "evaluate": "score the CAMs of a run",
    "report": "draw the page and pictures of a run from its saved scores",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; 0 if it worked, 2 if the user can mend what went wrong, 130 if interrupted."""
    try:
        parser, commands = _parser()
        parsed = parser.parse_args(arguments)
        name = parsed.command
        return commands[name](parsed[name])
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


def _parser() -> tuple[ArgumentParser, dict[str, Callable[[Namespace], int]]]:
    parser = ArgumentParser(prog="sfc", description="Image-level labels in, segmentation masks out.")
    subcommands = parser.add_subcommands(dest="command", required=True)
    commands: dict[str, Callable[[Namespace], int]] = {}

    def add(name: str, command: Callable[[ArgumentParser, Namespace], int], text: str) -> ArgumentParser:
        child = ArgumentParser(description=text[0].upper() + text[1:] + ".")
        subcommands.add_subcommand(name, child, help=text)
        commands[name] = lambda parsed: command(child, parsed)
        return child

    child = add("demo", _demo, "the built-in benchmark: plain CAM and SFC, from training to scores and pictures")
    child.add_argument("--run", type=str, default="runs/demo", help="run folder")
    child.add_argument("--seed", type=int, default=0, help="seed of data and training")
    child = add("run", _run, "every stage, skipping what is done")
    _add_run_options(child)
    for name, text in STAGE_HELP.items():
        child = add(name, lambda parser, parsed, stage=name: _stage(stage, parser, parsed), text)
        _add_run_options(child)
    child = add("check", _check, "is a data set sound? counts, long tail, broken files, unknown labels")
    child.add_argument("source", nargs="?", type=str, default="", help="data set folder or table; or use --config")
    child.add_argument("--json", type=str, default="", help="also write the findings to this file")
    add_settings(child)
    _add_prepare(add("prepare", _prepare, "official archives to what the readers want"))
    return parser, commands


def _add_run_options(parser: ArgumentParser) -> None:
    add_settings(parser)
    parser.add_argument(
        "--run", type=str, default="", help="run folder; default: runs/ and the name of the recipe"
    )


def _run_folder(parsed: Namespace) -> Path:
    if parsed.run:
        return Path(parsed.run)
    if parsed.config:
        return Path("runs") / Path(str(parsed.config[-1])).stem
    raise SFCError("name a recipe with --config FILE, or a run folder with --run FOLDER")


def _settings(parser: ArgumentParser, parsed: Namespace) -> tuple[RunConfig, Path]:
    """The settings and the run folder; a run that exists brings its own settings along."""
    folder = _run_folder(parsed)
    saved = RunFolder(folder).config
    if not parsed.config and saved.exists():
        arguments = [argument for argument in sys.argv[2:]]
        parsed = parser.parse_args([f"--config={saved}", *arguments])
    return settings_of(parser, parsed), folder


def _run(parser: ArgumentParser, parsed: Namespace) -> int:
    from sfc.pipeline import run

    return _print_scores(run(*_settings(parser, parsed)))


def _stage(stage: str, parser: ArgumentParser, parsed: Namespace) -> int:
    from sfc.pipeline import run

    return _print_scores(run(*_settings(parser, parsed), stages=(stage,)))
