"""Where a pass of the tracker over a recording begins and ends, and what it may write. Pure functions.

A pass begins, for each object, at the first frame from which it is yet to be tracked. It never writes a prompted or a
locked frame. It takes a person's word instead: the mask of a prompt, and the last mask of a locked stretch, are given
to the tracker. Where the pass reaches a prompt that was carried on before, the stretch behind it is already the best
there is, and the object leaves the pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..base.errors import PromptError
from ..offline.direction_walk import Direction, Walk
from .recording_state import State, Tracked, with_pending

Task = Literal["wait", "start", "give", "hold", "resume", "track", "leave"]
MOST_PRIMED = 2  # other prompted frames that the tracker is shown before an object's start


@dataclass(frozen=True, slots=True)
class Journey(Walk):
    """A pass, and the start of each object in it, by key."""

    starts: dict[int, int]


def plan(state: State, direction: Direction, count: int, to: int | None = None) -> Journey | None:
    """The pass that carries on every prompt that was not carried on yet, up to frame `to`; None: there is none.

    Raises `PromptError` without any prompt, and for a frame that does not exist.
    """
    if to is not None and not 0 <= to < count:
        raise PromptError(f"track: to = {to}; expected a frame from 0 to {count - 1}")
    if not any(each.prompts for each in state.objects):
        raise PromptError("track: no object is prompted; point at one first")
    forward = direction == "forward"
    last = to if to is not None else count - 1 if forward else 0
    starts = {}
    for each in state.objects:
        pending = [at for at in each.pending(direction) if (at < last if forward else at > last)]
        if pending:
            starts[each.key] = min(pending) if forward else max(pending)
    if not starts:
        return None
    first = min(starts.values()) if forward else max(starts.values())
    return Journey(direction, first, last, starts)


def task(each: Tracked, frame: int, journey: Journey) -> Task:
    """What a pass does with an object on a frame.

    wait: it has not begun. start: it begins. give: the mask of a prompt is given to the tracker. hold: the frame is
    locked, and kept. resume: likewise, and its mask is given, for the locked stretch ends here. track: the tracker's
    mask is written. leave: the object is done.
    """
    start = journey.starts[each.key]
    if journey.is_past(start, frame):
        return "wait"
    if frame == start:
        return "start"
    if frame in each.prompts:
        return "give" if frame in each.pending(journey.direction) else "leave"
    until = each.locked_until(frame, journey.direction)
    if until is None:
        return "track"
    return "resume" if frame == until else "hold"


def primers(each: Tracked, frame: int, direction: Direction | None) -> list[int]:
    """The prompted frames that tell most about an object before it is looked for on a frame.

    Before it in the direction of a pass: the first and the nearest one, as a memory bank keeps them. With None, the
    nearest on either side.
    """
    if direction is None:
        return sorted(sorted((at for at in each.prompts if at != frame), key=lambda at: abs(at - frame))[:MOST_PRIMED])
    before = sorted(at for at in each.prompts if (at < frame if direction == "forward" else at > frame))
    if direction == "backward":
        before.reverse()
    return before if len(before) <= MOST_PRIMED else [before[0], *before[1 - MOST_PRIMED :]]


def passed(each: Tracked, journey: Journey, frame: int, *, goes_on: bool) -> Tracked:
    """An object after a pass has done a frame. `goes_on`: it could be tracked from there on."""
    left = [at for at in each.pending(journey.direction) if journey.is_past(at, frame)]
    return with_pending(each, journey.direction, [*left, frame] if goes_on else left)
