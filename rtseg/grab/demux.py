"""The packets of a recording's video, each with what is known of it before it is decoded: torn, or of a new part."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import av
from av.codec.hwaccel import HWAccel
from av.container import InputContainer

from ..base.errors import SourceError
from .avi import CHANGED, MISSING, Listed
from .matroska import BROKEN, Clusters
from .parts import Part
from .tee import Tee
from .transport import Transport
from .whole import Packet

WRAP = 1 << 33  # the clocks of MPEG-TS and MPEG-PS begin anew after 26.5 hours
MPEG = ("mpegts", "mpeg")
# FFmpeg would take a second recording that starts earlier than the first for a clock that ran over.
OPTIONS = {"correct_ts_overflow": "0", "pattern_type": "none"}
NO_TIMESTAMPS = 0x80  # FFmpeg's AVFMT_NOTIMESTAMPS
INSTEAD = "leave out --decoder nvdec"
MOST_ERRORS = 8  # of reading in a row, until the rest is given up


@dataclass(slots=True)
class Unit:
    """A packet; `broken`: why its data is damaged; `hole`: why data is missing before it; `joint`: a new part.

    `missing` is how many pictures that are, by the times; `unsure`: data may be missing at its end;
    `doubtful`: a checksum fails of data that it is part of.
    """

    packet: Packet
    broken: str = ""
    hole: str = ""
    joint: bool = False
    unsure: bool = False
    missing: int = 0
    doubtful: bool = False


class Demuxer:
    """An open recording and its best video stream; `ended` says why it ended before its end, if it did.

    What it reads is a part of a file, or an open file, such as a pipe, that is called `name`; `hardware` decodes it.
    """

    def __init__(self, read: Part | Tee, name: str = "", hardware: HWAccel | None = None) -> None:
        self.part = read if isinstance(read, Part) else None
        name = name or str(self.part.path if self.part else "")
        self._stack = ExitStack()
        self.ended = ""
        self.rest_broken = False  # something behind the last packet cannot be read
        self._tee = None if isinstance(read, Part) else read
        try:
            container = av.open(read.url if isinstance(read, Part) else read, options=OPTIONS, hwaccel=hardware)
            self._check_stopped()
        except (av.FFmpegError, OSError, ValueError) as e:
            self._check_stopped()
            why = getattr(e, "strerror", None) or e
            if hardware is not None and not isinstance(e, av.InvalidDataError):
                raise SourceError(f"{name}: NVDEC cannot be had ({why}); see rtseg doctor, or {INSTEAD}") from e
            raise SourceError(f"{name}: not a readable video ({why}); expected MP4, MKV, AVI, ...") from e
        assert isinstance(container, InputContainer)
        self.container = self._stack.enter_context(container)
        try:
            stream = container.streams.best("video")
            if not isinstance(stream, av.VideoStream):
                raise SourceError(f"{name}: has no video stream; expected a video")
            if stream.codec_context is None:
                raise SourceError(f"{name}: its video is in a code that is not known here; expected H.264, HEVC, ...")
            if hardware is not None and not stream.codec_context.is_hwaccel:
                raise SourceError(f"{name}: {stream.codec_context.name} is not decoded by NVDEC; {INSTEAD}")
            # Not frame threads: they hold frames back and swallow the decoder's errors.
            stream.thread_type = "SLICE"
            self.stream = stream
            self.format = set(container.format.name.split(","))
            # A bare stream has no times of its own, but those that FFmpeg counts.
            self.bare = bool(container.format.flags & NO_TIMESTAMPS) or container.format.name.endswith("_pipe")
            self._transport, self._clusters = self._opened_transport(), self._opened_clusters()
            self._listed = Listed(stream) if "avi" in self.format and self.part is not None else None
        except BaseException:
            self.close()
            raise

    def _opened_transport(self) -> Transport | None:
        if "mpegts" not in self.format:
            if self._tee is not None:
                self._tee.unwatched()
            return None
        if self._tee is not None:
            return self._tee.watched(Transport(None, self.stream.id))
        if self.part is None or not self.part.whole:
            return None
        return Transport(self._stack.enter_context(self.part.path.open("rb")), self.stream.id)

    def _opened_clusters(self) -> Clusters | None:
        if "matroska" not in self.format or self.part is None or not self.part.whole:
            return None
        path = self.part.path
        return Clusters(self._stack.enter_context(path.open("rb")), path.stat().st_size)

    @property
    def cut(self) -> bool:
        """Whether the last packet of MPEG-TS is not whole."""
        return self._transport is not None and self._transport.cut

    @property
    def lost(self) -> str:
        """Why the file that is read gave out before its end, "" if it did not."""
        return self.ended or (self._tee.ended if self._tee is not None else "")

    @property
    def left(self) -> int:
        """How many pictures that the file lists did not come by its end."""
        return self._listed.left if self._listed is not None else 0

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> Demuxer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def units(self) -> Iterator[Unit]:
        """All packets in the order of decoding."""
        clock, last_place, last_dts = _Clock(self.format), None, None
        packets = self._packets()
        packet = next(packets, None)
        while packet is not None:
            following = next(packets, None)
            unit = clock.told(packet, following)
            if self._transport is not None and packet.pos is not None:
                end = None if following is None else following.pos
                unit.broken = unit.broken or self._transport.torn(packet.pos, end)
                hole = "" if unit.joint else self._transport.before(packet.pos, last_place)
                unit.missing = _missing(packet, last_dts) if hole else 0
                unit.hole = hole if unit.missing else ""  # it may also be a joint behind which the times go on
                unit.unsure = self._transport.unsure(packet.pos, end)
                last_place, last_dts = packet.pos, packet.dts
            elif self._clusters is not None and packet.pos is not None:
                unit.doubtful = self._clusters.fails(packet.pos)
                if self._clusters.broken_before(packet.pos):
                    unit.hole, unit.missing = BROKEN, 1  # at least; the times tell more
                if self._clusters.broken_between(packet.pos, None if following is None else following.pos):
                    unit.broken = BROKEN
            elif self._listed is not None and packet.pos is not None:
                _check_listed(self._listed, unit, following)
            if packet.is_corrupt and self._transport is None:
                unit.broken = "its data was marked as damaged"
            yield unit
            if following is None and self._clusters is not None and packet.pos is not None:
                self.rest_broken = self._clusters.broken_after(packet.pos)
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
            except (av.FFmpegError, OSError) as e:  # the generator is over; a new one goes on behind the damage
                self._check_stopped()
                errors += 1
                if errors > MOST_ERRORS:
                    self.ended = f"reading failed: {getattr(e, 'strerror', None) or e}"
                    return


def _check_listed(listed: Listed, unit: Unit, following: Packet | None) -> None:
    packet = unit.packet
    missing = listed.before(packet.pos or 0, [each.size for each in (packet, following) if each is not None])
    if missing < 0:
        unit.broken = unit.broken or CHANGED
    elif missing:
        unit.hole, unit.missing = MISSING, missing
    if listed.time is not None:
        packet.dts = listed.time  # FFmpeg counts what came


def _missing(packet: Packet, last_dts: int | None) -> int:
    """How many pictures are missing before one, as its time says."""
    if packet.dts is None or last_dts is None or not packet.duration:
        return 1
    return max(0, round((packet.dts - last_dts) / packet.duration) - 1)


class _Clock:
    """Times that run over are made to go on; times that jump back begin a new part."""

    def __init__(self, format_: set[str]) -> None:
        self._wraps, self._keys_alone = bool(format_ & set(MPEG)), "matroska" in format_
        self._added = 0
        self._last: int | None = None

    def told(self, packet: Packet, following: Packet | None) -> Unit:
        if self._keys_alone:
            return self._by_keys(packet)
        if packet.dts is None:
            return Unit(packet)
        if self._wraps:
            self._unwrap(packet)
        dts, last = packet.dts, self._last
        self._last = dts
        if last is None or dts > last:
            return Unit(packet)
        after = None if following is None else following.dts
        if after is not None and after + self._added > last:
            self._last = last  # one packet alone is earlier than those around it
            return Unit(packet, broken="its time is damaged")
        return Unit(packet, joint=dts < last)

    def _by_keys(self, packet: Packet) -> Unit:
        """Matroska holds no times of decoding; FFmpeg guesses them, and not well behind a joint."""
        if not packet.is_keyframe or packet.pts is None:
            return Unit(packet)
        last, self._last = self._last, packet.pts
        return Unit(packet, joint=last is not None and packet.pts <= last)

    def _unwrap(self, packet: Packet) -> None:
        dts, pts = packet.dts or 0, packet.pts
        if self._last is not None and dts + self._added < self._last - WRAP // 2:
            self._added += WRAP
        packet.dts = dts + self._added
        if pts is not None:
            packet.pts = pts + self._added + (WRAP if dts - pts > WRAP // 2 else 0)
