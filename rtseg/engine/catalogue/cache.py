"""The weights that were fetched: files in the user's cache, each with a record of what it is.

~/.cache/rtseg/weights/edgetam.pt        $RTSEG_CACHE or $XDG_CACHE_HOME change the place
~/.cache/rtseg/weights/edgetam.json      where from, its hash, which licence was accepted; outlives the file
~/.cache/rtseg/weights/edgetam.pt.part   what was fetched so far, by a download that did not end
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from ...base.cache import cache_root
from ...base.documents import is_file
from ...base.errors import WeightsError
from ...base.files import atomic_path
from ...base.schema import convert
from .table import Entry, find_entry, read_table


@dataclass(frozen=True, slots=True)
class Record:
    """What a file in the cache is: where it came from, its SHA-256 and size, and the licence that was accepted."""

    address: str
    sha256: str
    bytes: int
    accepted: str = ""


def place_of(entry: Entry) -> Path:
    """Where the file of these weights is, or will be."""
    return cache_root() / "weights" / entry.file_name


def find_cached(name: str) -> Path | None:
    """The file of the weights of this name, if it was fetched. Raises `WeightsError` for an unknown name."""
    path = place_of(find_entry(name))
    return path if is_file(path) else None


def not_fetched(name: str) -> WeightsError:
    """The error for weights that were not fetched yet. It ends with what to do."""
    return WeightsError(f"weights {name!r} are not on this machine yet; run: {command(find_entry(name))}")


def command(entry: Entry) -> str:
    """The command line that fetches these weights, whole."""
    licence = f" --accept-licence {entry.licence}" if read_table().licence_of(entry).accept else ""
    return f"rtseg weights get {entry.name}{licence}{'' if entry.addresses else ' --from FILE'}"


def read_record(entry: Entry) -> Record | None:
    """The record of these weights; None if there is none. Raises `WeightsError` if it is damaged."""
    path = _record_path(entry)
    try:
        return convert(json.loads(path.read_text("utf-8")), Record, str(path), WeightsError)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as e:
        raise WeightsError(f"{path}: cannot be read ({e}); remove it, and run: {command(entry)} --force") from e


def write_record(entry: Entry, record: Record) -> None:
    with atomic_path(_record_path(entry)) as part:
        part.write_text(json.dumps(asdict(record), indent=2) + "\n", "utf-8")


def _record_path(entry: Entry) -> Path:
    return place_of(entry).with_name(f"{entry.name}.json")


def check_unchanged(name: str, sha256: str) -> None:
    """Raise `WeightsError` if the cached file of these weights no longer has the hash that it was fetched with."""
    entry = find_entry(name)
    record = read_record(entry)
    expected = entry.sha256 or (record.sha256 if record else sha256)
    if sha256 != expected:
        raise WeightsError(
            f"{place_of(entry)}: not the file that was fetched (SHA-256 {sha256[:12]}..., expected {expected[:12]}...);"
            f" run: {command(entry)} --force"
        )
