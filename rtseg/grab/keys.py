"""Which packets decoding can begin at, read from the coded picture: for streams that come without a parser's marks."""

from __future__ import annotations

import re

_START = re.compile(b"\0\0\1")
HEVC_KEYS = range(16, 22)  # BLA, IDR, CRA
H264_IDR, H264_SEI, RECOVERY_POINT = 5, 6, 6
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
