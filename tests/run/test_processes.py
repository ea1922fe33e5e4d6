"""Two real processes: every stage, and what is left where one of them fails or is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from sfc.run.folder import RunFolder

MINUTE = 60
SCRIPT = """
import os, sys, time
import sfc.cli, sfc.localize.store as store
save, rank = store.save_cams, os.environ.get("LOCAL_RANK", "0")

def slow_or_broken(path, *maps):
    if rank == sys.argv[1]:
        raise RuntimeError("out of memory, say")
    time.sleep(float(sys.argv[2]))
    save(path, *maps)

store.save_cams = slow_or_broken
sys.exit(sfc.cli.main(["run", "--config", sys.argv[3], "--run", sys.argv[4], "--methods", "cam", *sys.argv[5:]]))
"""


def start(tmp_path: Path, recipe: Path, broken: str = "none", seconds: float = 0) -> subprocess.Popen[str]:
    """A run by two processes; the one that is named fails as it saves its first CAMs, the others take their time."""
    (tmp_path / "run.py").write_text(SCRIPT)
    command = [
        sys.executable,
        str(tmp_path / "run.py"),
        broken,
        str(seconds),
        str(recipe),
        str(tmp_path / "run"),
        "--machine.devices",
        "2",
    ]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def masks(folder: Path) -> dict[str, np.ndarray]:
    return {str(path.relative_to(folder)): np.array(Image.open(path)) for path in folder.rglob("*.png")}


def children(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The other processes of a run."""
    below = psutil.Process(process.pid).children()
    return [each for each in below if "run.py" in " ".join(each.cmdline())]


def has_ended(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def wait_for(condition, seconds: float = MINUTE) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def done_by_two(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("two")
    with start(folder, recipe) as process:
        out, err = process.communicate(timeout=3 * MINUTE)
    assert process.returncode == 0, err
    assert out.count("made: ") == 1  # one of them speaks
    return RunFolder(folder / "run")


def test_every_stage_by_two(done_by_two: RunFolder) -> None:
    system = done_by_two.system("cam")
    assert len(list(system.cams("train").rglob("*.cam"))) == 12
    assert len(list(system.masks("crf").rglob("*.png"))) == 12
    for way in ("single", "multi+crf"):
        assert len(list(system.predictions("crf", "val", way).rglob("*.png"))) == 6
    assert system.scores.exists()
    assert (done_by_two.report / "index.html").exists()
    assert list(done_by_two.root.rglob("*.tmp")) == []


def test_an_error_of_one_ends_both_within_a_minute(tmp_path: Path, recipe: Path) -> None:
    with start(tmp_path, recipe, broken="1", seconds=30) as process:
        wait_for((tmp_path / "run/cam/classify/origin.json").exists, 2 * MINUTE)
        (child,) = children(process)
        _, err = process.communicate(timeout=MINUTE)
    assert process.returncode != 0
    assert "out of memory, say" in err
    wait_for(lambda: has_ended(child))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_killed_parent_ends_both_and_the_same_command_goes_on(
    tmp_path: Path, recipe: Path, done_by_two: RunFolder
) -> None:
    with start(tmp_path, recipe, seconds=1) as process:
        wait_for(lambda: list((tmp_path / "run/cam/cams").rglob("*.cam")), 2 * MINUTE)
        (child,) = children(process)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=MINUTE)
    assert process.returncode != 0
    wait_for(lambda: has_ended(child))
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*.cam")}
    assert kept
    with start(tmp_path, recipe) as process:
        _, err = process.communicate(timeout=3 * MINUTE)
    assert process.returncode == 0, err
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    once, again = masks(done_by_two.system("cam").root), masks(tmp_path / "run/cam")
    assert once.keys() == again.keys()
    for name, mask in once.items():
        np.testing.assert_array_equal(mask, again[name])
