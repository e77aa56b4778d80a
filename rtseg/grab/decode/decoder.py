"""A decoder that returns only whole pictures: damaged ones, and those predicted from them, are skipped and counted.

FFmpeg's decoders conceal damage: they repeat and smear what they have, and return the result as if it were a picture.
All pictures after it, up to the next key frame, are predicted from it. So after damage nothing is returned until the
next key frame. Pictures that follow that key frame in decoding order but are displayed before it are skipped too: they
are predicted from pictures before the damage.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import av

from ..demux.packet import Packet, PacketNumber
from .bitstream import is_disposable, is_key, length_size

# `explode`: report errors instead of concealing them. `crccheck`: verify the checksums of FFV1 and HEVC.
STRICT = "crccheck+explode"
# `aggressive`: a slice also has to end where its data ends. Only for H.264: MPEG-2 often has padding there.
STRICTER_BY_CODEC = {"h264": STRICT + "+aggressive"}
# Codecs with one picture (or field) a packet, in the order of their timestamps.
ONE_PICTURE_A_PACKET = ("h264", "hevc", "mpeg2video")
DAMAGED = "its data is damaged"
MAX_PENDING = 2000


@dataclass(slots=True)
class Loss:
    """How many pictures are missing between two others, and why."""

    lost: int
    why: str


class Decoder:
    """The decoder of one stream. `loss` is what is missing before the next picture; the caller resets it to None.

    `no_key_frames`: start at any packet, for files that mark no key frame. `return_buffered`: at damage, return the
    pictures in the decoder's buffer too; impossible if the format has no timestamps for them.
    """

    def __init__(self, stream: av.VideoStream, *, no_key_frames: bool = False, return_buffered: bool = True) -> None:
        self._decoder = stream.codec_context
        self._decoder.options = {"err_detect": STRICTER_BY_CODEC.get(self._decoder.name, STRICT)}
        self._decoder.copy_opaque = True  # each picture returns with the number of its packet
        self._length_size = length_size(self._decoder.name, self._decoder.extradata)
        self._one_picture_a_packet = self._decoder.name in ONE_PICTURE_A_PACKET
        self.no_key_frames, self._return_buffered = no_key_frames, return_buffered
        self.number = -1  # number of the latest packet
        # Packets have timestamps; a key frame was seen, whole or not.
        self._has_timestamps = self._key_frame_seen = False
        self._start: tuple[int, int | None] | None = None  # number and pts of the key frame at which decoding started
        self._awaits_start = True
        self._pending: dict[int, int | None] = {}  # packets without a picture yet: number to pts
        # Damaged pictures that no other picture is predicted from: number to pts.
        self._lost_disposable: dict[int, int] = {}
        self._after_field = -1  # the number of the latest interlaced picture
        self._why, self._gap_pictures = "", 0
        self.leading = 0
        self.loss: Loss | None = None

    def feed(self, packet: Packet, damage: str = "", gap: str = "", missing: int = 0) -> Iterator[av.VideoFrame]:
        """Decode a packet; yields the whole pictures that the decoder returns.

        `damage`: why its data is damaged; `gap`: why `missing` pictures are missing between it and the packet before.
        """
        self.number += 1
        number = self.number
        self._key_frame_seen |= packet.is_keyframe or self.no_key_frames
        if not self._key_frame_seen and not self._can_begin(packet):
            damage = gap = ""  # nothing can be returned before the first key frame, whole or not
        if gap:
            self._gap_pictures += missing
            yield from self._fault(number, gap)
        if not packet.is_discard:
            self._pending[number] = packet.pts
        if len(self._pending) > MAX_PENDING:
            del self._pending[next(iter(self._pending))]
        if damage:
            yield from self._skip(packet, damage)
            return
        if self._start is None:
            if not self._can_begin(packet):
                return
            self._start, self._awaits_start = (number, packet.pts), True
        self._has_timestamps |= packet.pts is not None
        packet.opaque = PacketNumber(number)
        try:
            pictures = packet.decode()
        except av.FFmpegError:
            yield from self._skip(packet, DAMAGED)
            return
        yield from self._whole_pictures(pictures)

    @property
    def waits_for_key_frame(self) -> bool:
        """Whether no picture can be returned before the next key frame."""
        return self._start is None or self._awaits_start

    def _can_begin(self, packet: Packet) -> bool:
        if self._has_timestamps and packet.pts is None:  # the start of its data is missing
            return False
        return self.no_key_frames or packet.is_keyframe or is_key(self._decoder.name, bytes(packet), self._length_size)

    def _skip(self, packet: Packet, why: str) -> Iterator[av.VideoFrame]:
        """Skip a damaged packet: its picture alone if no other is predicted from it, else all to the next key frame."""
        number = self.number
        is_only_this = why == DAMAGED and self._start is not None and self._has_timestamps and packet.pts is not None
        if is_only_this and is_disposable(self._decoder.name, bytes(packet), self._length_size):
            self._pending.pop(number, None)
            self._lost_disposable[number] = packet.pts or 0
            return
        yield from self._fault(number, why)

    def finish(self) -> Iterator[av.VideoFrame]:
        """The pictures left in the decoder at the end, or where timestamps restart; then decoding starts anew."""
        pictures = self._flush()
        yield from self._whole_pictures(pictures)
        self._count_disposable(None)
        self._count_lost(self.number + 1, None, end=True)
        self._start = None

    def _flush(self) -> list[av.VideoFrame]:
        try:
            pictures = self._decoder.decode(None) if self._decoder.is_open else []
        except av.FFmpegError:
            pictures = []
        if self._decoder.is_open:
            self._decoder.flush_buffers()
        return pictures

    def _fault(self, number: int, why: str) -> Iterator[av.VideoFrame]:
        """Packet `number` is the first damaged one; pictures decoded before it are still returned."""
        self._why = self._why or why
        if self._start is None:
            return
        buffered = self._flush()
        if self._return_buffered:
            yield from self._whole_pictures(
                [p for p in buffered if self._number_of(p) < number - bool(p.interlaced_frame)]
            )
        self._start = None

    def _whole_pictures(self, pictures: list[av.VideoFrame]) -> Iterator[av.VideoFrame]:
        for index, picture in enumerate(pictures):
            number = self._number_of(picture)
            if picture.is_corrupt and self._awaits_start:
                continue  # intra refresh: it is not complete yet
            if picture.is_corrupt or self._is_one_missing(picture, number):
                why = DAMAGED if picture.is_corrupt else "a picture is missing"
                buffered = pictures[index + 1 :]
                yield from self._whole_pictures([p for p in buffered if self._number_of(p) < number])
                yield from self._fault(min(number, self.number), why)
                return
            if self._awaits_start:
                if not self._is_at_start(picture, number):
                    continue
                self._awaits_start = False
                self._count_lost(*(self._start or (number, picture.pts)))
            if number in self._lost_disposable:
                continue
            self._pending.pop(number, None)
            self._count_disposable(picture.pts)
            if picture.interlaced_frame:
                self._after_field = number
            yield picture

    def _count_disposable(self, pts: int | None) -> None:
        """Count skipped disposable pictures that were due before a picture with this pts (None: all)."""
        for number in [n for n, due in self._lost_disposable.items() if pts is None or due < pts]:
            del self._lost_disposable[number]
            self.loss = Loss((self.loss.lost if self.loss else 0) + 1, DAMAGED)

    def _is_at_start(self, picture: av.VideoFrame, number: int) -> bool:
        """Whether a picture is the key frame at which decoding started, or is displayed after it."""
        if self._start is None or number == self._start[0] or self.no_key_frames:
            return True
        return picture.pts is not None and self._start[1] is not None and picture.pts >= self._start[1]

    def _is_one_missing(self, picture: av.VideoFrame, number: int) -> bool:
        """Whether a picture that is due before this one is missing: the decoder dropped it silently."""
        if not self._one_picture_a_packet or self._awaits_start or picture.pts is None or picture.interlaced_frame:
            return False
        early = [n for n, pts in self._pending.items() if n < number and pts is not None and pts < picture.pts]
        return any(n != self._after_field + 1 for n in early)

    def _count_lost(self, start: int, start_pts: int | None, *, end: bool = False) -> None:
        """Count packets before a key frame, in decoding or display order, that did not become a picture, as lost."""
        missing = [
            n for n, pts in self._pending.items()
            if n < start or (pts is not None and start_pts is not None and pts < start_pts)
        ]  # fmt: skip
        for number in missing:
            del self._pending[number]
        if self._why:
            before = self.loss.lost or 0 if self.loss else 0
            self.loss = Loss(before + len(missing) + self._gap_pictures, self._why)
        elif not end:
            self.leading += len(missing)
        self._why, self._gap_pictures = "", 0

    def _number_of(self, picture: av.VideoFrame) -> int:
        number = picture.opaque
        return number if isinstance(number, int) else self.number
