"""Moments of a result that are worth a second look: where the masks, or the recording, are most likely to be wrong.

One `ObjectWatch` follows one object, frame by frame, and keeps a few numbers of it. What it finds goes to a
`Shortlist`, which keeps the most serious of each kind and counts the others, so nothing grows with time.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from heapq import heappush, heappushpop
from itertools import count
from math import hypot
from statistics import median
from typing import Any

from ..formats.segmented_video import SeenObject
from .html import counted, lasting

LOW = 0.5  # confidence below which a mask is worth a look; where that is brief, only below the half of it
SAME_S = 1.0  # low stretches, and sudden changes, that are closer together are one moment
AWAY_S = 0.5  # an absence that is shorter is a flicker; a longer one has an exit and an entry
LONG_AWAY_S = 10.0  # after an absence that long: is it still the same object?
FLICKERS, WITHIN_S = 3, 5.0  # so many flickers in that time are one moment
SUDDEN = 2.0  # times larger or smaller than the median of the frames before
BEFORE = 5  # frames that an area is compared with
SMALL = 0.001  # of the picture: areas below are not compared
EACH = 20  # moments of a kind that are kept
KINDS = {  # in the order of the report: one, and several
    "end": ("early end", "early ends"),
    "damage": ("gap of missing frames", "gaps of missing frames"),
    "warning": ("prompt warning", "prompt warnings"),
    "jump": ("jump", "jumps"),
    "area": ("sudden change of area", "sudden changes of area"),
    "low": ("stretch of low confidence", "stretches of low confidence"),
    "return": ("return after a long absence", "returns after a long absence"),
    "flicker": ("flicker", "flickers"),
    "cut": ("scene cut", "scene cuts"),
}


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment: the frame with its time in the source, what is the matter, and which object it is about (None: all).

    `weight`: the larger, the more serious.
    """

    frame: int
    seconds: float
    kind: str
    reason: str
    weight: float
    object: int | None = None

    def plain(self) -> dict[str, Any]:
        """For `review.json`."""
        found = {"frame": self.frame, "seconds": round(self.seconds, 3), "kind": self.kind, "reason": self.reason}
        return found if self.object is None else {**found, "object": self.object}


class Shortlist:
    """The `most` heaviest moments of each kind, and how many there were."""

    def __init__(self, most: int = EACH) -> None:
        self._most, self._heaps, self._number = most, dict[str, list[tuple[float, int, Moment]]](), count()
        self.counts: Counter[str] = Counter()

    def add(self, moment: Moment) -> None:
        """Consider a moment. Of equal ones the earlier stays."""
        self.counts[moment.kind] += 1
        heap = self._heaps.setdefault(moment.kind, [])
        entry = (moment.weight, -next(self._number), moment)
        if len(heap) < self._most:
            heappush(heap, entry)
        else:
            heappushpop(heap, entry)

    def heaviest(self, most: int) -> list[Moment]:
        """The `most` heaviest of all kinds, in the order of time."""
        every = [entry for heap in self._heaps.values() for entry in heap]
        every.sort(key=lambda entry: entry[:2], reverse=True)
        return sorted((moment for _, _, moment in every[:most]), key=lambda moment: (moment.seconds, moment.frame))


@dataclass(frozen=True, slots=True)
class Instant:
    """Where in the recording: a frame, its time, and when it ends. `fresh`: it follows a cut, or missing frames."""

    frame: int
    seconds: float
    end_s: float
    fresh: bool = False


@dataclass(slots=True)
class _Low:
    """A stretch of low confidence: its lowest frame, when it was low last, and for how long altogether."""

    lowest: Instant
    confidence: float
    last_s: float
    spent_s: float


@dataclass(slots=True)
class ObjectWatch:
    """Follows one object. `pixels`: of the picture; `turns` gets its entries and exits, `found` all else."""

    id: int
    pixels: int
    found: Shortlist
    turns: Shortlist
    _in_view: bool = False
    _last: Instant | None = None  # the last frame on which it was visible
    _box: tuple[int, int, int, int] | None = None
    _areas: deque[int] = field(default_factory=lambda: deque(maxlen=BEFORE))
    _low: _Low | None = None
    _flickers: deque[float] = field(default_factory=lambda: deque(maxlen=FLICKERS))
    _sudden_s: float = float("-inf")

    def step(self, at: Instant, seen: SeenObject | None, confidence: float) -> None:
        """Tell it of a frame; `seen` is None where the object is not visible, and `confidence` means nothing then."""
        if at.fresh:
            self._forget()
        if seen is None:
            self._unseen(at)
        else:
            self._appear(at)
            self._compare(at, seen)
            self._note_confidence(at, confidence)
            self._last, self._box = at, seen.box
            self._areas.append(seen.area)
        self._end_low(at.seconds)

    def close(self) -> None:
        """Report what is under way when the recording ends."""
        self._end_low(float("inf"))

    def _forget(self) -> None:
        self._areas.clear()
        self._box = None

    def _unseen(self, at: Instant) -> None:
        last = self._last
        if self._in_view and last is not None and at.end_s - last.end_s >= AWAY_S:
            self._in_view = False
            self._forget()
            self.turns.add(Moment(last.frame, last.seconds, "exit", "leaves the view", -last.seconds, self.id))

    def _appear(self, at: Instant) -> None:
        away_s = at.seconds - self._last.end_s if self._last else 0.0
        if self._in_view:
            if away_s > 1e-3 and not at.fresh:
                self._flicker(at)
            return
        self._in_view = True
        self._flickers.clear()
        words = "first mask" if self._last is None else f"back after {lasting(away_s)}"
        self.turns.add(Moment(at.frame, at.seconds, "entry", words, -at.seconds, self.id))
        if self._last is not None and away_s >= LONG_AWAY_S:
            reason = f"comes back after {lasting(away_s)} out of view: is it the same object?"
            self.found.add(Moment(at.frame, at.seconds, "return", reason, 2.0 + min(away_s / 600, 0.9), self.id))

    def _flicker(self, at: Instant) -> None:
        self._flickers.append(at.seconds)
        if len(self._flickers) == FLICKERS and at.seconds - self._flickers[0] <= WITHIN_S:
            spent = lasting(max(at.seconds - self._flickers[0], 0.1))
            reason = f"its mask goes and comes back {FLICKERS} times within {spent}"
            self.found.add(Moment(at.frame, at.seconds, "flicker", reason, 2.2, self.id))
            self._flickers.clear()

    def _compare(self, at: Instant, seen: SeenObject) -> None:
        """Compare mask and place with the frames just before; of sudden changes close together the first counts."""
        sudden = self._jump(at, seen) or self._change(at, seen)
        if sudden:
            if at.seconds - self._sudden_s >= SAME_S:
                self.found.add(sudden)
            self._sudden_s = at.seconds
            self._forget()

    def _jump(self, at: Instant, seen: SeenObject) -> Moment | None:
        if self._box is None or seen.area < SMALL * self.pixels or _overlap(self._box, seen.box):
            return None
        (x0, y0, x1, y1), (u0, v0, u1, v1) = self._box, seen.box
        far = hypot(u0 + u1 - x0 - x1, v0 + v1 - y0 - y1) / 2
        reason = f"its mask jumps {far:.0f} pixels from one frame to the next, to where it was not before"
        return Moment(at.frame, at.seconds, "jump", reason, 3.5, self.id)

    def _change(self, at: Instant, seen: SeenObject) -> Moment | None:
        if len(self._areas) < BEFORE:
            return None
        before = median(self._areas)
        if max(before, seen.area) < SMALL * self.pixels or min(before, seen.area) <= 0:
            return None
        times = max(before / seen.area, seen.area / before)
        if times < SUDDEN:
            return None
        way = "grows" if seen.area > before else "shrinks"
        shares = [_share(area, self.pixels) for area in (before, seen.area)]
        reason = f"its mask suddenly {way} {times:.1f} times, from {shares[0]} to {shares[1]} of the picture"
        return Moment(at.frame, at.seconds, "area", reason, 3.0 + min(times / 100, 0.4), self.id)

    def _note_confidence(self, at: Instant, confidence: float) -> None:
        if confidence >= LOW:
            return
        spent_s, low = max(at.end_s - at.seconds, 0.0), self._low
        if low is None:
            self._low = _Low(at, confidence, at.end_s, spent_s)
            return
        if confidence < low.confidence:
            low.lowest, low.confidence = at, confidence
        low.last_s, low.spent_s = at.end_s, low.spent_s + spent_s

    def _end_low(self, now_s: float) -> None:
        low = self._low
        if low is None or now_s - low.last_s < SAME_S:
            return
        self._low = None
        if low.spent_s < AWAY_S and low.confidence > LOW / 2:
            return
        reason = f"confidence falls to {low.confidence:.2f}; it is below {LOW} for {lasting(max(low.spent_s, 0.1))}"
        weight = 2.5 + (LOW - low.confidence) + min(low.spent_s / 60, 0.5)
        self.found.add(Moment(low.lowest.frame, low.lowest.seconds, "low", reason, weight, self.id))


def _overlap(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _share(area: float, pixels: int) -> str:
    return f"{100 * area / pixels:.1f}%" if area >= SMALL * pixels else f"{100 * area / pixels:.2f}%"


def of_kinds(counts: Counter[str]) -> list[str]:
    """How many of each kind, in words."""
    return [counted(counts[kind], one, many) for kind, (one, many) in KINDS.items() if counts[kind]]
