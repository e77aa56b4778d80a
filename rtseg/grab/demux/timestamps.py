"""The timestamp of each picture: the file's own if it has one, always increasing, continued where the file restarts."""

from __future__ import annotations

from fractions import Fraction

import av

INDEX_ONLY = ("avi",)  # formats without timestamps: a picture only has its index in decoding order
MAX_PENDING = 1000  # packets whose decoding timestamps are remembered


class Timestamps:
    """Assigns timestamps to the pictures of a recording, in display order, through all its files.

    `counted`: pictures are counted at `rate`; the file's own timestamps, if there are any, are not used.
    """

    def __init__(self, rate: Fraction, *, counted: bool = False) -> None:
        self._rate, self._all_counted = rate, counted
        self._time_base: Fraction | None = None
        self._index_only = False
        self._dts: dict[int, int] = {}  # packet number to its decoding timestamp
        self._step = self._offset = 0
        self._last_s: Fraction | None = None  # timestamp of the latest picture
        self._restarts_now = False
        self._counted = 0  # pictures since the file, or a part of it, began
        self.restarts = 0  # how often the timestamps of a file began anew

    def begin_file(self, time_base: Fraction | None, *, index_only: bool) -> None:
        """The next pictures are of another file; `index_only`: its packets have an index instead of timestamps."""
        self._time_base, self._index_only = time_base, index_only
        self._dts, self._step, self._offset, self._counted = {}, 0, 0, 0
        self._restarts_now = self._last_s is not None

    def add_packet(self, number: int, dts: int | None) -> None:
        """Packet `number` is about to be decoded; `dts` is its decoding timestamp, in the stream's time base."""
        if dts is not None:
            self._dts[number] = dts
            before = self._dts.get(number - 1)
            if before is not None and dts > before:
                self._step = dts - before
        self._dts.pop(number - MAX_PENDING, None)

    def restart(self) -> None:
        """The next pictures are of another part of the same file, whose timestamps begin anew."""
        self._restarts_now = self._last_s is not None
        self.restarts += self._restarts_now

    @property
    def offset_s(self) -> float:
        """How much later the times are, now, than in the file."""
        return float(self._offset * self._time_base) if self._time_base else 0.0

    def assign(self, picture: av.VideoFrame, packet: int) -> tuple[int, Fraction]:
        """pts and time base of the next picture in display order; the decoder returned it for packet `packet`."""
        pts, time_base = picture.pts, self._time_base  # pictures from the decoder's buffer have no time base
        if self._index_only:
            # A picture leaves the decoder with the packet whose decoding timestamp is the picture's display time.
            pts = self._dts.get(packet)
            if pts is None and self._last_s is not None and time_base is not None and not self._restarts_now:
                pts = round(self._last_s / time_base) - self._offset + self._step
        if pts is None or time_base is None or self._all_counted:
            # A bare stream, such as a .h264 file, has no timestamps: count pictures.
            pts, time_base = self._counted, 1 / self._rate
        step = picture.duration or self._step or max(1, round(1 / self._rate / time_base))
        if self._restarts_now and self._last_s is not None:
            self._offset = round(self._last_s / time_base) + step - pts
        self._restarts_now = False
        self._counted += 1
        self._last_s = (pts + self._offset) * time_base
        return pts + self._offset, time_base
