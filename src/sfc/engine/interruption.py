"""Ctrl-C and a scheduler's SIGTERM during a training: they wait for the end of the step, so that it can be saved."""

from __future__ import annotations

import signal
import threading
import time
from types import TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)
IMPATIENT = 1.0
"""Seconds after which a second signal is one more request and not the same one again: a group and its leader are often
both told."""
SECONDS = 300
"""Between two checkpoints at most, however long steps take: less than anyone minds to lose."""


class Interruption:
    """Tells a training when to save besides its regular checkpoints: when it is asked to stop, and by time.

    The first signal is noted; a second one interrupts at once. Processes that train together would have to agree, so
    there nothing is caught and nothing saved by time. Signals reach the main thread alone; elsewhere none is caught,
    nor one that is ignored, as in background jobs of a shell.

    Args:
        alone: whether this process trains alone.
    """

    def __init__(self, alone: bool) -> None:
        self.alone = alone
        self.requested = False
        self._asked = self._saved = time.monotonic()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if self.alone and threading.current_thread() is threading.main_thread():
            before = {number: signal.getsignal(number) for number in SIGNALS}
            self._before = {n: handler for n, handler in before.items() if handler not in (signal.SIG_IGN, None)}
            for number in self._before:
                signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self.requested and kind is None:
            raise KeyboardInterrupt

    def _note(self, *_: object) -> None:
        now = time.monotonic()
        if self.requested and now - self._asked > IMPATIENT:
            raise KeyboardInterrupt
        if not self.requested:
            self.requested, self._asked = True, now

    @property
    def is_due(self) -> bool:
        """Whether to save now."""
        return self.requested or (self.alone and time.monotonic() - self._saved > SECONDS)

    def saved(self) -> None:
        """A checkpoint was written. Raises KeyboardInterrupt where one was asked for."""
        self._saved = time.monotonic()
        if self.requested:
            raise KeyboardInterrupt


def leave_signals_to_the_parent(_: int) -> None:
    """For worker processes: a signal to the whole group must not take them before the step is done."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
