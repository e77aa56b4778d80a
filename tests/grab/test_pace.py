"""A recording played as live: never early, late without skipping, stamped when it is let go."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest

from rtseg.base.types import Frame, now_ns
from rtseg.grab import Source, paced

LATE_MS = 1000  # what a busy machine may add to a time; what must not be waited for is an hour


class Listed(Source):
    """Frames at given pts, in hundredths of a second."""

    def __init__(self, pts: list[int]) -> None:
        super().__init__("listed", 2, 2, 50.0, len(pts))
        self.pts = pts

    def frames(self) -> Iterator[Frame]:
        for seq, pts in enumerate(self.pts):
            yield Frame(np.zeros((2, 2, 3), np.uint8), seq, self.session, pts, Fraction(1, 100), captured_ns=0)


def test_frames_come_at_their_own_times() -> None:
    source = Listed([500, 502, 504, 514])
    with paced(source) as live:
        arrived = [(f, now_ns()) for f in live]
    stamps_ms = [(f.captured_ns - arrived[0][0].captured_ns) / 1e6 for f, _ in arrived]
    for stamp_ms, due_ms in zip(stamps_ms, (0, 20, 40, 140), strict=True):
        assert due_ms - 0.5 <= stamp_ms < due_ms + LATE_MS
    assert all(0 <= at - f.captured_ns < 1e6 * LATE_MS for f, at in arrived)
    assert [(f.seq, f.pts, f.session) for f, _ in arrived] == [(i, p, source.session) for i, p in enumerate(source.pts)]
    assert (live.uri, live.width, live.height, live.fps, live.frame_count) == ("listed", 2, 2, 50.0, 4)


def test_without_pace_they_come_at_once() -> None:
    began = now_ns()
    assert len(list(Listed([0, 50, 100]))) == 3
    assert now_ns() - began < 0.9e9  # their times span a second


def test_a_given_rate_replaces_the_times() -> None:
    live = paced(Listed([0, 1000, 2000]), fps=50)
    stamps = [f.captured_ns for f in live]
    assert live.fps == 50
    assert 39.5 <= (stamps[-1] - stamps[0]) / 1e6 < 40 + LATE_MS


def test_a_late_consumer_gets_every_frame_at_once_and_then_is_on_time() -> None:
    began, seen = 0, []
    for frame in paced(Listed([0, 10, 20, 30, 120])):
        if frame.seq == 0:
            began = now_ns()
            time.sleep(0.6)
        seen.append((frame.seq, (now_ns() - began) / 1e6))
    assert [seq for seq, _ in seen] == [0, 1, 2, 3, 4]
    assert seen[3][1] - seen[0][1] < 250  # a fresh start would take 300
    assert seen[4][1] >= 1199


@pytest.mark.parametrize("pts", [[0, 10, 0, 11], [5, 5, 5]])
def test_times_that_step_back_do_not_wait(pts: list[int]) -> None:
    began = now_ns()
    assert len(list(paced(Listed(pts)))) == len(pts)
    assert now_ns() - began < 0.3e9 + 1e6 * LATE_MS


def test_close_ends_a_wait() -> None:
    source = Listed([0, 900])
    live = paced(source)
    frames = iter(live)
    next(frames)
    threading.Timer(0.05, live.close).start()
    began = now_ns()
    assert list(frames) == []
    assert now_ns() - began < 8e9  # of nine
    assert list(source) == []


def test_a_splice_is_not_waited_for_and_what_follows_is_paced() -> None:
    source = Listed([0, 2, 360_000, 360_002, 360_010, 5, 7])  # an hour ahead, then back to the start
    with paced(source) as live:
        stamps_ms = [f.captured_ns / 1e6 for f in live]
    gaps_ms = [b - a for a, b in itertools.pairwise(stamps_ms)]
    for gap_ms, due_ms in zip(gaps_ms, (20, 0, 20, 80, 0, 20), strict=True):
        assert due_ms - 15 <= gap_ms < due_ms + LATE_MS
