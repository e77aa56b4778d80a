"""The manifest of an archive: a row for each video, with its source, prompts, place and options.

    source,prompts,out,options                                            archive.csv
    ward/2024-01.mp4,prompts/01.json,,damaged=stop fps=25

    {"source": "s3://ward/01.mp4", "prompts": "01.json", "options": {"frames": "jpg"}}      archive.jsonl

    [[video]]                                                             archive.toml
    source = ["a.ts", "b.ts"]
    prompts = "01.json"
    out = "operation-1"

Relative paths are relative to the manifest. `out` lies in the archive's folder; without it the result has the name of
its source. The whole manifest is checked before anything starts, and each mistake is told with its line.
"""

from __future__ import annotations

import csv
import io
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from ...base.documents import MAX_BYTES
from ...base.errors import ConfigError, RtsegError, did_you_mean, short
from ...base.schema import Text, convert
from ..check import hash_of
from .options import LISTS, Options
from .places import about, is_cloud, join, read
from .prompts import load_prompts

KEYS = ("source", "prompts", "out", "options")
RESERVED = ("archive.jsonl", "index.html")  # names in an archive's folder that are no results
AT_ONCE = 16  # rows that are checked at the same time: most of it is waiting for a cloud


@dataclass(frozen=True, slots=True)
class Entry:
    """A row as it is written."""

    source: Text | list[Text]
    prompts: Text
    out: Text | None = None
    options: Options = field(default_factory=Options)


@dataclass(frozen=True, slots=True)
class Row:
    """A video of the archive, checked. `line` is where the manifest has it, `about` is the state of its sources."""

    line: int
    sources: tuple[str, ...]
    prompts: str
    out: str
    options: Options
    about: tuple[dict[str, Any], ...] = ()
    prompts_hash: str = ""

    @property
    def bytes(self) -> int | None:
        """The size of the sources; None if one has none, such as a synthetic source."""
        sizes = [state.get("bytes") for state in self.about]
        return None if None in sizes or not sizes else sum(size for size in sizes if size)


class ManifestError(ConfigError):
    """A manifest has mistakes; `faults` has a line for each."""

    def __init__(self, uri: str, faults: list[str], rows: int) -> None:
        more = f"; and {len(faults) - 1} more" if len(faults) > 1 else ""
        super().__init__(f"{uri}: {faults[0]}{more}; nothing was started ({rows} rows were checked)")
        self.faults = faults


def load_manifest(uri: str, defaults: Mapping[str, Any] | None = None) -> list[Row]:
    """Read and check a manifest, its prompts, and that its sources are there. `defaults`: options of all rows.

    Raises `ManifestError` with all mistakes, or `ConfigError` if the manifest cannot be read at all.
    """
    folder = uri.rpartition("/")[0] if is_cloud(uri) else str(Path(uri).resolve().parent)
    faults: list[tuple[int, str]] = []
    rows: list[Row] = []
    count = 0
    for line, values in _entries(uri):
        count += 1
        try:
            if isinstance(values, str):
                raise ConfigError(values)
            rows.append(_row(line, convert(_filled(values, defaults or {}), Entry, f"line {line}"), folder))
        except RtsegError as e:
            faults.append((line, str(e)))
    if not count:
        raise ConfigError(f"{uri}: no videos; expected a row for each, with: {', '.join(KEYS)}")
    faults += _places_twice(rows)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        uris = {row.prompts for row in rows}  # one file may serve all rows
        hashes = dict(zip(uris, pool.map(_prompts_hash, uris), strict=True))
        checked = list(pool.map(lambda row: _checked(row, hashes[row.prompts]), rows))
    faults += [(row.line, fault) for row, fault in zip(rows, checked, strict=True) if isinstance(fault, str)]
    if faults:
        raise ManifestError(uri, [fault for _, fault in sorted(faults)], count)
    return [row for row in checked if isinstance(row, Row)]


def _filled(values: Any, defaults: Mapping[str, Any]) -> Any:
    """A row with the options that it does not give itself; anything that is no row as it is."""
    options = values.get("options", {}) if isinstance(values, dict) else None
    return values | {"options": {**defaults, **options}} if isinstance(options, dict) else values


def _entries(uri: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """The rows of a manifest with their lines; a text in place of a row is its mistake."""
    suffix = PurePosixPath(uri).suffix.lower()
    readers = {".csv": _csv, ".jsonl": _json_lines, ".ndjson": _json_lines, ".toml": _toml}
    if suffix not in readers:
        raise ConfigError(f"{uri}: found {suffix or 'no suffix'}; expected a manifest named .csv, .jsonl or .toml")
    try:
        data = read(uri)
    except OSError as e:
        raise ConfigError(f"{uri}: cannot be read ({e.strerror or e}); expected a manifest") from e
    if data is None:
        raise ConfigError(f"{uri}: no such file; expected a manifest: a row for each video")
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{uri}: over {MAX_BYTES >> 20} MiB; expected a manifest; divide it")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        line = 1 + data.count(b"\n", 0, e.start)
        raise ConfigError(f"{uri}: not text in UTF-8 (line {line}: {e.reason}); save it as UTF-8") from e
    return readers[suffix](uri, text)


def _csv(uri: str, text: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    heads = [head.strip() for head in next(reader, [])]
    for head in heads:
        if head not in KEYS:
            raise ConfigError(f"{uri}: line 1: unknown column {short(head)}; {did_you_mean(head, KEYS)}")
    if not {"source", "prompts"} <= set(heads) or len(set(heads)) < len(heads):
        raise ConfigError(f"{uri}: line 1: found {short(heads)}; expected the columns {', '.join(KEYS)}, each once")
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as e:
            yield line, f"line {line}: not CSV ({e}); expected {len(heads)} cells, those with commas in quotes"
            return
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) > len(heads):
            yield line, f"line {line}: {len(cells)} cells; expected {len(heads)}: put cells with commas in quotes"
            continue
        values: dict[str, Any] = {head: cell.strip() for head, cell in zip(heads, cells, strict=False) if cell.strip()}
        yield line, _with_options(line, values)


def _with_options(line: int, values: dict[str, Any]) -> dict[str, Any] | str:
    """A row of CSV with its options, written as `fps=25 damaged=stop`, as a table."""
    options: dict[str, Any] = {}
    for word in values.get("options", "").split():
        key, equals, value = word.partition("=")
        if not equals or key in options:
            return f"line {line}: options: found {short(word)}; expected KEY=VALUE, each key once, as in fps=25"
        options[key] = _value(key, value)
    return values | {"options": options} if "options" in values else values


def _value(key: str, text: str) -> Any:
    """The value of an option in CSV: a list, yes or no, a number, or the text itself."""
    if key in LISTS:
        return [word for word in text.split(",") if word]
    if text in ("true", "false"):
        return text == "true"
    try:
        return float(text)
    except ValueError:
        return text


def _json_lines(uri: str, text: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise ValueError("a key is there twice")
        return dict(pairs)

    for line, words in enumerate(text.split("\n"), 1):
        if not words.strip():
            continue
        try:
            yield line, json.loads(words, object_pairs_hook=once)
        except (ValueError, RecursionError) as e:
            yield line, f'line {line}: not JSON ({e}); expected {{"source": ..., "prompts": ...}}'


def _toml(uri: str, text: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as e:
        raise ConfigError(f"{uri}: not TOML ({e}); expected [[video]] and below it lines like: key = value") from e
    videos = table.pop("video", [])
    if table or not isinstance(videos, list):
        found = next(iter(table), "video")
        raise ConfigError(f"{uri}: found {short(found)}; expected [[video]] for each video, and nothing else")
    lines = [n for n, line in enumerate(text.split("\n"), 1) if re.match(r"\s*\[\[\s*video\s*\]\]", line)]
    for number, values in enumerate(videos):
        yield (lines[number] if len(lines) == len(videos) else number + 1), values


def _row(line: int, entry: Entry, folder: str) -> Row:
    """A row with its paths in full."""
    sources = (entry.source,) if isinstance(entry.source, str) else tuple(entry.source)
    if not sources:
        raise ConfigError(f"line {line}: source = []; expected one or more")
    out = PurePosixPath(entry.out or _name_of(sources[0], line))
    if out.is_absolute() or ".." in out.parts or not out.parts or "://" in str(out):
        raise ConfigError(f"line {line}: out = {short(str(out))}; expected a name inside the archive's folder")
    if out.parts[0] in RESERVED:
        raise ConfigError(f"line {line}: out = {short(str(out))}; that is a file of the archive; choose another name")
    full = tuple(_full(source, folder) for source in sources)
    return Row(line, full, _full(entry.prompts, folder), str(out), entry.options)


def _name_of(source: str, line: int) -> str:
    name = PurePosixPath(source).stem if "://" in source or ":" not in source else ""
    if not name:
        raise ConfigError(f"line {line}: 'out' is missing; expected a name: {short(source)} gives none")
    return name


def _full(uri: str, folder: str) -> str:
    """A uri as it is; a path from the manifest's folder."""
    if "://" in uri or uri.startswith(("synthetic:", "coded:")):
        return uri
    return join(folder, str(Path(uri).expanduser()) if uri.startswith("~") else uri) if not uri.startswith("/") else uri


def _places_twice(rows: list[Row]) -> Iterator[tuple[int, str]]:
    """Rows whose results would lie in the same place, or in one another."""
    taken = {PurePosixPath(row.out): row for row in reversed(rows)}
    for row in rows:
        out = PurePosixPath(row.out)
        for place in (out, *out.parents):
            other = taken.get(place)
            if other is not None and other is not row:
                yield row.line, f"line {row.line}: out = {row.out!r} is that of line {other.line}; give it another name"
                break


def _prompts_hash(uri: str) -> str | RtsegError | OSError:
    """The hash of the prompts in a file, or its mistake."""
    try:
        return hash_of(load_prompts(uri))
    except (RtsegError, OSError) as e:
        return e


def _checked(row: Row, prompts_hash: str | RtsegError | OSError) -> Row | str:
    """The row with the state of its sources, or its mistake."""
    try:
        if isinstance(prompts_hash, Exception):
            raise prompts_hash
        return replace(row, about=tuple(about(source) for source in row.sources), prompts_hash=prompts_hash)
    except (RtsegError, OSError) as e:
        return f"line {row.line}: {e}"
