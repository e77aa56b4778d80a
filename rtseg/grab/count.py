"""How many frames a recording will show, known before it is decoded, where that is cheap."""

from __future__ import annotations

from pathlib import Path

from .demux import Demuxer
from .parts import Part
from .times import NO_TIMES

MOST_BYTES = 256 << 20  # of a file that is read through in order to know
# One packet, one picture. Others have packets that show nothing (VP8), or two pictures in one (MPEG-4 in AVI).
COUNTED = ("h264", "hevc", "mpeg2video", "mpeg1video", "vp9", "av1", "mjpeg", "prores", "ffv1", "dvvideo", "rawvideo",
           "dnxhd", "huffyuv", "utvideo", "qtrle", "png")  # fmt: skip
PAIRED = ("h264", "hevc")  # whose fields may come in packets of their own


def count_frames(part: Part, *, interlaced: bool) -> int | None:
    """How many frames are shown; None where only decoding tells, or reading through would take long."""
    path = part.path
    with Demuxer(part) as demuxer:
        stream = demuxer.stream
        if stream.codec_context.name not in COUNTED:
            return None
        if "mov" in demuxer.format and not _fragmented(path):
            return _indexed(demuxer)
        if path.stat().st_size > MOST_BYTES or (interlaced and stream.codec_context.name in PAIRED):
            return None
        return _read_through(demuxer)


def _indexed(demuxer: Demuxer) -> int | None:
    entries = list(demuxer.stream.index_entries)
    if not entries or not entries[0].is_keyframe:
        return _read_through(demuxer)
    return sum(not entry.is_discard for entry in entries)


def _read_through(demuxer: Demuxer) -> int | None:
    unsure = False
    count, start, placed = 0, None, bool(demuxer.format & set(NO_TIMES))
    for unit in demuxer.units():
        packet = unit.packet
        if unit.broken or unit.hole or (unsure and not unit.joint):  # which a last picture may be
            return None
        unsure = unit.unsure
        if unit.joint:
            start = None
        if start is None:
            if not packet.is_keyframe:
                continue
            start = packet.pts if packet.pts is not None and not placed else -(1 << 62)
        early = packet.pts is not None and not placed and packet.pts < start
        count += not (packet.is_discard or early)
    return count or None


def _fragmented(path: Path) -> bool:
    """Whether an MP4 holds movie fragments, of which its index knows only the first ones."""
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
