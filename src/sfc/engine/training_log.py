"""What a training shows while it runs and leaves behind: a progress bar, a CSV file, TensorBoard events."""

from __future__ import annotations

import csv
import io
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from sfc.engine.progress import StageProgress
from sfc.errors import SFCError
from sfc.run.files import atomic_write


class TrainingLog:
    """Loss terms, learning rate and throughput of every step.

    Rows of steps that an interrupted run took after its last checkpoint are dropped when it goes on.

    Args:
        folder: gets log.csv and TensorBoard events.
        title: shown beside the bar.
        steps: total.
        first: the first step that will be recorded.
        active: False for processes other than the first; nothing is shown or written then.
    """

    TENSORBOARD_EVERY = 10

    def __init__(self, folder: Path, title: str, steps: int, first: int, active: bool = True) -> None:
        self.path = folder / "log.csv"
        self.title, self.steps, self.first, self.active = title, steps, first, active
        self.file: IO[str] | None = None
        self.rate: float | None = None
        self.last = time.perf_counter()

    def __enter__(self) -> Self:
        if self.active:
            from torch.utils.tensorboard import SummaryWriter

            self._drop_rows()
            self.thread_hook, threading.excepthook = threading.excepthook, self._thread_failed
            self.events = SummaryWriter(str(self.path.parent / "tensorboard"), purge_step=self.first)
            self.bar = StageProgress()
            self.bar.start()
            self.task = self.bar.add_task(self.title, total=self.steps, completed=self.first, note="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.active:
            return
        self.bar.stop()
        failures = []
        for log in (self.file, self.events):
            try:
                if log is not None:
                    log.close()
            except OSError as failure:
                failures.append(failure)
        threading.excepthook = self.thread_hook
        if failures and error is None:
            raise self._unwritable(failures[0]) from failures[0]

    def _thread_failed(self, fault: threading.ExceptHookArgs) -> None:
        """TensorBoard's thread prints no traceback: its error comes again with the next event or at the end."""
        if not isinstance(fault.exc_value, OSError):
            self.thread_hook(fault)

    def _unwritable(self, error: OSError) -> SFCError:
        return SFCError(f"{self.path}, or the TensorBoard events beside it: cannot be written ({error.strerror})")

    def _drop_rows(self) -> None:
        """Keeps the rows before `first`; a row cut short by a kill is dropped too."""
        kept: list[str] = []
        if self.path.exists() and self.first:
            header, *rows = self.path.read_text().splitlines() or [""]
            width = header.count(",")
            kept = [header]
            for row in rows:
                number = row.split(",", 1)[0]
                if row.count(",") == width and number.isdigit() and int(number) < self.first:
                    kept.append(row)
        with atomic_write(self.path) as file:
            file.write("".join(line + "\n" for line in kept).encode())
        self.file = self.path.open("a", newline="", buffering=1)  # whoever looks sees every step
        self.has_header = bool(kept)

    def seconds_each(self, steps: int) -> float:
        """What each of the steps since the last call took: where their losses are read together, equal shares."""
        now = time.perf_counter()
        seconds, self.last = now - self.last, now
        return max(seconds / steps, 1e-9)

    def record(self, step: int, losses: Mapping[str, float], learning_rate: float, current: float) -> None:
        """One step, at so many images a second: a CSV row, the bar, and now and then an event."""
        if not self.active or self.file is None:
            return
        self.rate = current if self.rate is None else 0.9 * self.rate + 0.1 * current
        row = {"step": step, **losses, "learning_rate": learning_rate, "images_per_second": current}
        try:
            text = io.StringIO()
            writer = csv.DictWriter(text, list(row))
            if not self.has_header:
                writer.writeheader()
                self.has_header = True
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
            self.file.write(text.getvalue().replace("\r\n", "\n"))
            if step % self.TENSORBOARD_EVERY == 0 or step == self.steps - 1:
                for name, value in row.items():
                    if name != "step":
                        self.events.add_scalar(name, value, step)
        except OSError as error:
            raise self._unwritable(error) from error
        note = f"loss {losses['total']:.3f}  {self.rate:.0f} images/s"
        self.bar.update(self.task, completed=step + 1, note=note)

    def flush(self) -> None:
        """Makes sure that the rows so far are on the disk before a checkpoint says that they are."""
        if self.file is not None:
            try:
                self.file.flush()
            except OSError as error:
                raise self._unwritable(error) from error
