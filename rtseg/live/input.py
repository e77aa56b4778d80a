"""The source of a feed as its supervisor knows it: its state, its account, and what is said of it to people."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..base.types import now_ns
from .tally import Tally

NEWS = {"resized", "too_fast", "pts_jumps", "misfits"}  # counts that are told when they rise
FIRST_NS, LONGEST_NS = 5_000_000_000, 60_000_000_000  # between two lines about a source that is not there yet
Note = Callable[[str, str, str], None]


class Input:
    """`facts` is for the status: uri, state, why, crop, counts over all lives of the process, and the account.

    `ended_ns`: when the last frame had come; 0 before that.
    """

    def __init__(self, note: Note) -> None:
        self._note = note
        self.facts: dict[str, Any] = {"uri": "", "state": "opening", "why": "", "counts": {}}
        self.account: dict[str, Any] = {}
        self.ended_ns = 0
        self._counts = Tally()
        self._next_ns, self._pause_ns, self._since_ns = now_ns() + FIRST_NS, FIRST_NS, now_ns()

    @property
    def state(self) -> str:
        return str(self.facts["state"])

    @property
    def words(self) -> str:
        """Its state, and why."""
        return f"{self.state} ({self.facts['why']})" if self.facts["why"] else self.state

    @property
    def live(self) -> bool:
        return bool(self.facts.get("live"))

    def opened(self, facts: dict[str, Any]) -> None:
        """The process of the source is there."""
        self.facts = {**self.facts, **facts}
        if self.live:
            self._note("source", "grab", f"connecting to {self.facts['uri']}")

    def heard(self, state: str, why: str, crop: list[int] | None, counts: dict[str, int]) -> bool:
        """Take in what the process says of its source; whether it has ended with that."""
        before, told = self.facts["counts"], self._counts.heard(counts)
        was = self.words
        self.facts = {**self.facts, "state": state, "why": why, "counts": told}
        if self.words != was:
            self._note("source", "grab", self.words)
            self._again()
        for name in sorted(NEWS & told.keys()):
            if told[name] > before.get(name, 0):
                self._note("source", "grab", f"{name} {told[name]}")
        if crop and crop != self.facts.get("crop"):
            self._note("source", "grab", f"cropped to {crop}")
        self.facts = {**self.facts, "crop": crop}
        ended = state == "ended" and not self.ended_ns
        self.ended_ns = self.ended_ns or (now_ns() if ended else 0)
        return ended

    def accounted(self, account: dict[str, Any], lines: list[str]) -> None:
        """What the source turned out to hold, so far; each line is said once."""
        for line in lines:
            if line not in self.account.get("lines", ()):
                self._note("source", "grab", line)
        self.account = {**account, "lines": lines}

    def lost(self, why: str) -> None:
        """Its process is gone."""
        self._counts.died()
        self.facts = {**self.facts, "state": "lost", "why": why}

    def turn(self, waits_for: str) -> None:
        """Say again, less and less often, that there is no picture, and what is waited for."""
        if self.state in ("running", "frozen", "ended") and not waits_for:
            self._again()
        elif now_ns() > self._next_ns:
            seconds, why = (now_ns() - self._since_ns) / 1e9, self.facts["why"]
            what = f"waiting for {waits_for}" if waits_for else f"still {self.state}"
            self._note("source", "grab", f"{what} after {seconds:.0f} s" + (f" ({why})" if why else ""))
            self._pause_ns = min(2 * self._pause_ns, LONGEST_NS)
            self._next_ns = now_ns() + self._pause_ns

    def _again(self) -> None:
        self._since_ns, self._pause_ns = now_ns(), FIRST_NS
        self._next_ns = self._since_ns + FIRST_NS
