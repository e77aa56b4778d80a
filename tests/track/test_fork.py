"""A click on a picture of the past is as if it had been made then."""

from __future__ import annotations

import numpy as np
import pytest

from rtseg import Frame, Tracker
from rtseg.base.errors import PromptError
from rtseg.base.types import Masks
from rtseg.engine.reference import TorchEngine

H, W = 90, 120


def frame(seq: int) -> Frame:
    return Frame(np.random.default_rng(seq).integers(0, 255, (H, W, 3), dtype=np.uint8), seq)


def played(engine: TorchEngine, until: int) -> Tracker:
    tracker = Tracker(engine, policy="fifo")  # which still holds all that there was before the click
    tracker.prompt(1, box=(10, 10, 80, 70), label="grasper")
    for seq in range(until):
        tracker.step(frame(seq))
    return tracker


def same(a: Masks, b: Masks, object_id: int) -> bool:
    row, other = a.ids.index(object_id), b.ids.index(object_id)
    return np.allclose(a.mask_logits_bhw[row], b.mask_logits_bhw[other], atol=1e-4)


@pytest.mark.parametrize("object_id", [1, 2])
def test_a_prompt_on_a_past_frame_is_as_if_it_had_been_given_then(small_engine: TorchEngine, object_id: int) -> None:
    """A correction (1) and a new object (2), clicked on frame 3 when frame 5 has been; all between is looked at."""
    then, now = played(small_engine, 3), played(small_engine, 6)
    click = {"points": [(30, 30, 1)], "label": "hook"}
    then.prompt(object_id, **click)
    for seq in range(3, 6):
        then.step(frame(seq))
    fork = now.fork([object_id], 3)
    fork.prompt(object_id, **click)
    for seq in range(3, 6):
        fork.step(frame(seq))
    now.adopt(fork)
    late = played(small_engine, 6)
    late.prompt(object_id, **click)
    on_then, on_now, on_late = (t.step(frame(6)) for t in (then, now, late))
    assert on_now.label(object_id) == "hook"
    assert same(on_then, on_now, object_id)
    assert not same(on_then, on_late, object_id)  # the negative control: the same click, three frames late


def test_the_present_is_untouched_until_the_fork_is_adopted(small_engine: TorchEngine) -> None:
    one, other = played(small_engine, 6), played(small_engine, 6)
    fork = one.fork([1, 2], 3)
    fork.prompt(1, points=[(5, 5, 0)])
    fork.prompt(2, points=[(50, 50, 1)])
    fork.step(frame(3))
    assert same(one.step(frame(6)), other.step(frame(6)), 1) and one.ids == (1,)
    one.adopt(fork)
    assert one.ids == (1, 2)


def test_a_fork_of_before_an_object_was_known_knows_it_not(small_engine: TorchEngine) -> None:
    tracker = Tracker(small_engine)
    for seq in range(3):
        tracker.step(frame(seq))
    tracker.prompt(1, points=[(30, 30, 1)])
    tracker.step(frame(3))
    assert tracker.fork([1], 2).ids == () and tracker.fork([1], 4).ids == (1,)


def test_a_fork_of_a_fork_remembers_nothing_that_came_later(small_engine: TorchEngine) -> None:
    """The steps of forks are counted on their own; what is later is told by the frames' own numbers."""
    tracker = played(small_engine, 2)
    for seq in range(2, 14, 2):  # every other frame, as a slow network takes them
        fork = tracker.fork([1], seq)
        fork.prompt(1, points=[(30, 30, 1)])
        fork.step(frame(seq))
        tracker.adopt(fork)
        tracker.step(frame(seq + 1))
    past = tracker.fork([1], 9)._objects[1].bank
    assert max(m.seq for m in past.memories) < 9 and {m.seq for m in past.memories if m.conditioning} == {0, 8}
    steps = [m.step for m in past.memories]
    assert steps == sorted(steps)


def test_there_is_no_room_for_more_than_the_recipe_says(small_engine: TorchEngine) -> None:
    tracker = played(small_engine, 2)
    limit = small_engine.recipe.max_objects
    fork = tracker.fork([], 1)
    for i in range(limit):
        fork.prompt(10 + i, points=[(30, 30, 1)])
    fork.step(frame(1))
    with pytest.raises(PromptError, match=f"{limit} objects are tracked already"):
        tracker.adopt(fork)
    assert tracker.ids == (1,)
