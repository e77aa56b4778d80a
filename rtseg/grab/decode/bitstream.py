"""What a coded picture states: whether decoding can start at it, and whether others are predicted from it."""

from __future__ import annotations

import re
from collections.abc import Iterator

_START = re.compile(b"\0\0\1")
HEVC_KEYS = range(16, 22)  # BLA, IDR, CRA
H264_IDR, H264_SEI, RECOVERY_POINT = 5, 6, 6
H264_SLICES = (1, 2, 3, 4, 5)
INTRA = 1  # MPEG-2's picture coding type


def length_size(codec: str, extradata: bytes | None) -> int:
    """How many bytes hold the length of a NAL unit, as in MP4 and Matroska; 0: units are separated by start codes."""
    position = {"h264": 4, "hevc": 21}.get(codec)
    if position is None or extradata is None or extradata[:1] != b"\1" or len(extradata) <= position:
        return 0
    return (extradata[position] & 3) + 1


def is_key(codec: str, data: bytes, size: int = 0) -> bool:
    """Whether `data`, one picture, is a key frame or a recovery point; `size`: see `length_size`."""
    if codec not in ("h264", "hevc", "mpeg2video"):
        return False
    for unit in _unit_headers(data, size):
        if len(unit) < 3:
            continue
        if codec == "h264":
            kind = unit[0] & 31
            if kind == H264_IDR or (kind == H264_SEI and unit[1] == RECOVERY_POINT):
                return True
        elif codec == "hevc":
            if unit[0] >> 1 & 63 in HEVC_KEYS:
                return True
        elif unit[0] == 0 and unit[2] >> 3 & 7 == INTRA:
            return True
    return False


def is_fresh_start(codec: str, data: bytes, size: int = 0) -> bool:
    """Whether what follows this key frame needs nothing from before it: an IDR picture in H.264, any in others."""
    return codec != "h264" or any(unit and unit[0] & 31 == H264_IDR for unit in _unit_headers(data, size))


def is_disposable(codec: str, data: bytes, size: int = 0) -> bool:
    """Whether no other picture is predicted from this one (H.264 only); `size`: see `length_size`."""
    if codec != "h264":
        return False
    slices = [unit[0] for unit in _unit_headers(data, size) if unit and unit[0] & 31 in H264_SLICES]
    return bool(slices) and not any(head & 0x60 for head in slices)


def _unit_headers(data: bytes, size: int) -> Iterator[bytes]:
    """The first bytes of each NAL unit. Length fields are skipped: 0x000001xx would look like a start code."""
    if not size or data[:4] == b"\0\0\0\1":
        yield from (data[found.end() : found.end() + 3] for found in _START.finditer(data))
        return
    position = 0
    while position + size < len(data):
        start = position + size
        yield data[start : start + 3]
        position = start + int.from_bytes(data[position:start], "big")
