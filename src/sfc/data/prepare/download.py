"""Fetching one file over HTTP so that a break costs little and a damaged file is noticed."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import time
import urllib.error
import urllib.request
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from rich.progress import Progress, TaskID

from sfc.errors import ConfigError, DataError, SFCError

_CHUNK = 1 << 20
_TIMEOUT_S = 30
_TRIES = 4
_PAUSE_S = 1.0
_ALGORITHM_BY_LENGTH = {32: "md5", 64: "sha256"}


class _BrokenOffError(Exception):
    """The transfer ended early; the part that arrived is kept."""


def is_url(source: str) -> bool:
    """Whether `source` is an HTTP address and not a path."""
    return urlsplit(source).scheme.lower() in {"http", "https"}


def file_name(source: str) -> str:
    """Last component of a path or of the path of an address, such as `train2014.zip`."""
    return PurePosixPath(unquote(urlsplit(source).path)).name if is_url(source) else Path(source).name


def fetch(url: str, folder: Path, progress: Progress) -> Path:
    """The file behind `url`, in `folder`; one that lies there already is taken as it is.

    The bytes go to a file with the suffix .part that takes the name when it is complete. What is left of an
    interrupted transfer is continued if the server can do so and its file has not changed, else it starts over.

    Raises:
        SFCError: the server cannot be reached, refuses, breaks off again and again, or the disk is too small.
    """
    name = file_name(url)
    if name in {"", ".", ".."} or "/" in name or "\\" in name:
        raise SFCError(f"{url}: the address does not end in a file name")
    path = folder / name
    if path.is_file():
        return path
    part = folder / f"{name}.part"
    task = progress.add_task(f"downloading {name}", total=None)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _try_repeatedly(url, part, progress, task)
        os.replace(part, path)
        _tag_file(part).unlink(missing_ok=True)
    except OSError as error:
        raise SFCError(f"{part}: the download cannot be finished ({error.strerror or error})") from error
    finally:
        progress.remove_task(task)
    return path


def verify(path: Path, expected: str, progress: Progress) -> str:
    """Compares the checksum of a file and returns it in hexadecimal.

    Args:
        path: any file.
        expected: MD5 (32 digits) or SHA-256 (64 digits); empty to compute SHA-256 without comparing.
        progress: shows how far the reading is.

    Raises:
        DataError: the file cannot be read or is another one than expected.
        ConfigError: `expected` is not a checksum.
    """
    expected = expected.strip().lower()
    algorithm = _ALGORITHM_BY_LENGTH.get(len(expected)) if expected else "sha256"
    if algorithm is None or not set(expected) <= set("0123456789abcdef"):
        raise ConfigError(f"checksum of {path.name}: {expected} is neither MD5 (32 hex digits) nor SHA-256 (64)")
    try:
        digest = hashlib.new(algorithm, usedforsecurity=False)
        task = progress.add_task(f"checking {path.name}", total=path.stat().st_size)
        with open(path, "rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                progress.advance(task, len(chunk))
        progress.remove_task(task)
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})") from error
    found = digest.hexdigest()
    if expected and found != expected:
        raise DataError(path, f"is damaged or another file: its {algorithm.upper()} is {found}, not {expected}")
    return found


def _try_repeatedly(url: str, part: Path, progress: Progress, task: TaskID) -> None:
    """Transfers until the file is complete; only broken transfers are tried again, not refused ones."""
    for attempt in range(_TRIES):
        time.sleep(_PAUSE_S * attempt)
        try:
            _transfer(url, part, progress, task)
        except urllib.error.HTTPError as error:
            raise SFCError(f"{url}: the server answers {error.code} ({error.reason})") from error
        except urllib.error.URLError as error:
            raise SFCError(
                f"{url}: cannot be reached ({error.reason}); download it elsewhere and name the file instead"
            ) from error
        except (_BrokenOffError, http.client.HTTPException, ConnectionError, TimeoutError):
            continue
        return
    size = part.stat().st_size if part.exists() else 0
    raise SFCError(f"{url}: the transfer broke off after {size:,} bytes; run the command again to continue")


def _transfer(url: str, part: Path, progress: Progress, task: TaskID) -> None:
    """One request, from where `part` ends if the server still has the same file."""
    headers = {"User-Agent": "sfc", "Accept-Encoding": "identity"}
    tag_file = _tag_file(part)
    start = part.stat().st_size if part.exists() and tag_file.exists() else 0
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": tag_file.read_text()}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - fetch() is only given HTTP addresses
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_S)  # noqa: S310
    except urllib.error.HTTPError as error:
        if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        if error.headers.get("Content-Range") == f"bytes */{start}":
            return  # all of it was here already
        part.unlink(missing_ok=True)
        raise _BrokenOffError from error
    with response:
        if response.status != http.client.PARTIAL_CONTENT:
            start = 0
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            part.unlink(missing_ok=True)
            raise _BrokenOffError
        _remember_version(response, tag_file)
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        _check_space(part, total - start if total else 0)
        progress.update(task, total=total, completed=start)
        with open(part, "ab" if start else "wb") as file:
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                progress.advance(task, len(chunk))
            received = file.tell()
    if total is not None and received != total:
        raise _BrokenOffError


def _remember_version(response: http.client.HTTPResponse, tag_file: Path) -> None:
    """Keeps what names this version of the server's file; without it a later part may belong to another file."""
    tag = response.headers.get("ETag", "")
    version = response.headers.get("Last-Modified", "") if tag.startswith("W/") or not tag else tag
    if version:
        tag_file.write_text(version)
    else:
        tag_file.unlink(missing_ok=True)


def _check_space(part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise SFCError(f"{part.parent}: {needed / 2**30:.1f} GiB are needed and {free / 2**30:.1f} GiB are free")


def _tag_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.version")
