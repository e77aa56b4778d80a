"""What can be measured in a result, as tables of objects on frames, of intervals in view, and of whole objects.

Times are the source's. A frame lasts until the next one, and the last one as long as the one before. The speed of an
object is that of its centroid since the frame before, in pixels a second; there is none where it was not seen on that
frame, or where another scene begins.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import hypot
from typing import Any

from .segmented_video import SeenObject, SegmentedFrame, SegmentedVideo, TrackedObject

Row = tuple[Any, ...]
# The columns of each table and their types.
TABLES: dict[str, dict[str, type]] = {
    "objects": {
        "frame": int, "seconds": float, "object": int, "label": str, "visible": bool, "score": float, "iou": float,
        "area": int, "x0": int, "y0": int, "x1": int, "y1": int, "centroid_x": float, "centroid_y": float,
        "speed": float,
    },
    "intervals": {
        "object": int, "label": str, "first_frame": int, "last_frame": int, "start_s": float, "end_s": float,
        "duration_s": float, "frames": int, "score_mean": float, "score_min": float,
    },
    "totals": {
        "object": int, "label": str, "in_view_s": float, "in_view_share": float, "intervals": int, "frames": int,
        "first_s": float, "last_s": float, "area_mean": float, "speed_mean": float, "path": float,
        "score_mean": float, "score_min": float, "iou_mean": float,
    },
}  # fmt: skip


@dataclass(slots=True)
class _Stay:
    """An interval in which an object is in view."""

    first: SegmentedFrame
    last: SegmentedFrame
    frames: int = 0
    score: float = 0.0
    least: float = 1.0

    def add(self, frame: SegmentedFrame, score: float) -> None:
        self.last, self.frames = frame, self.frames + 1
        self.score, self.least = self.score + score, min(self.least, score)


@dataclass(slots=True)
class _Total:
    """What is summed over a recording for one object."""

    object: TrackedObject
    seen_s: float = 0.0
    intervals: int = 0
    frames: int = 0
    first_s: float | None = None
    last_s: float | None = None
    area: int = 0
    path: float = 0.0
    moved_s: float = 0.0
    score: float = 0.0
    least: float = 1.0
    ious: list[float] = field(default_factory=lambda: [0.0, 0.0])  # sum, number
    stay: _Stay | None = None
    centroid: tuple[float, float] | None = None  # on the frame before, if it was seen there


def rows(video: SegmentedVideo) -> Iterator[tuple[str, Row]]:
    """The rows of all tables, each with the name of its table, as they become known."""
    totals = {each.id: _Total(each) for each in video.objects}
    before: SegmentedFrame | None = None
    start_s, duration = 0.0, 0.0
    for frame in video.frames():
        if before is None:
            start_s = frame.seconds
        else:
            duration = max(0.0, frame.seconds - before.seconds)
            yield from _ended(totals, frame, frame.seconds)
            _count_time(totals, before, duration)
        found = {each.id: each for each in frame.seen}
        for total in totals.values():
            if total.object.id in found:
                yield "objects", _seen_row(total, frame, found[total.object.id], frame.seq in video.cuts, duration)
            else:
                total.centroid = None
                if total.object.id in frame.unseen:
                    yield "objects", _unseen_row(total.object, frame)
        before = frame
    if before is None:
        return
    end_s = before.seconds + duration
    _count_time(totals, before, duration)
    yield from _ended(totals, None, end_s)
    yield from (("totals", _total_row(total, end_s - start_s)) for total in totals.values())


def _count_time(totals: dict[int, _Total], frame: SegmentedFrame, duration: float) -> None:
    for each in frame.seen:
        totals[each.id].seen_s += duration
        totals[each.id].last_s = frame.seconds + duration


def _seen_row(total: _Total, frame: SegmentedFrame, seen: SeenObject, cut: bool, duration: float) -> Row:
    x, y = seen.centroid()
    speed = None
    if total.centroid and duration > 0 and not cut:
        moved = hypot(x - total.centroid[0], y - total.centroid[1])
        speed = moved / duration
        total.path += moved
        total.moved_s += duration
    total.centroid = x, y
    _sum(total, frame, seen)
    return (
        frame.seq, frame.seconds, seen.id, total.object.label, True, seen.score, seen.iou, seen.area, *seen.box,
        round(x, 3), round(y, 3), None if speed is None else round(speed, 3),
    )  # fmt: skip


def _unseen_row(each: TrackedObject, frame: SegmentedFrame) -> Row:
    nothing = [None] * (len(TABLES["objects"]) - 7)
    return (frame.seq, frame.seconds, each.id, each.label, False, frame.unseen[each.id], None, *nothing)


def _sum(total: _Total, frame: SegmentedFrame, seen: SeenObject) -> None:
    if total.first_s is None:
        total.first_s = frame.seconds
    total.frames += 1
    total.area += seen.area
    total.score += seen.score
    total.least = min(total.least, seen.score)
    if seen.iou is not None:
        total.ious[0] += seen.iou
        total.ious[1] += 1
    if total.stay is None:
        total.stay = _Stay(frame, frame)
        total.intervals += 1
    total.stay.add(frame, seen.score)


def _ended(totals: dict[int, _Total], frame: SegmentedFrame | None, end_s: float) -> Iterator[tuple[str, Row]]:
    """The intervals of the objects that are not on this frame any more; None: after the last frame."""
    there = {each.id for each in frame.seen} if frame else set()
    for total in totals.values():
        stay = total.stay
        if stay is None or total.object.id in there:
            continue
        total.stay = None
        yield "intervals", (
            total.object.id, total.object.label, stay.first.seq, stay.last.seq, stay.first.seconds, round(end_s, 6),
            round(end_s - stay.first.seconds, 6), stay.frames, round(stay.score / stay.frames, 6), stay.least,
        )  # fmt: skip


def _total_row(total: _Total, length_s: float) -> Row:
    def mean(value: float, count: float) -> float | None:
        return round(value / count, 6) if count else None

    return (
        total.object.id, total.object.label, round(total.seen_s, 6), mean(total.seen_s, length_s), total.intervals,
        total.frames, total.first_s, None if total.last_s is None else round(total.last_s, 6),
        mean(total.area, total.frames), mean(total.path, total.moved_s), round(total.path, 3),
        mean(total.score, total.frames), total.least if total.frames else None, mean(*total.ious),
    )  # fmt: skip
