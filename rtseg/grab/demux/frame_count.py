"""How many frames a recording holds, without decoding it, where that is cheap."""

from __future__ import annotations

from pathlib import Path

from .demuxer import Demuxer
from .parts import Part
from .timestamps import INDEX_ONLY

MAX_BYTES = 256 << 20  # of a file that is read from start to end to count its frames
# Other codecs have packets without a picture (VP8), or with two (MPEG-4 in AVI).
ONE_PICTURE_A_PACKET = ("h264", "hevc", "mpeg2video", "mpeg1video", "vp9", "av1", "mjpeg", "prores", "ffv1",
                        "dvvideo", "rawvideo", "dnxhd", "huffyuv", "utvideo", "qtrle", "png")  # fmt: skip
FIELD_PACKETS = ("h264", "hevc")  # an interlaced picture may be two packets, one a field


def count_frames(part: Part, *, interlaced: bool) -> int | None:
    """How many frames a part of a file holds; None if only decoding tells, or if counting would take long."""
    path = part.path
    with Demuxer(part) as demuxer:
        stream = demuxer.stream
        if stream.codec_context.name not in ONE_PICTURE_A_PACKET:
            return None
        if "mov" in demuxer.format and not _fragmented(path):
            return _indexed(demuxer)
        if path.stat().st_size > MAX_BYTES or (interlaced and stream.codec_context.name in FIELD_PACKETS):
            return None
        return _read_through(demuxer)


def _indexed(demuxer: Demuxer) -> int | None:
    entries = list(demuxer.stream.index_entries)
    if not entries or not entries[0].is_keyframe:
        return _read_through(demuxer)
    return sum(not entry.is_discard for entry in entries)


def _read_through(demuxer: Demuxer) -> int | None:
    unsure = False
    count, start, index_only = 0, None, bool(demuxer.format & set(INDEX_ONLY))
    for info in demuxer.packets():
        packet = info.packet
        # The last picture may be truncated: it is checked only when it is decoded.
        if info.damage or info.gap or (unsure and not info.restarts):
            return None
        unsure = info.maybe_truncated
        if info.restarts:
            start = None
        if start is None:
            if not packet.is_keyframe:
                continue
            start = packet.pts if packet.pts is not None and not index_only else -(1 << 62)
        early = packet.pts is not None and not index_only and packet.pts < start
        count += not (packet.is_discard or early)
    return count or None


def _fragmented(path: Path) -> bool:
    """Whether an MP4 is fragmented: its index then lists only the first pictures."""
    size, place = path.stat().st_size, 0
    with path.open("rb") as file:
        while place + 8 <= size:
            file.seek(place)
            head = file.read(16)
            length = int.from_bytes(head[:4], "big")
            length = int.from_bytes(head[8:16], "big") if length == 1 else length
            if head[4:8] == b"moof":
                return True
            if length < 8:
                return False
            place += length
    return False
