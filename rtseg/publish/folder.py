"""A folder of results that appears under its name when it is complete, or not at all."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import ConfigError, OutputError

FRESH_S = 60.0  # a folder younger than this may be one that its maker has not locked yet
PROOFS = ("run.json", "eval.json")  # a folder that holds one of these is a result of ours


@contextmanager
def atomic_folder(out: Path, force: bool = False) -> Iterator[Path]:
    """Work in the folder that this yields; it becomes `out` on a clean exit, and is gone after any other.

    Its maker holds a lock (flock) on the folder, which the kernel frees if the maker is killed: so what a killed one
    left behind is told from what another is at work in, and removed by the next that makes the same `out`.

    A folder that holds something is refused with `ConfigError`, unless `force` is set and it holds a result of an
    earlier run. `OutputError` where the disk is full or may not be written.
    """
    final = out.resolve()
    _sweep(final)
    _check(out, force)
    # Beside the folder; inside it if it is there and empty, for it may be a mount point, which cannot be replaced.
    hidden = f"{final.name}.partial-{secrets.token_hex(4)}"
    part = final / f".{hidden}" if final.is_dir() and not any(final.iterdir()) else final.with_name(hidden)
    try:
        part.mkdir(parents=True)
        with _locked(part):
            yield part
            _install(part, final, force)
    except OutputError as e:  # about a file in there: the user knows it by its final name
        raise OutputError(str(e).replace(str(part), str(out))) from e
    except OSError as e:
        where = f" at {e.filename}" if e.filename else ""
        reason = f"{e.strerror or e}{where}"
        raise OutputError(f"{out}: cannot be written ({reason}); free the space or choose another folder") from e
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextmanager
def _locked(part: Path) -> Iterator[bool]:
    """Hold the lock of a folder, if it is free and the file system has locks; whether that is so."""
    folder = os.open(part, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = True
        except OSError:
            held = False
        yield held
    finally:
        os.close(folder)


def _sweep(final: Path) -> None:
    """Remove what makers of this folder left behind when they were killed. What cannot be removed stays."""
    ours = re.compile(rf"\.?{re.escape(final.name)}\.partial-[0-9a-f]{{8}}")
    for place in (final.parent, final):
        with suppress(OSError):
            for part in (path for path in place.iterdir() if ours.fullmatch(path.name)):
                if part.is_symlink() or not part.is_dir() or time.time() - part.stat().st_mtime < FRESH_S:
                    continue
                with _locked(part) as abandoned:
                    if abandoned:
                        shutil.rmtree(part)


def _check(out: Path, force: bool, part: Path | None = None) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise OutputError(f"{out}: is a file; expected the name of a folder")
    if any(child != part for child in out.iterdir()):
        if not force:
            raise ConfigError(f"{out}: the folder is not empty; choose another one, or replace it with --force")
        if not any((out / proof).is_file() for proof in PROOFS):
            known = " or ".join(PROOFS)
            raise ConfigError(f"{out}: --force replaces only an earlier result, and there is no {known} in it")


def _install(part: Path, out: Path, force: bool) -> None:
    _check(out, force, part)  # again: hours may have passed
    if part.parent == out:
        for child in sorted(part.iterdir(), key=lambda child: child.name in PROOFS):  # the proof comes last
            child.rename(out / child.name)
        return
    if not out.exists():
        part.rename(out)
        return
    old = out.with_name(f"{out.name}.replaced-{secrets.token_hex(4)}")
    out.rename(old)
    part.rename(out)
    shutil.rmtree(old)
