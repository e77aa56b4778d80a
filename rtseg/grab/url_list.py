"""Lists of sources in text files: a uri or a path on each line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..base.errors import SourceError
from .address import live_address
from .demux.http_file import is_web_recording
from .paths import kind_of

SUFFIX = ".txt"
LONGEST = 1 << 20  # bytes of a list


def is_list(uri: str) -> bool:
    """Whether a uri is the name of a list."""
    return uri.lower().endswith(SUFFIX) and kind_of(uri) == "file"


def read_list(path: Path) -> list[str]:
    """The sources that a list names, in its order. Empty lines and those that begin with # are left out.

    A relative path is relative to the folder of the list. `SourceError` if it cannot be read, or names nothing.
    """
    try:
        data = path.read_bytes() if path.stat().st_size <= LONGEST else b"\0"
    except OSError as e:
        raise SourceError(f"{path}: cannot be read ({e.strerror}); check the permissions") from e
    try:
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except ValueError:
        text = "\0"
    if "\0" in text:
        raise SourceError(f"{path}: not a text file; expected a list of videos, a uri or a path on each line")
    lines = [line.strip() for line in text.splitlines()]
    named = [line for line in lines if line and not line.startswith("#")]
    if not named:
        raise SourceError(f"{path}: names no source; expected a uri or a path on each line")
    nested = next((line for line in named if line.lower().endswith(SUFFIX)), None)
    if nested is not None:
        raise SourceError(f"{path}: names the list {nested}; expected videos; copy its lines")
    return [_beside(path, line) for line in named]


def expanded(uris: Sequence[str]) -> list[str]:
    """Uris, and in place of each list those that it names."""
    return [named for uri in uris for named in (read_list(Path(uri)) if is_list(uri) else [uri])]


def _beside(path: Path, line: str) -> str:
    if ":" in line and (is_web_recording(line) or live_address(line) is not None or line.startswith("synthetic:")):
        return line
    return str(path.parent / Path(line).expanduser()) if line[:1] != "~" else str(Path(line).expanduser())
