"""Stages: what each says of itself, and the driver that does the same for all of them.

A stage turns artifacts (folders of files, each with a note of what they were made from) into others. Everything passes
between stages as files, so any of them can be run alone, stopped, and gone on with.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from sfc.errors import ConfigError
from sfc.run.files import file_hash
from sfc.run.folder import CHECKPOINT, SystemFolder
from sfc.run.origin import NOTE, note_digest, read_note, require_inputs, require_same, write_note

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from sfc.data.readers.splits import Data

Value = TypeVar("Value")

BEGIN_AGAIN = "delete it to make it again, or choose another run folder"


@dataclass(frozen=True)
class Artifact:
    """A folder of files that a stage makes.

    Args:
        name: its path below the folder of the system, such as `cams/train`.
        what: of its files, in a sentence: `CAMs`.
        settings: plain values that its files depend on.
        inputs: names of the artifacts that they are made from.
        facts: other things that they are made from, by name, plain values.
        explain: what changed in them, in words, for the refusal.
        advice: what to do where something it was made from changed.
        is_training: the folder of a training, known by its checkpoint and finished with its last step.
        missing: for images, the first file that is to be made, or made again; None where all are there.
        made_by: the stage, entered by `register`.
    """

    name: str
    what: str
    settings: Mapping[str, Any]
    inputs: tuple[str, ...] = ()
    facts: Callable[[], Mapping[str, Any]] = dict
    explain: Callable[[], str] = lambda: ""
    advice: str = BEGIN_AGAIN
    is_training: bool = False
    missing: Callable[[], Path | None] = lambda: None
    made_by: str = ""


@dataclass
class Job:
    """One system of a run: a method's settings, its data and its folder.

    Args:
        fabric: devices and processes.
        config: settings of the run with those of the method (`RunConfig`).
        data: the splits; they are read once the settings are known to be those of earlier work.
        folder: of the system.
        title: what tables and progress bars call the system.
        artifacts: all that the stages may make, by name.
        kept: see `once`.
    """

    fabric: Fabric
    config: Any
    folder: SystemFolder
    title: str
    data: Data = field(init=False)
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)

    def once(self, name: str, make: Callable[[], Value]) -> Value:
        """What `make` gave when it was first asked for under that name."""
        if name not in self.kept:
            self.kept[name] = make()
        return cast(Value, self.kept[name])

    def path(self, name: str) -> Path:
        """The folder of an artifact."""
        return self.folder.root / name

    def digest(self, name: str) -> str:
        """Identifies an artifact: a training by its weights, other files by what they were made from."""
        if self.artifacts[name].is_training:
            checkpoint = self.path(name) / CHECKPOINT
            if not checkpoint.exists():
                return ""
            found = checkpoint.stat()
            return self.once(f"{checkpoint} {found.st_mtime_ns} {found.st_size}", lambda: file_hash(checkpoint))
        return note_digest(self.expected(name))

    def expected(self, name: str) -> dict[str, Any]:
        """What the note of an artifact should say, given its inputs as they are."""
        artifact = self.artifacts[name]
        inputs = {other: self.digest(other) for other in artifact.inputs}
        return {"settings": dict(artifact.settings), "inputs": {**inputs, **artifact.facts()}}

    def finished(self, name: str) -> dict[str, Any] | None:
        """What was noted when a training ended; None before that."""
        note = read_note(self.path(name))
        return None if note is None else note.get("finished")

    def has_begun(self, name: str) -> bool:
        """Whether there are files of an artifact; a training that was stopped before its first checkpoint left none."""
        note = read_note(self.path(name))
        if note is None or not self.artifacts[name].is_training:
            return note is not None
        return "finished" in note or (self.path(name) / CHECKPOINT).exists()

    def is_there(self, name: str) -> bool:
        """Whether an artifact was begun, from what is there now.

        Raises:
            ConfigError: it, or what it was made from, was made from something else.
        """
        note = read_note(self.path(name))
        if note is None or not self.has_begun(name):
            return False
        artifact = self.artifacts[name]
        for other in artifact.inputs:
            self.is_there(other)
        require_same(self.path(name) / NOTE, note["settings"], artifact.settings)
        is_unfinished = artifact.is_training and "finished" not in note
        advice = BEGIN_AGAIN if is_unfinished else artifact.advice
        require_inputs(self.path(name), note["inputs"], self.expected(name)["inputs"], advice, artifact.explain)
        return True

    def require(self, name: str) -> None:
        """Refuses an artifact that is not there, not finished, or made from something else.

        Raises:
            ConfigError: says which, and what to do.
        """
        for other in (*self.artifacts[name].inputs, name):
            artifact = self.artifacts[other]
            advice = f"run `sfc {artifact.made_by}` first"
            if not (self.path(other) / NOTE).exists():
                raise ConfigError(f"{self.path(other)}: no {artifact.what}; {advice}")
        self.is_there(name)
        checkpoint = self.path(name) / CHECKPOINT
        if artifact.is_training and (self.finished(name) is None or not checkpoint.exists()):
            raise ConfigError(f"{self.path(name)}: the training of the {artifact.what} is not finished; {advice}")
        missing = artifact.missing()
        if missing is not None:
            fault = "not from what is there now" if missing.exists() else "no such file"
            raise ConfigError(f"{missing}: {fault} ({artifact.what}); {advice}")


@dataclass(frozen=True)
class Stage:
    """One step from tags to a scored segmenter.

    Args:
        name: of its command.
        text: what it does, for help.
        sections: sections of the settings that what it makes depends on; those of its artifacts are among them.
        work: does it; called on every process once its inputs are known to be right.
        artifacts: all that it may make for a system.
        reads: names of the artifacts that it needs.
        writes: names of those that it makes now; none: it only reads, and its own result is made anew every time.
        needs: what it needs from outside by name, each with a function that looks for it and raises if it is not there;
            looked for once, before any stage of any system works.
    """

    name: str
    text: str
    sections: tuple[str, ...]
    work: Callable[[Job], None]
    artifacts: Callable[[Job], Sequence[Artifact]] = lambda _: ()
    reads: Callable[[Job], Sequence[str]] = lambda _: ()
    writes: Callable[[Job], Sequence[str]] = lambda _: ()
    needs: Callable[[Job], Mapping[str, Callable[[], None]]] = lambda _: {}


def register(job: Job, stages: Sequence[Stage]) -> None:
    """Enters the artifacts of all stages into a job."""
    for stage in stages:
        for artifact in stage.artifacts(job):
            if not set(artifact.settings) <= set(stage.sections):
                raise ValueError(f"{artifact.name} depends on settings that the stage {stage.name} does not declare")
            job.artifacts[artifact.name] = replace(artifact, made_by=stage.name)


def refuse_changed_settings(job: Job, stages: Sequence[Stage]) -> None:
    """Before anything is touched: compares the settings of all that the stages would go on with.

    Raises:
        ConfigError: names every setting that differs.
    """
    names = [name for stage in stages for name in (*stage.reads(job), *stage.writes(job))]
    for name in dict.fromkeys(names):
        note = read_note(job.path(name))
        if note is not None and job.has_begun(name):
            require_same(job.path(name) / NOTE, note["settings"], job.artifacts[name].settings)


def drive(job: Job, stage: Stage, note: str = "") -> None:
    """Runs a stage of a system, or skips it where all that it makes is there; every process calls this.

    Args:
        job: the system.
        stage: which.
        note: said behind what it does.

    Raises:
        SFCError: an input is missing or was made from something else; or what the stage raises.
    """
    for name in stage.reads(job):
        job.require(name)
    names = stage.writes(job)
    job.fabric.barrier()  # nobody writes before everybody has looked
    if names and all(is_complete(job, name) for name in names):
        _announce(job, f"{job.title}: {stage.name}: already there")
        return
    for name in names:
        if not set(names) & set(job.artifacts[name].inputs):
            claim(job, name)
    _announce(job, f"{job.title}: {stage.name}: {stage.text}{note}")
    stage.work(job)
    job.fabric.barrier()


def finish_training(job: Job, name: str, facts: Mapping[str, Any]) -> None:
    """Notes that a training has taken its last step; every process calls this.

    Args:
        job: the system.
        name: of the artifact.
        facts: plain values that later stages need to know without loading the weights.
    """
    if job.fabric.is_global_zero:
        write_note(job.path(name), {**job.expected(name), "finished": dict(facts)})
    job.fabric.barrier()


def is_complete(job: Job, name: str) -> bool:
    """Whether an artifact is there whole, from what is there now.

    Raises:
        ConfigError: it, or what it was made from, was made from something else.
    """
    if not job.is_there(name):
        return False
    artifact = job.artifacts[name]
    if artifact.is_training:
        return job.finished(name) is not None and (job.path(name) / CHECKPOINT).exists()
    return artifact.missing() is None


def claim(job: Job, name: str) -> None:
    """Says in the note of an artifact what its files are made from; every process calls this.

    The driver does so for what a stage makes of its inputs; a stage does it for what it makes of its own results.

    Raises:
        ConfigError: the artifact was made from something else.
    """
    is_there = job.is_there(name)
    job.fabric.barrier()
    if not is_there and job.fabric.is_global_zero:
        write_note(job.path(name), job.expected(name))
    job.fabric.barrier()


def _announce(job: Job, words: str) -> None:
    if job.fabric.is_global_zero:
        sys.stderr.write(f"{words}\n")
        sys.stderr.flush()


def each_missing(paths: Iterator[Path]) -> Path | None:
    """The first of some files that does not exist."""
    return next((path for path in paths if not path.exists()), None)
