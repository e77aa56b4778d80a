"""Who is at work in which folder: a lock that the kernel frees when its holder ends, however it ends."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from .errors import ConfigError

MAKER = ".maker"  # says which process works in a folder
FRESH_S = 60.0  # a folder younger than this may be one that its maker has not locked yet
PATIENCE_S = 5.0  # for others who look around at the same time
LONGEST = 225  # bytes of a name, to which something is added: file systems take 255

State = Literal["held", "free", "unknown"]


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Be the only one who begins something in a folder; where locks do not work, everybody is let in."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        until = time.monotonic() + PATIENCE_S
        while _lock(handle) == "held" and time.monotonic() < until:
            time.sleep(0.02)
        yield
    finally:
        os.close(handle)


def sign(part: Path) -> int:
    """Lock a folder for this process, and say so in it; the lock lasts until the number that this returns is closed."""
    handle = os.open(part, os.O_RDONLY | os.O_DIRECTORY)
    _lock(handle)
    with suppress(OSError):
        (part / MAKER).write_text(f"process {os.getpid()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}")
    return handle


def leftovers(out: Path, final: Path) -> tuple[Path, ...]:
    """Results that killed runs have begun for this folder. `ConfigError` where a run is at work on it.

    What a killed one left that is no result yet is removed; what cannot be removed stays.
    """
    ours = re.compile(rf"\.?{re.escape(short(final.name))}\.partial-[0-9a-f]{{8}}", re.DOTALL)
    left = []
    for part in (path for place in (final.parent, final) for path in _listed(place) if ours.fullmatch(path.name)):
        if part.is_symlink() or not part.is_dir():
            continue
        with _held(part) as state:
            if state == "held":
                raise ConfigError(
                    f"{out}: another run is at work on it ({_who(part)}); wait for it, or choose another folder"
                )
            if state == "free" and any((part / proof).is_file() for proof in ("run.json", "eval.json")):
                left.append(part)
            elif state == "free" and time.time() - part.stat().st_mtime > FRESH_S:
                with suppress(OSError):
                    shutil.rmtree(part)
    return tuple(left)


def short(name: str) -> str:
    """A name that something may be added to."""
    return os.fsdecode(os.fsencode(name)[:LONGEST])


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _who(part: Path) -> str:
    try:
        return (part / MAKER).read_text() or part.name
    except OSError:
        return part.name


@contextmanager
def _held(part: Path) -> Iterator[State]:
    """Whether another holds the lock of a folder; if nobody does, we do, meanwhile."""
    try:
        handle = os.open(part, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        yield "unknown"
        return
    try:
        yield _lock(handle)
    finally:
        os.close(handle)


def _lock(handle: int) -> State:
    """Try to lock an open folder: `free` if it is ours now, `held` if another's, `unknown` where locks do not work."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        return "held" if e.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES) else "unknown"
    return "free"
