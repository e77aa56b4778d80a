"""A folder of results that appears under its name when it is complete, or not at all."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import ConfigError, OutputError

PROOF = "run.json"  # the file by which a folder is known to be a result of ours


@contextmanager
def atomic_folder(out: Path, force: bool = False) -> Iterator[Path]:
    """Work in the folder that this yields; it becomes `out` on a clean exit, and is gone after any other.

    A folder that holds something is refused with `ConfigError`, unless `force` is set and it holds a result of an
    earlier run. `OutputError` where the disk is full or may not be written.
    """
    _check(out, force)
    final = out.resolve()
    part = final.with_name(f"{final.name}.partial-{secrets.token_hex(4)}")
    try:
        part.mkdir(parents=True)
        yield part
        _install(part, final)
    except OutputError as e:  # about a file in there: the user knows it by its final name
        raise OutputError(str(e).replace(str(part), str(out))) from e
    except OSError as e:
        where = f" at {e.filename}" if e.filename else ""
        reason = f"{e.strerror or e}{where}"
        raise OutputError(f"{out}: cannot be written ({reason}); free the space or choose another folder") from e
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _check(out: Path, force: bool) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise OutputError(f"{out}: is a file; expected the name of a folder")
    if any(out.iterdir()):
        if not force:
            raise ConfigError(f"{out}: the folder is not empty; choose another one, or replace it with --force")
        if not (out / PROOF).is_file():
            raise ConfigError(f"{out}: --force replaces only an earlier result, and there is no {PROOF} in it")


def _install(part: Path, out: Path) -> None:
    if not out.exists():
        part.rename(out)
        return
    old = out.with_name(f"{out.name}.replaced-{secrets.token_hex(4)}")
    out.rename(old)
    part.rename(out)
    shutil.rmtree(old)
