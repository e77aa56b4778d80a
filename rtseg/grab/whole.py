"""Pictures that are whole: what is damaged, and what was predicted from it, is left out and counted.

A decoder that meets damage conceals it: it repeats and smears what it has, and hands the result on as if it were a
picture. Every picture after that is predicted from it, to the next key frame. So after a fault nothing is taken until
a key frame comes, and of that one not the pictures that are shown before it: they look back, past the fault.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import av

from .keys import is_disposable, is_key, length_size

# `explode`: an error is an error, and is not concealed. `crccheck`: FFV1's and HEVC's own checksums.
STRICT = "crccheck+explode"
# `aggressive`: also that a slice has to end where its data ends. Only of H.264: in MPEG-2 padding there is common.
STRICTER = {"h264": STRICT + "+aggressive"}
IN_STEP = ("h264", "hevc", "mpeg2video")  # one packet, one picture (or field), in the order of their times
DAMAGED = "its data is damaged"
MOST_WAITING = 2000
Packet: TypeAlias = "av.Packet[av.VideoStream]"


class PacketNumber(int):
    """A packet's number, for `packet.opaque`: an object of its own, since PyAV keeps such objects by their `id`.

    Small ints are one object in the whole process: a decoder that frees its 6 would take away every other decoder's.
    """


@dataclass(slots=True)
class Loss:
    """What is missing between two pictures: how many, and why."""

    lost: int
    why: str


class WholePictures:
    """The decoder of one stream. `loss` is what is missing before the next picture, for the caller to take.

    `any_start`: begin at any packet, for files that mark no key frame. `keep_held`: at a fault, show what the decoder
    still holds back; not where nothing tells how far from one another these pictures are.
    """

    def __init__(self, stream: av.VideoStream, *, any_start: bool = False, keep_held: bool = True) -> None:
        self._decoder = stream.codec_context
        self._decoder.options = {"err_detect": STRICTER.get(self._decoder.name, STRICT)}
        self._decoder.copy_opaque = True  # each picture brings back the number of its packet
        self._length_size = length_size(self._decoder.name, self._decoder.extradata)
        self._in_step = self._decoder.name in IN_STEP
        self.any_start, self._keep_held = any_start, keep_held
        self.number = -1  # of the latest packet
        self._timed = self._key_came = False  # packets have times; a key frame was there, whole or not
        self._start: tuple[int, int | None] | None = None  # number and pts of the key frame that decoding began at
        self._await_start = True
        self._waiting: dict[int, int | None] = {}  # packets that have not become a picture yet: number to pts
        self._alone: dict[int, int] = {}  # damaged pictures that no other needs: number to pts
        self._after_field = -1  # the number of the latest interlaced picture
        self._why, self._holes = "", 0
        self.leading = 0
        self.loss: Loss | None = None

    def feed(self, packet: Packet, broken: str = "", hole: str = "", missing: int = 0) -> Iterator[av.VideoFrame]:
        """The whole pictures that this packet brings out.

        `broken`: why its data is damaged; `hole`: why `missing` pictures are missing between it and the one before.
        """
        self.number += 1
        number = self.number
        self._key_came |= packet.is_keyframe or self.any_start
        if not self._key_came and not self._can_begin(packet):
            broken = hole = ""  # nothing can be shown before the first key frame, whole or not
        if hole:
            self._holes += missing
            yield from self._fault(number, hole)
        if not packet.is_discard:
            self._waiting[number] = packet.pts
        if len(self._waiting) > MOST_WAITING:
            del self._waiting[next(iter(self._waiting))]
        if broken:
            yield from self._left_out(packet, broken)
            return
        if self._start is None:
            if not self._can_begin(packet):
                return
            self._start, self._await_start = (number, packet.pts), True
        self._timed |= packet.pts is not None
        packet.opaque = PacketNumber(number)
        try:
            pictures = packet.decode()
        except av.FFmpegError:
            yield from self._left_out(packet, DAMAGED)
            return
        yield from self._good(pictures)

    @property
    def waits(self) -> bool:
        """Whether nothing can be shown before a key frame comes."""
        return self._start is None or self._await_start

    def _can_begin(self, packet: Packet) -> bool:
        if self._timed and packet.pts is None:  # its head is gone
            return False
        return self.any_start or packet.is_keyframe or is_key(self._decoder.name, bytes(packet), self._length_size)

    def _left_out(self, packet: Packet, why: str) -> Iterator[av.VideoFrame]:
        """A damaged packet: that one picture is missing if no other needs it, else all up to the next key frame."""
        number = self.number
        alone = why == DAMAGED and self._start is not None and self._timed and packet.pts is not None
        if alone and is_disposable(self._decoder.name, bytes(packet), self._length_size):
            self._waiting.pop(number, None)
            self._alone[number] = packet.pts or 0
            return
        yield from self._fault(number, why)

    def finish(self) -> Iterator[av.VideoFrame]:
        """What the decoder still holds at the end, or at a joint: after it, decoding begins anew."""
        pictures = self._drained()
        yield from self._good(pictures)
        self._count_alone(None)
        self._settle(self.number + 1, None, end=True)
        self._start = None

    def _drained(self) -> list[av.VideoFrame]:
        try:
            pictures = self._decoder.decode(None) if self._decoder.is_open else []
        except av.FFmpegError:
            pictures = []
        if self._decoder.is_open:
            self._decoder.flush_buffers()
        return pictures

    def _fault(self, number: int, why: str) -> Iterator[av.VideoFrame]:
        """Packet `number` is the first that cannot be trusted; what was decoded before it is still handed on."""
        self._why = self._why or why
        if self._start is None:
            return
        held = self._drained()
        if self._keep_held:
            yield from self._good([p for p in held if self._number_of(p) < number - bool(p.interlaced_frame)])
        self._start = None

    def _good(self, pictures: list[av.VideoFrame]) -> Iterator[av.VideoFrame]:
        for index, picture in enumerate(pictures):
            number = self._number_of(picture)
            if picture.is_corrupt and self._await_start:
                continue  # refreshed little by little: it is not whole yet
            if picture.is_corrupt or self._overtaken(picture, number):
                why = DAMAGED if picture.is_corrupt else "a picture is missing"
                held = pictures[index + 1 :]
                yield from self._good([p for p in held if self._number_of(p) < number])
                yield from self._fault(min(number, self.number), why)
                return
            if self._await_start:
                if not self._begins(picture, number):
                    continue
                self._await_start = False
                self._settle(*(self._start or (number, picture.pts)))
            if number in self._alone:
                continue
            self._waiting.pop(number, None)
            self._count_alone(picture.pts)
            if picture.interlaced_frame:
                self._after_field = number
            yield picture

    def _count_alone(self, pts: int | None) -> None:
        """Those that were left out on their own, and were to be shown before the picture that is shown now."""
        for number in [n for n, due in self._alone.items() if pts is None or due < pts]:
            del self._alone[number]
            self.loss = Loss((self.loss.lost if self.loss else 0) + 1, DAMAGED)

    def _begins(self, picture: av.VideoFrame, number: int) -> bool:
        """Whether a picture is the key frame that decoding began at, or shown after it."""
        if self._start is None or number == self._start[0] or self.any_start:
            return True
        return picture.pts is not None and self._start[1] is not None and picture.pts >= self._start[1]

    def _overtaken(self, picture: av.VideoFrame, number: int) -> bool:
        """Whether a picture that is due before this one never came: the decoder swallowed it."""
        if not self._in_step or self._await_start or picture.pts is None or picture.interlaced_frame:
            return False
        early = [n for n, pts in self._waiting.items() if n < number and pts is not None and pts < picture.pts]
        return any(n != self._after_field + 1 for n in early)

    def _settle(self, start: int, start_pts: int | None, *, end: bool = False) -> None:
        """All packets before a key frame, in decoding or in showing, that did not become a picture are lost."""
        missing = [
            n for n, pts in self._waiting.items()
            if n < start or (pts is not None and start_pts is not None and pts < start_pts)
        ]  # fmt: skip
        for number in missing:
            del self._waiting[number]
        if self._why:
            before = self.loss.lost or 0 if self.loss else 0
            self.loss = Loss(before + len(missing) + self._holes, self._why)
        elif not end:
            self.leading += len(missing)
        self._why, self._holes = "", 0

    def _number_of(self, picture: av.VideoFrame) -> int:
        number = picture.opaque
        return number if isinstance(number, int) else self.number
