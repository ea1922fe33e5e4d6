"""The progress of every stage: a live bar on a terminal, a line now and then where there is none."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

SECONDS = 30
"""Between two lines where there is no terminal."""
RunLeft = Callable[[float], float]
"""Seconds until the run ends, given those until the task at hand does."""
_run_left: ContextVar[RunLeft | None] = ContextVar("run_left", default=None)


@contextmanager
def run_ends(left: RunLeft | None) -> Iterator[None]:
    """Bars that are made in this block also say how long the whole run still takes; None: nobody knows."""
    token = _run_left.set(left)
    try:
        yield
    finally:
        _run_left.reset(token)


def _console() -> Console:
    """The error stream. A notebook is no terminal, whatever it says: it cannot redraw a line."""
    in_notebook = Console(stderr=True).is_jupyter
    return Console(stderr=True, force_jupyter=False, force_terminal=False if in_notebook else None)


class StageProgress(Progress):
    """A bar; in a file or a pipe, which cannot show one, a plain line every 30 seconds. Tasks have a field `note`."""

    def __init__(self) -> None:
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            _RunColumn(_run_left.get()),
            console=_console(),
            speed_estimate_period=600,  # steps may take minutes
        )
        self._said = time.monotonic()
        self._run_left = _run_left.get()

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """As rich's; says how far the task is where no bar can."""
        super().update(task_id, **changes)
        if self.console.is_terminal:
            return
        with self._lock:
            task = self._tasks[task_id]
            if not task.visible or task.finished or time.monotonic() - self._said < SECONDS:
                return
            self._said = time.monotonic()
        self.console.print(self._line(task), markup=False, highlight=False, soft_wrap=True)

    def _line(self, task: Task) -> str:
        words = f"{task.description}: {task.completed:.0f} of {task.total or 0:.0f}"
        note = task.fields.get("note", "")
        left = f"{_clock(task.elapsed)} gone, {_clock(task.time_remaining)} left"
        return f"{words}{f', {note}' if note else ''}, {left}{_of_run(self._run_left, task)}"


class _RunColumn(ProgressColumn):
    """How long the whole run still takes, where that is known."""

    def __init__(self, left: RunLeft | None) -> None:
        super().__init__()
        self._left = left

    def render(self, task: Task) -> Text:
        return Text(_of_run(self._left, task).removeprefix(", "), style="progress.remaining")


def _of_run(left: RunLeft | None, task: Task) -> str:
    if left is None or task.time_remaining is None:
        return ""
    return f", run {_clock(left(task.time_remaining))}"


def _clock(seconds: float | None) -> str:
    """Hours, minutes and seconds; a question mark for what is not known yet."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
