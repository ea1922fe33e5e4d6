"""A plan: settings with their reasons, the time and the disk that they will take."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfc.config import RunConfig, checked
from sfc.data.readers.splits import read_data
from sfc.engine.order import steps_per_epoch
from sfc.plan.facts import DataFacts, MachineFacts, data_facts, machine_facts
from sfc.plan.lengths import Lengths, cut_down, length_choices, refuse_no_time, wanted
from sfc.plan.rehearsal import Costs, rehearse
from sfc.plan.rules import BASE, OF_THE_DATA, Choice, choices, nested, refuse_no_weights
from sfc.run.files import atomic_write, write_json
from sfc.run.folder import RunFolder
from sfc.segment.stage import TRUTH
from sfc.settings.read import laid_over, load_settings, plain_values, settings_text
from sfc.settings.recipes import find_recipe, read_recipe

if TYPE_CHECKING:
    from sfc.data.config import DataConfig
    from sfc.settings.shared import TrainingConfig

START = 4.0
"""Seconds that a stage takes beside its steps or photographs: 1 to 5 in the run of docs/speed.md."""


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Args:
        settings: of the run, all that differ from the defaults, nested.
        choices: why.
        data: what was seen of the data.
        machine: and of the machine.
        seconds: that each stage will take, by its name; empty where nothing was rehearsed.
        disk: bytes of the run.
        memory: most bytes at once.
        budget: seconds that it was cut to fit; None: it was not.
    """

    settings: dict[str, Any]
    choices: tuple[Choice, ...]
    data: DataFacts
    machine: MachineFacts
    seconds: Mapping[str, float]
    disk: float
    memory: int
    budget: float | None


def make_plan(source: DataConfig, options: Mapping[str, Any], folder: Path, budget: float | None = None) -> Plan:
    """Looks at data and machine, chooses, tries each stage for a few steps, and says what the run will take.

    Args:
        source: where the data set lies.
        options: settings that somebody has decided already, nested; they are kept.
        folder: where the run is to lie.
        budget: seconds that the run may take; None: as long as the rules want.

    Raises:
        DataError, ConfigError: the data cannot be used, or the settings; the budget is too little.
        SFCError: a stage stopped with what would stop the run too.
    """
    data = read_data(source, folder / "data")
    seen, machine = data_facts(data), machine_facts(folder)
    base = {name: section for name, section in read_recipe(find_recipe(BASE)).items() if name not in OF_THE_DATA}
    base = laid_over(base, {"data": _named(source)})
    decided = choices(seen, machine)
    settings = laid_over(_with(base, decided), options)
    refuse_no_weights(settings)
    config = checked(load_settings(RunConfig, (), settings))
    costs = rehearse(config, data)
    batch = config.classify.training.batch
    longest = wanted(seen, batch, Lengths(0, 0, config.localize.scales, config.predict.ways))
    candidates = [length_choices(lengths, seen, batch, words) for lengths, words in cut_down(longest, seen, batch)]

    def settled(of_lengths: list[Choice]) -> tuple[dict[str, Any], RunConfig, dict[str, float]]:
        settings = laid_over(_with(base, [*decided, *of_lengths]), options)
        final = checked(load_settings(RunConfig, (), settings))
        return settings, final, expected_seconds(final, config, seen, costs)

    def fits(of_lengths: list[Choice]) -> bool:
        return budget is None or sum(settled(of_lengths)[2].values()) <= budget

    # Every cut makes the run shorter, or leaves it as long where the user decided the length.
    of_lengths = candidates[min(bisect_left(candidates, True, key=fits), len(candidates) - 1)]
    settings, final, seconds = settled(of_lengths)
    if budget is not None and sum(seconds.values()) > budget:
        raise refuse_no_time(budget, sum(seconds.values()))
    made = seen.images + seen.val
    return Plan(
        settings=settings,
        choices=tuple(_as_given(choice, options) for choice in (*decided, *of_lengths)),
        data=seen,
        machine=machine,
        seconds=seconds,
        disk=len(final.methods) * (made * costs.bytes_each + costs.bytes_trained),
        memory=costs.memory,
        budget=budget,
    )


def _named(source: DataConfig) -> dict[str, Any]:
    """The settings of the data that differ from the defaults."""
    default = plain_values(asdict(RunConfig().data))
    return {name: value for name, value in plain_values(asdict(source)).items() if value != default[name]}


def _with(base: Mapping[str, Any], decided: list[Choice]) -> dict[str, Any]:
    settings = dict(base)
    for choice in decided:
        settings = laid_over(settings, nested(choice.settings))
    return settings


def _as_given(choice: Choice, options: Mapping[str, Any]) -> Choice:
    """A choice that the user made instead says so."""
    given = []
    for key in choice.settings:
        place: Any = options
        for name in key.split("."):
            place = place.get(name) if isinstance(place, Mapping) else None
        if place is not None:
            given.append(f"{key} {place}")
    return Choice(choice.what, ", ".join(given), "as given", choice.settings) if given else choice


def expected_seconds(config: RunConfig, rehearsed: RunConfig, seen: DataFacts, costs: Costs) -> dict[str, float]:
    """What each stage takes, over all methods.

    Args:
        config: settings of the run.
        rehearsed: settings that `costs` were measured with; they may differ in lengths.
        seen: the data set.
        costs: measured.
    """
    methods = len(config.methods)
    area = _area(config.localize.scales) / _area(rehearsed.localize.scales)
    share = len(config.predict.ways) / max(1, len(rehearsed.predict.ways))
    images, irn = seen.images, config.refine.irn  # type: ignore[attr-defined]
    learnt = seen.scored if config.segment.masks == TRUTH else images
    steps = {
        "classify": _steps(config.classify.training, images),
        "relation": _steps(irn.training, images),
        "segment": _steps(config.segment.training, learnt),
    }
    seconds = {
        "classify": steps["classify"] * costs.classifier_step,
        "localize": (images + seen.val) * costs.cams * area,
        "judge": images * costs.signs,
        "refine": images * costs.mask + steps["relation"] * costs.relation_step,
        "segment": steps["segment"] * costs.segmenter_step + seen.val * costs.prediction * share,
        "evaluate": (seen.scored + seen.val) * costs.scores,
        "report": 0.0,
    }
    return {name: methods * value + START for name, value in seconds.items()}


def _steps(training: TrainingConfig, images: int) -> int:
    return training.epochs * steps_per_epoch(images, training)


def _area(scales: tuple[float, ...]) -> float:
    return sum(scale**2 for scale in scales)


def write_plan(plan: Plan, folder: RunFolder) -> None:
    """Writes the settings as a recipe that says why, and the figures beside it.

    Raises:
        SFCError: it cannot be written.
    """
    lines = [f"# Settings for {plan.data.name}, chosen by `sfc plan`; the rest has its default. Why:"]
    lines += [f"# {choice.what}: {choice.value}; {choice.because}" for choice in plan.choices]
    config = load_settings(RunConfig, (), plan.settings)
    write_json(
        folder.plan_figures,
        {
            "settings": plain_values(asdict(config)),
            "seconds": dict(plan.seconds),
            "disk": plan.disk,
            "memory": plan.memory,
            "budget": plan.budget,
            "data": asdict(plan.data),
            "machine": asdict(plan.machine),
        },
    )
    with atomic_write(folder.plan) as file:
        file.write(("\n".join(lines) + "\n" + settings_text(plan.settings)).encode())


def planned_seconds(folder: RunFolder, config: RunConfig) -> dict[str, float]:
    """What the plan of a run expects of each stage; empty where there is none, or one of other settings."""
    figures = _figures(folder)
    if figures.get("settings") != plain_values(asdict(config)):
        return {}
    return dict(figures.get("seconds", {}))


def planned_budget(folder: RunFolder) -> float | None:
    """Seconds that the plan of a run was cut to fit; None where it was not, or there is no plan."""
    return _figures(folder).get("budget")


def _figures(folder: RunFolder) -> dict[str, Any]:
    """What `write_plan` wrote beside the settings; empty where there is none, or it cannot be read."""
    try:
        return dict(json.loads(folder.plan_figures.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}
