"""One pass through one file of a recording: its whole pictures with their times, and the account of what is missing."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from fractions import Fraction

import av

from ..base.account import Account, Gap
from ..base.errors import SourceError
from ..base.source import Damaged
from .avi import MISSING
from .demux import Demuxer, Unit
from .ending import is_complete
from .matroska import BROKEN
from .proof import can_prove, proven
from .times import NO_TIMES, Times
from .whole import Loss, Packet, WholePictures

SHORT_S = 1.0  # a file that ends this much before the end it declares was cut off
MOST_GROUP = 300
# Pixels of a picture whose slices are asked for their ends, which costs as much as decoding.
MOST_PROVEN, MOST_PROVEN_PACED = 1280 * 720, 352 * 288
Timed = tuple[av.VideoFrame, int, Fraction]


class BrokenError(SourceError):
    """A recording that goes no further; the frames before are good."""


def broken(account: Account, seq: int, why: str) -> BrokenError:
    """The error of a recording that goes no further at frame `seq`; the account says so too."""
    account.ended = why
    return BrokenError(f"frame {seq}: {why} (the {seq} frames before it are good); export it again")


class Reading:
    """`account` is written while the pictures are taken; `any_start`: no packet is marked as a key frame."""

    def __init__(
        self, demuxer: Demuxer, times: Times, account: Account, damaged: Damaged = "skip", *,
        any_start: bool = False, lacks: int = 0, last: bool = True, most_proven: int = MOST_PROVEN,
    ) -> None:  # fmt: skip
        self._demuxer, self._times, self._account, self._damaged = demuxer, times, account, damaged
        self._proves = False
        self._lacks, self._last, self._most_proven = lacks, last, most_proven
        self._placed = bool(demuxer.format & set(NO_TIMES))
        self._whole = WholePictures(demuxer.stream, any_start=any_start, keep_held=not self._placed)
        self._leading = account.leading  # of the files before
        self._first, self._end_s = account.shown, 0.0
        self._last_s: float | None = None  # of the latest picture
        self._steps_s: deque[float] = deque(maxlen=MOST_GROUP)  # from each picture to the next
        times.part(demuxer.stream.time_base, placed=self._placed)
        self._group: deque[Packet] = deque(maxlen=MOST_GROUP)  # the packets since the latest key frame
        self.why_none = ""  # why there is no picture at all

    def pictures(self) -> Iterator[Timed]:
        """Whole pictures in the order in which they are shown; `BrokenError` where the recording was cut off."""
        whole, times = self._whole, self._times
        for unit in self._units():
            packet = unit.packet
            if unit.joint:
                yield from self._timed(whole.finish(), ahead=1)
                times.joint()
            if self._placed:
                packet.pts = None
            elif packet.pts is not None:
                self._end_s = max(self._end_s, float((packet.pts + (packet.duration or 0)) * (packet.time_base or 0)))
            if unit.doubtful and not unit.broken:
                self._doubt(unit)
            if packet.is_keyframe:
                self._group.clear()
            self._group.append(packet)
            if unit.unsure and not unit.broken and not is_complete(self._demuxer.stream, self._group):
                unit.broken = "its end is missing"
            times.due(whole.number + 1, packet.dts)
            yield from self._timed(whole.feed(packet, unit.broken, unit.hole, unit.missing))
        yield from self._timed(whole.finish(), ahead=1)
        self._finish()

    def _doubt(self, unit: Unit) -> None:
        """A checksum fails: where slices are asked, they tell which picture is damaged; else none is trusted."""
        if self._proves:
            self._account.assumed["data"] = "whole where no damage was found, though a checksum of the file fails"
        else:
            unit.broken = "a checksum of the file fails"

    def _units(self) -> Iterator[Unit]:
        units, stream = self._demuxer.units(), self._demuxer.stream
        area = stream.codec_context.width * stream.codec_context.height
        self._proves = area <= self._most_proven and can_prove(stream)
        return proven(units, stream) if self._proves else units

    def _timed(self, pictures: Iterable[av.VideoFrame], ahead: int = 0) -> Iterator[Timed]:
        whole, account = self._whole, self._account
        if self._placed:  # the last of them belongs to the latest packet; at an end, the first to the one after
            pictures = list(pictures)
            ahead = ahead or 1 - len(pictures)
        for place, picture in enumerate(pictures, whole.number + ahead):
            pts, time_base = self._times.of(picture, place)
            seconds = float(pts * time_base)
            account.leading = self._leading + whole.leading
            if whole.loss:
                self._note(self._measured(whole.loss, seconds), seconds)
            elif self._last_s is not None:
                self._steps_s.append(seconds - self._last_s)
            self._last_s = seconds
            if account.shown == 0:
                account.start_s = seconds
            if self._placed:
                self._end_s = max(self._end_s, seconds)
            if self._times.joints:
                account.repaired["times"] = f"they began anew {_times(self._times.joints)}, and go on instead"
            account.shown += 1
            yield picture, pts, time_base

    def _measured(self, loss: Loss, seconds: float) -> Loss:
        """Where nothing lists the pictures that are missing, the times before and after tell how many they are."""
        rate = self._demuxer.stream.average_rate
        if loss.why != BROKEN or self._last_s is None or not rate:
            return loss
        return Loss(max(loss.lost, round((seconds - self._last_s) * float(rate)) - 1), loss.why)

    def _note(self, loss: Loss, seconds: float) -> None:
        self._whole.loss = None
        self.why_none = loss.why
        self._account.gap(Gap(self._account.shown, seconds, loss.lost, loss.why))
        if self._damaged == "stop":
            raise broken(self._account, self._account.shown, loss.why)

    def _finish(self) -> None:
        account = self._account
        end_s = max(self._end_s, _declared_end_s(self._demuxer))
        rest = (
            self._demuxer.rest_broken and (end_s - self._end_s) * float(self._demuxer.stream.average_rate or 25) > 0.5
        )
        if self._whole.loss or rest:
            self._note(self._measured(self._whole.loss or Loss(1, BROKEN), end_s), self._end_s)
        if self._demuxer.left:
            self._note(Loss(self._demuxer.left, MISSING), self._end_s)
        why = self._demuxer.lost or self._cut_off()
        if not why or account.shown == self._first:
            return
        if self._last or self._damaged == "stop":
            raise broken(account, account.shown, why)
        account.gap(Gap(account.shown, self._end_s, None, why))

    def _cut_off(self) -> str:
        if self._demuxer.cut:
            return "the file was cut off in the middle of a packet"
        declared_s = _declared_end_s(self._demuxer)
        missing_s = declared_s - self._end_s
        rate = float(self._demuxer.stream.average_rate or 25)
        if declared_s and missing_s > (0.5 / rate if self._lacks else SHORT_S):
            return f"the file was cut off {missing_s:.1f} s before the end it declares"
        steps_s = sorted(self._steps_s)
        uneven = bool(steps_s) and steps_s[-1] > 1.5 * steps_s[len(steps_s) // 2]
        if self._lacks and (not declared_s or uneven):
            return f"the file was cut off: it lacks {self._lacks} of its bytes"
        return ""


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _declared_end_s(demuxer: Demuxer) -> float:
    """When the video ends by the container's header, in seconds; 0 if it does not say so of the video itself."""
    container, stream = demuxer.container, demuxer.stream
    # Other formats have no such header: FFmpeg estimates, from what may be the very part that is missing.
    if not {"mov", "matroska", "avi"} & demuxer.format:
        return 0.0
    if stream.duration and stream.time_base:
        return float(((stream.start_time or 0) + stream.duration) * stream.time_base)
    hours, _, rest = stream.metadata.get("DURATION", "").partition(":")
    minutes, _, seconds = rest.partition(":")
    try:
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        alone = len(container.streams) == 1
        return container.duration / av.time_base if container.duration and alone else 0.0
