"""A result, read once from its first frame to its last: what a report says of it.

Memory is bounded: masks.json is read frame by frame, and what is kept of an object, a moment or a gap has a limit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from ...base.errors import OutputError
from ..formats.segmented_video import SeenObject, SegmentedFrame, SegmentedVideo, TrackedObject, open_result
from .html import counted
from .moments import Instant, Moment, ObjectWatch, Shortlist
from .series import BINS, Series, TimeBins
from .values import as_lines, as_list, as_map, as_number, as_whole, ended_of, total

MOMENTS = 40  # that a report lists
TURNS = 24  # entries and exits that it shows
STAYS = 50  # intervals in view that are listed of an object
GAPS = 100  # that are listed
CROWDED = 32  # with more objects than these each has fewer bins
START = Instant(0, 0.0, 0.0)
_WARNED = re.compile(r"^(?:prompt on )?frame (\d+): (.*)", re.DOTALL)


@dataclass(slots=True)
class ObjectReview:
    """What is said of one object. Times are the source's own; `stays` are its first intervals in view."""

    object: TrackedObject
    series: Series
    watch: ObjectWatch
    frames: int = 0
    followed: int = 0  # frames since its first prompt
    in_view_s: float = 0.0
    intervals: int = 0
    stays: list[tuple[Instant, Instant]] = field(default_factory=list)
    first: Instant | None = None
    last: Instant | None = None
    lowest: tuple[float, Instant] | None = None
    _confidence: float = 0.0
    _score: float = 0.0
    _area: float = 0.0
    _begun: Instant | None = None

    @property
    def confidence(self) -> float | None:
        """Its mean where it is visible."""
        return self._confidence / self.frames if self.frames else None

    @property
    def score(self) -> float | None:
        """The mean of the object score where it is visible."""
        return self._score / self.frames if self.frames else None

    @property
    def area(self) -> float | None:
        """The mean area where it is visible, in pixels."""
        return self._area / self.frames if self.frames else None

    def step(self, at: Instant, bins: range, seen: SeenObject | None, followed: bool) -> None:
        """Count a frame; `followed`: the object has been prompted by then."""
        value = confidence_of(seen) if seen else 0.0
        if followed:
            self.followed += 1
            self.series.add(bins, value if seen else None)
            self.watch.step(at, seen, value)
        if seen is None:
            self._end_stay()
            return
        self.first, self.last, self._begun = self.first or at, at, self._begun or at
        self.frames, self.in_view_s = self.frames + 1, self.in_view_s + at.end_s - at.seconds
        self._confidence, self._score, self._area = (
            self._confidence + value,
            self._score + seen.score,
            self._area + seen.area,
        )
        if self.lowest is None or value < self.lowest[0]:
            self.lowest = value, at

    def _end_stay(self) -> None:
        if self._begun is not None and self.last is not None:
            self.intervals += 1
            if len(self.stays) < STAYS:
                self.stays.append((self._begun, self.last))
        self._begun = None

    def close(self) -> None:
        """The recording has ended."""
        self._end_stay()
        self.watch.close()


@dataclass(slots=True)
class Review:
    """What a report says of a result."""

    video: SegmentedVideo
    bins: TimeBins
    objects: list[ObjectReview]
    found: Shortlist
    turns: Shortlist
    cuts: list[tuple[int, float]] = field(default_factory=list)  # frame and time
    times: dict[int, float] = field(default_factory=dict)  # of the frames that warnings are about
    start_s: float = 0.0
    end_s: float = 0.0
    frame_s: float = 0.0  # how long the latest frame lasted that has no gap after it
    last: Instant = START
    count: int = 0
    iou: bool = False  # whether the result has the network's own estimates of IoU

    @property
    def run(self) -> dict[str, Any]:
        """The result's run.json."""
        return self.video.run

    @property
    def gaps(self) -> list[dict[str, Any]]:
        """Where frames are missing, as `run.json` lists them."""
        return [gap for gap in as_list(as_map(self.run.get("source_account")).get("gaps")) if _is_gap(gap)]

    @property
    def missing(self) -> int:
        """How many frames are missing."""
        return total(as_map(as_map(self.run.get("frames")).get("dropped")))

    def number_in_source(self, frame: int) -> int:
        """The number of a frame where missing ones are counted, too, as the console counts them."""
        return frame + sum(gap["lost"] or 1 for gap in self.gaps if gap["before"] <= frame)

    @property
    def moments(self) -> list[Moment]:
        """The most serious moments, in the order of time."""
        return self.found.heaviest(MOMENTS)

    def plain(self) -> dict[str, Any]:
        """`review.json`: what an index needs, without reading the masks again."""
        return {
            "frames": self.count,
            "seconds": round(self.end_s - self.start_s, 3),
            "objects": [_object(each) for each in self.objects],
            "moments": [moment.plain() for moment in self.moments],
            "counts": dict(self.found.counts),
        }


def confidence_of(seen: SeenObject) -> float:
    """How sure the network is of a mask: that the object is there, times its own estimate of the mask's IoU."""
    return seen.score * (1.0 if seen.iou is None else min(max(seen.iou, 0.0), 1.0))


def read_result(folder: Path) -> Review:
    """Read a result, also an incomplete one. Raises `ConfigError` if it is none, `OutputError` if it is damaged."""
    video = open_result(folder, incomplete=True)
    review = _empty(video)
    review.times = {frame: 0.0 for frame, _ in _warned(video.run)}
    after_gap = {gap["before"] for gap in review.gaps}
    held: SegmentedFrame | None = None
    for frame in _checked(video):
        if held is None:
            review.bins.start_s = review.start_s = frame.seconds
        else:
            _step(review, held, frame.seconds, held.seq in after_gap, frame.seq in after_gap)
        held = frame
    if held is not None:
        _step(review, held, held.seconds + review.frame_s, held.seq in after_gap, False)
        review.last = Instant(held.seq, held.seconds, review.end_s)
    for each in review.objects:
        each.close()
    _note_run(review)
    return review


def _empty(video: SegmentedVideo) -> Review:
    bins = TimeBins(0.0, BINS if len(video.objects) <= CROWDED else BINS // 3)
    found, turns = Shortlist(), Shortlist(TURNS // 2)
    pixels = video.height * video.width
    objects = [
        ObjectReview(each, bins.add_series(), ObjectWatch(each.id, pixels, found, turns)) for each in video.objects
    ]
    return Review(video, bins, objects, found, turns)


def _checked(video: SegmentedVideo) -> Iterable[SegmentedFrame]:
    for frame in video.frames():
        if not isfinite(frame.seconds) or abs(frame.seconds) > 1e9:
            raise OutputError(
                f"{video.folder / 'masks.json'}: frame {frame.seq} is at {frame.seconds} s; segment again"
            )
        yield frame


def _step(review: Review, frame: SegmentedFrame, next_s: float, after_gap: bool, before_gap: bool) -> None:
    """Count a frame, which lasts until the next one. In the drawing a gap before the next one stays empty."""
    lasts_s = max(0.0, next_s - frame.seconds)
    if not before_gap or not review.count:
        review.frame_s = lasts_s
    cut = frame.seq in review.video.cuts
    at = Instant(frame.seq, frame.seconds, frame.seconds + lasts_s, after_gap or cut)
    bins = review.bins.reach(frame.seconds, frame.seconds + min(lasts_s, review.frame_s))
    found = {each.id: each for each in frame.seen if each.area}
    for each in review.objects:
        id_ = each.object.id
        each.step(at, bins, found.get(id_), id_ in found or id_ in frame.unseen)
    review.iou = review.iou or any(each.iou is not None for each in frame.seen)
    if frame.seq in review.times:
        review.times[frame.seq] = frame.seconds
    if cut and len(review.cuts) < GAPS * 10:
        review.cuts.append((frame.seq, frame.seconds))
    review.count, review.end_s = review.count + 1, at.end_s


def _note_run(review: Review) -> None:
    """Add the moments that run.json tells of."""
    for gap in review.gaps:
        lost = counted(gap["lost"], "frame") if gap["lost"] else "some frames"
        reason = f"{lost} missing before this one: {gap['why']}"
        weight = 4.0 + min((gap["lost"] or 1) / 1000, 0.9)
        review.found.add(Moment(gap["before"], gap["seconds"], "damage", reason, weight))
    for frame, seconds in review.cuts:
        reason = "another scene begins: objects are lost until they are found again, or prompted"
        review.found.add(Moment(frame, seconds, "cut", reason, 1.5))
    for frame, reason in _warned(review.run):
        review.found.add(Moment(frame, review.times.get(frame, review.start_s), "warning", reason, 3.2))
    if review.run.get("complete") is not True:
        reason = f"the result ends here: {ended_of(review.run)}"
        last = review.last
        review.found.add(Moment(last.frame, last.seconds, "end", reason, 9.0))


def _warned(run: dict[str, Any]) -> list[tuple[int, str]]:
    """The frame and the text of each warning about a prompt."""
    matches = [_WARNED.match(line) for line in as_lines(run.get("warnings"))]
    return [(int(match[1]), match[2]) for match in matches if match and len(match[1]) < 10]


def _is_gap(gap: object) -> bool:
    """Whether an entry of the account is one; run.json may have been edited."""
    found = as_map(gap)
    whole = as_whole(found.get("before")) is not None and as_number(found.get("seconds")) is not None
    return (
        whole
        and isinstance(found.get("why"), str)
        and (found.get("lost") is None or as_whole(found["lost"]) is not None)
    )


def _object(each: ObjectReview) -> dict[str, Any]:
    def rounded(value: float | None) -> float | None:
        return None if value is None else round(value, 4)

    return {
        "id": each.object.id, "name": each.object.name, "frames": each.frames, "in_view_s": round(each.in_view_s, 3),
        "intervals": each.intervals, "confidence": rounded(each.confidence), "score": rounded(each.score),
        "lowest": rounded(each.lowest[0]) if each.lowest else None,
    }  # fmt: skip
