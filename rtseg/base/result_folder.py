"""A folder of results that appears under its name when it is complete, or is marked as incomplete.

Until then it is `NAME.partial-0123abcd` beside its final place. Its process holds a lock (flock) on that folder, which
the kernel frees when the process ends. So a folder of a killed process is not mistaken for one in use.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from .errors import ConfigError, OutputError
from .files import discard_folder, install_folder
from .lock import alone_in, lock, open_folder, tried_lock

REVIEW = ("report.html", "review.json")
OURS = {  # the files of a result, by the file that identifies it
    "run.json": {"run.json", "manifest.json", "overlay.mp4", "masks", "masks.json", "frames", "formats", *REVIEW},
    "eval.json": {"eval.json", "masks.json.gz", "report.md", "plots", "worst", "sheets"},
}
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
LITTER = {".DS_Store", "Thumbs.db"}  # of file managers
MAKER = ".maker"  # a file in a partial folder that names the process
FRESH_S = 60.0  # a younger folder may not have been locked yet
LONGEST = 225  # bytes of a name to which a suffix is added: file systems take 255
# Errors of a path: RuntimeError for a loop of links, ValueError for NUL in a name.
Reason = (OSError, RuntimeError, ValueError)


@dataclass(slots=True)
class Part:
    """A result that is being made.

    Attributes:
        path: the folder to write to.
        left: folders with results that killed runs had begun.
        incomplete: the run ended early; its result never replaces a complete one.
        keep: no later failure removes the result.
        final: where the result was put; None until then.
        unfinished: the folder stays as it is, for the next run to go on.
        handle: the lock on the folder.
    """

    path: Path
    left: tuple[Path, ...] = ()
    incomplete: bool = False
    keep: bool = False
    final: Path | None = None
    unfinished: bool = False
    handle: int = -1

    def take_over(self, left: Path) -> bool:
        """Work on in a folder that a killed run left, in place of the new one. False if it cannot be had."""
        try:
            handle = _sign(left)
        except OSError:
            return False
        os.close(self.handle)
        discard_folder(self.path)
        self.path, self.handle, self.keep = left, handle, True
        self.left = tuple(path for path in self.left if path != left)
        return True


def check_apart(sources: Iterable[str | Path], out: Path) -> None:
    """`ConfigError` if a source lies in the folder that its result would replace."""
    with _one_line(out):
        final = out.resolve()
        if not final.is_dir():
            return
    for source in sources:
        with suppress(*Reason):  # of a uri, which is not a path
            path = Path(source)
            inside = path.exists() and (path.resolve() == final or final in path.resolve().parents)
            if inside:
                raise ConfigError(f"{out}: {source} lies in it, and would be replaced; choose another folder")


@contextmanager
def atomic_folder(out: Path, force: bool = False, proof: str = "run.json") -> Iterator[Path]:
    """A folder to write to, which becomes `out` on a clean exit and is removed on any other."""
    with result_folder(out, force, proof) as part:
        yield part.path


@contextmanager
def result_folder(out: Path, force: bool = False, proof: str = "run.json") -> Iterator[Part]:
    """A result to write, which becomes `out` on a clean exit and is removed on any other, unless `Part.keep` is set.

    Arguments:
        out: the final folder.
        force: replace an earlier result of the same kind. A folder with any other file in it is never replaced.
        proof: the file that identifies this kind of result.

    If another process fills `out` meanwhile, the result is put beside it.

    Raises:
        ConfigError: before any work: another run writes to `out`, or `out` is not empty.
        OutputError: the disk is full, or the folder may not be written.
    """
    made: list[Path] = []
    with _one_line(out):
        final = out.resolve()
        made += _make_parents(final)
    part: Part | None = None
    try:
        with _one_line(out):
            _check(out, final, force, proof)
        with alone_in(final.parent), _one_line(out):
            part = Part(_place(final), _leftovers(out, final))
            part.path.mkdir()
            part.handle = _sign(part.path)
        try:
            with _one_line(out, part):
                yield part
                (part.path / MAKER).unlink(missing_ok=True)
            if not part.unfinished:
                _install(part, out, final, force, proof)
        finally:
            os.close(part.handle)
    finally:
        if part is not None and part.final is None and not part.keep:
            discard_folder(part.path)
        for folder in made:  # those that stayed empty
            with suppress(OSError):
                folder.rmdir()


@contextmanager
def _one_line(out: Path, part: Part | None = None) -> Iterator[None]:
    """Turn a failure of the file system into an `OutputError` about `out`, with the final names of its files."""
    try:
        yield
    except OutputError as e:
        if part is None or str(part.path) not in str(e):
            raise
        raise OutputError(str(e).replace(str(part.path), str(out))) from e
    except Reason as e:
        if not isinstance(e, OSError) and part is not None:
            raise  # an error of the work, not of the path
        where = getattr(e, "filename", None)
        place = f" at {where}" if where and part is not None else ""
        why = f"{getattr(e, 'strerror', None) or e}{place}"
        remedy = "free the space or choose" if getattr(e, "errno", None) in FULL else "choose"
        raise OutputError(f"{out}: cannot be written ({why}); {remedy} another folder") from e


def _make_parents(final: Path) -> list[Path]:
    """Make the parent folders; returns those that were missing, the innermost first."""
    missing = [folder for folder in final.parents if not folder.exists()]
    final.parent.mkdir(parents=True, exist_ok=True)
    return missing


def _leftovers(out: Path, final: Path) -> tuple[Path, ...]:
    """Partial results that killed runs left for this folder; partial folders without a result are removed.

    Raises `ConfigError` if a running process writes to one.
    """
    ours = re.compile(rf"\.?{re.escape(short_name(final.name))}\.partial-[0-9a-f]{{8}}", re.DOTALL)
    left = []
    for part in (path for place in (final.parent, final) for path in _listed(place) if ours.fullmatch(path.name)):
        if part.is_symlink() or not part.is_dir():
            continue
        with tried_lock(part) as state:
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


def _sign(part: Path) -> int:
    """Lock a folder for this process and write the process into it; closing the returned handle frees the lock."""
    handle = open_folder(part)
    lock(handle)
    with suppress(OSError):
        (part / MAKER).write_text(f"process {os.getpid()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}")
    return handle


def short_name(name: str) -> str:
    """A name, cut so that a suffix may be added to it."""
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


def _place(final: Path) -> Path:
    """Where to write: beside the folder, or inside it if it is empty or a mount point, which cannot be replaced."""
    hidden = f"{short_name(final.name)}.partial-{secrets.token_hex(4)}"
    inside = final.is_dir() and (os.path.ismount(final) or not any(final.iterdir()))
    return final / f".{hidden}" if inside else final.with_name(hidden)


def _check(out: Path, final: Path, force: bool, proof: str, part: Path | None = None) -> None:
    with suppress(FileNotFoundError):
        final.stat()  # raises for a name that is too long; `exists` would be False
    if not final.exists():
        return
    if not final.is_dir():
        raise OutputError(f"{out}: is a file; expected the name of a folder")
    found = {child.name for child in final.iterdir() if child != part and not _in_work(child, final)} - LITTER
    if not found:
        return
    if not force:
        more = "; it is the incomplete result of an earlier run" if incomplete(final) else ""
        raise ConfigError(f"{out}: the folder is not empty{more}; choose another one, or replace it with --force")
    if proof not in found:
        raise ConfigError(f"{out}: --force replaces only an earlier result, and there is no {proof} in it")
    if found - OURS[proof]:
        foreign = ", ".join(sorted(found - OURS[proof])[:3])
        raise ConfigError(f"{out}: --force replaces an earlier result and nothing else; move away {foreign}")


def _in_work(child: Path, final: Path) -> bool:
    """Whether it is a partial result inside its own final folder."""
    return child.name.startswith(f".{short_name(final.name)}.partial-")


def incomplete(folder: Path) -> bool:
    """Whether a folder holds an incomplete result, by its run.json."""
    try:
        report = json.loads((folder / "run.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(report, dict) and report.get("complete") is False


def _install(part: Part, out: Path, final: Path, force: bool, proof: str) -> None:
    """Give the result its final name. If that is taken by now, give it a free name and raise an error that says so."""
    part.keep = True
    place = part.path
    try:
        try:
            _check(out, final, force, proof, place)  # again: hours may have passed
        except (ConfigError, OutputError) as e:
            part.final = _beside(place, final)
            raise ConfigError(f"{e} (the result of this run is in {part.final})") from e
        if part.incomplete and (final / proof).is_file() and not incomplete(final):
            part.final = _beside(place, final)  # a complete result is worth more
            return
        _replace(place, final, proof)
        part.final = final
    except OSError as e:
        why = e.strerror or str(e)
        raise OutputError(f"{out}: cannot be put there ({why}); the result of this run is in {place}") from e


def _beside(place: Path, final: Path) -> Path:
    """Move the result to a free name beside the final one, such as `NAME-2`."""
    number = 2
    while (free := place.with_name(f"{short_name(final.name)}-{number}")).exists():
        number += 1
    place.rename(free)
    return free


def _replace(place: Path, final: Path, proof: str) -> None:
    if place.parent == final:
        old = place.with_name(f"{short_name(final.name)}.replaced-{secrets.token_hex(4)}")
        old.mkdir()
        for child in [child for child in final.iterdir() if child.name in OURS[proof] | LITTER]:
            child.rename(old / child.name)
        for child in sorted(place.iterdir(), key=lambda child: child.name == proof):  # the proof comes last
            child.rename(final / child.name)
        place.rmdir()
        discard_folder(old)
    else:
        install_folder(place, final, durable=False)
