"""The video packets of a recording, each with what its container shows: damage, a gap before it, a new part."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import av
from av.codec.hwaccel import HWAccel
from av.container import InputContainer

from ...base.errors import SourceError
from .avi import CHANGED, MISSING, AviIndex
from .matroska import BROKEN, Clusters
from .mpegts import TsScanner
from .packet import Packet, PacketInfo
from .parts import Part
from .tee import Tee

WRAP = 1 << 33  # timestamps of MPEG-TS and MPEG-PS wrap around after 26.5 hours
MPEG = ("mpegts", "mpeg")
# Otherwise FFmpeg would take a second recording that starts earlier than the first for a timestamp that wrapped
# around.
OPTIONS = {"correct_ts_overflow": "0", "pattern_type": "none"}
NO_TIMESTAMPS = 0x80  # FFmpeg's AVFMT_NOTIMESTAMPS
INSTEAD = "leave out --decoder nvdec"
MAX_ERRORS = 8  # read errors in a row before the rest of the file is given up


class Demuxer:
    """An open recording and its main video stream. `ended` says why reading stopped before the end, if it did.

    It reads a part of a file, or an open file (a `Tee`) such as a pipe. Error lines call it `name`. `hardware` decodes
    it, if given.
    """

    def __init__(self, read: Part | Tee, name: str = "", hardware: HWAccel | None = None) -> None:
        self.part = read if isinstance(read, Part) else None
        name = name or str(self.part.path if self.part else "")
        self._stack = ExitStack()
        self.ended = ""
        self.rest_unreadable = False  # something after the last packet cannot be read
        self._tee = None if isinstance(read, Part) else read
        try:
            container = av.open(read.url if isinstance(read, Part) else read, options=OPTIONS, hwaccel=hardware)
            self._check_stopped()
        except (av.FFmpegError, OSError, ValueError) as e:
            self._check_stopped()
            why = getattr(e, "strerror", None) or e
            if hardware is not None and not isinstance(e, av.InvalidDataError):
                raise SourceError(f"{name}: NVDEC is not available ({why}); see rtseg doctor, or {INSTEAD}") from e
            raise SourceError(f"{name}: not a readable video ({why}); expected MP4, MKV, AVI, ...") from e
        assert isinstance(container, InputContainer)
        self.container = self._stack.enter_context(container)
        try:
            stream = container.streams.best("video")
            if not isinstance(stream, av.VideoStream):
                raise SourceError(f"{name}: has no video stream; expected a video")
            if stream.codec_context is None:
                raise SourceError(f"{name}: its video has an unknown codec; expected H.264, HEVC, ...")
            if hardware is not None and not stream.codec_context.is_hwaccel:
                raise SourceError(f"{name}: {stream.codec_context.name} is not decoded by NVDEC; {INSTEAD}")
            # Not frame threads: they delay frames and hide the decoder's errors.
            stream.thread_type = "SLICE"
            self.stream = stream
            self.format = set(container.format.name.split(","))
            # A bare stream has no timestamps, only those that FFmpeg counts.
            self.bare = bool(container.format.flags & NO_TIMESTAMPS) or container.format.name.endswith("_pipe")
            self._ts, self._clusters = self._opened_transport(), self._opened_clusters()
            self._index = AviIndex(stream) if "avi" in self.format and self.part is not None else None
        except BaseException:
            self.close()
            raise

    def _opened_transport(self) -> TsScanner | None:
        if "mpegts" not in self.format:
            if self._tee is not None:
                self._tee.no_scanner()
            return None
        if self._tee is not None:
            return self._tee.scan_with(TsScanner(None, self.stream.id))
        if self.part is None or not self.part.is_whole_file:
            return None
        return TsScanner(self._stack.enter_context(self.part.path.open("rb")), self.stream.id)

    def _opened_clusters(self) -> Clusters | None:
        if "matroska" not in self.format or self.part is None or not self.part.is_whole_file:
            return None
        path = self.part.path
        return Clusters(self._stack.enter_context(path.open("rb")), path.stat().st_size)

    @property
    def cut_off(self) -> bool:
        """Whether the file ends in the middle of an MPEG-TS packet."""
        return self._ts is not None and self._ts.cut

    @property
    def end_reason(self) -> str:
        """Why reading stopped before the end of the file, "" if it did not."""
        return self.ended or (self._tee.ended if self._tee is not None else "")

    @property
    def unread_pictures(self) -> int:
        """How many pictures that the file's index lists were not read by its end."""
        return self._index.left if self._index is not None else 0

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> Demuxer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def packets(self) -> Iterator[PacketInfo]:
        """All packets in decoding order."""
        timestamps, last_position, last_dts = _TimestampCheck(self.format), None, None
        packets = self._packets()
        packet = next(packets, None)
        while packet is not None:
            following = next(packets, None)
            info = timestamps.check(packet, following)
            if self._ts is not None and packet.pos is not None:
                end = None if following is None else following.pos
                info.damage = info.damage or self._ts.damage(packet.pos, end)
                gap = "" if info.restarts else self._ts.gap_before(packet.pos, last_position)
                info.missing_pictures = _missing(packet, last_dts) if gap else 0
                # A gap without missing pictures is the joint of two recordings.
                info.gap = gap if info.missing_pictures else ""
                info.maybe_truncated = self._ts.maybe_truncated(packet.pos, end)
                last_position, last_dts = packet.pos, packet.dts
            elif self._clusters is not None and packet.pos is not None:
                info.checksum_failed = self._clusters.checksum_fails(packet.pos)
                if self._clusters.broken_before(packet.pos):
                    info.gap, info.missing_pictures = BROKEN, 1  # at least; timestamps may show more
                if self._clusters.broken_between(packet.pos, None if following is None else following.pos):
                    info.damage = BROKEN
            elif self._index is not None and packet.pos is not None:
                _check_index(self._index, info, following)
            if packet.is_corrupt and self._ts is None:
                info.damage = "its data was marked as damaged"
            yield info
            if following is None and self._clusters is not None and packet.pos is not None:
                self.rest_unreadable = self._clusters.broken_after(packet.pos)
            packet = following

    def _check_stopped(self) -> None:
        if self._tee is not None:
            self._tee.check()

    def _packets(self) -> Iterator[Packet]:
        errors = 0
        while True:
            try:
                for packet in self.container.demux(self.stream):
                    self._check_stopped()
                    if packet.size:
                        errors = 0
                        yield packet
                self._check_stopped()
                return
            except av.EOFError:
                self._check_stopped()
                return
            except (av.FFmpegError, OSError) as e:  # a new generator continues after the damage
                self._check_stopped()
                errors += 1
                if errors > MAX_ERRORS:
                    self.ended = f"reading failed: {getattr(e, 'strerror', None) or e}"
                    return


def _check_index(index: AviIndex, info: PacketInfo, following: Packet | None) -> None:
    packet = info.packet
    missing = index.before(packet.pos or 0, [each.size for each in (packet, following) if each is not None])
    if missing < 0:
        info.damage = info.damage or CHANGED
    elif missing:
        info.gap, info.missing_pictures = MISSING, missing
    if index.time is not None:
        packet.dts = index.time  # FFmpeg only counts the packets that it read


def _missing(packet: Packet, last_dts: int | None) -> int:
    """How many pictures are missing before a packet, by its timestamp."""
    if packet.dts is None or last_dts is None or not packet.duration:
        return 1
    return max(0, round((packet.dts - last_dts) / packet.duration) - 1)


class _TimestampCheck:
    """Continues timestamps that wrap around; where they jump back, a new part of the recording begins."""

    def __init__(self, format_: set[str]) -> None:
        self._wraps, self._key_frames_only = bool(format_ & set(MPEG)), "matroska" in format_
        self._added = 0
        self._last: int | None = None

    def check(self, packet: Packet, following: Packet | None) -> PacketInfo:
        if self._key_frames_only:
            return self._check_key_frame(packet)
        if packet.dts is None:
            return PacketInfo(packet)
        if self._wraps:
            self._unwrap(packet)
        dts, last = packet.dts, self._last
        self._last = dts
        if last is None or dts > last:
            return PacketInfo(packet)
        after = None if following is None else following.dts
        if after is not None and after + self._added > last:
            self._last = last  # one packet is earlier than those before and after it
            return PacketInfo(packet, damage="its timestamp is damaged")
        return PacketInfo(packet, restarts=dts < last)

    def _check_key_frame(self, packet: Packet) -> PacketInfo:
        """Matroska has no decoding timestamps. FFmpeg guesses them, wrongly after a joint, so only key frames count."""
        if not packet.is_keyframe or packet.pts is None:
            return PacketInfo(packet)
        last, self._last = self._last, packet.pts
        return PacketInfo(packet, restarts=last is not None and packet.pts <= last)

    def _unwrap(self, packet: Packet) -> None:
        dts, pts = packet.dts or 0, packet.pts
        if self._last is not None and dts + self._added < self._last - WRAP // 2:
            self._added += WRAP
        packet.dts = dts + self._added
        if pts is not None:
            packet.pts = pts + self._added + (WRAP if dts - pts > WRAP // 2 else 0)
