"""Two objects on one thing: who keeps it."""

from __future__ import annotations

import numpy as np
import pytest

from rtseg.engine import ABSENT_LOGIT
from rtseg.track.answer import Answer
from rtseg.track.overlaps import Overlaps

LEFT, RIGHT = (slice(2, 10), slice(1, 6)), (slice(2, 10), slice(9, 15))
HIDDEN = (slice(0, 0), slice(0, 0))


def answer(*places: tuple[slice, slice], certain: tuple[float, ...] = ()) -> Answer:
    """Masks at these places of a 16 x 16 map."""
    logits_bhw = np.full((len(places), 16, 16), ABSENT_LOGIT, np.float32)
    for row, place in enumerate(places):
        logits_bhw[row][place] = 5
    ious = np.array(certain or [0.9] * len(places), np.float32)
    return Answer(logits_bhw, np.ones(len(places), np.float32), ious)


def settled(*steps: tuple[set[int], Answer], ids: tuple[int, ...] = (1, 2)) -> list[set[int]]:
    """The ids that are absent in each step; a step is what is prompted, and the answer."""
    overlaps, found = Overlaps(), []
    for prompted, one in steps:
        overlaps, absent = overlaps.settle(ids, prompted, one)
        found.append(absent)
    return found


def test_the_object_that_was_there_keeps_its_mask() -> None:
    jumped = answer(RIGHT, RIGHT, certain=(0.99, 0.5))
    assert settled(({1, 2}, answer(LEFT, RIGHT)), (set(), jumped)) == [set(), {1}]
    assert not jumped.is_visible(0) and jumped.is_visible(1)
    assert jumped.scores_b[0] == 0 and jumped.ious_b[0] == 0


def test_an_object_that_gave_way_does_not_come_back_by_itself() -> None:
    jump = [(set[int](), answer(RIGHT, RIGHT, certain=(0.99, 0.5))) for _ in range(3)]
    assert settled(({1, 2}, answer(LEFT, RIGHT)), *jump) == [set(), {1}, {1}, {1}]


def test_masks_that_only_touch_are_left_alone() -> None:
    wide = (slice(2, 10), slice(4, 15))  # a third of it is on the other
    assert settled(({1, 2}, answer(LEFT, RIGHT)), (set(), answer(LEFT, wide))) == [set(), set()]


def test_where_neither_was_there_the_more_certain_one_is_visible() -> None:
    first = ({1, 2}, answer(LEFT, RIGHT))
    away = (set[int](), answer(HIDDEN, HIDDEN))
    assert settled(first, away, (set(), answer(LEFT, LEFT, certain=(0.4, 0.8))))[-1] == {1}
    assert settled(first, away, (set(), answer(LEFT, LEFT, certain=(0.8, 0.4))))[-1] == {2}


def test_objects_that_are_prompted_alike_may_coincide_for_good() -> None:
    alike = (set[int](), answer(LEFT, LEFT))
    assert settled(({1, 2}, answer(LEFT, LEFT)), alike, alike) == [set(), set(), set()]


def test_a_new_prompt_leaves_an_object_that_was_never_out_of_sight() -> None:
    alike = (set[int](), answer(LEFT, LEFT))
    assert settled(({1}, answer(LEFT, HIDDEN)), ({2}, answer(LEFT, LEFT)), alike) == [set(), set(), set()]


def test_a_new_prompt_is_right_before_an_object_that_was_out_of_sight() -> None:
    away, back = (set[int](), answer(HIDDEN, HIDDEN)), (set[int](), answer(RIGHT, HIDDEN))
    assert settled(({1}, answer(LEFT, HIDDEN)), away, back, ({2}, answer(RIGHT, RIGHT)))[-1] == {1}


def test_three_on_one_thing_leave_one() -> None:
    ids = (1, 2, 3)
    first = ({1, 2, 3}, answer(LEFT, HIDDEN, RIGHT))
    (_, absent) = settled(first, (set(), answer(RIGHT, RIGHT, RIGHT)), ids=ids)
    assert absent == {1, 2}


def test_an_object_that_is_removed_leaves_nothing_behind() -> None:
    overlaps, _ = Overlaps().settle((1, 2), {1, 2}, answer(LEFT, LEFT))
    left = overlaps.without(2)
    assert left.allowed == frozenset() and set(left.masks) == {1} and left.sure == {1}


@pytest.mark.parametrize("prompted", [set(), {1}])
def test_adopted_objects_count_as_prompted(prompted: set[int]) -> None:
    """A person may give two objects alike through two forks."""
    fork, _ = Overlaps().settle((2,), {2}, answer(LEFT))
    overlaps, _ = Overlaps().settle((1,), {1}, answer(LEFT))
    _, absent = overlaps.with_objects(fork, (2,)).settle((1, 2), prompted, answer(LEFT, LEFT))
    assert absent == set()


def test_a_small_prompt_is_right_before_an_object_that_jumped_there_first() -> None:
    """The mask that was given is less than half of the jumped one, so nothing is settled on that frame."""
    small = (slice(2, 10), slice(9, 13))
    tall = (slice(0, 16), slice(9, 15))
    away, back = (set[int](), answer(HIDDEN, HIDDEN)), ({2}, answer(tall, small))
    assert settled(({1}, answer(LEFT, HIDDEN)), away, back, (set(), answer(RIGHT, RIGHT)))[-2:] == [set(), {1}]
