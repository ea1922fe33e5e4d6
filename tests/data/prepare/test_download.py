"""Downloads against a server on the loopback interface: whole, broken off, continued, changed, refused."""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from rich.progress import Progress

from sfc.data.prepare import download
from sfc.data.prepare.download import fetch, file_name, is_url, verify
from sfc.errors import ConfigError, DataError, SFCError

CONTENT = np.random.default_rng(0).bytes(300_000)


@dataclass
class Server:
    """What the server serves and how it misbehaves.

    Args:
        address: http://127.0.0.1:port
        files: content by path.
        break_after: how many bytes the next answers send before they hang up.
        tag: ETag of every file; empty for none.
        offsets: first byte of each answer so far.
    """

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    break_after: list[int] = field(default_factory=list)
    tag: str = '"1"'
    offsets: list[int] = field(default_factory=list)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            content = state.files.get(self.path)
            if content is None:
                self.send_error(404)
                return
            start = 0
            requested = self.headers.get("Range")
            if requested and self.headers.get("If-Range") == state.tag:
                start = int(requested.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            state.offsets.append(start)
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            if state.tag:
                self.send_header("ETag", state.tag)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            if state.break_after:
                self.wfile.write(content[start : start + state.break_after.pop(0)])
                self.close_connection = True
            else:
                self.wfile.write(content[start:])

    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(download, "_PAUSE_S", 0.0)
    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.address = f"http://127.0.0.1:{listener.server_address[1]}"
    state.files["/big.zip"] = CONTENT
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    listener.shutdown()
    thread.join()
    listener.server_close()


@pytest.fixture
def progress() -> Progress:
    return Progress(disable=True)


def test_a_whole_file(server: Server, progress: Progress, tmp_path: Path) -> None:
    path = fetch(f"{server.address}/big.zip", tmp_path / "new", progress)
    assert path == tmp_path / "new" / "big.zip"
    assert path.read_bytes() == CONTENT
    assert [item.name for item in path.parent.iterdir()] == ["big.zip"]
    fetch(f"{server.address}/big.zip", tmp_path / "new", progress)
    assert server.offsets == [0]


def test_a_broken_transfer_is_continued_where_it_stopped(server: Server, progress: Progress, tmp_path: Path) -> None:
    server.break_after = [100_000, 50_000]
    assert fetch(f"{server.address}/big.zip", tmp_path, progress).read_bytes() == CONTENT
    assert server.offsets == [0, 100_000, 150_000]


def test_breaking_off_again_and_again_is_told_and_the_next_call_continues(
    server: Server, progress: Progress, tmp_path: Path
) -> None:
    server.break_after = [1000] * 4
    with pytest.raises(SFCError, match="broke off after 4,000 bytes"):
        fetch(f"{server.address}/big.zip", tmp_path, progress)
    assert not (tmp_path / "big.zip").exists()
    assert fetch(f"{server.address}/big.zip", tmp_path, progress).read_bytes() == CONTENT
    assert server.offsets[-1] == 4000


def test_a_file_that_changed_in_between_starts_over(server: Server, progress: Progress, tmp_path: Path) -> None:
    server.break_after = [1000] * 4
    with pytest.raises(SFCError):
        fetch(f"{server.address}/big.zip", tmp_path, progress)
    server.files["/big.zip"], server.tag = CONTENT[::-1], '"2"'
    assert fetch(f"{server.address}/big.zip", tmp_path, progress).read_bytes() == CONTENT[::-1]
    assert server.offsets[-1] == 0


def test_without_a_version_nothing_is_glued_together(server: Server, progress: Progress, tmp_path: Path) -> None:
    server.tag = ""
    server.break_after = [1000]
    assert fetch(f"{server.address}/big.zip", tmp_path, progress).read_bytes() == CONTENT
    assert server.offsets == [0, 0]


def test_a_part_that_is_already_complete(server: Server, progress: Progress, tmp_path: Path) -> None:
    (tmp_path / "big.zip.part").write_bytes(CONTENT)
    (tmp_path / "big.zip.part.version").write_text(server.tag)
    assert fetch(f"{server.address}/big.zip", tmp_path, progress).read_bytes() == CONTENT
    assert server.offsets == []


def test_a_part_that_is_too_long_starts_over(server: Server, progress: Progress, tmp_path: Path) -> None:
    (tmp_path / "big.zip.part").write_bytes(CONTENT + b"x")
    (tmp_path / "big.zip.part.version").write_text(server.tag)
    assert fetch(f"{server.address}/big.zip", tmp_path, progress).read_bytes() == CONTENT
    assert server.offsets == [0]


def test_missing_file_and_missing_server(server: Server, progress: Progress, tmp_path: Path) -> None:
    with pytest.raises(SFCError, match=r"/none\.zip: the server answers 404"):
        fetch(f"{server.address}/none.zip", tmp_path, progress)
    with pytest.raises(SFCError, match="cannot be reached"):
        fetch("http://127.0.0.1:9/big.zip", tmp_path, progress)
    with pytest.raises(SFCError, match="does not end in a file name"):
        fetch(f"{server.address}/", tmp_path, progress)
    with pytest.raises(SFCError, match="does not end in a file name"):
        fetch(f"{server.address}/..%2F..%2Fsecret%5Cx", tmp_path, progress)
    assert list(tmp_path.iterdir()) == []


def test_a_small_disk_is_noticed_before_the_transfer(
    server: Server, progress: Progress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(SFCError, match="GiB are free"):
        fetch(f"{server.address}/big.zip", tmp_path, progress)
    assert not (tmp_path / "big.zip").exists()


def test_an_unwritable_folder_is_named(server: Server, progress: Progress, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SFCError, match=r"file.big\.zip\.part: the download cannot be finished"):
        fetch(f"{server.address}/big.zip", tmp_path / "file", progress)


def test_names() -> None:
    assert is_url("HTTPS://host/x.zip")
    assert not is_url("/data/x.zip")
    assert not is_url("file:///etc/passwd")
    assert file_name("https://host/a%20b/c%20d.zip?x=1") == "c d.zip"
    assert file_name("some/folder/x.tar") == "x.tar"


def test_checksums(progress: Progress, tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(CONTENT)
    for algorithm in ("md5", "sha256"):
        digest = hashlib.new(algorithm, CONTENT).hexdigest()
        assert verify(path, digest.upper(), progress) == digest
        wrong = digest[:-1] + ("0" if digest[-1] != "0" else "1")
        with pytest.raises(DataError, match=f"its {algorithm.upper()} is {digest}, not {wrong}"):
            verify(path, wrong, progress)
    assert verify(path, "", progress) == hashlib.sha256(CONTENT).hexdigest()
    for unfit in ("12ab", "z" * 32):
        with pytest.raises(ConfigError, match=r"x\.bin"):
            verify(path, unfit, progress)
    with pytest.raises(DataError, match="cannot be read"):
        verify(tmp_path / "none", "", progress)
