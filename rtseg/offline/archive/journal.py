"""The journal of an archive, `archive.jsonl` in its folder: a line for each attempt that failed and each final outcome.

A later run reads it to skip what is done. In a local folder each line is on the disk before the next video is handed
out. A cloud cannot append to a file: there the whole journal is written again, at most every ten seconds.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from ...base.errors import ConfigError, OutputError
from .places import is_cloud, join, read, write
from .scheduler import Video

NAME = "archive.jsonl"
EVERY_S = 10.0


class Journal:
    """The journal in the folder `out`. A context manager: a local one is locked while it is open.

    Raises `ConfigError` if another run has it, `OutputError` if it cannot be read or written.
    """

    def __init__(self, out: str) -> None:
        self._uri = join(out, NAME)
        self._lines: list[str] = []
        self._file: IO[str] | None = None
        self._written_s = time.monotonic()
        self.keys: dict[str, str] = {}  # of results that are done: `out` of the row to the key of its configuration

    def __enter__(self) -> Self:
        try:
            text = (read(self._uri) or b"").decode("utf-8", "replace")
            if not is_cloud(self._uri):
                self._file = _locked(Path(self._uri), text)
        except OSError as e:
            raise OutputError(f"{self._uri}: cannot be used ({e.strerror or e}); choose another folder") from e
        self._lines = text.splitlines()
        for line in self._lines:
            self._read(line)
        return self

    def _read(self, line: str) -> None:
        try:
            entry = json.loads(line)
            out, state = entry["out"], entry["state"]
        except (ValueError, KeyError, TypeError):
            return  # the end of a line that a killed run was writing
        if state == "done":
            self.keys[out] = str(entry.get("key", ""))

    def add(self, video: Video, key: str) -> None:
        """Note a failed attempt, or the outcome of a video."""
        outcome, row = video.outcome, video.row
        entry: dict[str, Any] = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "line": row.line, "source": " + ".join(row.sources),
            "out": row.out, "state": outcome.state if outcome else "again", "node": video.node,
            "attempts": video.attempts, "causes": video.causes,
        }  # fmt: skip
        if outcome and outcome.state == "done":
            seconds = {stage: round(spent, 3) for stage, spent in outcome.seconds.items()}
            entry |= {"key": key, "frames": outcome.frames, "seconds": seconds}
        elif outcome and outcome.cause and outcome.cause not in video.causes:
            entry["causes"] = [*video.causes, outcome.cause]
        self._append(json.dumps(entry))

    def _append(self, line: str) -> None:
        self._lines.append(line)
        if self._file is None:
            if time.monotonic() - self._written_s > EVERY_S:
                self._put()
            return
        try:
            self._file.write(line + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as e:
            raise OutputError(f"{self._uri}: cannot be written ({e.strerror}); free the space, and run again") from e

    def _put(self) -> None:
        self._written_s = time.monotonic()
        write(self._uri, "".join(f"{line}\n" for line in self._lines).encode())

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()
        elif self._lines:
            self._put()


def _locked(path: Path, text: str) -> IO[str]:
    """The journal, open to append, at the beginning of a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a", encoding="utf-8")
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        file.close()
        if isinstance(e, BlockingIOError):
            raise ConfigError(f"{path}: another run is at work on this archive; wait for it") from e
        raise
    if text and not text.endswith("\n"):
        file.write("\n")
    return file
