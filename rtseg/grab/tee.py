"""A file that FFmpeg reads through us: a pipe, or a recording on a web server."""

from __future__ import annotations

from typing import Protocol

from .transport import Transport


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...

    def close(self) -> None: ...


class Tee:
    """Hands on what is read, and shows it to whoever watches the packets of MPEG-TS; keeps the first bytes for that."""

    def __init__(self, file: Readable) -> None:
        self._file = file
        self._watcher: Transport | None = None
        self._kept = bytearray()  # until it is known whether anybody watches
        self._place = self._seen = 0
        self.ended = ""
        self._stopped: BaseException | None = None
        if hasattr(file, "seek") and getattr(file, "seekable", lambda: True)():
            self.seek, self.tell = self._seek, self._tell  # PyAV looks for these two

    def read(self, size: int) -> bytes:
        if self._stopped is not None:
            raise InterruptedError
        try:
            data = self._file.read(size) or b""
        except (KeyboardInterrupt, SystemExit) as e:  # PyAV, which calls this, would lose it
            self._stopped = e
            raise InterruptedError from e
        self.ended = getattr(self._file, "ended", "")
        new = data[max(0, self._seen - self._place) :] if self._place <= self._seen else b""
        self._place += len(data)
        self._seen += len(new)
        if self._watcher is None:
            self._kept += new
        elif new or not data:
            self._watcher.scan(new)
        return data

    def check(self) -> None:
        """Raise what stopped reading: a Ctrl-C."""
        if self._stopped is not None:
            raise self._stopped

    def watched(self, watcher: Transport) -> Transport:
        """From now on, and of what was read so far, `watcher` sees each byte once, in order."""
        self._watcher = watcher
        watcher.scan(bytes(self._kept))
        self._kept.clear()
        return watcher

    def unwatched(self) -> None:
        """Nobody will watch: keep nothing."""
        self._kept.clear()
        self._watcher = _Nobody(None, -1)

    def _seek(self, offset: int, whence: int = 0) -> int:
        self._place = self._file.seek(offset, whence)  # type: ignore[attr-defined]
        return self._place

    def _tell(self) -> int:
        return self._place

    def close(self) -> None:
        self._file.close()


class _Nobody(Transport):
    def scan(self, data: bytes) -> None:
        """No packets to count."""
