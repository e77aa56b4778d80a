"""Atomic writing of files and folders: a reader finds the old or the new one, never an incomplete one.

A file or folder is written under a hidden name in the same folder, `.NAME.0123abcd.part`, and renamed when it is
complete. A process that is killed leaves a part, which `sweep` removes.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from .errors import OutputError

_WORKING_DIRECTORY = -100  # AT_FDCWD: paths are relative to it
_EXCHANGE = 2  # RENAME_EXCHANGE
_CANNOT_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)  # an old kernel, or a file system like NFS


def unwritable(final: Path, error: Exception) -> OutputError:
    """The one line that a user gets for any failure to write `final`."""
    why = (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()
    return OutputError(f"{final}: cannot be written ({why}); expected a folder with free space that you may write to")


def part_of(final: Path) -> Path:
    """A unique hidden name in the same folder: a rename from there is atomic."""
    return final.with_name(f".{final.name}.{uuid4().hex[:8]}.part")


def discard(path: Path) -> None:
    """Remove a file or a link, if it is there and can be removed; never a folder."""
    with suppress(OSError):
        path.unlink()


def discard_folder(path: Path) -> None:
    """Remove a folder and its contents, ignoring errors. A link or a file is removed itself."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        discard(path)


def sweep(final: Path) -> None:
    """Remove the parts that killed processes left. The caller must be the only writer of `final`."""
    ours = re.compile(rf"\.{re.escape(final.name)}\.[0-9a-f]{{8}}\.part")
    for path in [path for path in final.parent.iterdir() if ours.fullmatch(path.name)]:
        discard_folder(path)


# Files.


@contextmanager
def atomic_path(final: Path) -> Iterator[Path]:
    """A path to write to, which becomes `final` on a clean exit and is removed on any other.

    An `OSError` inside becomes an `OutputError` about `final`, so the body should only write.
    """
    part = part_of(final)
    try:
        yield part
        commit(part, final)
    except OSError as e:
        raise unwritable(final, e) from e
    finally:
        discard(part)


def commit(part: Path, final: Path) -> None:
    """Wait until a finished file is on the disk, then give it its final name; `OSError` if that fails."""
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    part.replace(final)


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write a small file; if that fails, remove it and raise `OutputError`.

    Unlike `atomic_path` it does not wait for the disk. It serves folders with a file per frame that are installed as a
    whole.
    """
    try:
        path.write_bytes(data)
    except OSError as e:
        discard(path)
        raise unwritable(path, e) from e


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# Folders.


@contextmanager
def part_folder(final: Path) -> Iterator[Path]:
    """A hidden folder beside `final`, to be filled and given to `install_folder`; removed afterwards."""
    final.parent.mkdir(parents=True, exist_ok=True)
    part = part_of(final)
    part.mkdir()
    try:
        yield part
    finally:
        discard_folder(part)


def install_folder(part: Path, final: Path, *, durable: bool = True) -> None:
    """Give a complete folder its final name, and remove the old folder. On an `OSError` the old folder stays.

    `durable` waits until all files are on the disk, which is slow for many files. If the file system cannot swap two
    names (NFS, for example), no folder has that name for a moment.
    """
    if durable:
        for path in [*part.rglob("*"), part]:
            _sync(path)
    if not os.path.lexists(final):
        part.rename(final)
    elif exchange(part, final):
        discard_folder(part)
    else:
        old = part_of(final)
        final.rename(old)
        try:
            part.rename(final)
        except OSError:
            old.rename(final)
            raise
        discard_folder(old)
    if durable:
        _sync(final.parent)


def exchange(one: Path, other: Path) -> bool:
    """Swap two names in one step; False if this system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    here = _WORKING_DIRECTORY
    if rename(here, os.fsencode(one), here, os.fsencode(other), _EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _CANNOT_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(other))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
