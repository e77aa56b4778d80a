"""What people have said about a recording: its objects, their prompts, and what is locked. Values that never change.

ahead, behind   frames from which an object is yet to be tracked, forward and backward: each prompt that was not
                carried on yet, and where tracking was stopped
key             tells an object from all others that ever had its id; the store keeps masks by it
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct
from msgspec.structs import replace

from ..base.errors import PromptError
from ..base.prompt import Prompt
from ..base.rle import decode_rle, encode_rle
from ..offline.direction_walk import Direction

Stretch = tuple[int, int]  # the first and the last frame


class GivenPrompt(Struct, frozen=True, omit_defaults=True):
    """All that was pointed at on one frame for one object. `mask`: RLE. `alone`: no other frame helped to find it."""

    points: tuple[tuple[float, float, int], ...] = ()
    box: tuple[float, float, float, float] | None = None
    mask: str | None = None
    alone: bool = True


class Tracked(Struct, frozen=True, omit_defaults=True):
    """One object of a recording."""

    key: int
    id: int
    label: str
    color: tuple[int, int, int] | None = None
    hidden: bool = False
    prompts: dict[int, GivenPrompt] = {}
    locks: tuple[Stretch, ...] = ()
    ahead: tuple[int, ...] = ()
    behind: tuple[int, ...] = ()

    def pending(self, direction: Direction) -> tuple[int, ...]:
        """The frames from which it is yet to be tracked."""
        return self.ahead if direction == "forward" else self.behind

    def locked_until(self, frame: int, direction: Direction) -> int | None:
        """The last frame, in a direction, of the locked stretch around a frame; None if it is not locked."""
        found = next((lock for lock in self.locks if lock[0] <= frame <= lock[1]), None)
        return None if found is None else found[1 if direction == "forward" else 0]


class State(Struct, frozen=True):
    """All objects, by id."""

    objects: tuple[Tracked, ...] = ()

    def find(self, object_id: int) -> Tracked | None:
        """The object with an id, if there is one."""
        return next((each for each in self.objects if each.id == object_id), None)

    def get(self, object_id: int) -> Tracked:
        """The object with an id; `PromptError` if there is none."""
        found = self.find(object_id)
        if found is None:
            known = ", ".join(str(each.id) for each in self.objects) or "none"
            raise PromptError(f"no object {object_id} is in this recording; there are: {known}")
        return found

    def put(self, *changed: Tracked) -> State:
        """The state with these objects, new or in place of those with their keys."""
        kept = {each.key: each for each in self.objects} | {each.key: each for each in changed}
        return State(tuple(sorted(kept.values(), key=lambda each: each.id)))

    def without(self, object_id: int) -> State:
        """The state without an object; `PromptError` if there is none."""
        gone = self.get(object_id)
        return State(tuple(each for each in self.objects if each.key != gone.key))


def prompt_of(object_id: int, given: GivenPrompt, size: tuple[int, int]) -> Prompt:
    """A kept prompt, as the tracker takes it. `size`: height and width of the frame."""
    mask_hw = None if given.mask is None else decode_rle(given.mask.encode("ascii"), *size)
    return Prompt(object_id, given.points, given.box, mask_hw)


def given_of(prompt: Prompt, alone: bool) -> GivenPrompt:
    """A prompt as it is kept."""
    mask = None if prompt.mask is None else encode_rle(prompt.mask).decode("ascii")
    return GivenPrompt(prompt.points, prompt.box, mask, alone)


def with_prompt(each: Tracked, frame: int, given: GivenPrompt) -> Tracked:
    """An object with a prompt on a frame, which is yet to be carried both ways."""
    ahead, behind = ({*pending, frame} for pending in (each.ahead, each.behind))
    return replace(
        each, prompts={**each.prompts, frame: given}, ahead=tuple(sorted(ahead)), behind=tuple(sorted(behind))
    )


def with_lock(each: Tracked, stretch: Stretch, on: bool) -> Tracked:
    """An object with a stretch locked, or unlocked. Stretches that touch become one."""
    first, last = stretch
    pieces = [
        piece
        for a, b in each.locks
        for piece in ((a, min(b, first - 1)), (max(a, last + 1), b))
        if piece[0] <= piece[1]
    ]
    joined: list[Stretch] = []
    for piece in sorted([*pieces, stretch] if on else pieces):
        if joined and piece[0] <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], piece[1]))
        else:
            joined.append(piece)
    return replace(each, locks=tuple(joined))


def with_pending(each: Tracked, direction: Direction, frames: Iterable[int]) -> Tracked:
    """An object that is yet to be tracked from these frames, in a direction."""
    pending = tuple(sorted(set(frames)))
    return replace(each, ahead=pending) if direction == "forward" else replace(each, behind=pending)
