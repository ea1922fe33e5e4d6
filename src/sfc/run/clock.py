"""How long the stages of a run take: as expected, and in fact."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from sfc.errors import SFCError
from sfc.run.files import write_json

NOTED = 0.1
"""Seconds from which a stage is noted: less is one that was there already."""


def in_words(seconds: float) -> str:
    """A time to read: `40 s`, `12 min`, `2 h 5 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def read_times(path: Path) -> dict[str, dict[str, float]]:
    """Seconds of each stage of each method; empty where none are noted."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {str(system): {str(k): float(v) for k, v in stages.items()} for system, stages in found.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


class Clock:
    """Measures stages and adds the seconds up over the commands of a run.

    Args:
        path: the file with the seconds of each stage of each method.
        expected: seconds of each stage over all methods, as far as they are known.
        methods: how many.
        active: whether this process writes.
    """

    def __init__(self, path: Path, expected: Mapping[str, float], methods: int, active: bool = True) -> None:
        self.path, self.active = path, active
        self.expected = {name: seconds / methods for name, seconds in expected.items()}

    def words(self, stage: str, ahead: Sequence[tuple[str, int]]) -> str:
        """What to say as a stage begins; empty where nothing is expected.

        Args:
            stage: that begins.
            ahead: stages with how many methods have them before them, this one included.
        """
        if stage not in self.expected:
            return ""
        return f" (about {in_words(self.expected[stage])}; the run ends in about {in_words(self._rest(ahead))})"

    def left(self, stage: str, ahead: Sequence[tuple[str, int]]) -> Callable[[float], float] | None:
        """A function that says how many seconds the run still takes, given those of the task at hand.

        The task may be a part of the stage, so that what is expected of the stage counts where it is more.

        Args:
            stage: that begins now.
            ahead: as in `words`.

        Returns:
            None where nothing is expected.
        """
        if stage not in self.expected:
            return None
        start, of_stage, rest = time.perf_counter(), self.expected[stage], self._rest(ahead)

        def left(task: float) -> float:
            return max(task, start + of_stage - time.perf_counter()) + rest - of_stage

        return left

    def _rest(self, ahead: Sequence[tuple[str, int]]) -> float:
        return sum(self.expected.get(name, 0.0) * count for name, count in ahead)

    @contextmanager
    def measure(self, system: str, stage: str) -> Iterator[None]:
        """Notes what the block took, also where it was interrupted."""
        start = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - start
            if self.active and seconds >= NOTED:
                times = read_times(self.path)
                of_system = times.setdefault(system, {})
                of_system[stage] = round(of_system.get(stage, 0.0) + seconds, 2)
                with suppress(SFCError):  # a full disk stops the work itself, with a message of its own
                    write_json(self.path, times)
