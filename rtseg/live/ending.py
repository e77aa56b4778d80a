"""How a feed ended. What it got over (a process that was killed, and came back) is an event, and no fault.

A fault is what still stands at the end: a part that is gone for good or had to be killed, a recording that is not
whole, prompts that were let go.
"""

from __future__ import annotations

from ..base import ending
from ..base.errors import RtsegError

REFUSED = 2  # exit code
MINOR = ("record", "prompts")  # whose faults are loud, and leave the feed what it is


class Ending(ending.Ending):
    """The list, by parts of the feed. `refusal` is why it cannot be played at all: it is what `run` raises."""

    def __init__(self) -> None:
        super().__init__()
        self.refusal: RtsegError | None = None
        self._first: dict[str, str] = {}

    def add(self, part: str, text: str) -> bool:
        """Take down a fault, once; whether it is new."""
        line, known = " ".join(text.split()), len(self.faults)
        self.wrong(f"{part}: {line}")
        self._first.setdefault(part, line)
        return len(self.faults) > known

    def refuse(self, part: str, error: RtsegError) -> None:
        """The feed cannot begin; the first reason counts."""
        self.add(part, str(error))
        self.refusal = self.refusal or error

    @property
    def failed(self) -> bool:
        """Whether the feed is not what it should be any more, and not only one of its extras."""
        return bool(self._first.keys() - set(MINOR))

    @property
    def code(self) -> int:
        return super().code if self.refusal is None else REFUSED

    @property
    def line(self) -> str:
        return super().line if self.refusal is None else " ".join(str(self.refusal).split())

    def plain(self) -> dict[str, str]:
        """For the status and the report: of each part, what went wrong first."""
        return dict(self._first)
