"""One pass through one file of a recording: demux, decode, assign timestamps, and account for what is missing."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from fractions import Fraction

import av

from ..base.account import Account, Gap
from ..base.errors import SourceError
from ..base.source import Damaged
from .decode.decoder import Decoder, Loss
from .decode.packet_end import is_packet_complete
from .decode.slice_check import can_check_slices, with_slice_check
from .demux.avi import MISSING
from .demux.demuxer import Demuxer
from .demux.matroska import BROKEN
from .demux.packet import Packet, PacketInfo
from .demux.timestamps import INDEX_ONLY, Timestamps

SHORT_S = 1.0  # a file that ends this long before its declared end was cut off
MAX_GROUP = 300  # packets since a key frame that are kept
# Pixels of the largest pictures whose slices are checked, which costs as much as decoding them.
MAX_CHECKED_AREA, MAX_CHECKED_AREA_PACED = 1280 * 720, 352 * 288
TimedPicture = tuple[av.VideoFrame, int, Fraction]


class RecordingEndedError(SourceError):
    """The recording cannot be read any further; the frames before are good."""


def ended_error(account: Account, seq: int, why: str) -> RecordingEndedError:
    """The error for a recording that cannot be read beyond frame `seq`; it is noted in the account, too."""
    account.ended = why
    return RecordingEndedError(f"frame {seq}: {why} (the {seq} frames before it are good); export it again")


class VideoReader:
    """Reads one file and updates `account` for each picture. `no_key_frames`: no packet is marked as a key frame.

    `missing_bytes`: by how much the file is shorter than it states. `last`: no other file of the recording follows.
    `max_checked_area`: pixels of the largest pictures whose slices are checked.
    """

    def __init__(
        self, demuxer: Demuxer, times: Timestamps, account: Account, damaged: Damaged = "skip", *,
        no_key_frames: bool = False, missing_bytes: int = 0, last: bool = True,
        max_checked_area: int = MAX_CHECKED_AREA,
    ) -> None:  # fmt: skip
        self._demuxer, self._times, self._account, self._damaged = demuxer, times, account, damaged
        self._checks_slices = False
        self._missing_bytes, self._last, self._max_checked_area = missing_bytes, last, max_checked_area
        self._index_only = bool(demuxer.format & set(INDEX_ONLY))
        self._decoder = Decoder(demuxer.stream, no_key_frames=no_key_frames, return_buffered=not self._index_only)
        self._leading = account.leading  # frames skipped in the files before this one
        self._first, self._end_s = account.shown, 0.0
        self._last_s: float | None = None  # timestamp of the latest picture
        self._steps_s: deque[float] = deque(maxlen=MAX_GROUP)  # time from each picture to the next
        times.begin_file(demuxer.stream.time_base, index_only=self._index_only)
        self._group: deque[Packet] = deque(maxlen=MAX_GROUP)  # the packets since the latest key frame
        self.no_picture_reason = ""  # why the file has no picture at all

    def pictures(self) -> Iterator[TimedPicture]:
        """Whole pictures in display order; `RecordingEndedError` where the file was cut off."""
        decoder, times = self._decoder, self._times
        for info in self._packets():
            packet = info.packet
            if info.restarts:
                yield from self._with_timestamps(decoder.finish(), ahead=1)
                times.restart()
            if self._index_only:
                packet.pts = None
            elif packet.pts is not None:
                self._end_s = max(self._end_s, float((packet.pts + (packet.duration or 0)) * (packet.time_base or 0)))
            if info.checksum_failed and not info.damage:
                self._checksum_failed(info)
            if packet.is_keyframe:
                self._group.clear()
            self._group.append(packet)
            if info.maybe_truncated and not info.damage and not is_packet_complete(self._demuxer.stream, self._group):
                info.damage = "its end is missing"
            times.add_packet(decoder.number + 1, packet.dts)
            yield from self._with_timestamps(decoder.feed(packet, info.damage, info.gap, info.missing_pictures))
        yield from self._with_timestamps(decoder.finish(), ahead=1)
        self._finish()

    def _checksum_failed(self, info: PacketInfo) -> None:
        """A checksum fails. If slices are checked, they show which picture is damaged; otherwise none is trusted."""
        if self._checks_slices:
            self._account.assumed["data"] = "whole where no damage was found, though a checksum of the file fails"
        else:
            info.damage = "a checksum of the file fails"

    def _packets(self) -> Iterator[PacketInfo]:
        packets, stream = self._demuxer.packets(), self._demuxer.stream
        area = stream.codec_context.width * stream.codec_context.height
        self._checks_slices = area <= self._max_checked_area and can_check_slices(stream)
        return with_slice_check(packets, stream) if self._checks_slices else packets

    def _with_timestamps(self, pictures: Iterable[av.VideoFrame], ahead: int = 0) -> Iterator[TimedPicture]:
        decoder, account = self._decoder, self._account
        # AVI: the last picture belongs to the latest packet; at the end, the first to the packet after it.
        if self._index_only:
            pictures = list(pictures)
            ahead = ahead or 1 - len(pictures)
        for place, picture in enumerate(pictures, decoder.number + ahead):
            pts, time_base = self._times.assign(picture, place)
            seconds = float(pts * time_base)
            account.leading = self._leading + decoder.leading
            if decoder.loss:
                self._add_gap(self._count_missing(decoder.loss, seconds), seconds)
            elif self._last_s is not None:
                self._steps_s.append(seconds - self._last_s)
            self._last_s = seconds
            if account.shown == 0:
                account.start_s = seconds
            if self._index_only:
                self._end_s = max(self._end_s, seconds)
            if self._times.restarts:
                account.repaired["times"] = f"they began anew {_times(self._times.restarts)}, and go on instead"
            account.shown += 1
            yield picture, pts, time_base

    def _count_missing(self, loss: Loss, seconds: float) -> Loss:
        """The loss; if its number of pictures is unknown, by the timestamps before and after it."""
        rate = self._demuxer.stream.average_rate
        if loss.why != BROKEN or self._last_s is None or not rate:
            return loss
        return Loss(max(loss.lost, round((seconds - self._last_s) * float(rate)) - 1), loss.why)

    def _add_gap(self, loss: Loss, seconds: float) -> None:
        self._decoder.loss = None
        self.no_picture_reason = loss.why
        self._account.gap(Gap(self._account.shown, seconds, loss.lost, loss.why))
        if self._damaged == "stop":
            raise ended_error(self._account, self._account.shown, loss.why)

    def _finish(self) -> None:
        account = self._account
        end_s = max(self._end_s, _declared_end_s(self._demuxer))
        rate = float(self._demuxer.stream.average_rate or 25)
        if self._decoder.loss or (self._demuxer.rest_unreadable and (end_s - self._end_s) * rate > 0.5):
            self._add_gap(self._count_missing(self._decoder.loss or Loss(1, BROKEN), end_s), self._end_s)
        if self._demuxer.unread_pictures:
            self._add_gap(Loss(self._demuxer.unread_pictures, MISSING), self._end_s)
        why = self._demuxer.end_reason or self._truncation()
        if not why or account.shown == self._first:
            return
        if self._last or self._damaged == "stop":
            raise ended_error(account, account.shown, why)
        account.gap(Gap(account.shown, self._end_s, None, why))

    def _truncation(self) -> str:
        if self._demuxer.cut_off:
            return "the file was cut off in the middle of a packet"
        declared_s = _declared_end_s(self._demuxer)
        missing_s = declared_s - self._end_s
        rate = float(self._demuxer.stream.average_rate or 25)
        if declared_s and missing_s > (0.5 / rate if self._missing_bytes else SHORT_S):
            return f"the file was cut off {missing_s:.1f} s before the end it declares"
        steps_s = sorted(self._steps_s)
        uneven = bool(steps_s) and steps_s[-1] > 1.5 * steps_s[len(steps_s) // 2]
        if self._missing_bytes and (not declared_s or uneven):
            return f"the file was cut off: it lacks {self._missing_bytes} of its bytes"
        return ""


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _declared_end_s(demuxer: Demuxer) -> float:
    """When the video ends according to the container's header, in seconds; 0 if it does not state that."""
    container, stream = demuxer.container, demuxer.stream
    # Other formats have no such header: FFmpeg estimates the end, perhaps from incomplete data.
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
