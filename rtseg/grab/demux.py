"""The packets of a recording's video, each with what is known of it before it is decoded: torn, late, or of a new part."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeAlias

import av
from av.container import InputContainer

from ..errors import SourceError
from .place import for_ffmpeg
from .transport import Transport

WRAP = 1 << 33  # the clocks of MPEG-TS and MPEG-PS begin anew after 26.5 hours
MPEG = ("mpegts", "mpeg")
# FFmpeg would take a second recording that starts earlier than the first for a clock that ran over.
OPTIONS = {"correct_ts_overflow": "0", "pattern_type": "none"}
NO_TIMESTAMPS = 0x80  # FFmpeg's AVFMT_NOTIMESTAMPS
MOST_ERRORS = 8  # of reading in a row, until the rest is given up
Packet: TypeAlias = "av.Packet[av.VideoStream]"


@dataclass(slots=True)
class Unit:
    """A packet; `broken`: why its data is damaged; `hole`: why data is missing before it; `joint`: a new part."""

    packet: Packet
    broken: str = ""
    hole: str = ""
    joint: bool = False


class Demuxer:
    """An open recording and its best video stream; `ended` says why it ended before its end, if it did."""

    def __init__(self, path: Path | str, file: IO[bytes] | Any = None) -> None:
        self.path = Path(path) if file is None else None
        self._stack = ExitStack()
        self.ended = ""
        try:
            container = av.open(for_ffmpeg(path) if file is None else file, options=OPTIONS)
        except (av.FFmpegError, OSError, ValueError) as e:
            why = getattr(e, "strerror", None) or e
            raise SourceError(f"{path}: not a readable video ({why}); expected MP4, MKV, AVI, ...") from e
        self.container: InputContainer = self._stack.enter_context(container)
        try:
            stream = container.streams.best("video")
            if not isinstance(stream, av.VideoStream):
                raise SourceError(f"{path}: has no video stream; expected a video")
            # Not frame threads: they hold frames back and swallow the decoder's errors.
            stream.thread_type = "SLICE"
            self.stream = stream
            self.format = set(container.format.name.split(","))
            # A bare stream has no times of its own, but those that FFmpeg counts.
            self.bare = bool(container.format.flags & NO_TIMESTAMPS) or container.format.name.endswith("_pipe")
            self._transport = self._opened_transport()
        except BaseException:
            self.close()
            raise

    def _opened_transport(self) -> Transport | None:
        if "mpegts" not in self.format or self.path is None:
            return None
        return Transport(self._stack.enter_context(self.path.open("rb")), self.stream.id)

    @property
    def cut(self) -> bool:
        """Whether the last packet of MPEG-TS is not whole."""
        return self._transport is not None and self._transport.cut

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> Demuxer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def units(self) -> Iterator[Unit]:
        """All packets in the order of decoding."""
        clock, last_place = _Clock(bool(self.format & set(MPEG))), None
        packets = self._packets()
        packet = next(packets, None)
        while packet is not None:
            following = next(packets, None)
            unit = clock.told(packet, following)
            if self._transport is not None and packet.pos is not None:
                end = None if following is None else following.pos
                unit.broken = unit.broken or self._transport.torn(packet.pos, end)
                unit.hole = "" if unit.joint else self._transport.before(packet.pos, last_place)
                last_place = packet.pos
            elif packet.is_corrupt:
                unit.broken = "its data is damaged"
            yield unit
            packet = following

    def _packets(self) -> Iterator[Packet]:
        errors = 0
        while True:
            try:
                for packet in self.container.demux(self.stream):
                    if packet.size:
                        errors = 0
                        yield packet
                return
            except av.EOFError:
                return
            except (av.FFmpegError, OSError) as e:  # the generator is over; a new one goes on behind the damage
                errors += 1
                if errors > MOST_ERRORS:
                    self.ended = f"reading failed: {getattr(e, 'strerror', None) or e}"
                    return


class _Clock:
    """Times that run over are made to go on; times that jump back begin a new part."""

    def __init__(self, wraps: bool) -> None:
        self._wraps, self._added, self._last = wraps, 0, None

    _last: int | None

    def told(self, packet: Packet, following: Packet | None) -> Unit:
        dts = packet.dts
        if dts is None:
            return Unit(packet)
        if self._wraps:
            self._unwrap(packet)
            dts = packet.dts or 0
        last, self._last = self._last, dts
        if last is None or dts > last:
            return Unit(packet)
        after = None if following is None else following.dts
        if after is not None and after + (self._added if self._wraps else 0) > last:
            self._last = last  # one packet alone is earlier than those around it
            return Unit(packet, broken="its time is damaged")
        return Unit(packet, joint=dts < last)

    def _unwrap(self, packet: Packet) -> None:
        dts, pts = packet.dts or 0, packet.pts
        if self._last is not None and dts + self._added < self._last - WRAP // 2:
            self._added += WRAP
        packet.dts = dts + self._added
        if pts is not None:
            packet.pts = pts + self._added + (WRAP if dts - pts > WRAP // 2 else 0)
