"""Locks on files and folders that the kernel frees when their holder ends, however it ends (flock)."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

PATIENCE_S = 5.0  # longest wait for a lock that others hold only briefly

LockState = Literal["held", "free", "unknown"]


@contextmanager
def exclusive(final: Path, note: Callable[[str], None], doing: str = "building") -> Iterator[None]:
    """Make `final` in one process at a time; if another process makes it, tell `note` what it is doing, and wait.

    The lock file `.NAME.lock` is kept. If it were removed, a new process and a waiting one would lock different files.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    with (final.parent / f".{final.name}.lock").open("w") as file:
        if lock(file.fileno()) == "held":
            note(f"{final}: another process is {doing} it; waiting")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder; continue without it after `PATIENCE_S`, or where locks do not work."""
    handle = open_folder(folder)
    try:
        until = time.monotonic() + PATIENCE_S
        while lock(handle) == "held" and time.monotonic() < until:
            time.sleep(0.02)
        yield
    finally:
        os.close(handle)


@contextmanager
def tried_lock(folder: Path) -> Iterator[LockState]:
    """Try to lock a folder for the body of a `with`; the state that `lock` found, "unknown" if it cannot be opened."""
    try:
        handle = open_folder(folder)
    except OSError:
        yield "unknown"
        return
    try:
        yield lock(handle)
    finally:
        os.close(handle)


def open_folder(folder: Path) -> int:
    """A handle of a folder, for `lock`. Close it with `os.close`, which frees the lock."""
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY)


def lock(handle: int) -> LockState:
    """Try to lock an open file or folder.

    "free": it was free, and this process holds it now. "held": another process has it. "unknown": locks do not work.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        return "held" if e.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES) else "unknown"
    return "free"
