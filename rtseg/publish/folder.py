"""A folder of results that appears under its name when it is complete, or not at all."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import ConfigError, OutputError

PROOFS = ("run.json", "eval.json")  # a folder that holds one of these is a result of ours


@contextmanager
def atomic_folder(out: Path, force: bool = False) -> Iterator[Path]:
    """Work in the folder that this yields; it becomes `out` on a clean exit, and is gone after any other.

    A folder that holds something is refused with `ConfigError`, unless `force` is set and it holds a result of an
    earlier run. `OutputError` where the disk is full or may not be written.
    """
    _check(out, force)
    final = out.resolve()
    # Beside the folder; inside it if it is there and empty, for it may be a mount point, which cannot be replaced.
    hidden = f"{final.name}.partial-{secrets.token_hex(4)}"
    part = final / f".{hidden}" if final.is_dir() and not any(final.iterdir()) else final.with_name(hidden)
    try:
        part.mkdir(parents=True)
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
