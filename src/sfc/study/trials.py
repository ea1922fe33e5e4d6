"""Trials of a study: one run folder for each seed and method, one after the other or several at once."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from sfc.errors import ConfigError, SFCError
from sfc.evaluate.scores import Scores, read_scores
from sfc.run.folder import RunFolder

LOG = "log.txt"


@dataclass(frozen=True)
class Trial:
    """One method with one seed.

    Args:
        seed: of weights, order and augmentation (and of the data, where a reader makes them).
        method: its name.
        folder: its run folder.
    """

    seed: int
    method: str
    folder: Path

    def scores(self) -> list[Scores]:
        """Saved scores, an entry a split. Raises DataError where there are none."""
        return read_scores(RunFolder(self.folder).system(self.method).scores)


def trials_of(folder: Path, methods: Sequence[str], seeds: Sequence[int]) -> list[Trial]:
    """Every seed with every method, seed by seed, so that a study that is stopped early is still paired."""
    return [Trial(seed, method, folder / f"{seed}-{method}") for seed in seeds for method in methods]


def run_trials(
    trials: Sequence[Trial], settings: Path, stages: Sequence[str], processes: int, *, only_scored: bool = False
) -> None:
    """Runs what is not done yet; what is done stays, so the same call goes on after an interruption.

    Args:
        trials: which.
        settings: file with the settings that all share.
        stages: of each.
        processes: how many trials at once; each then writes its messages to log.txt in its folder.
        only_scored: see `sfc.pipeline.run`.

    Raises:
        SFCError: a trial failed; names it. Those that were at work are finished first.
    """
    if processes == 1:
        for number, trial in enumerate(trials, start=1):
            sys.stderr.write(f"study: seed {trial.seed}, {trial.method} ({number} of {len(trials)})\n")
            _run(trial, settings, stages, threads=0, only_scored=only_scored)
        return
    threads = max(1, (os.cpu_count() or 1) // processes)
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(_run_apart, trial, settings, stages, threads, only_scored): trial for trial in trials}
        try:
            for number, future in enumerate(as_completed(futures), start=1):
                future.result()
                trial = futures[future]
                sys.stderr.write(f"study: seed {trial.seed}, {trial.method} is done ({number} of {len(trials)})\n")
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _run_apart(trial: Trial, settings: Path, stages: Sequence[str], threads: int, only_scored: bool) -> None:
    """A trial in a process of its own."""
    trial.folder.mkdir(parents=True, exist_ok=True)
    with (trial.folder / LOG).open("a", encoding="utf-8") as log, contextlib.redirect_stderr(log):
        _run(trial, settings, stages, threads, only_scored)


def _run(trial: Trial, settings: Path, stages: Sequence[str], threads: int, only_scored: bool) -> None:
    from sfc.config import load_config
    from sfc.pipeline import run

    overrides = [f"--seed={trial.seed}", f'--methods=["{trial.method}"]']
    config = load_config([settings], [*overrides, *([f"--machine.threads={threads}"] if threads else [])])
    try:
        run(config, trial.folder, stages, only_scored=only_scored)
    except SFCError as error:
        kind = ConfigError if isinstance(error, ConfigError) else SFCError
        raise kind(f"seed {trial.seed}, {trial.method}: {error}") from error
