"""Ctrl-C and a scheduler's SIGTERM during a training: they wait for the end of the step, so that it can be saved."""

from __future__ import annotations

import signal
import threading
import time
from types import TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SECONDS = 300
"""Between two checkpoints at most, however long steps take: less than anyone minds to lose."""


class Interruption:
    """Tells a training when to save besides its regular checkpoints: when it is asked to stop, and by time.

    The first signal is noted; a second one interrupts at once. Processes that train together would have to agree, so
    there nothing is caught and nothing saved by time. Signals reach the main thread alone; elsewhere none is caught.

    Args:
        alone: whether this process trains alone.
    """

    def __init__(self, alone: bool) -> None:
        self.alone = alone
        self.requested = False
        self._saved = time.monotonic()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if self.alone and threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, *_: object) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True

    @property
    def is_due(self) -> bool:
        """Whether to save now."""
        return self.requested or (self.alone and time.monotonic() - self._saved > SECONDS)

    def saved(self) -> None:
        """A checkpoint was written. Raises KeyboardInterrupt where one was asked for."""
        self._saved = time.monotonic()
        if self.requested:
            raise KeyboardInterrupt
