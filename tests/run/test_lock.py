"""One command at a time in a run folder, between real processes; the folder of a killed one is free again."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import sfc.run.lock
from sfc.errors import SFCError
from sfc.run.lock import HOLDER, LOCK, only_command

HOLD = """
import sys
from pathlib import Path
from sfc.run.lock import only_command
with only_command(Path(sys.argv[-1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process, which has the folder until it is killed or its input ends."""
    command = [sys.executable, "-c", HOLD, "run", "--methods", "sfc", str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_second_command_is_refused_in_one_sentence_that_names_the_first(tmp_path: Path, recipe: Path) -> None:
    folder = tmp_path / "run"
    with held(folder) as first:
        whose = f"process {first.pid} on {platform.node()} (sfc run --methods sfc {folder})"
        sentence = f"{folder}: in use by {whose}; wait for it or stop it"
        with pytest.raises(SFCError) as caught, only_command(folder):
            raise AssertionError("both are at work")
        assert str(caught.value) == sentence
        command = [sys.executable, "-m", "sfc", "run", f"--config={recipe}", f"--run={folder}"]
        second = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
        assert second.returncode == 2
        assert second.stderr.strip().endswith(sentence)
        assert len(second.stderr.strip().splitlines()) == 1
        assert names(folder) == {LOCK, HOLDER}
        assert json.loads((folder / HOLDER).read_text())["process"] == first.pid
        # It says so too where the holder's name cannot be read.
        for content in ("{", '{"process": 3}', "[]"):
            (folder / HOLDER).write_text(content)
            with pytest.raises(SFCError, match="run: in use by another command; wait"), only_command(folder):
                pass


@pytest.mark.parametrize("end", ["killed", "done"])
def test_a_process_that_ended_gives_the_folder_back(tmp_path: Path, end: str) -> None:
    (tmp_path / "config.yaml").touch()
    with held(tmp_path) as first:
        if end == "killed":
            first.send_signal(signal.SIGKILL)
            assert first.wait() == -signal.SIGKILL
            assert names(tmp_path) == {"config.yaml", LOCK, HOLDER}
        else:
            first.communicate()
            assert first.returncode == 0
            assert names(tmp_path) == {"config.yaml", LOCK}
        with only_command(tmp_path):
            holder = json.loads((tmp_path / HOLDER).read_text())
            assert holder == {"process": os.getpid(), "machine": platform.node(), "command": sys.argv}
        assert names(tmp_path) == {"config.yaml", LOCK}


def test_a_command_that_made_nothing_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(SFCError, match="refused"), only_command(tmp_path / "run"):
        raise SFCError("refused")
    assert not (tmp_path / "run").exists()
    with only_command(tmp_path / "run"):
        (tmp_path / "run" / "manifest.json").touch()
    assert names(tmp_path / "run") == {LOCK, "manifest.json"}


def test_an_error_keeps_no_hold_on_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even while somebody looks at it: its traceback keeps every variable."""

    def refuse(*_: object) -> None:
        raise SFCError("the disk is full")

    (tmp_path / "config.yaml").touch()
    monkeypatch.setattr(sfc.run.lock, "write_json", refuse)
    with pytest.raises(SFCError, match="the disk is full") as kept, only_command(tmp_path):
        pass
    monkeypatch.undo()
    with only_command(tmp_path):
        assert (tmp_path / HOLDER).is_file()
    assert kept.value.__traceback__ is not None


def test_a_folder_that_is_deleted_under_a_command_does_not_hide_its_error(tmp_path: Path) -> None:
    with pytest.raises(SFCError, match="cannot be written"), only_command(tmp_path / "run"):  # noqa: PT012
        shutil.rmtree(tmp_path / "run")
        raise SFCError("log.csv: cannot be written")


def test_a_place_that_cannot_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(SFCError, match=rf"^{folder}: cannot be written \("), only_command(folder):
            pass
