"""How a built engine gets to its place: one build at a time, whole or not at all, and nothing left of one that died.

A new engine takes the place of another in one swap. Where the file system or the kernel cannot swap (NFS, say), it
takes two renames; a reader in between finds nothing, and a machine that stops there has to build again.

built/.NAME.lock         held (flock) for the length of a build; the kernel frees it if the build is killed
built/.NAME.XXXX.part    the private folder of the build that holds the lock
built/NAME               what is installed
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_HERE = -100  # AT_FDCWD: a path is relative to the working directory
_EXCHANGE = 2  # RENAME_EXCHANGE
_CANNOT = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)  # an old kernel, or a file system that cannot swap


@contextmanager
def exclusive(final: Path, note: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of one built engine; if another build holds it, say so and wait.

    The lock's file stays: were it removed, the next build would lock another file than one that is waiting.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    with (final.parent / f".{final.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            note(f"{final}: another build is at it; waiting")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def workplace(final: Path) -> Iterator[Path]:
    """A private folder on the same file system, gone afterwards. Only under `exclusive`: it sweeps what others left."""
    ours = re.compile(rf"\.{re.escape(final.name)}\.[0-9a-f]{{8}}(-old)?\.part")
    for left in [path for path in final.parent.iterdir() if ours.fullmatch(path.name)]:
        _remove(left)
    part = final.with_name(f".{final.name}.{secrets.token_hex(4)}.part")
    part.mkdir()
    try:
        yield part
    finally:
        _remove(part)


def install(part: Path, final: Path) -> None:
    """Put a complete folder in its place; what was there goes. A reader sees the old or the new, never half of one.

    Where two paths cannot be swapped, there is a moment with neither.
    """
    for path in [*part.rglob("*"), part]:
        _sync(path)
    if not os.path.lexists(final):
        part.rename(final)
    elif not _exchange(part, final):
        old = part.with_name(f"{part.name.removesuffix('.part')}-old.part")
        final.rename(old)
        part.rename(final)
        _remove(old)
    _sync(final.parent)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two paths in one step; False where this system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _CANNOT:
        return False
    raise OSError(code, os.strerror(code), str(other))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
