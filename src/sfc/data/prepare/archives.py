"""Unpacking chosen files of a zip or tar archive: nothing outside the folder, nothing half, nothing twice."""

from __future__ import annotations

import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from rich.progress import Progress

from sfc.errors import DataError, SFCError


@dataclass(frozen=True)
class Target:
    """Where a file of an archive goes.

    Args:
        path: below the folder that is unpacked into.
        convert: what becomes of its bytes, raising ValueError for those it cannot read; None to keep them.
    """

    path: str
    convert: Callable[[bytes], bytes] | None = None


@dataclass(frozen=True)
class _Member:
    name: str
    size: int
    is_file: bool
    open: Callable[[], IO[bytes] | None]


def unpack(archive: Path, root: Path, choose: Callable[[tuple[str, ...]], Target | None], progress: Progress) -> int:
    """Writes the files that `choose` gives a target and returns how many the archive has of them.

    A file that is there already with its full size (converted ones: that is there) is skipped: every file is written
    under another name first, so what bears the name is whole.

    Args:
        archive: zip, or tar with any compression.
        root: folder that targets are relative to.
        choose: from the components of a member's path to its target, or None to leave it out.
        progress: shows how far the unpacking is.

    Raises:
        DataError: the archive is damaged, or one of its names leads out of the folder.
        SFCError: a file cannot be written, or the disk is too small.
    """
    try:
        with _members(archive) as members:
            chosen = [(member, target) for member in members if (target := _choose(archive, member, choose))]
            missing = [
                (member, root / target.path, target) for member, target in chosen if _is_missing(root, member, target)
            ]
            _check_space(archive, root, sum(member.size for member, _, _ in missing))
            task = progress.add_task(f"unpacking {archive.name}", total=sum(member.size for member, _, _ in missing))
            for member, path, target in missing:
                try:
                    _write(member, path, target.convert)
                except ValueError as error:
                    raise DataError(archive, f"has a member that cannot be read: {member.name} ({error})") from error
                progress.advance(task, member.size)
            progress.remove_task(task)
            return len(chosen)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, RuntimeError) as error:
        raise DataError(archive, f"is damaged or not a zip or tar archive ({error})") from error
    except OSError as error:
        # Decompressors raise OSError without a number for damaged data; the system's own errors have one.
        reason = f"cannot be read ({error.strerror})" if error.errno else f"is damaged ({error})"
        raise DataError(archive, reason) from error


@contextmanager
def _members(archive: Path) -> Iterator[list[_Member]]:
    """Everything but folders, in the order of the archive."""
    if tarfile.is_tarfile(archive):
        with tarfile.open(archive) as tar:
            members = [_tar_member(tar, info) for info in tar if not info.isdir()]
            # Compressed streams end in a checksum that only who reads to the end gets to see.
            while tar.fileobj is not None and tar.fileobj.read(1 << 20):
                pass
            yield members
    else:
        with zipfile.ZipFile(archive) as zipped:
            yield [_zip_member(zipped, info) for info in zipped.infolist() if not info.is_dir()]


def _tar_member(tar: tarfile.TarFile, info: tarfile.TarInfo) -> _Member:
    return _Member(info.name, info.size, info.isreg(), lambda: tar.extractfile(info))


def _zip_member(zipped: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    is_link = stat.S_ISLNK(info.external_attr >> 16)
    return _Member(info.filename, info.file_size, not is_link, lambda: zipped.open(info))


def _choose(archive: Path, member: _Member, choose: Callable[[tuple[str, ...]], Target | None]) -> Target | None:
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or "\\" in member.name or ":" in member.name.partition("/")[0]:
        raise DataError(archive, f"is not to be trusted: its member {member.name!r} leads out of the folder")
    if not path.parts or path.parts[0] == "__MACOSX" or path.name.startswith("._"):
        return None  # what a Mac adds of its own
    target = choose(path.parts)
    if target is not None and not member.is_file:
        raise DataError(archive, f"is not to be trusted: its member {member.name!r} is a link, not a file")
    return target


def _is_missing(root: Path, member: _Member, target: Target) -> bool:
    try:
        size = (root / target.path).stat().st_size
    except OSError:
        return True
    return target.convert is None and size != member.size


def _write(member: _Member, path: Path, convert: Callable[[bytes], bytes] | None) -> None:
    source = member.open()
    if source is None:
        raise EOFError(member.name)
    temporary = path.with_name(f".{path.name}.tmp")
    with source:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "wb") as file:
                if convert is None:
                    shutil.copyfileobj(source, file, 1 << 20)
                else:
                    file.write(convert(source.read()))
            os.replace(temporary, path)
        except OSError as error:
            if error.errno is None:
                raise
            raise SFCError(f"{path}: cannot be written ({error.strerror})") from error
        finally:
            temporary.unlink(missing_ok=True)


def _check_space(archive: Path, root: Path, needed: int) -> None:
    root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(root).free
    if needed > free:
        raise SFCError(f"{root}: {archive.name} needs {needed / 2**30:.1f} GiB and {free / 2**30:.1f} GiB are free")
