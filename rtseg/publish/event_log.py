"""A tamper-evident log: one JSON line for each event, with a hash of the line and of the line before it.

    {"captured_ns":123,...,"event":"frame",...,"hash":"9f..."}

`hash` is the SHA-256 of the previous line's hash (64 zeros for the first line) followed by the line without its `hash`
(JSON, sorted keys, no spaces). So a line that is changed, removed, added or moved breaks the hash chain there.

The chain alone does not show lines missing at the end, or a log that was rewritten from some line on with new hashes.
Against both: write down the last hash when a recording ends (`verify` reports it), or compare the log with what it
describes (`verify` does so with the video).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import numpy as np

from ..base.errors import OutputError
from ..base.files import unwritable

GENESIS = "0" * 64
_HASH = b',"hash":"'
_TAIL = len(_HASH) + 64 + len(b'"}')  # bytes of a line after its body without the closing brace
_TORN = 2000  # characters kept of an incomplete last line

Event = dict[str, Any]


class UnloggableError(OutputError):
    """An event that JSON cannot represent; nothing was written, and the log stays usable."""


def write_all_or_nothing(file: int, data: bytes, start: int) -> None:
    """Write `data` at `start`, the end of a file; on an `OSError`, nothing of it remains."""
    view = memoryview(data)
    try:
        while view:
            view = view[os.pwrite(file, view, start + len(data) - len(view)) :]
    except OSError:
        with suppress(OSError):
            os.ftruncate(file, start)
        raise


def check_not_replaced(file: int, path: Path) -> None:
    """`OutputError` if `path` no longer names the open file: what is written to it would then be lost."""
    try:
        if os.path.samestat(path.stat(), os.fstat(file)):
            return
        why = "another file has its name"
    except OSError as e:
        why = (e.strerror or str(e)).lower()
    raise OutputError(f"{path}: lost while it was written ({why}); expected it to stay; begin another")


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} {value!r:.40}")


def encode_line(event: Event, before: str) -> tuple[bytes, str]:
    """The line of an event, and its hash; `ValueError` or `TypeError` for what JSON cannot represent."""
    text = json.dumps(event, sort_keys=True, separators=(",", ":"), allow_nan=False, default=_plain)
    body = text.encode("ascii")
    digest = hashlib.sha256(before.encode("ascii") + body).hexdigest()
    return body[:-1] + _HASH + digest.encode("ascii") + b'"}\n', digest


def line_hash(line: bytes) -> str:
    """The hash in a line; `ValueError` if it has none."""
    if line[-_TAIL - 1 : -67] != _HASH or line[-3:] != b'"}\n':
        raise ValueError("it is not a line of such a log")
    return line[-67:-3].decode("ascii", "replace")


def decode_line(line: bytes, before: str) -> tuple[Event, str]:
    """The event of a line (with its newline), and its hash; `ValueError`, which says why, if the hash is wrong."""
    stated = line_hash(line)
    body = line[: -_TAIL - 1] + b"}"
    if hashlib.sha256(before.encode("ascii", "replace") + body).hexdigest() != stated:
        raise ValueError("its hash does not fit; it was changed, or a line before it was removed, added or moved")
    event = json.loads(body)
    if not isinstance(event, dict):
        raise ValueError("it is not an event")
    return event, stated


def lines_backwards(data: bytes) -> Iterator[bytes]:
    """The complete lines of a log, with their newlines, last line first."""
    end = data.rfind(b"\n") + 1
    while end:
        start = data.rfind(b"\n", 0, end - 1) + 1
        yield data[start:end]
        end = start


class EventLog:
    """Appends events to a file that only its owner may read, and only one process may have open.

    Each line is written to the kernel at once, so a killed process loses no line for which `add` returned. A line that
    does not fit on the disk is removed again.
    """

    def __init__(self, path: Path) -> None:
        """Begin a log; `OutputError` if the file exists already or cannot be made."""
        self._begin(path, os.O_CREAT | os.O_EXCL)

    def _begin(self, path: Path, flags: int) -> None:
        self.path, self.head, self._bytes = path, GENESIS, 0
        try:
            self._file = os.open(path, os.O_RDWR | flags, 0o600)
        except OSError as e:
            raise unwritable(path, e) from e
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            os.close(self._file)
            raise OutputError(f"{path}: another recorder writes it; expected one at a time; stop that one") from e

    @classmethod
    def resume(cls, path: Path) -> Self:
        """Continue a log whose writer died.

        An incomplete last line is replaced by a `recovered` event that contains it. `OutputError` if the hash of the
        last complete line is wrong, or if another process writes the log.
        """
        log = cls.__new__(cls)
        log._begin(path, 0)
        try:
            torn = log._find_end()
            if torn:
                os.ftruncate(log._file, log._bytes)
            if torn and log._bytes:  # a log without a complete line has nothing worth keeping
                digest, text = hashlib.sha256(torn).hexdigest(), torn[:_TORN].decode("ascii", "backslashreplace")
                log.add("recovered", torn=text, bytes=len(torn), sha256=digest)
        except (OSError, ValueError) as e:
            log.close()
            if isinstance(e, OSError):
                raise unwritable(path, e) from e
            raise OutputError(f"{path}: the last line: {e}; expected a log as it was written; begin another") from e
        except OutputError:
            log.close()
            raise
        return log

    def _find_end(self) -> bytes:
        """Check the last complete line and set the end of the log after it; returns the bytes that follow."""
        data = self.path.read_bytes() if os.fstat(self._file).st_size else b""
        self._bytes = data.rfind(b"\n") + 1
        lines = lines_backwards(data[: self._bytes])
        last, before = next(lines, None), next(lines, None)
        if last is not None:
            _, self.head = decode_line(last, line_hash(before) if before else GENESIS)
        return data[self._bytes :]

    def add(self, event: str, **facts: Any) -> None:
        """Append one line; `UnloggableError` if JSON cannot represent it, another `OutputError` if the disk is full."""
        try:
            line, head = encode_line({"event": event, **facts}, self.head)
        except (TypeError, ValueError) as e:
            raise UnloggableError(
                f"{self.path}: {event}: cannot be logged ({e}); expected numbers, text and lists"
            ) from e
        try:
            write_all_or_nothing(self._file, line, self._bytes)
        except OSError as e:
            raise unwritable(self.path, e) from e
        self._bytes, self.head = self._bytes + len(line), head

    @property
    def closed(self) -> bool:
        return self._file < 0

    def check(self) -> None:
        """`OutputError` if the file is no longer there under its name."""
        check_not_replaced(self._file, self.path)

    def sync(self) -> None:
        """Wait until everything is on the disk."""
        try:
            os.fsync(self._file)
        except OSError as e:
            raise unwritable(self.path, e) from e

    def close(self) -> None:
        """Close the file; may be called again."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
