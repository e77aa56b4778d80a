"""A file that this process reads for FFmpeg: a pipe, or a recording on a web server."""

from __future__ import annotations

from typing import Protocol

from .mpegts import TsScanner


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...

    def close(self) -> None: ...


class Tee:
    """Passes bytes from a file to FFmpeg, and each byte once to the MPEG-TS scanner, if there is one."""

    def __init__(self, file: Readable) -> None:
        self._file = file
        self._scanner: TsScanner | None = None
        self._buffered = bytearray()  # bytes read before it is known whether there is a scanner
        self._position = self._scanned = 0
        self.ended = ""
        self._stopped: BaseException | None = None
        if hasattr(file, "seek") and getattr(file, "seekable", lambda: True)():
            self.seek, self.tell = self._seek, self._tell  # PyAV looks for these two methods

    def read(self, size: int) -> bytes:
        if self._stopped is not None:
            raise InterruptedError
        try:
            data = self._file.read(size) or b""
        except (KeyboardInterrupt, SystemExit) as e:  # PyAV, which calls this, would swallow it
            self._stopped = e
            raise InterruptedError from e
        self.ended = getattr(self._file, "ended", "")
        new = data[max(0, self._scanned - self._position) :] if self._position <= self._scanned else b""
        self._position += len(data)
        self._scanned += len(new)
        if self._scanner is None:
            self._buffered += new
        elif new or not data:
            self._scanner.scan(new)
        return data

    def check(self) -> None:
        """Raise the Ctrl-C that stopped reading, if there was one."""
        if self._stopped is not None:
            raise self._stopped

    def scan_with(self, scanner: TsScanner) -> TsScanner:
        """Give `scanner` every byte once, in order: those read so far, and all that follow."""
        self._scanner = scanner
        scanner.scan(bytes(self._buffered))
        self._buffered.clear()
        return scanner

    def no_scanner(self) -> None:
        """There is no scanner: keep no bytes."""
        self._buffered.clear()
        self._scanner = _NoScanner(None, -1)

    def _seek(self, offset: int, whence: int = 0) -> int:
        self._position = self._file.seek(offset, whence)  # type: ignore[attr-defined]
        return self._position

    def _tell(self) -> int:
        return self._position

    def close(self) -> None:
        self._file.close()


class _NoScanner(TsScanner):
    def scan(self, data: bytes) -> None:
        """Nothing to scan."""
