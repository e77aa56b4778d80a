"""How a feed ended: its faults, by part.

A fault is a problem that remains at the end: a worker that did not come back or had to be killed, a recording that is
incomplete, prompts that were discarded. What the feed recovered from, such as a worker that was restarted, is an event.
"""

from __future__ import annotations

from ..base import ending
from ..base.errors import RtsegError

REFUSED = 2  # exit code
MINOR = ("record", "prompts")  # parts without which the feed works as before


class Ending(ending.Ending):
    """The faults of a feed. `refusal`: the error that makes it impossible to play, which `run` raises."""

    def __init__(self) -> None:
        super().__init__()
        self.refusal: RtsegError | None = None
        self._first: dict[str, str] = {}

    def add(self, part: str, text: str) -> bool:
        """Add a fault, once; returns whether it is new."""
        line, known = " ".join(text.split()), len(self.faults)
        self.wrong(f"{part}: {line}")
        self._first.setdefault(part, line)
        return len(self.faults) > known

    def refuse(self, part: str, error: RtsegError) -> None:
        """Refuse to play the feed; of several errors the first counts."""
        self.add(part, str(error))
        self.refusal = self.refusal or error

    @property
    def failed(self) -> bool:
        """Whether a part that the feed needs has failed."""
        return bool(self._first.keys() - set(MINOR))

    @property
    def code(self) -> int:
        return super().code if self.refusal is None else REFUSED

    @property
    def line(self) -> str:
        return super().line if self.refusal is None else " ".join(str(self.refusal).split())

    def plain(self) -> dict[str, str]:
        """For the status and the report: the first fault of each part."""
        return dict(self._first)
