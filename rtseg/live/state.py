"""What state a feed is in: one word, from what its processes last said."""

from __future__ import annotations

from dataclasses import dataclass

from .board import Board

SLOW_NS = 4_000_000_000  # longer than a network takes to come back


@dataclass(slots=True)
class Facts:
    """What the supervisor knows at a moment. `source` is the source's own state; `failed` what will not come back.

    `absent`: there is no network just now; `recovering`: its objects are being restored.
    """

    source: str = "opening"
    paused: bool = False
    absent: bool = False
    recovering: bool = False
    failed: bool = False
    over: bool = False


def state_of(facts: Facts) -> str:
    """The worst news first: that there is no picture matters more than that there are no masks."""
    if facts.over:
        return "ended"
    if facts.source not in ("running", "ended"):
        return facts.source
    if facts.failed:
        return "failed"
    if facts.absent:
        return "recovering"
    if facts.paused:
        return "paused"
    return "recovering" if facts.recovering else facts.source


def has_recovered(board: Board, newest_ns: int, since_ns: int, budget_ms: float) -> bool:
    """Whether there are masks of a frame captured after `since_ns`, and fresh on the newest frame.

    Or, where the network is too slow for that, whether there still are such masks after a few seconds: then each frame
    says itself how old its masks are.
    """
    masks_ns = board["masks captured_ns"]
    return masks_ns > since_ns and (newest_ns - masks_ns <= budget_ms * 1e6 or masks_ns - since_ns > SLOW_NS)
