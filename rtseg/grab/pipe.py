"""A pipe as FFmpeg can read it: from start to end; or from a file, of an MP4 whose index is at its end."""

from __future__ import annotations

import shutil
import tempfile
from typing import BinaryIO

SMALL = 1 << 20  # bytes of a box that may come before the index


class _Prefixed:
    """What was read already, and then the rest."""

    def __init__(self, prefix: bytes, rest: BinaryIO) -> None:
        self._prefix, self._rest = prefix, rest

    def seekable(self) -> bool:
        return False

    def read(self, size: int, /) -> bytes:
        if self._prefix:
            data, self._prefix = self._prefix[:size], self._prefix[size:]
            return data
        return self._rest.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        raise OSError("a pipe cannot be wound")

    def close(self) -> None:
        self._rest.close()


def readable(pipe: BinaryIO) -> _Prefixed | BinaryIO:
    """The pipe, or a temporary file with all that came out of it, which is gone when it is closed."""
    prefix = pipe.read(8)
    if prefix[4:8] != b"ftyp":
        return _Prefixed(prefix, pipe)
    kind, left = b"ftyp", int.from_bytes(prefix[:4], "big") - 8
    while kind not in (b"moov", b"moof", b"mdat") and 0 <= left < SMALL:
        body, head = pipe.read(left) if left else b"", pipe.read(8)
        prefix += body + head
        if len(head) < 8:
            break
        kind, left = head[4:8], int.from_bytes(head[:4], "big") - 8
    if kind != b"mdat":
        return _Prefixed(prefix, pipe)
    file = tempfile.TemporaryFile()  # noqa: SIM115  # who reads it closes it
    file.write(prefix)
    shutil.copyfileobj(pipe, file)
    pipe.close()
    file.seek(0)
    return file
