"""TOML and JSON files that people write: read as a whole and parsed; an error is one line.

UTF-8 is expected; UTF-8 with a byte-order mark, UTF-16 and UTF-32 are read too. A file may be a pipe. Some functions
read stdin for the path "-".
"""

from __future__ import annotations

import codecs
import json
import sys
import tomllib
from pathlib import Path
from typing import Any

from .errors import ConfigError, RtsegError, short

MAX_BYTES = 1 << 26  # larger than any file that people write; /dev/zero has no end
_MARKS = {
    codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF32_LE: "utf-32-le", codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be",
}  # fmt: skip


def as_path(path: object, error: type[RtsegError] = ConfigError) -> Path:
    """A path of the public API, with `~` replaced by the home folder; `error` for anything else."""
    if not isinstance(path, str | Path):
        raise error(f"path = {short(path)}; expected the path of a file, as text or Path")
    return expanded(str(path), "path", error)


def expanded(text: str, name: str, error: type[RtsegError] = ConfigError) -> Path:
    """A path from a file, with `~` replaced by the home folder; `name` opens the error line."""
    try:
        return Path(text).expanduser()
    except RuntimeError as e:  # ~NAME of a user without a home folder on this machine
        raise error(f"{name} = {short(text)}; expected an existing home folder: write the path in full") from e


def is_file(path: Path) -> bool:
    """Whether a path is a file; False for a name that the system does not allow."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # for example too long, or with a NUL in it
        return False


def is_there(path: Path) -> bool:
    """Whether a path exists; False for a name that the system does not allow."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def read_toml(path: Path, error: type[RtsegError] = ConfigError) -> dict[str, Any]:
    """The top-level table of a TOML file."""
    text = read_text(path, "a TOML file", error)
    try:
        return tomllib.loads(text)
    except ValueError as e:
        raise error(f"{path}: not TOML ({e}); expected lines like: key = value") from e
    except RecursionError as e:
        raise error(f"{path}: not TOML that can be read (nested too deeply); expected lines like: key = value") from e


def read_json(path: Path, expected: str, error: type[RtsegError]) -> object:
    """The content of a JSON file; "-" is stdin. A repeated key in an object is an error: either value could be meant.

    `expected` says in the error line what the list holds.
    """
    text = read_text(path, f"a JSON file of {expected}", error, stdin=True)

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) < len(pairs):
            key = next(key for n, (key, _) in enumerate(pairs) if key in dict(pairs[:n]))
            raise error(f"{path}: {short(key)} is there twice in {short(table)}; expected each key once")
        return table

    try:
        return json.loads(text, object_pairs_hook=once)
    except ValueError as e:
        why = "it is empty" if not text.strip() else str(e)
        raise error(f"{path}: not JSON ({why}); expected a list of {expected}") from e
    except RecursionError as e:
        raise error(f"{path}: not JSON that can be read (nested too deeply); expected a list of {expected}") from e


def read_text(path: Path, expected: str, error: type[RtsegError], *, stdin: bool = False) -> str:
    """The content of a text file; `expected` completes the error line. With `stdin` the path "-" is stdin."""
    try:
        if stdin and str(path) == "-":
            data = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
    except OSError as e:
        raise error(f"{path}: cannot be read ({e.strerror}); expected {expected}") from e
    except ValueError as e:  # a path that no file can have, with NUL in it for example
        raise error(f"{short(str(path))}: cannot be read ({e}); expected {expected}") from e
    if len(data) > MAX_BYTES:
        raise error(f"{path}: over {MAX_BYTES >> 20} MiB; expected {expected}")
    mark, coding = next((found for found in _MARKS.items() if data.startswith(found[0])), (b"", "utf-8"))
    try:
        return data[len(mark) :].decode(coding)
    except UnicodeDecodeError as e:
        line = 1 + data.count(b"\n", 0, e.start)
        raise error(
            f"{path}: not text in UTF-8 (line {line}: {e.reason}); expected {expected}; save it as UTF-8"
        ) from e
