"""Sources of a cloud on a machine's disk: a bounded cache that all workers of the machine share.

Each video has an entry, a folder that its worker holds a lock on. The kernel frees the lock when the worker dies, and
so a later worker finds the source whole, and need not fetch it again, or removes it when the room is needed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from ...base.errors import ConfigError
from ...base.lock import alone_in, lock, open_folder, tried_lock
from .manifest import Row
from .places import fetch, is_cloud

RESERVED = ".bytes"  # a file in an entry: its size
POLL_S = 0.5
CHANGED_S = 946684800  # each fetched file's time of change, so that it is the same source after another fetch


class Cache:
    """The cache in `folder`, of at most `limit` bytes."""

    def __init__(self, folder: Path, limit: int, get: Callable[[str, Path], None] = fetch) -> None:
        self._folder, self._limit, self._get = folder, limit, get

    @contextmanager
    def sources(self, row: Row, out: str) -> Iterator[list[str]]:
        """The row's sources as `open_source` opens them, those of a cloud fetched; kept while the context lasts.

        Waits while other videos need the room. Raises `ConfigError` if the sources are larger than the whole cache,
        and what fsspec raises if they cannot be fetched.
        """
        if not any(is_cloud(source) for source in row.sources):
            yield list(row.sources)
            return
        told = json.dumps([out, row.sources, row.about], sort_keys=True)
        entry = self._folder / hashlib.sha256(told.encode()).hexdigest()[:24]
        size = row.bytes or 0
        if size > self._limit:
            found = f"{size / 1e9:.1f} GB; the cache has {self._limit / 1e9:.1f} GB"
            raise ConfigError(f"{row.sources[0]}: {found}; expected sources that fit in it; raise --cache-gb")
        handle = self._reserve(entry, size)
        try:
            yield [self._fetched(entry, number, source) for number, source in enumerate(row.sources)]
        finally:
            os.close(handle)
            with suppress(OSError):
                shutil.rmtree(entry)

    def _reserve(self, entry: Path, size: int) -> int:
        """Make and lock the entry, once there is room; returns the handle that holds the lock."""
        self._folder.mkdir(parents=True, exist_ok=True)
        while True:
            with alone_in(self._folder):
                if self._make_room(entry, size):
                    entry.mkdir(exist_ok=True)
                    handle = open_folder(entry)
                    if lock(handle) != "held":
                        (entry / RESERVED).write_text(str(size))
                        return handle
                    os.close(handle)  # another run is at work on the same video
            time.sleep(POLL_S)

    def _make_room(self, entry: Path, size: int) -> bool:
        """Remove entries that nobody holds, the oldest first, until `size` fits beside the others."""
        held, free = 0, []
        for other in self._folder.iterdir():
            if other == entry or not other.is_dir():
                continue
            with tried_lock(other) as state:
                (free.append(other) if state == "free" else None)
                held += _size(other) if state != "free" else 0
        free.sort(key=lambda path: path.stat().st_mtime)
        used = held + sum(map(_size, free))
        while free and used + size > self._limit:
            used -= _size(free[0])
            shutil.rmtree(free.pop(0), ignore_errors=True)
        return used + size <= self._limit

    def _fetched(self, entry: Path, number: int, source: str) -> str:
        if not is_cloud(source):
            return source
        final = entry / str(number) / (PurePosixPath(source).name or "source")
        if not final.exists():
            part = final.parent / ".part"
            shutil.rmtree(final.parent, ignore_errors=True)
            final.parent.mkdir()
            self._get(source, part)
            for path in (part, *part.rglob("*")):
                os.utime(path, (CHANGED_S, CHANGED_S))
            part.rename(final)
        return str(final)


def _size(entry: Path) -> int:
    try:
        return int((entry / RESERVED).read_text())
    except (OSError, ValueError):
        return 0
