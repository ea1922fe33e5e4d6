"""`sfc judge`, end to end on the squares."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from sfc.cli import main
from sfc.localize.store import load_cams, save_cams
from sfc.run.folder import RunFolder, SystemFolder


@pytest.fixture
def finished(squares_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(squares_run, tmp_path / "run"))


def remake(system: SystemFolder, level: float) -> None:
    """Maps with a bright square, a class beside the other, on a ground of that level instead of what training gave."""
    for path in system.cams("train").rglob("*.cam"):
        keys, weight, _ = load_cams(path)
        maps = np.full(weight.shape, 2 * level, np.float32)
        for channel, key in enumerate(keys[1:], start=1):
            maps[channel, 10:30, 15 * (key - 1) : 15 * key] = 2
        maps[0] = 1.4 - maps[1:].max(axis=0, initial=0) / 2
        save_cams(path, keys, maps, maps)


def test_it_says_what_the_maps_are_like_and_writes_the_signs(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for method, level in (("cam", 0.0), ("sfc", 0.8)):
        remake(RunFolder(finished).system(method), level)
    assert main(["judge", "--run", str(finished)]) == 0
    said = capsys.readouterr()
    assert "cam: maps look sound" in said.out
    assert "sfc: maps of red, green and blue are flat" in said.out
    assert "they look worse than the baseline's" in said.out
    assert "SFC: maps of red" in said.err
    content = json.loads(RunFolder(finished).system("sfc").signs.read_text())
    assert content["flat"] == ["red", "green", "blue"]
    assert {entry["name"] for entry in content["classes"]} == {"red", "green", "blue"}
    assert all(entry["level"] > 0.8 for entry in content["classes"])


def test_a_later_command_repeats_the_verdict(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    remake(RunFolder(finished).system("cam"), 0.9)
    assert main(["judge", "--run", str(finished)]) == 0
    capsys.readouterr()
    assert main(["evaluate", "--run", str(finished)]) == 0
    assert "cam: maps of red, green and blue are flat" in capsys.readouterr().out


def test_the_verdict_goes_with_the_maps(finished: Path) -> None:
    system = RunFolder(finished).system("cam")
    assert main(["judge", "--run", str(finished)]) == 0
    assert main(["localize", "--run", str(finished)]) == 0
    assert system.signs.exists()
    next(system.cams("train").rglob("*.cam")).unlink()
    assert main(["localize", "--run", str(finished)]) == 0
    assert not system.signs.exists()


def test_without_maps_it_refuses(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(RunFolder(finished).system("cam").cams("train"))
    assert main(["judge", "--run", str(finished)]) == 2
    assert "run `sfc localize` first" in capsys.readouterr().err


def test_damaged_signs_of_the_baseline_are_named(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    system = RunFolder(finished).system("cam")
    system.signs.write_text("{")
    assert main(["judge", "--run", str(finished), "--methods", "cam", "sfc"]) == 0  # made anew
    json.loads(system.signs.read_text())
    system.signs.write_text("{")
    assert main(["report", "--run", str(finished)]) == 2
    assert "run `sfc judge` again" in capsys.readouterr().err
