"""The client of a feed's control socket: one method for each request, which returns the feed's answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ...base.errors import OutputError
from ...base.rle import decode_rle
from ...base.types import BoolMask, Prompt
from .connection import Connection
from .verbs import (
    Add,
    Correct,
    Get,
    Hold,
    Look,
    Memory,
    Pause,
    Preview,
    Redo,
    Remove,
    Rename,
    Reset,
    Resume,
    Set,
    Shutdown,
    Status,
    TakeSnapshot,
    Undo,
)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A frame of a feed with its masks.

    Attributes:
        seq: the number of the frame.
        png: the original picture, as PNG.
        mask_seq: the frame that the masks were made from; None if there are none.
        objects: `{id, label, rle, height, width}` of each object.
    """

    seq: int
    png: bytes = field(repr=False)
    mask_seq: int | None
    objects: tuple[dict[str, Any], ...] = field(repr=False)

    def masks(self) -> dict[int, BoolMask]:
        """The masks by object id, bool [H, W]; `OutputError` if one is broken."""
        return {thing["id"]: decode_rle(thing["rle"], thing["height"], thing["width"]) for thing in self.objects}


@dataclass(frozen=True, slots=True)
class Proposal:
    """The answer to a preview.

    Attributes:
        id: the object.
        seq: the number of the frame.
        mask_hw: the mask that the prompt would give, bool [H, W].
        score: the probability that the object is visible there.
        iou: the network's own estimate of the mask's IoU.
        warnings: lines about an object that is too small to be tracked well.
    """

    id: int
    seq: int
    mask_hw: BoolMask = field(repr=False)
    score: float
    iou: float
    warnings: tuple[str, ...]


class Client(Connection):
    """Controls a running feed. Thread-safe, one request after the other; a context manager.

    Every method waits for the feed's answer. It raises `PromptError` if a prompt was refused, and `OutputError` if
    there was no answer in time or anything else was refused.
    """

    def add(
        self,
        id: int,
        points: Sequence[Sequence[float]] = (),
        box: tuple[float, float, float, float] | None = None,
        mask: BoolMask | None = None,
        label: str | None = None,
        seq: int | None = None,
        session: str | None = None,
    ) -> dict[str, Any]:
        """Track a new object.

        Arguments:
            id: the object's id, 1 to 255.
            points: (x, y, 1 for object or 0 for background), in pixels of the frame.
            box: (x0, y0, x1, y1), in pixels.
            mask: bool [H, W], of the frame's size.
            label: the object's name.
            seq: the frame that was pointed at: one of the latest 64, or one that is held; None is the newest. The feed
                applies the prompt to that frame, and catches up to now.
            session: the session of that frame; a frame of another session is refused.

        Returns:
            The feed's answer: `id` and `seq`.
        """
        return self.ask(Add(Prompt(id, points, box, mask, label), seq, session))

    def correct(
        self,
        id: int,
        points: Sequence[Sequence[float]] = (),
        box: tuple[float, float, float, float] | None = None,
        mask: BoolMask | None = None,
        label: str | None = None,
        seq: int | None = None,
        session: str | None = None,
    ) -> dict[str, Any]:
        """Give another prompt for an object that is tracked; arguments and result as for `add`."""
        return self.ask(Correct(Prompt(id, points, box, mask, label), seq, session))

    def preview(
        self,
        id: int,
        points: Sequence[Sequence[float]] = (),
        box: tuple[float, float, float, float] | None = None,
        mask: BoolMask | None = None,
        seq: int | None = None,
        session: str | None = None,
    ) -> Proposal:
        """The mask that `add` or `correct` would give on that frame. Nothing changes, and the frame is held."""
        found = self.ask(Preview(Prompt(id, points, box, mask), seq, session))
        try:
            mask_hw = decode_rle(found["rle"], found["height"], found["width"])
            warnings = tuple(found["warnings"])
            return Proposal(found["id"], found["seq"], mask_hw, found["score"], found["iou"], warnings)
        except (KeyError, TypeError) as e:
            raise OutputError(f"{self._endpoint}: a preview without {e}; is this rtseg live?") from e

    def hold(self, seq: int | None = None, session: str | None = None) -> dict[str, Any]:
        """Keep a frame for a prompt that comes later than 64 frames; the feed holds the latest eight.

        The network encodes it at once, so that the first preview on it comes sooner.

        Returns the feed's answer: `seq` and `session`.
        """
        return self.ask(Hold(seq, session))

    def memory(self) -> list[dict[str, Any]]:
        """What the memory bank of each object holds.

        Returns:
            For each object `id`, `pointers` (their number), `memories` (oldest first: `seq`, `conditioning`, `pinned`,
            `score`, `iou`, `similarity` to the newest), and `dropped` (the latest eight, newest first: `seq`, `why`).
        """
        return list(self.ask(Memory())["objects"])

    def remove(self, id: int) -> dict[str, Any]:
        """Stop tracking an object."""
        return self.ask(Remove(id))

    def rename(self, id: int, label: str) -> dict[str, Any]:
        """Give an object another label; its memory stays."""
        return self.ask(Rename(id, label))

    def look(self, id: int, color: tuple[int, int, int] | None = None, hidden: bool | None = None) -> dict[str, Any]:
        """Change how an object is drawn: its colour (red, green, blue, 0 to 255), and whether it is hidden."""
        return self.ask(Look(id, color, hidden))

    def undo(self) -> dict[str, Any]:
        """Take the last change of prompts back, whoever made it; `undone` says what that was."""
        return self.ask(Undo())

    def redo(self) -> dict[str, Any]:
        """Make the change again that was taken back last; `redone` says what that was."""
        return self.ask(Redo())

    def reset(self) -> dict[str, Any]:
        """Stop tracking all objects."""
        return self.ask(Reset())

    def pause(self) -> dict[str, Any]:
        """Pause the network; the video continues."""
        return self.ask(Pause())

    def resume(self) -> dict[str, Any]:
        """End a pause."""
        return self.ask(Resume())

    def snapshot(self, seq: int | None = None) -> Snapshot:
        """The original picture of frame `seq`, one of the latest 64 (None: the newest), and its masks."""
        found = self.ask(TakeSnapshot(seq))
        try:
            return Snapshot(found["seq"], found["png"], found["mask_seq"], tuple(found["objects"]))
        except (KeyError, TypeError) as e:
            raise OutputError(f"{self._endpoint}: a snapshot without {e}; is this rtseg live?") from e

    def get(self) -> dict[str, Any]:
        """The current values of what `set` changes: `opacity` and `budget_ms`."""
        return self.ask(Get())

    def set(self, opacity: float | None = None, budget_ms: float | None = None) -> dict[str, Any]:
        """Change how masks are drawn: `opacity` 0 to 1, mask budget 1 to 10,000 ms; None leaves a value unchanged."""
        return self.ask(Set(opacity, budget_ms))

    def status(self) -> dict[str, Any]:
        """The feed's status, as it is published."""
        return self.ask(Status())

    def shutdown(self) -> dict[str, Any]:
        """End the feed in an orderly way."""
        return self.ask(Shutdown())
