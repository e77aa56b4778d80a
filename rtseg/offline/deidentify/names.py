"""Names that a result would carry on: of the source's files and folders, and when they were written.

A recording is often called after its patient. So each name becomes `source`, `source-2`, ... wherever it is in a text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

SHORTEST = 3  # characters of a name: what is shorter would be found in ordinary words
DROPPED = ("changed_ns", "path")  # of a file: when it was written, and where it lies


class Names:
    """The names of a run's sources, and what takes their place."""

    def __init__(self, uris: Sequence[str]) -> None:
        """`uris`: the parts of the recording."""
        self._places: dict[str, str] = {}
        for n, uri in enumerate(uris):
            place = f"source-{n + 1}" if len(uris) > 1 else "source"
            for name in _names_of(uri):
                self._places.setdefault(name, place)
        names = sorted(self._places, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, names))) if names else None

    def hide(self, text: str) -> str:
        """The text without the names."""
        return text if self._pattern is None else self._pattern.sub(lambda found: self._places[found[0]], text)

    def hidden(self, value: Any) -> Any:  # of the same kind
        """A document without the names, and without where and when files were written."""
        if isinstance(value, str):
            return self.hide(value)
        if isinstance(value, Path):
            return self.hide(str(value))
        if isinstance(value, dict):
            return {self.hidden(key): self.hidden(item) for key, item in value.items() if key not in DROPPED}
        if isinstance(value, list | tuple):
            return [self.hidden(item) for item in value]
        return value


def _names_of(uri: str) -> list[str]:
    """The uri, and of a path also its folders' full name, its own name, and that without its suffix; of a folder, the
    names of the pictures in it.
    """
    if uri.startswith("synthetic:") or uri == "-":
        return []
    path = Path(uri)
    names = [uri, path.name, path.stem]
    with suppress(OSError, ValueError):  # a uri that is no path
        names += [str(path.resolve()), str(path.resolve().parent), str(path.parent)]
        if path.is_dir():
            names += [name for one in path.iterdir() for name in (one.name, one.stem)]
    return [name for name in names if len(name) >= SHORTEST]
