"""The one writer of files and folders that are there whole or not at all.

A file or folder is made under a hidden name beside its final one, `.NAME.0123abcd.part`, and renamed when it is
complete. A reader sees the old or the new one, never half of one. A kill leaves a part behind, which `sweep` removes.
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
_CANNOT_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)  # an old kernel, or a file system as NFS


def unwritable(final: Path, error: Exception) -> OutputError:
    """The one line that a user gets for any failure to write `final`."""
    why = (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()
    return OutputError(f"{final}: cannot be written ({why}); expected a folder with room that you may write to")


def part_of(final: Path) -> Path:
    """A hidden name of its own in the same folder, so that the rename neither copies nor collides."""
    return final.with_name(f".{final.name}.{uuid4().hex[:8]}.part")


def discard(path: Path) -> None:
    """Remove a file or a link, if it is there and can be removed; never a folder."""
    with suppress(OSError):
        path.unlink()


def discard_folder(path: Path) -> None:
    """Remove a folder with all that is in it, as far as it can be removed; of a link or a file, that alone."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        discard(path)


def sweep(final: Path) -> None:
    """Remove the parts that killed writers of `final` left. Only for one who knows that nobody else writes it now."""
    ours = re.compile(rf"\.{re.escape(final.name)}\.[0-9a-f]{{8}}\.part")
    for path in [path for path in final.parent.iterdir() if ours.fullmatch(path.name)]:
        discard_folder(path)


# Files.


@contextmanager
def atomic_path(final: Path) -> Iterator[Path]:
    """A path to write to, which becomes `final` on a clean exit and is removed on any other.

    An `OSError` inside becomes an `OutputError` about `final`: do nothing there but write.
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
    """Put a finished file under its final name, once its bytes are on the disk; `OSError` if it cannot be."""
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    part.replace(final)


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write a small file at once, and remove it if that fails: `OutputError`.

    Unlike `atomic_path` it does not wait for the disk: for one file a frame, in a folder that is atomic itself.
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
    """A private folder beside `final`, to be filled and given to `install_folder`; gone afterwards."""
    final.parent.mkdir(parents=True, exist_ok=True)
    part = part_of(final)
    part.mkdir()
    try:
        yield part
    finally:
        discard_folder(part)


def install_folder(part: Path, final: Path, *, durable: bool = True) -> None:
    """Give a complete folder its final name; what was there is removed. `OSError` if it cannot be: then it is kept.

    `durable`: wait until all of it is on the disk, which takes long for many files. Where the file system or the kernel
    cannot swap two names (NFS, say), there is a moment with neither folder.
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
    """Swap two names in one step; False where this system cannot."""
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
