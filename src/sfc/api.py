"""The commands `plan`, `run` and `predict` as functions, with the defaults of the command line.

    from sfc import api

    api.plan("photos")
    outcome = api.run("photos", settings={"classify.training.epochs": 20})
    predictions = api.predict(outcome.folder, ["new_photos"], crf=True)

Errors that a user can mend are `sfc.errors.SFCError`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfc.config import RunConfig
from sfc.evaluate.scores import Scores
from sfc.pipeline import run as run_stages
from sfc.plan.command import default_folder, plan_run, settle
from sfc.plan.plan import Plan, planned_seconds
from sfc.plan.rules import nested
from sfc.predict import command
from sfc.predict.folder import Predictions, read_predictions
from sfc.report.summary import summary
from sfc.run.folder import RunFolder
from sfc.settings.read import new_parser, parse

Place = str | Path


@dataclass(frozen=True)
class Outcome:
    """What a run has made.

    Args:
        folder: the run folder.
        config: its settings.
        scores: of each method and split; empty without truth.
        lines: what the command says at its end.
    """

    folder: Path
    config: RunConfig
    scores: list[Scores]
    lines: list[str]


def plan(source: Place, *, run: Place = "", budget: str = "", settings: Mapping[str, Any] | None = None) -> Plan:
    """Looks at a data set and this machine, chooses the settings of a run, and writes plan.yaml into its folder.

    Args:
        source: data set folder or table.
        run: run folder; empty: `runs/` and the name of the data set.
        budget: time that the run may take, such as `30m`; empty: as long as it wants.
        settings: what is decided already, by full key: `{"classify.training.epochs": 20}`.

    Raises:
        SFCError: the data, the settings or the budget cannot be used, or a run has begun in the folder.
    """
    folder = RunFolder(Path(run or default_folder(Path(source))))
    return plan_run(Path(source), nested(settings or {}), folder, budget)


def run(
    source: Place = "",
    *,
    run: Place = "",
    config: Iterable[Place] = (),
    budget: str = "",
    settings: Mapping[str, Any] | None = None,
) -> Outcome:
    """Goes through every stage, skipping what is done: of a data set, as planned, or of recipes.

    Args:
        source: data set folder or table; empty: the recipe's, or the run's.
        run: run folder; empty: `runs/` and the name of the data set or of the last recipe.
        config: recipes, files or names; later ones win. None: the folder's own settings, or its plan, which is made if
            there is none.
        budget: for a plan that is made now, or was made for it by an earlier call.
        settings: on top of all, by full key.

    Raises:
        SFCError: see `sfc.pipeline.run`.
    """
    recipes = [str(name) for name in config]
    found, folder = settle(str(source), str(run), recipes, nested(settings or {}), budget)
    expected = planned_seconds(RunFolder(folder), found)
    scores = run_stages(found, folder, expected=expected)
    return Outcome(folder, found, scores, summary(found, RunFolder(folder), scores, expected))


def predict(model: Place, images: Iterable[Place], out: Place = "predictions", **options: Any) -> Predictions:
    """Masks of photographs that need no labels.

    Args:
        model: run folder, or a model folder that `sfc export` wrote.
        images: images, folders, patterns, or .txt lists of images.
        out: folder that gets the masks.
        options: those of the command, with underscores: `crf=True`, `scales=[1.0, 1.5]`, `source="cams"`.

    Returns:
        The folder's masks, those of earlier calls too; they stay on disk until they are asked for.

    Raises:
        SFCError: see `sfc predict`.
    """
    parser = new_parser(prog="sfc predict")
    command.add_options(parser)
    words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", _text(value))]
    arguments = [str(model), *map(str, images), "--out", str(out), *words]
    command.predict_command(parser, parse(parser, arguments))
    return read_predictions(Path(out))


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
