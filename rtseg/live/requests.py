"""Control requests: each is checked, carried out, and answered when its outcome is known."""

from __future__ import annotations

import logging
from dataclasses import asdict
from functools import partial, singledispatchmethod
from typing import Any

from ..base.errors import OutputError, RtsegError
from ..base.types import Frame
from .control import ControlServer, Ticket, snapshot_result
from .control import messages as m
from .state import FeedState
from .statement import Statement

log = logging.getLogger("rtseg.live")

READ_ONLY = (m.Get, m.Status, m.TakeSnapshot)
Result = dict[str, Any] | None  # None: the answer comes later


def describe(request: Any) -> str:
    """A control request in words, for the log and the recording."""
    words = [m.verb_of(request)]
    if isinstance(request, m.PROMPTED):
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
                if not isinstance(request, READ_ONLY):
                    self._state.note("order", "control", describe(request))

    @singledispatchmethod
    def _carry_out(self, request: Any) -> Result:
        raise TypeError(f"{request!r}")  # a request of messages.py that is not registered here

    @_carry_out.register(m.Add)
    @_carry_out.register(m.Correct)
    def _prompt(self, request: m.Add | m.Correct) -> Result:
        frame, state = self._frame(request.seq), self._state
        state.segmenter.history.check(request.prompt, frame, new=isinstance(request, m.Add))
        state.segmenter.prompt(frame, [request.prompt], self._later({"id": request.prompt.id, "seq": frame.seq}))
        return None

    @_carry_out.register
    def _remove(self, request: m.Remove) -> Result:
        self._state.segmenter.remove(request.id, self._later({"id": request.id}))
        return None

    @_carry_out.register
    def _rename(self, request: m.Rename) -> Result:
        result = {"id": request.id, "label": request.label}
        self._state.segmenter.rename(request.id, request.label, self._later(result))
        return None

    @_carry_out.register
    def _reset(self, request: m.Reset) -> Result:
        removed, refused = self._state.segmenter.history.ids, list[str]()
        for i in removed:
            self._state.segmenter.remove(i, lambda error: refused.append(error) if error else None)
        if refused:  # the first ones are removed; a second request removes the others
            raise OutputError(refused[0])
        return {"removed": list(removed)}

    @_carry_out.register(m.Pause)
    @_carry_out.register(m.Resume)
    def _pause(self, request: m.Pause | m.Resume) -> Result:
        on = isinstance(request, m.Pause)
        self._state.pause(on)
        return {"paused": on}

    @_carry_out.register
    def _snapshot(self, request: m.TakeSnapshot) -> Result:
        frame, masks = self._frame(request.seq), self._state.masks
        for index in range(masks.head - 1, max(-1, masks.head - masks.entries), -1):
            found = masks.get(index)
            if found is not None and found.seq <= frame.seq:
                return snapshot_result(frame, found)
        return snapshot_result(frame, None)

    @_carry_out.register
    def _get(self, request: m.Get) -> Result:
        return dict(self._state.settings)

    @_carry_out.register
    def _set(self, request: m.Set) -> Result:
        given = {"opacity": request.opacity, "budget_ms": request.budget_ms}
        self._state.change_settings(**{key: value for key, value in given.items() if value is not None})
        return dict(self._state.settings)

    @_carry_out.register
    def _status(self, request: m.Status) -> Result:
        return self._statement.status()

    @_carry_out.register
    def _shutdown(self, request: m.Shutdown) -> Result:
        self._state.stop()
        return {"state": "ending"}

    def _later(self, result: dict[str, Any]) -> Any:
        """A function that answers this request once the segment worker has answered."""
        return partial(self._answer, self._ticket, result)

    def _answer(self, ticket: Ticket, result: dict[str, Any], error: str | None) -> None:
        if error is None:
            warnings = list(self._state.segmenter.warnings)
            self._server.reply(ticket, {**result, "warnings": warnings} if warnings else result)
        else:
            self._server.refuse(ticket, error)

    def _frame(self, seq: int | None) -> Frame:
        """The frame that a request names, or the newest; `OutputError` lists the frames that can be named."""
        frame, frames = self._state.frame(seq), self._state.frames
        if frame is None:
            there = [n for n in range(max(0, frames.head - frames.entries), frames.head) if frames.holds(n)]
            known = f"{there[0]} to {there[-1]}" if there else "none yet"
            raise OutputError(f"frame {'newest' if seq is None else seq} is not there; there are: {known}")
        return frame
