"""When each picture is shown: the file's own times where it has them, in order, and going on where they begin anew."""

from __future__ import annotations

from fractions import Fraction

import av

NO_TIMES = ("avi",)  # formats that hold no time for a picture, only its place in the order of decoding


class Times:
    """The times of a recording's pictures, in the order in which they are shown, through all its parts.

    `counted`: the file's own times, if it has any, are not used, but its rate.
    """

    def __init__(self, rate: Fraction, *, counted: bool = False) -> None:
        self._rate, self._all_counted = rate, counted
        self._time_base: Fraction | None = None
        self._placed = False
        self._places: dict[int, int] = {}  # when each packet is due in decoding
        self._step = self._added = 0
        self._last_s: Fraction | None = None  # of the latest picture
        self._joint = False
        self._counted = 0  # pictures of this part
        self.joints = 0

    def part(self, time_base: Fraction | None, *, placed: bool) -> None:
        """What follows is of another file; `placed`: its packets have no times, but places."""
        self._time_base, self._placed = time_base, placed
        self._places, self._step, self._added, self._counted = {}, 0, 0, 0
        self._joint = self._last_s is not None

    def due(self, number: int, due: int | None) -> None:
        """Packet `number` is about to be decoded; it is `due` then, in the stream's time base."""
        if due is not None:
            self._places[number] = due
            before = self._places.get(number - 1)
            if before is not None and due > before:
                self._step = due - before
        self._places.pop(number - 1000, None)

    def joint(self) -> None:
        """What follows is of another part of the same file, whose times begin anew."""
        self._joint = self._last_s is not None
        self.joints += self._joint

    def of(self, picture: av.VideoFrame, place: int) -> tuple[int, Fraction]:
        """pts and time base of the picture that is shown next; the decoder gave it when it had packet `place`."""
        pts, time_base = picture.pts, self._time_base  # pictures that are held back to the end bring none
        if self._placed:
            # A picture comes out when the packet is there that is decoded at the time when the picture is shown.
            pts = self._places.get(place)
            if pts is None and self._last_s is not None and time_base is not None and not self._joint:
                pts = round(self._last_s / time_base) - self._added + self._step
        if pts is None or time_base is None or self._all_counted:
            # A bare stream, as in a .h264 file, has no clock of its own: count.
            pts, time_base = self._counted, 1 / self._rate
        step = picture.duration or self._step or max(1, round(1 / self._rate / time_base))
        if self._joint and self._last_s is not None:
            self._added = round(self._last_s / time_base) + step - pts
        self._joint = False
        self._counted += 1
        self._last_s = (pts + self._added) * time_base
        return pts + self._added, time_base
