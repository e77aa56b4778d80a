"""Where a pass over a recording begins, what it does on each frame, and what the timeline shows of it."""

from __future__ import annotations

import numpy as np
import pytest

from rtseg.base.errors import PromptError
from rtseg.console.recording_plan import passed, plan, primers, task
from rtseg.console.recording_state import GivenPrompt, State, Tracked, with_lock, with_prompt
from rtseg.console.recording_timeline import ABSENT, LOCKED, NOTHING, PROMPT, TRACKED, spans


def prompted(*frames: int, key: int = 1) -> Tracked:
    each = Tracked(key, key, "grasper")
    for frame in frames:
        each = with_prompt(each, frame, GivenPrompt(points=((1.0, 1.0, 1),)))
    return each


def test_a_pass_begins_at_the_first_prompt_that_is_not_carried_on() -> None:
    state = State((prompted(5, 30), prompted(12, key=2)))
    journey = plan(state, "forward", 100)
    assert journey is not None
    assert (journey.first, journey.last, journey.starts) == (5, 99, {1: 5, 2: 12})
    back = plan(state, "backward", 100, to=10)
    assert back is not None
    assert (next(iter(back.frames)), back.last, back.starts) == (30, 10, {1: 30, 2: 12})
    assert plan(state, "forward", 100, to=5) is None
    with pytest.raises(PromptError, match="no object is prompted"):
        plan(State(), "forward", 100)


def test_what_a_pass_does_on_each_frame() -> None:
    each = with_lock(prompted(2, 8), (4, 5), True)
    journey = plan(State((each,)), "forward", 12)
    assert journey is not None
    tasks = [task(each, frame, journey) for frame in range(12)]
    assert tasks == ["wait", "wait", "start", "track", "hold", "resume", "track", "track", "give", *["track"] * 3]
    carried = passed(each, journey, 11, goes_on=False)
    assert (carried.ahead, carried.behind) == ((), (2, 8))
    again = with_prompt(carried, 3, GivenPrompt())
    second = plan(State((again,)), "forward", 12)
    assert second is not None
    assert task(again, 8, second) == "leave"  # what follows that prompt is the best there is


def test_a_stopped_pass_goes_on_where_it_was() -> None:
    each = prompted(2, 8)
    journey = plan(State((each,)), "forward", 12)
    assert journey is not None
    assert passed(each, journey, 6, goes_on=True).ahead == (6, 8)


def test_primers_are_the_first_and_the_nearest_prompt() -> None:
    each = prompted(1, 5, 9, 20)
    assert primers(each, 20, "forward") == [1, 9]
    assert primers(each, 1, "backward") == [20, 5]
    assert primers(each, 9, None) == [1, 5]
    assert primers(prompted(4), 4, None) == []


def test_locks_join_and_split() -> None:
    each = with_lock(with_lock(prompted(0), (3, 5), True), (6, 9), True)
    assert each.locks == ((3, 9),)
    assert with_lock(each, (5, 6), False).locks == ((3, 4), (7, 9))
    assert with_lock(each, (0, 99), False).locks == ()


def test_spans_of_a_timeline() -> None:
    assert spans(np.zeros(5, np.int8)) == []
    kinds = np.array([NOTHING, PROMPT, TRACKED, TRACKED, ABSENT, LOCKED, LOCKED, NOTHING, TRACKED], np.int8)
    assert spans(kinds) == [
        (1, 1, "prompt"), (2, 3, "tracked"), (4, 4, "absent"), (5, 6, "locked"), (8, 8, "tracked"),
    ]  # fmt: skip
    assert spans(np.full(3, LOCKED, np.int8)) == [(0, 2, "locked")]
