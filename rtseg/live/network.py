"""The network's process as the supervisor speaks to it: orders, their answers, and what is said again after a crash."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..base.errors import OutputError
from ..base.types import Frame, Prompt, now_ns
from .child import Child
from .keep import Keep, Picture
from .parcels import prompt_parcel

Ticket = int
Then = Callable[[str | None], None]  # what is done with an answer: what was wrong, or None


TRIES = 3  # lives that end before new prompts have proved themselves; then these are let go
PROVED_NS = 1_000_000_000
DEAF = "the network's process does not listen at the moment; try again"
ENDED = "the network's process ended while it did this; look at the feed, and try again"


class Network:
    """Says orders to whichever process there is, and keeps what has to be said again to the next."""

    def __init__(self, child: Child, most_objects: int) -> None:
        self.keep, self.paused = Keep(most_objects), False
        self._child = child
        self._waiting: dict[Ticket, Then] = {}
        self.warnings: tuple[str, ...] = ()  # of the answer that is being told
        self._last: Ticket = 0
        self._unproved: list[tuple[Picture, Sequence[Prompt]]] = []  # what was said since there last were good masks
        self._since_ns = self._deaths = 0
        self.sizing = False  # whether it was told the size of the pictures, and has not said that it is ready for them
        self._seen = False  # whether the process that there is was told any of that

    def prompt(self, frame: Frame, prompts: Sequence[Prompt], then: Then, *, stay: bool = False) -> None:
        """Keep prompts that were checked, and have them act on their frame; what the network refuses is let go.

        `stay`: they are kept, and said again, also if the process ends before it has answered.
        """
        picture = self.keep.picture(frame)
        for prompt in prompts:
            self.keep.ask(picture, prompt)
        self._unproved.append((picture, prompts))
        self._since_ns = now_ns()

        def answered(error: str | None) -> None:
            if error is ENDED and stay:
                error = None
            if error is None:
                self.keep.accept(picture, prompts)
            else:
                self.keep.forget(picture, prompts)
                self._unproved = [one for one in self._unproved if one[1] is not prompts]
            then(error)

        said = self.keep.said_on(picture, [prompt.id for prompt in prompts])
        self._ask(answered, lambda ticket: self._send(picture, said, ticket))

    def remove(self, object_id: int, then: Then) -> None:
        """Forget an object; `PromptError` if there is none."""
        self.keep.known(object_id)
        if self._ask(then, lambda ticket: self._child.say("remove", ticket=ticket, id=object_id)):
            self.keep.remove(object_id)

    def rename(self, object_id: int, label: str, then: Then) -> None:
        """Give an object another label; `PromptError` if there is none."""
        self.keep.known(object_id)
        if self._ask(then, lambda ticket: self._child.say("rename", ticket=ticket, id=object_id, label=label)):
            self.keep.rename(object_id, label)

    def pause(self, on: bool) -> None:
        """Let the network rest, or work again; `OutputError`, and nothing has changed, if it cannot be told."""
        if self._child.up and not self._child.say("pause", ticket=0, on=on):
            raise OutputError(DEAF)
        self.paused = on

    def sized(self, size: tuple[int, int]) -> None:
        """Tell the process the size of the pictures to come, height and width, as early as it is known."""
        self.sizing = self._child.say("size", size=size)

    def begin(self) -> bool:
        """A process is there: say again what was said to the one before; False if it does not listen."""
        told = self._child.say("pause", ticket=0, on=self.paused)
        return told and all(self._send(picture, prompts, 0) for picture, prompts in self.keep.replay())

    def answer(self, ticket: Ticket, error: str | None, warnings: Sequence[str] = ()) -> None:
        """The process has answered; `warnings` are there while that is told."""
        then = self._waiting.pop(ticket, None)
        if then is not None:
            self.warnings = tuple(warnings)
            then(error)
            self.warnings = ()

    def proved(self, masks_ns: int) -> None:
        """There are masks of a frame captured then: what was said well before that does the network no harm."""
        if self._unproved and masks_ns > self._since_ns + PROVED_NS:
            self._unproved, self._deaths = [], 0

    def lost(self) -> str | None:
        """The process is gone. Returns what was let go because of that, if anything.

        What it was told is said to the next; but what it was just doing, and new prompts that several lives in a row
        did not survive, may be what it died of. A process that never was told of them did not die of them.
        """
        saw, self._seen, self.sizing = self._seen, False, False
        for ticket in list(self._waiting):
            self.answer(ticket, ENDED)
        self._deaths += saw
        if self._deaths < TRIES or not self._unproved:
            return None
        unproved, self._unproved, self._deaths = self._unproved, [], 0
        ids = sorted({prompt.id for _, prompts in unproved for prompt in prompts} & set(self.keep.ids))
        for picture, prompts in unproved:
            self.keep.forget(picture, prompts)
        return (
            f"what was said last of object {', '.join(map(str, ids))}: the network did not survive it" if ids else None
        )

    def _ask(self, then: Then, send: Callable[[Ticket], bool]) -> bool:
        """Send an order and wait for its answer; without a process it is said when there is one again.

        False if it cannot be sent: then nothing may have changed.
        """
        self._last += 1
        if not self._child.up:
            then(None)
        elif send(self._last):
            self._waiting[self._last] = then
        else:
            then(DEAF)
            return False
        return True

    def _send(self, picture: Picture, prompts: Sequence[Prompt], ticket: Ticket) -> bool:
        parcels = [prompt_parcel(prompt) for prompt in prompts]
        about = {"seq": picture.seq, "meta": picture.meta, "bytes": picture.size}
        sent = self._child.say("prompts", (picture.fd,), ticket=ticket, prompts=parcels, **about)
        self._seen |= sent and bool(self._unproved)
        return sent
