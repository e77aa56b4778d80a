"""What a source turned out to hold: how many frames are shown, and what was skipped, repaired or assumed on the way.

A source owns its account and writes it while it is read. Everybody else reads it: `segment`, `eval`, the check of the
prompts, `live` and the recorder; it goes into `run.json` as it is.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

MOST_GAPS = 1000  # that are listed; more are counted


@dataclass(frozen=True, slots=True)
class Gap:
    """Frames that are missing: `before` is the number of the first frame after them, `seconds` its own time.

    `lost` is how many are missing, None where nobody can say; `why` in a few words.
    """

    before: int
    seconds: float
    lost: int | None
    why: str


@dataclass(frozen=True, slots=True)
class PartStart:
    """Where one of the files begins that are one recording: `first` is the number of its first frame."""

    name: str
    first: int
    seconds: float


@dataclass(slots=True)
class Account:
    """What is true of a source, as far as it is known by now.

    `declared`: frames that its header promises; `count`: frames that reading it will show, known before it is read
    (None: only reading it tells); `shown`: frames that were handed on; `leading`: frames before the first key frame,
    which cannot be decoded; `start_s`: the source's own time of its first frame; `ended`: why it ended before its end,
    "" if it did not. `repaired` and `assumed` say by name what was changed, and what was taken for granted.
    `parts`: where each of several files begins.
    """

    declared: int | None = None
    count: int | None = None
    shown: int = 0
    leading: int = 0
    damaged: int = 0
    gaps: list[Gap] = field(default_factory=list)
    start_s: float = 0.0
    repaired: dict[str, str] = field(default_factory=dict)
    assumed: dict[str, str] = field(default_factory=dict)
    parts: list[PartStart] = field(default_factory=list)
    ended: str = ""

    def begin(self) -> None:
        """The source is read from its start again; what it promises stays, and what was taken for granted."""
        self.shown = self.leading = self.damaged = 0
        self.gaps, self.parts, self.start_s, self.ended = [], [], 0.0, ""

    def gap(self, gap: Gap) -> None:
        """Count a gap, and list it."""
        self.damaged += gap.lost or 1
        if len(self.gaps) < MOST_GAPS:
            self.gaps.append(gap)

    def plain(self) -> dict[str, Any]:
        """For `run.json`: all of it, as plain values."""
        return asdict(self)

    def lines(self) -> list[str]:
        """What a person has to know, a line each; none where the source was whole and said everything itself."""
        found = [f"skipped {self.leading} leading frames, which precede the first key frame"] if self.leading else []
        if self.gaps:
            first = self.gaps[0]
            found.append(f"skipped {self.damaged} damaged frames; the first before frame {first.before} ({first.why})")
        found += [f"repaired {name}: {text}" for name, text in self.repaired.items()]
        found += [f"assumed {name}: {text}" for name, text in self.assumed.items()]
        return found + ([f"ended early: {self.ended}"] if self.ended else [])
