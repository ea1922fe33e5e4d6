"""Files of a run: whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sfc.run.files
import sfc.run.provenance
from sfc.errors import SFCError
from sfc.run.files import atomic_write, write_json
from sfc.run.provenance import versions


@contextmanager
def full_after(size: int) -> Iterator[None]:
    """Files cannot grow beyond `size` bytes, as on a full disk: the system itself refuses."""
    resource = pytest.importorskip("resource", reason="limits of files are Unix's")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def write(path: Path, *parts: bytes) -> None:
    with atomic_write(path) as file:
        for part in parts:
            file.write(part)


def test_nobody_sees_the_file_before_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "file.bin"
    with atomic_write(path) as file:
        file.write(b"half")
        file.flush()
        assert not path.exists()
    assert path.read_bytes() == b"half"
    with atomic_write(path) as file:
        file.write(b"another")
        file.flush()
        assert path.read_bytes() == b"half"
    assert path.read_bytes() == b"another"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.bin"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, MemoryError])
def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "file"
    write(path, b"old")
    with pytest.raises(error), atomic_write(path) as file:  # noqa: PT012
        file.write(b"n" * 100_000)
        raise error
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", ["old", None])
def test_a_kill_in_between_leaves_the_old_file(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_text(content)
    code = (
        "import os, signal, sys; from pathlib import Path; from sfc.run.files import atomic_write\n"
        "with atomic_write(Path(sys.argv[1])) as file:\n"
        "    file.write(b'n' * 100_000); file.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(path)], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert (path.read_text() if path.exists() else None) == content
    write(path, b"new")
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("parts", [[b"x" * 9000], [b"x"] * 9000], ids=["at once", "in pieces"])
def test_a_full_disk(tmp_path: Path, parts: list[bytes]) -> None:
    path = tmp_path / "file"
    write(path, b"old")
    with full_after(4000), pytest.raises(SFCError, match=r"file: cannot be written \(.+\)$"):
        write(path, *parts)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_that_only_the_closing_flush_notices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sfc.run.files.os, "fdopen", lambda descriptor, mode: open("/dev/full", mode))
    with pytest.raises(SFCError, match=r"file: cannot be written \(No space left on device\)"):
        write(tmp_path / "file", b"x")
    assert list(tmp_path.iterdir()) == []


def test_folders_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    for path in (tmp_path / "file" / "x", tmp_path / "file" / "y" / "x"):
        with pytest.raises(SFCError, match=r"x: cannot be written \("):
            write(path, b"x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(SFCError, match=r"folder: cannot be written \(Is a directory\)"):
        write(tmp_path / "folder", b"x")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(SFCError, match=r"x: cannot be written \(Permission denied\)"):
        write(tmp_path / "locked" / "x", b"x")


@pytest.mark.parametrize("name", ["x" * 255, "猫" * 85, "🐈" * 63, ".hidden", "with space\nand newline"])
def test_any_file_name(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, b"x")
    assert (tmp_path / name).read_bytes() == b"x"


def test_others_may_read_the_file(tmp_path: Path) -> None:
    write(tmp_path / "file", b"x")
    assert (tmp_path / "file").stat().st_mode & 0o444 == 0o444


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_json_is_json_whatever_the_numbers(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    path = tmp_path_factory.getbasetemp() / "value.json"
    write_json(path, {"value": value})

    def expected(item: object) -> object:
        if isinstance(item, dict):
            return {key: expected(inner) for key, inner in item.items()}
        if isinstance(item, list):
            return [expected(inner) for inner in item]
        return None if isinstance(item, float) and not abs(item) < float("inf") else item

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    assert json.loads(path.read_bytes().decode(), parse_constant=refuse) == {"value": expected(value)}


def test_versions_name_the_libraries_and_only_our_own_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = versions()
    assert {"python", "torch", "timm", "numpy"} <= found.keys()
    assert all(found.values())
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@localhost"]
    try:
        subprocess.run([*git, "init", "-q"], check=True)
    except OSError:
        pytest.skip("git is not installed")
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "theirs"], check=True)
    (tmp_path / "installed.py").touch()
    monkeypatch.setattr(sfc.run.provenance, "__file__", str(tmp_path / "installed.py"))
    assert "commit" not in versions()
    subprocess.run([*git, "add", "installed.py"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "ours"], check=True)
    assert len(versions()["commit"]) == 12
