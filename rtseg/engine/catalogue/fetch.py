"""Fetching weights by name: licence, addresses in turn, hash, and then into the cache in one step."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from ...base.documents import is_file
from ...base.errors import OutputError, WeightsError
from ...base.files import atomic_path, commit, file_sha256, unwritable
from ...base.lock import exclusive
from .cache import Record, command, place_of, read_record, write_record
from .download import Progress, Wanted, discard_part, download
from .failure import FetchError
from .table import Entry, find_entry, read_table

Note = Callable[[str], None]
STARTS = (b"PK", b"\x80")  # of torch's files: a zip, and a bare pickle before torch 1.6


def fetch(
    name: str, *, accepted: str = "", force: bool = False, note: Note = print,
    progress: Progress = lambda done, total: None,
) -> Path:  # fmt: skip
    """The file of published weights: from the cache, or else fetched into it.

    Arguments:
        name: of the weights, as `rtseg weights list` has it.
        accepted: the name of the licence that the user accepts, where one has to be accepted.
        force: fetch it again although it is there.
        note: is called with lines for people.
        progress: is called with bytes so far, and of all.

    Raises `WeightsError` if it cannot be fetched, or is not the published file, and `OutputError` if it cannot be
    kept. What came of a file stays for the next call; Ctrl-C says how much that is.
    """
    entry = find_entry(name)
    final = place_of(entry)
    if is_file(final) and not force:
        return final
    _check_licence(entry, accepted)
    if not entry.addresses:
        raise WeightsError(f"{name}: a person has to fetch it, from {entry.page}; then: {command(entry)}")
    if os.environ.get("RTSEG_OFFLINE", "0") not in ("", "0"):
        raise WeightsError(f"{name}: not fetched: RTSEG_OFFLINE is set; {_by_hand(entry)}")
    with _alone(final, note):
        if not is_file(final) or force:  # another process may have fetched it meanwhile
            part = final.with_name(f"{final.name}.part")
            address, sha256 = _download(entry, part, note, progress)
            _install(entry, part, Record(address, sha256, part.stat().st_size, _kept(entry, accepted)))
    return final


def take_file(name: str, file: Path, *, accepted: str = "", note: Note = print) -> Path:
    """Put a file that a person fetched into the cache, as the weights of this name. Raises as `fetch` does."""
    entry = find_entry(name)
    final = place_of(entry)
    _check_licence(entry, accepted)
    if not is_file(file):
        raise WeightsError(
            f"{file}: no such file; expected the weights {name}, from {entry.page or entry.addresses[0]}"
        )
    if entry.bytes is not None and file.stat().st_size != entry.bytes:
        raise WeightsError(
            f"{file}: not the weights {name}: it has {file.stat().st_size} bytes, expected {entry.bytes}"
        )
    try:
        sha256 = _checked_hash(entry, file)
    except FetchError as e:
        raise WeightsError(f"{file}: not the weights {name}: it {e}") from e
    with _alone(final, note), atomic_path(final) as part:
        shutil.copyfile(file, part)
        write_record(entry, Record(str(file), sha256, part.stat().st_size, _kept(entry, accepted)))
    return final


def _check_licence(entry: Entry, accepted: str) -> None:
    licence = read_table().licence_of(entry)
    if accepted and accepted != entry.licence:
        raise WeightsError(f"{entry.name}: its licence is {entry.licence}, not {accepted}; read {licence.address}")
    if licence.accept and not _kept(entry, accepted):
        raise WeightsError(
            f"{entry.name}: a licence has to be accepted: {licence.terms} ({licence.address}); then: {command(entry)}"
        )


def _kept(entry: Entry, accepted: str) -> str:
    """The licence that was accepted, now or with an earlier file."""
    record = read_record(entry)
    return accepted or (record.accepted if record and record.accepted == entry.licence else "")


def _download(entry: Entry, part: Path, note: Note, progress: Progress) -> tuple[str, str]:
    """Fetch the file from the first address that gives it: the address, and the file's hash."""
    record = read_record(entry)
    wanted = Wanted(entry.bytes, bool(entry.sha256 or record))
    failures = []
    for address in entry.addresses:
        host = urlsplit(address).netloc
        note(f"{entry.name}: fetching{f' {entry.bytes / 1e6:.1f} MB' if entry.bytes else ''} from {host}")
        try:
            download(address, part, wanted, progress)
            return address, _checked_part(entry, part)
        except FetchError as e:
            failures.append(f"{host}: {e}")
        except KeyboardInterrupt:
            if is_file(part):
                note(f"{entry.name}: {part.stat().st_size / 1e6:.1f} MB are kept; the same command goes on from there")
            raise
    raise WeightsError(f"{entry.name}: not fetched: {'; '.join(failures)}; {_by_hand(entry)}")


def _checked_part(entry: Entry, part: Path) -> str:
    try:
        return _checked_hash(entry, part)
    except FetchError as e:
        discard_part(part)
        raise FetchError(f"what came {e}; it was removed") from e


def _checked_hash(entry: Entry, path: Path) -> str:
    """The hash of a whole file. Raises `FetchError` if it is not the one that was published, or fetched before."""
    with path.open("rb") as file:
        start = file.read(2)
    if entry.file_name.endswith(".pt") and not start.startswith(STARTS):
        raise FetchError(f"is no file of weights (it starts with {start!r})")
    sha256, record = file_sha256(path), read_record(entry)
    if entry.sha256 and sha256 != entry.sha256:
        raise FetchError(f"is not the published file (SHA-256 {sha256[:12]}..., expected {entry.sha256[:12]}...)")
    if not entry.sha256 and record and sha256 != record.sha256:
        known = place_of(entry).with_name(f"{entry.name}.json")
        raise FetchError(
            f"is not the file that was fetched before (SHA-256 {sha256[:12]}..., then {record.sha256[:12]}...);"
            f" to trust it, remove {known}"
        )
    return sha256


def _install(entry: Entry, part: Path, record: Record) -> None:
    final = place_of(entry)
    write_record(entry, record)
    try:
        commit(part, final)
    except OSError as e:
        raise unwritable(final, e) from e
    discard_part(part)


def _by_hand(entry: Entry) -> str:
    return f"fetched elsewhere, it is taken with: rtseg weights get {entry.name} --from FILE"


@contextmanager
def _alone(final: Path, note: Note) -> Iterator[None]:
    """Work on a file of the cache in one process at a time."""
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise OutputError(f"{final.parent}: cannot be made ({e.strerror}); RTSEG_CACHE may name another folder") from e
    with exclusive(final, note, "fetching"):
        yield
