"""The network's process as the supervisor speaks to it: orders, their answers, and what is said again after a crash."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..types import Frame, Prompt
from .child import Child
from .keep import Keep, Picture
from .parcels import prompt_parcel

Ticket = int
Then = Callable[[str | None], None]  # what is done with an answer: what was wrong, or None


class Network:
    """Says orders to whichever process there is, and keeps what has to be said again to the next."""

    def __init__(self, child: Child, most_objects: int) -> None:
        self.keep, self.paused = Keep(most_objects), False
        self._child = child
        self._waiting: dict[Ticket, Then] = {}
        self._last: Ticket = 0

    def prompt(self, frame: Frame, prompts: Sequence[Prompt], then: Then) -> None:
        """Keep prompts that were checked, and have them act on their frame; what the network refuses is let go."""
        picture = self.keep.picture(frame)
        for prompt in prompts:
            self.keep.add(picture, prompt)

        def answered(error: str | None) -> None:
            if error is not None:
                self.keep.forget(picture, prompts)
            then(error)

        self._ask(answered, lambda ticket: self._send(picture, prompts, ticket))

    def remove(self, object_id: int, then: Then) -> None:
        """Forget an object; `PromptError` if there is none."""
        self.keep.remove(object_id)
        self._tell("remove", then, id=object_id)

    def rename(self, object_id: int, label: str, then: Then) -> None:
        """Give an object another label; `PromptError` if there is none."""
        self.keep.rename(object_id, label)
        self._tell("rename", then, id=object_id, label=label)

    def pause(self, on: bool, then: Then) -> None:
        """Let the network rest, or work again."""
        self.paused = on
        self._tell("pause", then, on=on)

    def begin(self) -> None:
        """A process is there: say again what was said to the one before."""
        self._child.say("pause", ticket=0, on=self.paused)
        for picture, prompts in self.keep.replay():
            self._send(picture, prompts, 0)

    def answer(self, ticket: Ticket, error: str | None) -> None:
        """The process has answered."""
        then = self._waiting.pop(ticket, None)
        if then is not None:
            then(error)

    def lost(self) -> None:
        """The process is gone. What it was told is kept, and said to the next."""
        for ticket in list(self._waiting):
            self.answer(ticket, None)

    def _tell(self, say: str, then: Then, **facts: Any) -> None:
        self._ask(then, lambda ticket: self._child.say(say, ticket=ticket, **facts))

    def _ask(self, then: Then, send: Callable[[Ticket], bool]) -> None:
        """Send an order and wait for its answer; without a network it is said when there is one again."""
        self._last += 1
        if self._child.up and send(self._last):
            self._waiting[self._last] = then
        else:
            then(None)

    def _send(self, picture: Picture, prompts: Sequence[Prompt], ticket: Ticket) -> bool:
        parcels = [prompt_parcel(prompt) for prompt in prompts]
        about = {"seq": picture.seq, "meta": picture.meta, "bytes": picture.size}
        return self._child.say("prompts", (picture.fd,), ticket=ticket, prompts=parcels, **about)
