"""How long stages take: what is said before, what is left, what is noted."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from sfc.run.clock import Clock, in_words, read_times

AHEAD = [("classify", 1), ("localize", 2), ("segment", 2)]
"""The second of two methods begins its training."""


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    clock = [1000.0]
    monkeypatch.setattr("sfc.run.clock.time", SimpleNamespace(perf_counter=lambda: clock[0]))
    return clock


def test_what_is_left_of_a_run(tmp_path: Path, now: list[float]) -> None:
    clock = Clock(tmp_path / "times.json", {"classify": 200.0, "localize": 60.0, "segment": 400.0}, methods=2)
    assert clock.words("classify", AHEAD) == " (about 2 min; the run ends in about 9 min)"
    left = clock.left("classify", AHEAD)
    assert left is not None
    assert left(10) == 100 + 460  # a short task at the beginning of the stage: what is expected counts
    now[0] += 70
    assert left(10) == 30 + 460
    assert left(50) == 50 + 460  # slower than expected
    now[0] += 1000
    assert left(5) == 5 + 460


def test_nothing_is_said_of_what_nobody_expects(tmp_path: Path) -> None:
    clock = Clock(tmp_path / "times.json", {}, methods=1)
    assert clock.words("classify", AHEAD) == ""
    assert clock.left("classify", AHEAD) is None


def test_seconds_add_up_over_commands(tmp_path: Path, now: list[float]) -> None:
    for seconds in (5.0, 0.05, 2.5):
        clock = Clock(tmp_path / "times.json", {}, methods=1)
        with clock.measure("sfc", "classify"):
            now[0] += seconds
    assert read_times(tmp_path / "times.json") == {"sfc": {"classify": 7.5}}

    def interrupted() -> None:
        with clock.measure("sfc", "classify"):
            now[0] += 1
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert read_times(tmp_path / "times.json") == {"sfc": {"classify": 8.5}}


@pytest.mark.parametrize(("seconds", "words"), [(40, "40 s"), (89, "89 s"), (720, "12 min"), (7500, "2 h 5 min")])
def test_times_to_read(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
