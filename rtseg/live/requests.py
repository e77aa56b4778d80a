"""Control requests: each is checked, carried out, and answered when its outcome is known."""

from __future__ import annotations

import logging
from dataclasses import asdict
from functools import partial, singledispatchmethod
from typing import Any

from ..base.errors import OutputError, PromptError, RtsegError
from ..base.types import Frame
from .control import ControlServer, Ticket, snapshot_result
from .control import verbs as v
from .state import FeedState
from .statement import Statement

log = logging.getLogger("rtseg.live")

Result = dict[str, Any] | None  # None: the answer comes later


def describe(request: Any) -> str:
    """A control request in words, for the log and the recording."""
    words = [v.verb_of(request)]
    if isinstance(request, v.PROMPTED):
        prompt = request.prompt
        words += [f"object {prompt.id}", f"{prompt.label!r}" if prompt.label else ""]
        words += [f"points {list(map(list, prompt.points))}" if prompt.points else ""]
        words += [f"box {list(prompt.box)}" if prompt.box else ""]
        words += [f"mask of {int(prompt.mask.sum())} pixels" if prompt.mask is not None else ""]
        words += [f"on frame {request.seq}" if request.seq is not None else ""]
    else:
        words += [f"{name} {value}" for name, value in asdict(request).items() if value is not None]
    return " ".join(filter(None, words))


class RequestHandler:
    """The control requests to one feed; the supervisor calls `turn` once in each round."""

    def __init__(self, state: FeedState, statement: Statement, server: ControlServer) -> None:
        self._state, self._statement, self._server = state, statement, server
        self._ticket: Ticket

    def turn(self) -> None:
        """Carry out all requests that have arrived."""
        for ticket, request in self._server.receive():
            self._ticket = ticket
            try:
                result = self._carry_out(request)
            except RtsegError as e:
                self._server.refuse(ticket, str(e))
            except Exception as e:  # no request may end a feed by an exception
                log.exception("%s", type(request).__name__)
                self._server.refuse(ticket, f"{type(e).__name__}: {e} (a bug, or this machine)")
            else:
                if result is not None:
                    self._server.reply(ticket, result)
                if not isinstance(request, v.CHANGES_NOTHING):
                    self._state.note("order", "control", self._words(request), who=ticket.who)

    @singledispatchmethod
    def _carry_out(self, request: Any) -> Result:
        raise TypeError(f"{request!r}")  # a request of messages.py that is not registered here

    @_carry_out.register(v.Add)
    @_carry_out.register(v.Correct)
    def _prompt(self, request: v.Add | v.Correct) -> Result:
        frame, segmenter, prompt = self._frame(request.seq, request.session), self._state.segmenter, request.prompt
        segmenter.history.check(prompt, frame, new=isinstance(request, v.Add))
        if isinstance(request, v.Add):
            self._state.object_looks.forget(prompt.id)
        then = self._later({"id": prompt.id, "seq": frame.seq})
        segmenter.prompt(frame, [prompt], then, words=self._words(request))
        return None

    @_carry_out.register
    def _preview(self, request: v.Preview) -> Result:
        frame, segmenter, prompt = self._frame(request.seq, request.session), self._state.segmenter, request.prompt
        segmenter.history.check(prompt, frame, new=prompt.id not in segmenter.history.ids)
        self._state.hold(frame)
        segmenter.preview(frame, prompt, self._later({"id": prompt.id, "seq": frame.seq}))
        return None

    @_carry_out.register
    def _hold(self, request: v.Hold) -> Result:
        frame = self._frame(request.seq, request.session)
        if self._state.hold(frame):
            self._state.segmenter.prepare_preview(frame)
        return {"seq": frame.seq, "session": frame.session}

    @_carry_out.register
    def _memory(self, request: v.Memory) -> Result:
        self._state.segmenter.describe_memory(self._later({}))
        return None

    @_carry_out.register
    def _remove(self, request: v.Remove) -> Result:
        self._state.segmenter.remove([request.id], self._later({"id": request.id}), self._words(request))
        return None

    @_carry_out.register
    def _rename(self, request: v.Rename) -> Result:
        result = {"id": request.id, "label": request.label}
        self._state.segmenter.rename(request.id, request.label, self._later(result), self._words(request))
        return None

    @_carry_out.register
    def _look(self, request: v.Look) -> Result:
        self._state.segmenter.history.require(request.id)
        self._state.object_looks.choose(request.id, request.color, request.hidden)
        looks = self._state.looks
        return {"id": request.id, "color": list(looks.color(request.id)), "hidden": request.id in looks.hidden}

    @_carry_out.register(v.Undo)
    @_carry_out.register(v.Redo)
    def _undo(self, request: v.Undo | v.Redo) -> Result:
        again = isinstance(request, v.Redo)
        result: dict[str, Any] = {}
        result["redone" if again else "undone"] = self._state.segmenter.undo(self._later(result), again=again)
        return None

    @_carry_out.register
    def _reset(self, request: v.Reset) -> Result:
        removed = self._state.segmenter.history.ids
        if not removed:
            return {"removed": []}
        self._state.segmenter.remove(removed, self._later({"removed": list(removed)}), self._words(request))
        return None

    @_carry_out.register(v.Pause)
    @_carry_out.register(v.Resume)
    def _pause(self, request: v.Pause | v.Resume) -> Result:
        on = isinstance(request, v.Pause)
        self._state.pause(on)
        return {"paused": on}

    @_carry_out.register
    def _snapshot(self, request: v.TakeSnapshot) -> Result:
        frame, masks = self._frame(request.seq), self._state.masks
        for index in range(masks.head - 1, max(-1, masks.head - masks.entries), -1):
            found = masks.get(index)
            if found is not None and found.seq <= frame.seq:
                return snapshot_result(frame, found)
        return snapshot_result(frame, None)

    @_carry_out.register
    def _get(self, request: v.Get) -> Result:
        return dict(self._state.settings)

    @_carry_out.register
    def _set(self, request: v.Set) -> Result:
        given = {"opacity": request.opacity, "budget_ms": request.budget_ms}
        self._state.change_settings(**{key: value for key, value in given.items() if value is not None})
        return dict(self._state.settings)

    @_carry_out.register
    def _status(self, request: v.Status) -> Result:
        return self._statement.status()

    @_carry_out.register
    def _shutdown(self, request: v.Shutdown) -> Result:
        self._state.stop()
        return {"state": "ending"}

    def _later(self, result: dict[str, Any]) -> Any:
        """A function that answers this request once the segment worker has answered."""
        return partial(self._answer, self._ticket, result)

    def _answer(self, ticket: Ticket, result: dict[str, Any], error: str | None) -> None:
        if error is None:
            answer = self._state.segmenter.answer
            warnings = {"warnings": list(answer.warnings)} if answer.warnings else {}
            self._server.reply(ticket, {**result, **warnings, **answer.result})
        else:
            self._server.refuse(ticket, error)

    def _words(self, request: Any) -> str:
        """A request in words, with the person who asks."""
        return describe(request) + (f", by {self._ticket.who}" if self._ticket.who else "")

    def _frame(self, seq: int | None, session: str | None = None) -> Frame:
        """The frame that a request names, or the newest; `OutputError` lists the frames that can be named."""
        frame, frames = self._state.frame(seq), self._state.frames
        if frame is None:
            there = [n for n in range(max(0, frames.head - frames.entries), frames.head) if frames.holds(n)]
            known = f"{there[0]} to {there[-1]}" if there else "none yet"
            raise OutputError(f"frame {'newest' if seq is None else seq} is not there; there are: {known}")
        if session not in (None, frame.session):
            raise PromptError(f"frame {frame.seq} is of another session now; point at a picture that is shown now")
        return frame
