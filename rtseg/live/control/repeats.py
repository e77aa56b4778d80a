"""Requests with a key: each is carried out once, however often it comes, and whoever brings it again."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

_MOST = 256  # keys that are remembered
_WAITING = 8  # who may wait for one answer


@dataclass(slots=True)
class Known:
    """A request that has come. `asked`: what it asks; `answer`: None while it is under way; `waiting`: for it, too."""

    asked: bytes
    answer: dict[str, Any] | None = None
    waiting: list[Any] = field(default_factory=list)


class Repeats:
    """The latest requests with a key, and their answers. Those under way are never forgotten."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Known] = OrderedDict()

    def begin(self, key: str, asked: bytes) -> None:
        """A request is carried out."""
        self._known[key] = Known(asked)
        for old in [old for old, one in self._known.items() if one.answer is not None]:
            if len(self._known) <= _MOST:
                break
            del self._known[old]

    def find(self, key: str) -> Known | None:
        """The request that came with this key before."""
        return self._known.get(key)

    def wait(self, known: Known, ticket: Any) -> bool:
        """Have this ticket answered, too; False if too many wait already."""
        if len(known.waiting) < _WAITING:
            known.waiting.append(ticket)
            return True
        return False

    def answered(self, key: str, answer: dict[str, Any]) -> list[Any]:
        """Remember the answer; returns who waited for it."""
        known = self._known.get(key)
        if known is None:
            return []
        known.answer, waiting = answer, known.waiting
        known.waiting = []
        return waiting
