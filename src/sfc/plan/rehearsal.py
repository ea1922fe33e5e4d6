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
from typing import TYPE_CHECKING, Any, TypeVar

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
from sfc.refine.methods import REFINERS
from sfc.refine.stage import REFINE
from sfc.run.folder import CHECKPOINT, RunFolder
from sfc.segment.stage import predictions_name, segmenter_name, source_of
from sfc.signs.stage import JUDGE

if TYPE_CHECKING:
    from sfc.config import RunConfig
    from sfc.settings.shared import TrainingConfig

Training = TypeVar("Training", bound="TrainingConfig")

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
        mask: likewise, its mask; masks that it is made from included.
        relation_step: seconds of one step of the relation network's training; 0 where masks need none.
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
    relation_step: float
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
    refine: Any = config.refine  # its sections are entered by name

    def brief(training: Training, **others: Any) -> Training:
        return replace(training, epochs=_epochs(photographs, training), **others)

    return replace(
        config,
        classify=replace(classify, training=brief(classify.training, picture_every=0)),
        refine=replace(refine, irn=replace(refine.irn, training=brief(refine.irn.training))),
        segment=replace(segment, training=brief(segment.training)),
    )


def _epochs(photographs: int, training: TrainingConfig) -> int:
    """Epochs that have at least `STEPS` steps: as many, where the photographs are fewer than two batches.

    A second one always: on a GPU the steps of an epoch share one time, and that of the first has the warm-up in it.
    """
    return 1 + math.ceil((STEPS - 1) / steps_per_epoch(photographs, training))


def _a_few(data: Data, count: int) -> Data:
    """Some photographs with tags; half of them are to be scored, where as many are."""
    scoring, val = data.scoring, data.val
    with_masks = set() if scoring is None else {record.id for record in scoring.records}
    labelled = [record for record in data.train.records if record.labels]
    scored = list(evenly([record for record in labelled if record.id in with_masks], count // 2))
    others = list(evenly([record for record in labelled if record.id not in with_masks], count - len(scored)))
    train = replace(data.train, records=(*scored, *others))
    if scoring is not None:
        known = {record.id for record in scored}
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
    segmenter = segmenter_name(source)
    cams = list(folder.cams("train").rglob("*.cam"))
    made = [list(job.path(masks).rglob("*.png")) for masks in REFINE.writes(job)]
    is_walked = bool(REFINERS[config.refine.method].after)
    ways = [job.path(predictions_name(source, way)) for way in config.predict.ways] if job.data.val else []
    predicted = list(ways[-1].rglob("*.png")) if ways else []
    scored = sum(len(split) for _, split in job.data.scored())
    trained = (folder.classify, job.path(segmenter))
    return Costs(
        classifier_step=_seconds_a_step(folder.classify, config.classify.training.batch),
        cams=_seconds_each(cams, at_once),
        signs=again[JUDGE.name] / len(job.data.train),
        mask=sum(_seconds_each(files, at_once) for files in made),
        relation_step=_seconds_a_step(folder.relation, config.refine.irn.training.batch) if is_walked else 0.0,
        segmenter_step=_seconds_a_step(job.path(segmenter), config.segment.training.batch),
        prediction=_seconds_each(predicted, at_once) if predicted else 0.0,
        scores=again[EVALUATE.name] / scored if scored else 0.0,
        bytes_each=(_bytes(cams) + sum(map(_bytes, made))) / len(job.data.train),
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
