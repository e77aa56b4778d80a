"""The changes of a feed's prompts, which can be undone and made again. All who point at a feed share them."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..base.errors import OutputError
from .prompt_history import ObjectHistory

MOST = 16  # changes that can be undone: each may keep a picture that the history has let go
States = Mapping[int, ObjectHistory | None]  # of some objects, by id; None: it does not exist


@dataclass(frozen=True, slots=True)
class Change:
    """One change in words, and the objects that it changed, before and after it."""

    words: str
    before: States
    after: States


class ChangeLog:
    """The latest changes, and those of them that were undone."""

    def __init__(self) -> None:
        self._done: deque[Change] = deque(maxlen=MOST)
        self._undone: list[Change] = []

    def add(self, words: str, before: States, after: States) -> None:
        """Note a change, after which what was undone before cannot be made again.

        A change of nothing is not noted, nor one without words, which nobody asked for.
        """
        if words and before != after:
            self._done.append(Change(words, before, after))
            self._undone = []

    def undo(self) -> Change:
        """The latest change, which counts as undone from now on; `OutputError` if there is none."""
        if not self._done:
            raise OutputError(f"there is nothing to undo; the latest {MOST} changes of prompts can be undone")
        self._undone.append(self._done.pop())
        return self._undone[-1]

    def redo(self) -> Change:
        """The change that was undone last, which counts as made from now on; `OutputError` if there is none."""
        if not self._undone:
            raise OutputError("there is nothing to make again; what was undone can be, until the next change")
        self._done.append(self._undone.pop())
        return self._done[-1]

    def clear(self) -> None:
        """Forget all: the objects are no longer as the latest change left them."""
        self._done.clear()
        self._undone = []

    def plain(self) -> dict[str, Any]:
        """For the status: what would be undone, and what would be made again, in words; None for nothing."""
        done, undone = self._done, self._undone
        return {"undo": done[-1].words if done else None, "redo": undone[-1].words if undone else None}
