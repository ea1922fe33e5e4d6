"""Unpacking: chosen files only, never outside, never half, never twice; damage is told in one sentence."""

from __future__ import annotations

import io
import os
import shutil
import stat
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from rich.progress import Progress

from sfc.data.prepare import archives
from sfc.data.prepare.archives import Target, unpack
from sfc.errors import DataError, SFCError

FILES = {f"in/{name}.bin": np.random.default_rng(index).bytes(20_000) for index, name in enumerate("abc")}
KINDS = ("x.zip", "x.tar", "x.tar.gz", "x.tar.xz")


def write_archive(path: Path, files: dict[str, bytes]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
            for name, data in files.items():
                zipped.writestr(name, data)
        return path
    mode = {".gz": "w:gz", ".tgz": "w:gz", ".xz": "w:xz"}.get(path.suffix, "w")
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def _strip(parts: tuple[str, ...]) -> Target | None:
    return Target(f"out/{parts[-1]}") if parts[0] == "in" else None


def _unpack(archive: Path, root: Path) -> int:
    return unpack(archive, root, _strip, Progress(disable=True))


def _tree(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


EXPECTED = {name.replace("in/", "out/"): data for name, data in FILES.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_chosen_files_arrive(kind: str, tmp_path: Path) -> None:
    extra = {"other/x.bin": b"x", "__MACOSX/in/a.bin": b"x", "in/._a.bin": b"x"}
    archive = write_archive(tmp_path / kind, FILES | extra)
    assert _unpack(archive, tmp_path / "root") == 3
    assert _tree(tmp_path / "root") == EXPECTED


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_time_only_mends(kind: str, tmp_path: Path) -> None:
    archive, root = write_archive(tmp_path / kind, FILES), tmp_path / "root"
    _unpack(archive, root)
    (root / "out" / "b.bin").write_bytes(b"cut")
    os.utime(root / "out" / "a.bin", (1, 1))
    assert _unpack(archive, root) == 3
    assert _tree(root) == EXPECTED
    assert (root / "out" / "a.bin").stat().st_mtime == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["../evil", "in/../../evil", "/tmp/evil", "in\\..\\evil", "C:/evil"])
def test_names_that_lead_out_refuse_the_whole_archive(kind: str, name: str, tmp_path: Path) -> None:
    archive = write_archive(tmp_path / kind, FILES | {name: b"x"})
    with pytest.raises(DataError, match="not to be trusted"):
        _unpack(archive, tmp_path / "root")
    assert not (tmp_path / "root").exists()


def test_links_are_refused(tmp_path: Path) -> None:
    for kind in ("x.tar", "x.zip"):
        if kind == "x.tar":
            with tarfile.open(tmp_path / kind, "w") as tar:
                info = tarfile.TarInfo("in/link")
                info.type, info.linkname = tarfile.SYMTYPE, "/etc"
                tar.addfile(info)
        else:
            with zipfile.ZipFile(tmp_path / kind, "w") as zipped:
                entry = zipfile.ZipInfo("in/link")
                entry.external_attr = (stat.S_IFLNK | 0o777) << 16
                zipped.writestr(entry, "/etc")
        with pytest.raises(DataError, match="is a link"):
            _unpack(tmp_path / kind, tmp_path / "root")
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize(
    ("kind", "damage"),
    # A tar without compression has no checksum of its content, so a flipped bit in it goes unnoticed.
    [(k, d) for k in KINDS for d in ("cut", "flipped", "text", "empty") if (k, d) != ("x.tar", "flipped")],
)
def test_damaged_archives_leave_whole_files_only(kind: str, damage: str, tmp_path: Path) -> None:
    archive = write_archive(tmp_path / kind, FILES)
    data = bytearray(archive.read_bytes())
    if damage == "cut":
        data = data[: len(data) // 2]
    elif damage == "flipped":
        data[len(data) // 2] ^= 255
    else:
        data = bytearray(b"no archive" if damage == "text" else b"")
    archive.write_bytes(data)
    with pytest.raises(DataError, match=f"{kind}: is damaged"):
        _unpack(archive, tmp_path / "root")
    for name, content in _tree(tmp_path / "root").items():
        assert content == EXPECTED[name]


def test_a_missing_archive_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.zip: cannot be read"):
        _unpack(tmp_path / "none.zip", tmp_path)


def test_converted_files(tmp_path: Path) -> None:
    def convert(data: bytes) -> bytes:
        if data == b"bad":
            raise ValueError("it is bad")
        return data[::-1]

    def choose(parts: tuple[str, ...]) -> Target:
        return Target(f"{parts[-1]}.rev", convert)

    archive = write_archive(tmp_path / "x.zip", {"one": b"abc", "two": b"bad"})
    for _ in range(2):
        with pytest.raises(DataError, match=r"member that cannot be read: two \(it is bad\)"):
            unpack(archive, tmp_path / "root", choose, Progress(disable=True))
        assert _tree(tmp_path / "root") == {"one.rev": b"cba"}


def test_a_small_disk_is_noticed_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = write_archive(tmp_path / "x.zip", FILES)
    usage = shutil.disk_usage(tmp_path)._replace(free=59_999)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(SFCError, match=r"x\.zip needs .* GiB are free"):
        _unpack(archive, tmp_path / "root")
    assert _tree(tmp_path / "root") == {}


def test_a_disk_that_fills_up_leaves_no_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = write_archive(tmp_path / "x.zip", FILES)
    copy = shutil.copyfileobj
    copied = []

    def fill_up(source: io.BufferedIOBase, target: io.BufferedIOBase, length: int) -> None:
        if copied:
            target.write(b"half")
            raise OSError(28, "No space left on device")
        copied.append(1)
        copy(source, target, length)

    monkeypatch.setattr(archives.shutil, "copyfileobj", fill_up)
    with pytest.raises(SFCError, match=r"b\.bin: cannot be written \(No space left on device\)"):
        _unpack(archive, tmp_path / "root")
    assert _tree(tmp_path / "root") == {"out/a.bin": EXPECTED["out/a.bin"]}
