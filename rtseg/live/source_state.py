"""The source of a feed as its supervisor knows it: its state, its account, and the events that users see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..base.types import now_ns
from .counters import CumulativeCounters
from .ipc.reports import SourceAccount, SourceOpened, SourceReport

TOLD = {"resized", "too_fast", "pts_jumps", "misfits"}  # counts whose rise is an event
FIRST_NS, LONGEST_NS = 5_000_000_000, 60_000_000_000  # between two lines about a source without pictures
Note = Callable[[str, str, str], None]


class SourceState:
    """`facts`, for the status: uri, state, why, crop, and counts over all processes of the grab worker.

    `account`: what a recording turned out to hold. `ended_ns`: when the source ended; 0 before that. `size`: height and
    width of the pictures, if known.
    """

    def __init__(self, note: Note) -> None:
        """`note` is called with the kind, role and text of each event."""
        self._note = note
        self.facts: dict[str, Any] = {"uri": "", "state": "opening", "why": "", "counts": {}}
        self.account: dict[str, Any] = {}
        self.size: tuple[int, int] | None = None
        self.ended_ns = 0
        self._counters = CumulativeCounters()
        self._next_ns, self._pause_ns, self._since_ns = now_ns() + FIRST_NS, FIRST_NS, now_ns()

    @property
    def state(self) -> str:
        return str(self.facts["state"])

    @property
    def counts(self) -> dict[str, Any]:
        return dict(self.facts["counts"])

    @property
    def description(self) -> str:
        """The source's state, and the reason for it."""
        return f"{self.state} ({self.facts['why']})" if self.facts["why"] else self.state

    @property
    def live(self) -> bool:
        return bool(self.facts.get("live"))

    def opened(self, message: SourceOpened) -> None:
        """The grab worker is up."""
        self.facts = {**self.facts, "uri": message.uri, "live": message.live}
        if self.live:
            self._note("source", "grab", f"connecting to {self.facts['uri']}")

    def reported(self, report: SourceReport) -> bool:
        """Handle a report of the worker; returns whether it says that the source has ended."""
        before, counts, description = self.counts, self._counters.update(report.counts), self.description
        self.facts = {**self.facts, "state": report.state, "why": report.why, "counts": counts}
        if self.description != description:
            self._note("source", "grab", self.description)
            self._restart_reminder()
        for name in sorted(TOLD & counts.keys()):
            if counts[name] > before.get(name, 0):
                self._note("source", "grab", f"{name} {counts[name]}")
        if report.crop and report.crop != self.facts.get("crop"):
            self._note("source", "grab", f"cropped to {report.crop}")
        self.facts = {**self.facts, "crop": report.crop}
        ended = report.state == "ended" and not self.ended_ns
        self.ended_ns = self.ended_ns or (now_ns() if ended else 0)
        return ended

    def accounted(self, message: SourceAccount) -> None:
        """Handle an account of the worker; each new line of it becomes one event."""
        for line in message.lines:
            if line not in self.account.get("lines", ()):
                self._note("source", "grab", line)
        self.account = {**message.account, "lines": list(message.lines)}

    def lost(self, why: str) -> None:
        """The process of the grab worker has ended."""
        self._counters.restart()
        self.facts = {**self.facts, "state": "lost", "why": why}

    def remind(self, waits_for: str) -> None:
        """Note, at growing intervals, that no picture comes. `waits_for` is what the start waits for, or ""."""
        if self.state in ("running", "frozen", "ended") and not waits_for:
            self._restart_reminder()
        elif now_ns() > self._next_ns:
            seconds, why = (now_ns() - self._since_ns) / 1e9, self.facts["why"]
            what = f"waiting for {waits_for}" if waits_for else f"still {self.state}"
            self._note("source", "grab", f"{what} after {seconds:.0f} s" + (f" ({why})" if why else ""))
            self._pause_ns = min(2 * self._pause_ns, LONGEST_NS)
            self._next_ns = now_ns() + self._pause_ns

    def _restart_reminder(self) -> None:
        self._since_ns, self._pause_ns = now_ns(), FIRST_NS
        self._next_ns = self._since_ns + FIRST_NS
