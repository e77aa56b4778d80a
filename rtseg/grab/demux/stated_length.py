"""Whether a file is as long as its container states, by the lengths of boxes, elements or chunks."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

EBML, SEGMENT = 0x1A45DFA3, 0x18538067


def missing_bytes(path: Path) -> int:
    """How many bytes a file is shorter than its container states; 0 if it is complete, or if no length is stated."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        file.seek(0)
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"styp"):
            end = _end_of_boxes(file, size)
        elif head[:4] == b"\x1a\x45\xdf\xa3":
            end = _end_of_elements(file, size)
        elif head[:4] == b"RIFF":
            end = _end_of_chunks(file, size)
        else:
            end = size
    return max(0, end - size)


def _end_of_boxes(file: BinaryIO, size: int) -> int:
    position = 0
    while position + 8 <= size:
        file.seek(position)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if not all(32 <= c < 127 for c in head[4:8]):
            break  # no box: something was appended to the recording
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length < 8:  # 0: the box ends with the file
            return size
        position += length
    return position


def _end_of_elements(file: BinaryIO, size: int) -> int:
    position = 0
    while position < size:
        file.seek(position)
        head = file.read(16)
        name, used = read_number(head, keep=True)
        length, more = read_number(head[used:], keep=False)
        if name not in (EBML, SEGMENT) or not more or length == (1 << (7 * more)) - 1:
            return size  # unknown length: the recorder could not seek back
        position += used + more + length
    return position


def read_number(data: bytes, *, keep: bool) -> tuple[int, int]:
    """A variable-length EBML number and its size in bytes (0: it is invalid); `keep`: with its length marker bit."""
    if not data or not data[0]:
        return 0, 0
    used = 9 - data[0].bit_length()
    value = int.from_bytes(data[:used], "big")
    return (value if keep else value & ((1 << (7 * used)) - 1)), used


def _end_of_chunks(file: BinaryIO, size: int) -> int:
    position = 0
    while position + 12 <= size:
        file.seek(position)
        name, length = struct.unpack("<4sI", file.read(8))
        if name != b"RIFF" or not length:
            return size
        position += 8 + length + (length & 1)
    return position
