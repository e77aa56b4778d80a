"""What is done while the masks of a feed are too old for their budget, as far as its profile allows, and what is said.

The network may see a smaller picture (`least_image_size`), and masks may be moved along with the picture between the
segmented frames (`carry`). Neither makes a mask younger than it is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..base.types import now_ns
from ..engine.reach import SIDES, advice, needed_ms, size_for
from .behind import Behind, Keeping

if TYPE_CHECKING:
    from .supervisor import Feed

MORE, BESIDE = 0.2, 1.2  # of a step: what another object adds, and what the feed's other processes do
PATIENCE_NS = 2_000_000_000  # beyond the seconds that are looked at: what passes by itself is left alone


class Remedy:
    """Watches one feed. `recipe` is what its network is opened with: the profile's, or a smaller one."""

    def __init__(self, feed: Feed) -> None:
        self._feed, self.recipe, self._larger = feed, feed.profile.engine, feed.profile.engine
        self._keeping = Keeping(feed.board)
        self._was = False
        self._said: dict[str, Any] = {}  # of the worst seconds

    @property
    def now(self) -> Behind | None:
        return self._keeping.now

    def turn(self) -> None:
        """Look, and do what is due."""
        feed, keeping = self._feed, self._keeping
        if feed.facts.recovering or feed.facts.paused or not feed.children["segment"].up:
            keeping.start_again()
            return
        keeping.look(feed.frames.head, feed.profile.target_fps)
        now = keeping.now
        if (now is not None) != self._was:
            self._was = now is not None
            feed.note("behind" if now else "keeps up", "segment", _text(now) if now else "its masks are fresh again")
        if now is not None:
            if now is keeping.worst:
                self._said = {**now.plain(), "image_size": self.recipe.image_size, "advice": self._advice(now)}
            if now_ns() - keeping.since_ns > PATIENCE_NS and self._may_shrink():
                self._shrink(now.step_ms, needed_ms(feed.settings["budget_ms"], now.wanted_fps))

    def ready(self, step_ms: float) -> None:
        """The network is there, and a step of one object takes so long: before the first frame, a long one is known."""
        feed = self._feed
        step_ms *= (1 + MORE * (len(feed.profile.objects) - 1)) * BESIDE if feed.profile.objects else BESIDE
        allowed_ms = needed_ms(feed.settings["budget_ms"], feed.profile.target_fps)
        if not feed.began_ns and step_ms > allowed_ms and self._may_shrink():
            self._shrink(step_ms, allowed_ms)

    def _may_shrink(self) -> bool:
        least = self._feed.profile.least_image_size
        return least is not None and self.recipe.image_size > least

    def _shrink(self, step_ms: float, allowed_ms: float) -> None:
        """Let the network open again with a smaller picture; what was said to it is said again, as after a crash."""
        feed, least = self._feed, self._feed.profile.least_image_size or self.recipe.image_size
        size = min(size_for(self.recipe, step_ms, allowed_ms, least), self.recipe.image_size - SIDES)
        smaller = replace(self.recipe, image_size=max(size, least))
        if feed.children["segment"].say("resize", image_size=smaller.image_size):  # else it is said in the next turn
            self._larger, self.recipe = self.recipe, smaller
            feed.restore("resize", f"image_size {self._larger.image_size} -> {self.recipe.image_size}")

    def refused(self, why: str) -> None:
        """The engine cannot be opened at that size: it goes on as it was."""
        self.recipe = self._larger
        self._feed.profile = replace(self._feed.profile, least_image_size=None)
        self._feed.note("behind", "segment", f"no smaller picture: {why}")

    def _advice(self, now: Behind) -> str:
        budget_ms = self._feed.settings["budget_ms"]
        return advice(self.recipe, self._feed.engine, now.step_ms, budget_ms, now.wanted_fps)

    def plain(self) -> dict[str, Any] | None:
        """For the status: None while the masks keep up."""
        now = self._keeping.now
        return None if now is None else {**now.plain(), "advice": self._advice(now)}

    def report(self) -> dict[str, Any]:
        """For the end: the worst seconds, and what would have helped; nothing if the masks always kept up."""
        if not self._said:
            return {}
        smaller = self.recipe.image_size < self._feed.profile.engine.image_size
        return {"behind": self._said | ({"then image_size": self.recipe.image_size} if smaller else {})}


def _text(now: Behind) -> str:
    return f"{now.fresh:.0%} of the masks are fresh; {now.segmented_fps:.0f} of {now.wanted_fps:.0f} frames/s segmented"
