"""Which moments a review finds, and which it does not: each with a scene without it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from rtseg.base.errors import ConfigError, OutputError
from rtseg.offline.review.moments import EACH, Moment, Shortlist
from rtseg.offline.review.reading import Review, read_result
from rtseg.offline.review.series import BINS, TimeBins
from tests.offline.review.results import STILL, Scene, Seen, still, write_result

SMALLER, ELSEWHERE, LITTLE = (40, 30, 60, 50), (100, 80, 140, 110), (40, 30, 42, 32)


def from_to(first: int, end: int, then: Seen | None, otherwise: Seen | None = (STILL, 0.95)) -> Scene:
    return lambda frame: {1: then if first <= frame < end else otherwise}


def kinds(review: Review) -> list[tuple[str, int]]:
    return [(moment.kind, moment.frame) for moment in review.moments]


def read(tmp_path: Path, scene: Scene, count: int = 100, **settings: object) -> Review:
    return read_result(write_result(tmp_path / "op", scene, count, overlay=False, **settings))  # type: ignore[arg-type]


def fades(frame: int) -> Mapping[int, Seen | None]:
    """It gets smaller by a pixel a frame, which is no sudden change."""
    return {1: ((40, 30, 80 - frame // 3, 70), 0.95)}


@pytest.mark.parametrize(
    ("scene", "frames", "expected"),
    [
        (still, 100, []),
        (from_to(50, 55, (STILL, 0.4)), 100, []),  # brief, and not very low
        (from_to(50, 51, (STILL, 0.2)), 100, [("low", 50)]),
        (from_to(50, 70, (STILL, 0.4)), 100, [("low", 50)]),
        (from_to(50, 101, (SMALLER, 0.95)), 100, [("area", 50)]),
        (from_to(50, 51, (SMALLER, 0.95)), 100, [("area", 50)]),  # there and back is one moment
        (fades, 100, []),
        (from_to(0, 101, (LITTLE, 0.95)), 100, []),
        (from_to(50, 101, (ELSEWHERE, 0.95)), 100, [("jump", 50)]),
        (from_to(50, 100, None), 150, []),  # away for two seconds
        (from_to(50, 350, None), 400, [("return", 350)]),
        (lambda frame: {1: None if frame in (50, 53, 58) else (STILL, 0.9)}, 100, [("flicker", 59)]),
        (lambda frame: {1: None if frame in (10, 153, 358) else (STILL, 0.9)}, 400, []),
    ],
)
def test_what_is_found(tmp_path: Path, scene: Scene, frames: int, expected: list[tuple[str, int]]) -> None:
    assert kinds(read(tmp_path, scene, frames)) == expected


def test_the_reasons_say_how_much(tmp_path: Path) -> None:
    (low,) = read(tmp_path, from_to(50, 75, (STILL, 0.31)), 100).moments
    assert low.reason == "confidence falls to 0.31; it is below 0.5 for 1.0 s" and low.object == 1
    (back,) = read_result(write_result(tmp_path / "b", from_to(50, 350, None), 400, overlay=False)).moments
    assert back.reason == "comes back after 12 s out of view: is it the same object?"
    (area,) = read_result(
        write_result(tmp_path / "c", from_to(50, 51, (SMALLER, 0.9)), overlay=False, count=60)
    ).moments
    assert area.reason == "its mask suddenly shrinks 4.0 times, from 8.3% to 2.1% of the picture"


def test_confidence_has_the_networks_iou_where_there_is_one(tmp_path: Path) -> None:
    assert read(tmp_path, still).objects[0].confidence == pytest.approx(0.95)
    with_iou = read_result(write_result(tmp_path / "b", still, 100, overlay=False, iou=0.4))
    assert with_iou.objects[0].confidence == pytest.approx(0.38) and with_iou.iou
    assert with_iou.objects[0].score == pytest.approx(0.95)
    assert kinds(with_iou) == [("low", 0)]


def test_what_run_json_tells_is_found_too(tmp_path: Path) -> None:
    gap = {"before": 40, "seconds": 3602.0, "lost": 10, "why": "packets of the stream are missing"}
    review = read(
        tmp_path, from_to(70, 101, (ELSEWHERE, 0.95)), 100, complete=False, ended="the disk is full", cuts=[70],
        warnings=["frame 20: the object is small", "prompt on frame 25: it is at 1.000 s", "something else"],
        source_account={"gaps": [gap]}, frames={"in": 110, "shown": 100, "dropped": {"damaged": 10}},
        seconds=lambda frame: 3600 + (frame + 10 * (frame >= 40)) / 25,
    )  # fmt: skip
    # After a cut another place is no jump.
    assert kinds(review) == [("warning", 20), ("warning", 25), ("damage", 40), ("cut", 70), ("end", 99)]
    reasons = [moment.reason for moment in review.moments]
    assert reasons[2] == "10 frames missing before this one: packets of the stream are missing"
    assert reasons[4] == "the result ends here: the disk is full"
    assert review.missing == 10
    assert [review.number_in_source(frame) for frame in (39, 40)] == [39, 50]
    assert review.moments[0].seconds == pytest.approx(3600.8)


def test_times_in_view_are_those_of_the_frames(tmp_path: Path) -> None:
    (each,) = read(tmp_path, lambda frame: {1: (STILL, 0.9) if 10 <= frame % 50 < 30 else None}, 100).objects
    assert each.in_view_s == pytest.approx(40 / 25, abs=1e-4) and each.intervals == 2 and each.frames == 40
    assert [(begin.frame, end.frame) for begin, end in each.stays] == [(10, 29), (60, 79)]
    assert each.first and each.last and (each.first.frame, each.last.frame) == (10, 79)


def test_entries_and_exits_are_shown_but_not_flickers(tmp_path: Path) -> None:
    review = read(tmp_path, lambda frame: {1: None if 20 <= frame < 60 or frame == 80 else (STILL, 0.9)}, 100)
    turns = [(turn.kind, turn.frame, turn.reason) for turn in review.turns.heaviest(99)]
    assert turns == [("entry", 0, "first mask"), ("exit", 19, "leaves the view"), ("entry", 60, "back after 1.6 s")]


def test_an_object_is_not_expected_before_its_prompt(tmp_path: Path) -> None:
    review = read(tmp_path, lambda frame: {1: (STILL, 0.9), **({2: (ELSEWHERE, 0.9)} if frame >= 50 else {})}, 100)
    assert [each.followed for each in review.objects] == [100, 50]
    assert review.objects[1].first and review.objects[1].first.frame == 50


def test_a_shortlist_keeps_the_heaviest_and_counts_all() -> None:
    found = Shortlist()
    for frame in range(10 * EACH):
        found.add(Moment(frame, frame / 25, "cut", "", (frame * 37) % (10 * EACH)))
    kept = found.heaviest(EACH)
    assert len(kept) == len(found.heaviest(999)) == EACH and found.counts["cut"] == 10 * EACH
    assert {moment.weight for moment in kept} == set(range(9 * EACH, 10 * EACH))
    assert [moment.frame for moment in kept] == sorted(moment.frame for moment in kept)


@pytest.mark.parametrize("length", [3, 1000, 180_000])
def test_bins_keep_every_extreme_however_long_it_takes(length: int) -> None:
    bins = TimeBins(5.0)
    series = bins.add_series()
    dip = length * 2 // 3
    for frame in range(length):
        value = None if frame == length // 4 else 0.1 if frame == dip else 0.9
        series.add(bins.reach(5 + frame / 25, 5 + (frame + 1) / 25), value)
    assert len(series.low) <= bins.count <= BINS
    (lowest,) = [x for x, low in enumerate(series.low) if low < 0.5][:1]
    place = lowest / bins.count
    assert abs(place - bins.place(5 + dip / 25)) < 2 / bins.count + 1e-9
    assert any(seen < frames for seen, frames in zip(series.seen, series.frames, strict=True))
    assert max(series.high) == 0.9 and all(frames > 0 for frames in series.frames)  # no bin is left out


def test_what_is_no_result_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected the folder that rtseg segment wrote"):
        read_result(tmp_path)
    damaged = write_result(tmp_path / "op", overlay=False, seconds=lambda frame: float("inf") if frame == 9 else 0.0)
    with pytest.raises(OutputError, match="frame 9 is at inf s"):
        read_result(damaged)
