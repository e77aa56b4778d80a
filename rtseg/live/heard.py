"""What the processes of a feed say to their supervisor, taken in: a method for each message."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..base import errors
from .child import SIZING_S, Child, silence_s
from .network import Ticket
from .opening import check_objects

if TYPE_CHECKING:
    from .supervisor import Feed


class Heard:
    """Hears for one feed."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed

    def listen(self, child: Child) -> None:
        """Take in all that a process says."""
        for facts, fds in child.heard():
            for fd in fds:  # they send none
                os.close(fd)
            heard: Callable[..., None] = getattr(self, f"_on_{facts.pop('say')}")
            heard(child, **facts)

    def _on_ready(self, child: Child, engine: str, step_ms: float) -> None:
        """The network is there: say again what was said to the one before."""
        child.worked()
        child.silent_s = silence_s(child.role, step_ms)
        self._feed.engine = engine
        self._feed.note("ready", child.role, engine)
        if not self._feed.network.begin():
            child.kill("it does not listen")
        self._feed.children["publish"].say("engine", engine=engine)
        self._feed.remedy.ready(step_ms)

    def _on_preparing(self, child: Child, what: str, part_s: float) -> None:
        """It begins with what may take minutes, before it can work."""
        child.prepares(what, part_s, self._feed.board[f"beat {child.role}"])
        self._feed.note("preparing", child.role, what)

    def _on_sized(self, child: Child, step_ms: float | None) -> None:
        """The network is ready for pictures of the feed's size, and of those a step takes so long, if it is known."""
        child.prepared()
        self._feed.network.sizing = False
        if step_ms is not None:
            child.silent_s = silence_s(child.role, step_ms)
            self._feed.remedy.ready(step_ms)

    def _on_sizing(self, child: Child) -> None:
        """The network sees pictures of a size for the first time: it may have to prepare for them."""
        child.silent_s = max(child.silent_s, SIZING_S)

    def _on_pace(self, child: Child, step_ms: float) -> None:
        """Its steps take so long now."""
        child.silent_s = silence_s(child.role, step_ms)

    def _on_kept(self, child: Child, why: str) -> None:
        """The network could not be opened otherwise, and is there as it was."""
        self._feed.remedy.refused(why)

    def _on_bound(self, child: Child, endpoint: str) -> None:
        child.worked()
        self._feed.endpoint = endpoint
        self._feed.note("bound", child.role, endpoint)
        child.say("set", settings=self._feed.settings)

    def _on_source(self, child: Child, **facts: Any) -> None:
        child.worked()
        size = facts.pop("size")
        self._feed.input.opened(facts)
        if size is not None:
            self._on_picture(child, size)
            if not self._feed.began_ns:
                check_objects(self._feed, (size[0], size[1]))

    def _on_picture(self, child: Child, size: Sequence[int]) -> None:
        """The height and width of pictures that are to come."""
        self._feed.size = (size[0], size[1])
        self._feed.network.sized(self._feed.size)

    def _on_state(self, child: Child, **facts: Any) -> None:
        if self._feed.input.heard(**facts):
            child.rest()
        if self._feed.input.live and self._feed.source["counts"].get("frames"):
            child.once = False  # what was seen once may come again

    def _on_account(self, child: Child, account: dict[str, Any], lines: list[str]) -> None:
        self._feed.input.accounted(account, lines)
        if "record" in self._feed.children:
            self._feed.children["record"].say("note", kind="account", facts=account)
        if account["ended"]:
            self._feed.fault("grab", f"{self._feed.source['uri']}: ended early: {account['ended']}")

    def _on_scene(self, child: Child, seq: int, cut: bool, lost: list[int], found: list[int]) -> None:
        """Another scene began with a frame, or objects were lost or found again on it."""
        feed, who = self._feed, ", ".join(map(str, lost)) or "none"
        newly = [i for i in lost if i not in feed.scene["lost"]]
        feed.scene = {"last": seq if cut else feed.scene["last"], "lost": list(lost)}
        if cut:
            feed.note("cut", child.role, f"another scene begins with frame {seq}; lost until found again: {who}")
        elif newly:
            gone = ", ".join(map(str, newly))
            feed.note("lost", child.role, f"object {gone} is out of view since frame {seq}; lost until found again")
        if found:
            feed.note("found", child.role, f"object {', '.join(map(str, found))} again, on frame {seq}; lost: {who}")

    def _on_unanswered(self, child: Child, text: str) -> None:
        """There are no masks of a frame."""
        self._feed.note("unanswered", child.role, text)

    def _on_recording(self, child: Child, folder: str) -> None:
        child.worked()
        self._feed.recording = folder
        self._feed.note("recording", child.role, folder)

    def _on_counts(self, child: Child, counts: dict[str, Any]) -> None:
        self._feed.tally.heard(counts)

    def _on_fault(self, child: Child, text: str) -> None:
        child.last_fault = text
        self._feed.note("fault", child.role, text)

    def _on_refused(self, child: Child, text: str, kind: str) -> None:
        child.error = getattr(errors, kind)(text)

    def _on_done(self, child: Child) -> None:
        child.finished = True

    def _on_answer(self, child: Child, ticket: Ticket, error: str | None, warnings: Sequence[str] = ()) -> None:
        for line in warnings if ticket else ():  # what is said again to a new process was told before
            self._feed.note("warning", child.role, line)
        self._feed.network.answer(ticket, error, warnings)
