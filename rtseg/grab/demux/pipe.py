"""A pipe in a form that FFmpeg can read: as it is, or as a temporary file if it is an MP4 with its index at the end."""

from __future__ import annotations

import shutil
import tempfile
from typing import BinaryIO

SMALL = 1 << 20  # bytes of the largest box that may precede the index


class _Prefixed:
    """A file that begins with bytes that were read already."""

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
        raise OSError("a pipe cannot seek")

    def close(self) -> None:
        self._rest.close()


def readable(pipe: BinaryIO) -> _Prefixed | BinaryIO:
    """The pipe, or a temporary file with its whole content, which is deleted when it is closed."""
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
    file = tempfile.TemporaryFile()  # noqa: SIM115  # the reader closes it
    file.write(prefix)
    shutil.copyfileobj(pipe, file)
    pipe.close()
    file.seek(0)
    return file
