"""What reading a source has found: how many frames are shown, and what was skipped, repaired or assumed.

A source owns its account and updates it while it is read. `segment`, `eval`, the check of the prompts, `live` and the
recorder read it, and `run.json` contains it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

MOST_GAPS = 1000  # listed; the others are only counted


@dataclass(frozen=True, slots=True)
class Gap:
    """A gap in a source: `before` is the number of the first frame after it, `seconds` that frame's time.

    `lost` is how many frames are missing, None if unknown; `why` is the reason in a few words.
    """

    before: int
    seconds: float
    lost: int | None
    why: str


@dataclass(frozen=True, slots=True)
class PartStart:
    """Where a file of a recording in several files begins: `first` is the number of its first frame.

    `offset_s` is how much later its times are in the recording than in the file.
    """

    name: str
    first: int
    seconds: float
    offset_s: float = 0.0


@dataclass(slots=True)
class Account:
    """What reading has found about one source so far.

    Attributes:
        declared: frames that its header declares.
        count: frames that reading it will give; None if that is known only afterwards.
        shown: frames that were given so far.
        leading: frames before the first key frame, which cannot be decoded.
        damaged: frames that could not be decoded.
        gaps: where frames are missing.
        start_s: the source's own time of its first frame, in seconds.
        repaired: by name, what was wrong in the source and was corrected.
        assumed: by name, what the source does not state and was assumed.
        parts: where each of several files begins.
        ended: why it ended early; "" if it did not.
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
        """Reset what reading found, because the source is read from its start again."""
        self.shown = self.leading = self.damaged = 0
        self.gaps, self.parts, self.start_s, self.ended = [], [], 0.0, ""

    def gap(self, gap: Gap) -> None:
        """Count a gap, and list it."""
        self.damaged += gap.lost or 1
        if len(self.gaps) < MOST_GAPS:
            self.gaps.append(gap)

    def plain(self) -> dict[str, Any]:
        """All of it as plain values, for `run.json`."""
        return asdict(self)

    def lines(self) -> list[str]:
        """A line for each thing that a user should know; an empty list for a source without faults or assumptions."""
        found = [f"skipped {self.leading} leading frames, which precede the first key frame"] if self.leading else []
        if self.gaps:
            first = self.gaps[0]
            found.append(f"skipped {self.damaged} damaged frames; the first before frame {first.before} ({first.why})")
        found += [f"repaired {name}: {text}" for name, text in self.repaired.items()]
        found += [f"assumed {name}: {text}" for name, text in self.assumed.items()]
        return found + ([f"ended early: {self.ended}"] if self.ended else [])
