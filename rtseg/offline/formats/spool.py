"""Text that grows in several places at once, for files that go object by object: kept on disk until it is joined."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

AT_ONCE = 1 << 16  # characters of each text that are in memory


class Spool:
    """Texts by key. None of their files is open between two calls, however many there are."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._texts: dict[tuple[object, ...], list[str]] = {}
        self._sizes: dict[tuple[object, ...], int] = {}

    def add(self, text: str, *key: object) -> None:
        """Append to the text of a key."""
        self._texts.setdefault(key, []).append(text)
        self._sizes[key] = self._sizes.get(key, 0) + len(text)
        if self._sizes[key] > AT_ONCE:
            self._write(key)

    def _write(self, key: tuple[object, ...]) -> None:
        with self._path(key).open("ab") as file:
            file.write("".join(self._texts[key]).encode())
        self._texts[key], self._sizes[key] = [], 0

    def _path(self, key: tuple[object, ...]) -> Path:
        return self._folder / "-".join(map(str, key))

    def has(self, *key: object) -> bool:
        """Whether anything was added to the text of a key."""
        return key in self._texts

    def copy(self, out: BinaryIO, *key: object) -> None:
        """Append the text of a key, "" if there is none, to a file."""
        if key in self._texts:
            self._write(key)
            with self._path(key).open("rb") as file:
                shutil.copyfileobj(file, out, 1 << 20)


@contextmanager
def spool(folder: Path) -> Iterator[Spool]:
    """A spool whose files lie in `folder` until the end."""
    with TemporaryDirectory(prefix=".spool-", dir=folder) as place:
        yield Spool(Path(place))
