"""What each stage takes on this machine: all of them, for a few steps and photographs, in a folder that goes again."""

from __future__ import annotations

import csv
import io
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import torch

from sfc.data.readers.splits import Data
from sfc.data.records import evenly
from sfc.engine.image_work import MOST_AT_ONCE
from sfc.engine.order import steps_per_epoch
from sfc.engine.processes import make_fabric
from sfc.engine.stage import Job, Stage, drive
from sfc.evaluate.stage import EVALUATE
from sfc.pipeline import STAGES, jobs_of
from sfc.refine.stage import masks_name
from sfc.run.folder import CHECKPOINT, RunFolder
from sfc.segment.stage import predictions_name, segmenter_name, source_of
from sfc.signs.stage import JUDGE

if TYPE_CHECKING:
    from sfc.config import RunConfig
    from sfc.settings.shared import TrainingConfig

STEPS, WARM_UP = 8, 3
"""Of each training; the first ones start workers and compile."""
PHOTOGRAPHS, PHOTOGRAPHS_A_THREAD = 12, 3


@dataclass(frozen=True)
class Costs:
    """Seconds and bytes.

    Args:
        classifier_step: seconds of one step of the classifier's training.
        cams: seconds until the CAMs of one more photograph are there.
        signs: likewise, the look at them that needs no masks.
        mask: likewise, its mask.
        segmenter_step: seconds of one step of the segmenter's training.
        prediction: seconds until one more validation image has its masks, in all ways.
        scores: seconds for one scored image.
        bytes_each: of CAMs and mask of a photograph.
        bytes_trained: of both networks.
        memory: most bytes that the process had at once.
    """

    classifier_step: float
    cams: float
    signs: float
    mask: float
    segmenter_step: float
    prediction: float
    scores: float
    bytes_each: float
    bytes_trained: float
    memory: int


def rehearse(config: RunConfig, data: Data) -> Costs:
    """Goes through all stages of the first method with a few photographs and steps.

    Args:
        config: settings of the run.
        data: of the run.

    Raises:
        SFCError: what would stop the run too.
    """
    machine = replace(config.machine, devices=1, nodes=1)
    with tempfile.TemporaryDirectory(prefix="sfc-plan-") as folder, redirect_stderr(io.StringIO()):
        fabric = make_fabric(machine)
        at_once = min(torch.get_num_threads(), MOST_AT_ONCE)
        few = _a_few(data.at_most(config.longest), max(PHOTOGRAPHS, PHOTOGRAPHS_A_THREAD * at_once))
        job = jobs_of(fabric, _briefly(config, len(few.train)), RunFolder(Path(folder)))[0]
        job.data = few
        for stage in STAGES:
            drive(job, stage)
        # A second time: what a first call loads does not count.
        again = {stage.name: _timed(job, stage) for stage in (JUDGE, EVALUATE)}
        return _costs(job, again, at_once)


def _briefly(config: RunConfig, photographs: int) -> RunConfig:
    """A few steps of each training."""
    classify, segment = config.classify, config.segment
    epochs = [_epochs(photographs, training) for training in (classify.training, segment.training)]
    return replace(
        config,
        classify=replace(classify, training=replace(classify.training, epochs=epochs[0], picture_every=0)),
        segment=replace(segment, training=replace(segment.training, epochs=epochs[1])),
    )


def _epochs(photographs: int, training: TrainingConfig) -> int:
    """Epochs that have at least `STEPS` steps: as many, where the photographs are fewer than two batches.

    A second one always: on a GPU the steps of an epoch share one time, and that of the first has the warm-up in it.
    """
    return 1 + math.ceil((STEPS - 1) / steps_per_epoch(photographs, training))


def _a_few(data: Data, count: int) -> Data:
    labelled = [record for record in data.train.records if record.labels]
    train = replace(data.train, records=tuple(evenly(labelled, count)))
    known = {record.id for record in train.records}
    scoring, val = data.scoring, data.val
    if scoring is not None:
        scoring = replace(scoring, records=tuple(record for record in scoring.records if record.id in known))
        scoring = scoring if len(scoring) else None
    if val is not None:
        val = replace(val, records=tuple(evenly(val.records, count)))
    return Data(train, scoring, val)


def _timed(job: Job, stage: Stage) -> float:
    start = time.perf_counter()
    drive(job, stage)
    return time.perf_counter() - start


def _costs(job: Job, again: dict[str, float], at_once: int) -> Costs:
    config, folder, source = job.config, job.folder, source_of(job.config)
    masks, segmenter = masks_name(config.refine.method), segmenter_name(source)
    cams = list(folder.cams("train").rglob("*.cam"))
    made = list(job.path(masks).rglob("*.png"))
    ways = [job.path(predictions_name(source, way)) for way in config.predict.ways] if job.data.val else []
    predicted = list(ways[-1].rglob("*.png")) if ways else []
    scored = sum(len(split) for _, split in job.data.scored())
    trained = (folder.classify, job.path(segmenter))
    return Costs(
        classifier_step=_seconds_a_step(folder.classify, config.classify.training.batch),
        cams=_seconds_each(cams, at_once),
        signs=again[JUDGE.name] / len(job.data.train),
        mask=_seconds_each(made, at_once),
        segmenter_step=_seconds_a_step(job.path(segmenter), config.segment.training.batch),
        prediction=_seconds_each(predicted, at_once) if predicted else 0.0,
        scores=again[EVALUATE.name] / scored if scored else 0.0,
        bytes_each=(_bytes(cams) + _bytes(made)) / len(job.data.train),
        bytes_trained=_bytes(path / CHECKPOINT for path in trained),
        memory=peak_memory(),
    )


def _seconds_a_step(folder: Path, batch: int) -> float:
    """Median over the steps of a training, from its log."""
    with (folder / "log.csv").open(newline="") as file:
        rates = [float(row["images_per_second"]) for row in csv.DictReader(file)]
    return statistics.median(batch / rate for rate in rates[WARM_UP:])


def _seconds_each(files: list[Path], at_once: int) -> float:
    """From one file to the next, by when they were written: so many begin together, and finish as one does."""
    times = sorted(path.stat().st_mtime for path in files)
    begun = min(at_once, len(times) - 1)
    return (times[-1] - times[0]) / (len(times) - begun) if begun else 0.0


def _bytes(files: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in files)


def peak_memory() -> int:
    """Most bytes that this process has had in memory."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    # In bytes on a Mac, in blocks of 1,024 elsewhere.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
