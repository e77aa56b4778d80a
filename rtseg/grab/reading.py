"""One pass through a recording: its whole pictures with their times, and the account of what is missing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction

import av

from ..errors import SourceError
from .account import Account, Gap
from .complete import missing_bytes
from .demux import Demuxer
from .source import Damaged
from .times import NO_TIMES, Times
from .whole import Loss, WholePictures

SHORT_S = 1.0  # a file that ends this much before the end it declares was cut off
Timed = tuple[av.VideoFrame, int, Fraction]


class Broken(SourceError):
    """A recording that goes no further; the frames before are good."""


def broken(account: Account, seq: int, why: str) -> Broken:
    """The error of a recording that goes no further at frame `seq`; the account says so too."""
    account.ended = why
    return Broken(f"frame {seq}: {why} (the {seq} frames before it are good); export it again")


class Reading:
    """`account` is written while the pictures are taken; `any_start`: no packet is marked as a key frame."""

    def __init__(
        self, demuxer: Demuxer, rate: Fraction, account: Account, damaged: Damaged = "skip", any_start: bool = False
    ) -> None:
        self._demuxer, self._account, self._damaged = demuxer, account, damaged
        self._placed = bool(demuxer.format & set(NO_TIMES))
        self._whole = WholePictures(demuxer.stream, any_start=any_start, keep_held=not self._placed)
        self._times = Times(rate, demuxer.stream.time_base, placed=self._placed)
        self._seq, self._end_s, self._packets = 0, 0.0, 0
        self.why_none = ""  # why there is no picture at all

    def pictures(self) -> Iterator[Timed]:
        """Whole pictures in the order in which they are shown; `SourceError` where the recording was cut off."""
        whole, times = self._whole, self._times
        for unit in self._demuxer.units():
            packet = unit.packet
            if unit.joint:
                yield from self._timed(whole.finish(), ahead=1)
                times.joint()
            if self._placed:
                packet.pts = None
            elif packet.pts is not None:
                self._end_s = max(self._end_s, float((packet.pts + packet.duration) * (packet.time_base or 0)))
            self._packets += 1
            times.begin(whole.number + 1, packet.dts)
            yield from self._timed(whole.feed(packet, unit.broken, unit.hole))
        yield from self._timed(whole.finish(), ahead=1)
        self._finish()

    def _timed(self, pictures: Iterable[av.VideoFrame], ahead: int = 0) -> Iterator[Timed]:
        whole, account = self._whole, self._account
        if self._placed:  # the last of them belongs to the latest packet; at an end, the first to the one after
            pictures = list(pictures)
            ahead = ahead or 1 - len(pictures)
        for place, picture in enumerate(pictures, whole.number + ahead):
            pts, time_base = self._times.of(picture, self._seq, place)
            seconds = float(pts * time_base)
            account.leading = whole.leading
            if whole.loss:
                self._note(whole.loss, seconds)
            if self._seq == 0:
                account.start_s = seconds
            self._end_s = max(self._end_s, seconds)
            if self._times.joints:
                account.repaired["times"] = f"{self._times.joints} times they began anew; they go on instead"
            self._seq += 1
            account.shown = self._seq
            yield picture, pts, time_base

    def _note(self, loss: Loss, seconds: float) -> None:
        self._whole.loss = None
        self.why_none = loss.why
        self._account.gap(Gap(self._seq, seconds, loss.lost, loss.why))
        if self._damaged == "stop":
            raise broken(self._account, self._seq, loss.why)

    def _finish(self) -> None:
        if self._whole.loss:
            self._note(self._whole.loss, self._end_s)
        why = self._demuxer.ended or self._cut_off()
        if why and self._seq:
            raise broken(self._account, self._seq, why)
        if self._seq:
            self._account.count = self._seq

    def _cut_off(self) -> str:
        demuxer = self._demuxer
        if demuxer.cut:
            return "the file was cut off in the middle of a packet"
        lacks = missing_bytes(demuxer.path) if demuxer.path else 0
        declared_s, sure = _declared_end_s(demuxer)
        missing_s = declared_s - self._end_s
        if lacks and not (sure and missing_s <= SHORT_S / 20):
            if sure:
                return f"the file was cut off {missing_s:.1f} s before the end it declares"
            return f"the file was cut off: it lacks {lacks} of its bytes"
        if sure and missing_s > SHORT_S:
            return f"the file was cut off {missing_s:.1f} s before the end it declares"
        return ""


def _declared_end_s(demuxer: Demuxer) -> tuple[float, bool]:
    """When the video ends by the container's header, in seconds; and whether it says so of the video itself."""
    container, stream = demuxer.container, demuxer.stream
    # Other formats have no such header: FFmpeg estimates, from what may be the very part that is missing.
    if not {"mov", "matroska", "avi"} & demuxer.format:
        return 0.0, False
    if stream.duration and stream.time_base:
        return float(((stream.start_time or 0) + stream.duration) * stream.time_base), True
    hours, _, rest = stream.metadata.get("DURATION", "").partition(":")
    minutes, _, seconds = rest.partition(":")
    try:
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds), True
    except ValueError:
        alone = len(container.streams) == 1
        return (container.duration / av.time_base, True) if container.duration and alone else (0.0, False)
