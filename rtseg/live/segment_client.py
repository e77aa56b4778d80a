"""The supervisor's side of the segment worker: requests and their answers, and replayed prompts after a restart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from ..base.errors import OutputError, PromptError
from ..base.types import Frame, Prompt, now_ns
from .ipc.messages import (
    DescribeMemory,
    GivePrompts,
    Message,
    Pause,
    PreviewPrompts,
    PromptData,
    RemoveObject,
    RenameObject,
    SetSize,
    Size,
    Ticket,
)
from .ipc.reports import Answer
from .prompt_changes import ChangeLog, States
from .prompt_history import ObjectHistory, Picture, PromptHistory
from .worker_process import TRIES, WorkerProcess

Then = Callable[[str | None], None]  # called with the outcome: an error, or None

PROVED_NS = 1_000_000_000  # masks of a frame so long after a prompt prove that the worker survives it
NOT_LISTENING = "the segment worker does not listen at the moment; try again"
ENDED = "the segment worker ended before it answered; check the status, and try again"


def _whatever_ends(then: Then) -> Then:
    """`then`, for a change that holds also if the process ends before it answers: the history is replayed."""
    return lambda error: then(None if error is ENDED else error)


class _Gather:
    """Calls `then` once all of some requests are answered, with the first error, or None."""

    def __init__(self, number: int, then: Then) -> None:
        self._left, self._then = number, then
        self._error: str | None = None

    def __call__(self, error: str | None) -> None:
        self._left, self._error = self._left - 1, self._error or error
        if not self._left:
            self._then(self._error)


class SegmentClient:
    """Sends requests to the present process of the worker, and owns the history that is replayed to the next one.

    `preparing_size`: the worker prepares for the size of the pictures. `answer`: the one that is being handled.
    `changes`: the changes of prompts that can be undone.
    """

    def __init__(self, worker: WorkerProcess, most_objects: int) -> None:
        self.history, self.changes, self.paused = PromptHistory(most_objects), ChangeLog(), False
        self.preparing_size = False
        self.answer = Answer(0, None)
        self._worker = worker
        self._waiting: dict[Ticket, Then] = {}
        self._last: Ticket = 0
        self._unproved: list[tuple[Picture, Sequence[Prompt]]] = []  # prompts since the last good masks
        self._since_ns = self._deaths = 0
        self._received_unproved = False  # whether the present process was sent any of them

    def prompt(
        self, frame: Frame, prompts: Sequence[Prompt], then: Then, *, stay: bool = False, words: str = ""
    ) -> None:
        """Apply checked prompts to their frame; refused ones are discarded.

        `stay`: if the process ends before it has answered, they stay in the history and are replayed. `words`: what
        this change is called when it is undone; without them it cannot be.
        """
        picture = self.history.picture(frame)
        for prompt in prompts:
            self.history.add_pending(picture, prompt)
        self._unproved.append((picture, prompts))
        self._since_ns = now_ns()

        def answered(error: str | None) -> None:
            if error is ENDED and stay:
                error = None
            if error is None:
                ids = [prompt.id for prompt in prompts]
                before = self.history.states(ids)
                self.history.accept(picture, prompts)
                self.changes.add(words, before, self.history.states(ids))
            else:
                self.history.discard(picture, prompts)
                self._unproved = [one for one in self._unproved if one[1] is not prompts]
            then(error)

        together = self.history.prompts_on(picture, [prompt.id for prompt in prompts])
        self._send_request(answered, lambda ticket: self._send_prompts(picture, together, ticket))

    def preview(self, frame: Frame, prompt: Prompt, then: Then) -> None:
        """Ask for the mask that a checked prompt would give; it is in `answer` when `then` is called without an error.

        `PromptError` if there is no process that could answer.
        """
        if not self._worker.up:
            raise PromptError(f"preview of object {prompt.id}: the network is not ready; try again when it is")
        picture = self.history.picture(frame)
        data = tuple(map(PromptData.from_prompt, (*self.history.prompts_on(picture, [prompt.id]), prompt)))
        self._send_request(
            then, lambda ticket: self._worker.send(PreviewPrompts(ticket, data, picture.id), (picture.fd,))
        )

    def prepare_preview(self, frame: Frame) -> None:
        """Have a frame encoded that a person begins to point at, if there is a process that can."""
        picture = self.history.picture(frame)
        if self._worker.up:
            self._worker.send(PreviewPrompts(0, (), picture.id), (picture.fd,))

    def remove(self, ids: Sequence[int], then: Then, words: str = "") -> None:
        """Remove objects; `PromptError` if one does not exist. `words` as for `prompt`."""
        for object_id in ids:
            self.history.require(object_id)
        before, gather = self.history.states(ids), _Gather(len(ids), _whatever_ends(then))
        for object_id in ids:
            if self._send_request(gather, partial(self._send_removal, object_id)):
                self.history.remove(object_id)
        self.changes.add(words, before, self.history.states(ids))

    def describe_memory(self, then: Then) -> None:
        """Ask what the memory banks hold; as for `preview`, with an `OutputError`."""
        if not self._worker.up:
            raise OutputError("memory: the network is not ready; try again when it is")
        self._send_request(then, lambda ticket: self._worker.send(DescribeMemory(ticket)))

    def _send_removal(self, object_id: int, ticket: Ticket) -> bool:
        return self._worker.send(RemoveObject(ticket, object_id))

    def rename(self, object_id: int, label: str, then: Then, words: str = "") -> None:
        """Give an object another label; `PromptError` if it does not exist. `words` as for `prompt`."""
        self.history.require(object_id)
        before = self.history.states([object_id])
        then = _whatever_ends(then)
        if self._send_request(then, lambda ticket: self._worker.send(RenameObject(ticket, object_id, label))):
            self.history.rename(object_id, label)
            self.changes.add(words, before, self.history.states([object_id]))

    def undo(self, then: Then, *, again: bool = False) -> str:
        """Take the last change back, or make it again; returns its words. `OutputError` if there is none."""
        if self.history.is_busy:
            raise OutputError("a prompt is being applied just now; try again when it is done")
        change = self.changes.redo() if again else self.changes.undo()
        self._restore(change.after if again else change.before, then)
        return change.words

    def _restore(self, states: States, then: Then) -> None:
        """Bring objects back to earlier states."""
        gather = _Gather(len(states), _whatever_ends(then))
        now = self.history.states(states)
        for object_id, state in states.items():
            self.history.restore(object_id, state)
            send = partial(self._send_object, object_id, now[object_id], state)
            self._send_request(gather, send)

    def _send_object(self, object_id: int, now: ObjectHistory | None, state: ObjectHistory | None, t: Ticket) -> bool:
        """Have the worker make an object what `state` says. `t` is for the last message."""
        send = self._worker.send
        if state is None:
            return self._sent_all(send(RemoveObject(t, object_id)))
        sent = True
        if now is None or now.accepted != state.accepted:
            sent = now is None or send(RemoveObject(0, object_id))
            replayed = self.history.replay([object_id])
            sent = sent and all(self._send_prompts(picture, prompts, 0) for picture, prompts in replayed)
        return self._sent_all(sent and send(RenameObject(t, object_id, state.label or f"object {object_id}")))

    def _sent_all(self, sent: bool) -> bool:
        """If a part could not be sent, end the process: the history is replayed to the next one."""
        if not sent:
            self._worker.kill("it does not listen")
        return True

    def pause(self, on: bool) -> None:
        """Pause or resume the network; `OutputError`, and no change, if the worker does not listen."""
        if self._worker.up and not self._worker.send(Pause(0, on)):
            raise OutputError(NOT_LISTENING)
        self.paused = on

    def set_size(self, size: Size) -> None:
        """Tell the worker the size of the pictures to come, as early as it is known."""
        self.preparing_size = self._worker.send(SetSize(size))

    def replay(self) -> bool:
        """Replay the prompts to the restarted process; False if it does not listen."""
        sent = self._worker.send(Pause(0, self.paused))
        return sent and all(self._send_prompts(picture, prompts, 0) for picture, prompts in self.history.replay())

    def answered(self, answer: Answer) -> None:
        """Handle an answer of the worker."""
        then = self._waiting.pop(answer.ticket, None)
        if then is not None:
            self.answer = answer
            then(answer.error)

    def proved(self, masks_ns: int) -> None:
        """Note masks of a frame captured at `masks_ns`: the worker survived all prompts well before that time."""
        if self._unproved and masks_ns > self._since_ns + PROVED_NS:
            self._unproved, self._deaths = [], 0

    def ended(self) -> str | None:
        """The process has ended. Returns which prompts were discarded because of that, if any.

        Its open requests fail. Prompts are replayed to the next process. But if several processes in a row end after
        they received new prompts, these prompts may be the cause, and are discarded.
        """
        received, self._received_unproved, self.preparing_size = self._received_unproved, False, False
        for ticket in list(self._waiting):
            self.answered(Answer(ticket, ENDED))
        self._deaths += received
        if self._deaths < TRIES or not self._unproved:
            return None
        unproved, self._unproved, self._deaths = self._unproved, [], 0
        ids = sorted({prompt.id for _, prompts in unproved for prompt in prompts} & set(self.history.ids))
        for picture, prompts in unproved:
            self.history.discard(picture, prompts)
        self.changes.clear()
        return (
            f"the last prompts of object {', '.join(map(str, ids))}: the segment worker crashed on them"
            if ids
            else None
        )

    def _send_request(self, then: Then, send: Callable[[Ticket], bool]) -> bool:
        """Send a request, whose answer goes to `then`. Without a process it succeeds: the history is replayed later.

        Returns False if it cannot be sent; the history must then stay as it is.
        """
        self._last += 1
        if not self._worker.up:
            then(None)
        elif send(self._last):
            self._waiting[self._last] = then
        else:
            then(NOT_LISTENING)
            return False
        return True

    def _send_prompts(self, picture: Picture, prompts: Sequence[Prompt], ticket: Ticket) -> bool:
        message: Message = GivePrompts(ticket, tuple(map(PromptData.from_prompt, prompts)), picture.id)
        sent = self._worker.send(message, (picture.fd,))
        self._received_unproved |= sent and bool(self._unproved)
        return sent
