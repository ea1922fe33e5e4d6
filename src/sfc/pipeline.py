"""The walk through the stages: data, then each method from classifier to scores, then the report."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from sfc.classify.stage import CLASSIFY
from sfc.engine.stage import Job, Stage, drive, refuse_changed_settings, register
from sfc.errors import ConfigError
from sfc.evaluate.stage import EVALUATE
from sfc.localize.stage import LOCALIZE
from sfc.refine.stage import REFINE
from sfc.report.stage import all_masks, report
from sfc.run.clock import Clock
from sfc.run.files import write_json
from sfc.run.folder import RunFolder
from sfc.run.lock import only_command
from sfc.run.provenance import versions
from sfc.segment.stage import SEGMENT, segmenter_name, source_of
from sfc.settings.read import earlier_settings_kept, write_settings
from sfc.signs.stage import JUDGE

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from sfc.config import RunConfig
    from sfc.data.readers.splits import Data
    from sfc.evaluate.scores import Scores

STAGES: tuple[Stage, ...] = (CLASSIFY, LOCALIZE, JUDGE, REFINE, SEGMENT, EVALUATE)
"""In order; each runs for every method."""
REPORT = "report"
EVERYTHING = (*(stage.name for stage in STAGES), REPORT)
FOLDER_FORMAT = 2
"""Of run folders; those of another one are refused."""


def run(
    config: RunConfig,
    root: Path,
    stages: Sequence[str] = EVERYTHING,
    *,
    only_scored: bool = False,
    expected: Mapping[str, float] | None = None,
) -> list[Scores]:
    """Goes through the stages, skipping what is done.

    Args:
        config: all settings.
        root: the run folder; a stopped run goes on where it was.
        stages: which of `EVERYTHING`.
        only_scored: of the training images, only those with masks get CAMs and masks: enough for the scores of both.
        expected: seconds that each stage will take over all methods, as far as they are known; said as it begins.

    Returns:
        Scores of each method and split; empty without evaluation, and on processes other than the first.

    Raises:
        SFCError: bad data, settings, checkpoint, a full disk, or another command at work in the folder; what was
            finished stays.
    """
    from sfc.engine.processes import make_fabric, one_message

    folder = RunFolder(root)
    fabric = make_fabric(config.machine)
    with one_message(fabric), only_command(root) if fabric.is_global_zero else nullcontext():
        _require_format(folder)
        jobs = jobs_of(fabric, config, folder)
        chosen = [stage for stage in STAGES if stage.name in stages]
        for job in jobs:
            refuse_changed_settings(job, chosen)
        fabric.barrier()
        with earlier_settings_kept(folder.config):
            data = read(fabric, config, folder)
            needs: dict[str, Callable[[], None]] = {}
            for job in jobs:
                job.data = data.only_scored() if only_scored else data
                for stage in chosen:
                    needs.update(stage.needs(job))
            for look in needs.values():
                look()
            if fabric.is_global_zero:
                _write_settings(config, folder)
            clock = Clock(folder.times, expected or {}, len(jobs), fabric.is_global_zero)
            return _walk(fabric, folder, jobs, chosen, clock, draw=REPORT in stages)


def jobs_of(fabric: Fabric, config: RunConfig, folder: RunFolder) -> list[Job]:
    """One job a method; their data is not read yet."""
    from sfc.methods import METHODS

    jobs = []
    for name in config.methods:
        job = Job(fabric, config.of_method(name), folder.system(name), METHODS[name].title)
        register(job, STAGES)
        jobs.append(job)
    return jobs


def read(fabric: Fabric, config: RunConfig, folder: RunFolder) -> Data:
    """The data at their working size; one process makes what a reader makes itself before the others look."""
    from sfc.data.readers.splits import read_data

    if fabric.is_global_zero:
        data = read_data(config.data, folder.own_data, config.seed)
    fabric.barrier()
    if not fabric.is_global_zero:
        data = read_data(config.data, folder.own_data, config.seed)
    return data.at_most(config.longest)


def _walk(
    fabric: Fabric, folder: RunFolder, jobs: Sequence[Job], stages: Sequence[Stage], clock: Clock, draw: bool
) -> list[Scores]:
    from sfc.engine.progress import run_ends
    from sfc.evaluate.scores import read_scores

    for number, job in enumerate(jobs):
        for place, stage in enumerate(stages):
            ahead = [(stage.name, len(jobs) - number - (stage in stages[:place])) for stage in stages]
            with clock.measure(job.folder.root.name, stage.name), run_ends(clock.left(stage.name, ahead)):
                drive(job, stage, clock.words(stage.name, ahead))
            if stage is REFINE and draw and fabric.is_global_zero and not _has_segmenter(job):
                all_masks(job)  # to be looked at while it trains
        job.kept.clear()  # a loaded network is of no use to the next method
    scores: list[Scores] = []
    if fabric.is_global_zero:
        if EVALUATE in stages:
            scores = [entry for job in jobs for entry in read_scores(job.folder.scores)]
        if draw:
            report(jobs, folder)
    fabric.barrier()
    return scores


def _has_segmenter(job: Job) -> bool:
    return job.finished(segmenter_name(source_of(job.config))) is not None


def _require_format(folder: RunFolder) -> None:
    """Refuses a run folder of an earlier version, whose files lie elsewhere.

    Raises:
        ConfigError: says so.
    """
    if not folder.config.exists():
        return
    try:
        found = json.loads(folder.manifest.read_text(encoding="utf-8")).get("format")
    except (OSError, ValueError, AttributeError):
        found = None
    if found != FOLDER_FORMAT:
        raise ConfigError(
            f"{folder.root}: made by another version of sfc, whose run folders this one cannot go on with; choose "
            "another folder"
        )


def _write_settings(config: RunConfig, folder: RunFolder) -> None:
    # The manifest first: a folder with settings and without a format is an earlier version's.
    write_json(folder.manifest, {"format": FOLDER_FORMAT, "command": sys.argv, "versions": versions()})
    write_settings(folder.config, config)
