"""A network that is slower than its source segments every second or third frame, evenly."""

from __future__ import annotations

from itertools import pairwise

import pytest

from rtseg.live.workers.step_schedule import StepSchedule


def paced(step_ms: float, apart_ms: float, use: bool, steps: int = 60) -> tuple[set[int], float]:
    """How many frames apart the segmented ones are, and the mean age of what is drawn: a clock that is only counted."""
    schedule, now, done, drawn = StepSchedule(), 0.0, -1, []
    for _ in range(steps):
        frame = max(done + 1, int(now // apart_ms))
        now = max(now, frame * apart_ms)
        wait = schedule.wait_s(now - frame * apart_ms) if use else 0
        if wait:
            frame, now = frame + 1, (frame + 1) * apart_ms
        now += step_ms
        schedule.stepped(frame, int(frame * apart_ms * 1e6), step_ms)
        drawn.append((now + 2, frame))
        done = frame
    ages = []
    for shown in range(int(drawn[10][0] // apart_ms) + 1, int(drawn[-1][0] // apart_ms)):
        newest = max(frame for at, frame in drawn if at <= shown * apart_ms)
        ages.append((shown - newest) * apart_ms)
    frames = [frame for _, frame in drawn[20:]]
    return {b - a for a, b in pairwise(frames)}, sum(ages) / len(ages)


@pytest.mark.parametrize(("step_ms", "apart"), [(25, {1}), (70, {2}), (76, {2}), (110, {3})])
def test_segmented_frames_come_at_an_even_pace_and_their_masks_are_no_older_for_it(
    step_ms: float, apart: set[int]
) -> None:
    even, age = paced(step_ms, 40, use=True)
    _, greedy_age = paced(step_ms, 40, use=False)
    assert even == apart and age <= greedy_age


def test_a_step_that_just_misses_two_frames_is_not_waited_for() -> None:
    even, age = paced(45, 40, use=True)
    assert even == {1, 2} and age <= paced(45, 40, use=False)[1]
