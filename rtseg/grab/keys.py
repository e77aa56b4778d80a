"""What a coded picture says of itself: whether decoding can begin at it, and whether others are predicted from it."""

from __future__ import annotations

import re

_START = re.compile(b"\0\0\1")
HEVC_KEYS = range(16, 22)  # BLA, IDR, CRA
H264_IDR, H264_SEI, RECOVERY_POINT = 5, 6, 6
H264_SLICES = (1, 2, 3, 4, 5)
INTRA = 1  # MPEG-2's type of a picture


def is_key(codec: str, data: bytes) -> bool:
    """Whether `data`, one picture with start codes, is a key frame, or says that decoding may begin here."""
    if codec not in ("h264", "hevc", "mpeg2video"):
        return False
    for found in _START.finditer(data):
        unit = data[found.end() : found.end() + 3]
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


def is_disposable(codec: str, data: bytes) -> bool:
    """Whether no other picture of H.264 is predicted from this one; `data` has start codes, or four-byte lengths."""
    if codec != "h264":
        return False
    if data[:3] == b"\0\0\1" or data[:4] == b"\0\0\0\1":
        heads = [data[found.end()] for found in _START.finditer(data) if found.end() < len(data)]
    else:
        heads, place = [], 0
        while place + 4 < len(data):
            heads.append(data[place + 4])
            place += 4 + int.from_bytes(data[place : place + 4], "big")
    slices = [head for head in heads if head & 31 in H264_SLICES]
    return bool(slices) and not any(head & 0x60 for head in slices)
