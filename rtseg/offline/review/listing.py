"""All results under a folder: what an index says of each, from its `run.json` and `review.json`, without its masks."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...base.errors import ConfigError
from .values import as_list, as_map, as_number, as_whole, ended_of, total

RUN, SUMMARY, REPORT, JOURNAL = "run.json", "review.json", "report.html", "archive.jsonl"
MOST_BYTES = 1 << 26  # of a file that is read here; a larger one is none of ours
DEEPEST = 12  # folders


@dataclass(frozen=True, slots=True)
class Listed:
    """One result, or one recording of an archive that has none. None: not known.

    `place`: its folder, relative to the index; `why`: the reason of a failure, "" for a complete result.
    """

    place: str
    source: str
    complete: bool
    why: str = ""
    has_report: bool = False
    seconds: float | None = None
    frames: int | None = None
    objects: int | None = None
    confidence: float | None = None  # of the object with the lowest mean
    moments: int | None = None
    cuts: int | None = None
    missing: int | None = None


@dataclass(slots=True)
class Listing:
    """All of them, failures first, then by name."""

    folder: Path
    results: list[Listed] = field(default_factory=list)

    @property
    def failed(self) -> list[Listed]:
        """Those that are incomplete, unreadable, or missing."""
        return [each for each in self.results if not each.complete]


def results_under(folder: Path) -> Iterator[Path]:
    """The folders that hold a result, in the order of their names. Partial ones and links to folders are left out."""

    def fail(error: OSError) -> None:
        raise ConfigError(f"{folder}: cannot be read ({error.strerror}); expected a folder with results")

    for place, folders, files in os.walk(folder, onerror=fail if not folder.is_dir() else None):
        deep = len(Path(place).relative_to(folder).parts)
        if RUN in files:
            folders.clear()
            yield Path(place)
        folders[:] = sorted(name for name in folders if not _hidden(name)) if deep < DEEPEST else []


def _hidden(name: str) -> bool:
    return name.startswith(".") or ".partial-" in name or ".replaced-" in name


def list_results(folder: Path, failed: Mapping[str, str]) -> Listing:
    """List every result under a folder, and the recordings without one that `failed`, or the journal of an archive says
    so of them.

    Raises `ConfigError` if there is nothing to list.
    """
    found = {place.relative_to(folder).as_posix(): _listed(folder, place) for place in results_under(folder)}
    for place, entry in _failures(folder / JOURNAL):
        if place not in found:
            found[place] = Listed(place, str(entry.get("source", "")), False, _cause(entry))
    for place, why in failed.items():
        found.setdefault(place, Listed(place, "", False, why))
    if not found:
        raise ConfigError(f"{folder}: no result under it; expected folders that rtseg segment wrote")
    return Listing(folder, sorted(found.values(), key=lambda each: (each.complete, each.place)))


def _listed(folder: Path, place: Path) -> Listed:
    name = place.relative_to(folder).as_posix()
    run = _read(place / RUN)
    if run is None:
        return Listed(name, "", False, "run.json cannot be read: segment it again")
    review = _read(place / SUMMARY) or {}
    complete = run.get("complete") is True
    frames, counts, objects = as_map(run.get("frames")), review.get("counts"), review.get("objects")
    means = [as_number(as_map(each).get("confidence")) for each in as_list(objects)]
    cuts = run.get("cuts")
    return Listed(
        name, _source(run.get("source")), complete, ended_of(run), (place / REPORT).is_file(),
        as_number(review.get("seconds")), as_whole(frames.get("shown")),
        len(objects) if isinstance(objects, list) else None,
        min((mean for mean in means if mean is not None), default=None),
        total(counts) if isinstance(counts, dict) else None,
        len(cuts) if isinstance(cuts, list) else None, total(as_map(frames.get("dropped"))),
    )  # fmt: skip


def _source(source: object) -> str:
    return " + ".join(Path(str(each)).name or str(each) for each in (source if isinstance(source, list) else [source]))


def _failures(journal: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The last entry of each recording that an archive could not segment."""
    last: dict[str, dict[str, Any]] = {}
    try:
        with journal.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                entry = _parsed(line)
                if entry is not None and isinstance(entry.get("out"), str):
                    last[entry["out"].strip("/")] = entry
    except OSError:
        return
    yield from ((place, entry) for place, entry in last.items() if entry.get("state") == "failed")


def _cause(entry: dict[str, Any]) -> str:
    causes = entry.get("causes")
    return str(causes[-1]) if isinstance(causes, list) and causes else "it failed"


def _read(path: Path) -> dict[str, Any] | None:
    try:
        if path.stat().st_size > MOST_BYTES:
            return None
        return _parsed(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
