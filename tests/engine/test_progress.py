"""Progress where there is no terminal."""

from __future__ import annotations

import io
import re
from types import SimpleNamespace

import pytest
from rich.console import Console

from sfc.engine.progress import StageProgress, run_ends


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still; its one entry is the time."""
    clock = [1000.0]
    monkeypatch.setattr("sfc.engine.progress.time", SimpleNamespace(monotonic=lambda: clock[0]))
    return clock


def bar_into(text: io.StringIO, *, terminal: bool, now: list[float]) -> StageProgress:
    bar = StageProgress()
    bar.get_time = lambda: now[0]
    bar.live.console = Console(file=text, force_terminal=terminal, width=120)
    return bar


def test_a_line_every_thirty_seconds_into_a_file(now: list[float]) -> None:
    text = io.StringIO()
    with bar_into(text, terminal=False, now=now) as bar:
        task = bar.add_task("plain CAM: a classifier with a long name that no line may break", total=100, note="")
        for step in range(1, 91):
            now[0] += 1
            bar.update(task, completed=step, note="7 images/s")
        lines = text.getvalue().splitlines()
    assert [re.search(r": (\d+) of 100", line)[1] for line in lines] == ["30", "60", "90"]  # type: ignore[index]
    assert lines[0].startswith("plain CAM: a classifier with a long name that no line may break: 30 of 100, 7 images/s")
    assert lines[1].endswith("0:01:00 gone, 0:00:40 left")


def test_nothing_is_said_of_what_is_hidden_or_finished(now: list[float]) -> None:
    text = io.StringIO()
    with bar_into(text, terminal=False, now=now) as bar:
        hidden = bar.add_task("other processes", total=10, note="", visible=False)
        done = bar.add_task("done", total=1, note="")
        for task in (hidden, done):
            now[0] += 40
            bar.update(task, advance=1)
        assert "of 10" not in text.getvalue()
        assert "done: 1 of 1" not in text.getvalue()


def test_a_terminal_gets_the_bar_alone(now: list[float]) -> None:
    text = io.StringIO()
    with bar_into(text, terminal=True, now=now) as bar:
        task = bar.add_task("task", total=10, note="")
        now[0] += 40
        bar.update(task, advance=1)
    assert "gone" not in text.getvalue()


def test_the_run_ends_when_its_other_stages_have(now: list[float]) -> None:
    for terminal, words in ((False, "0:00:30 gone, 0:01:10 left, run 0:02:10"), (True, "run 0:02:10")):
        text = io.StringIO()
        with run_ends(lambda task: task + 60), bar_into(text, terminal=terminal, now=now) as bar:
            task = bar.add_task("task", total=100, note="")
            for step in range(1, 31):
                now[0] += 1
                bar.update(task, completed=step)
            bar.refresh()
        assert words in " ".join(text.getvalue().split())
    with bar_into(text := io.StringIO(), terminal=False, now=now) as bar:
        task = bar.add_task("task", total=2, note="")
        now[0] += 40
        bar.update(task, completed=1)
    assert "run" not in text.getvalue()
