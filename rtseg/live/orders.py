"""What comes over the control socket, done: each order checked, obeyed, and answered when its outcome is known."""

from __future__ import annotations

import logging
from dataclasses import asdict
from functools import partial, singledispatchmethod
from typing import TYPE_CHECKING, Any

import zmq

from ..base.errors import OutputError, RtsegError
from ..base.types import Frame
from .control import ControlServer, Ticket, snapshot_result
from .control import messages as m
from .parcels import masks_of
from .seat import FRAMES, MASKS

if TYPE_CHECKING:
    from .supervisor import Feed

log = logging.getLogger("rtseg.live")

QUESTIONS = (m.Get, m.Status, m.TakeSnapshot)
Answer = dict[str, Any] | None  # None: it is answered later


def said(order: Any) -> str:
    """An order in words, for the log and the record."""
    words = [m.verb_of(order)]
    if isinstance(order, m.PROMPTED):
        prompt = order.prompt
        words += [f"object {prompt.id}", f"{prompt.label!r}" if prompt.label else ""]
        words += [f"points {list(map(list, prompt.points))}" if prompt.points else ""]
        words += [f"box {list(prompt.box)}" if prompt.box else ""]
        words += [f"mask of {int(prompt.mask.sum())} pixels" if prompt.mask is not None else ""]
        words += [f"on frame {order.seq}" if order.seq is not None else ""]
    else:
        words += [f"{name} {value}" for name, value in asdict(order).items() if value is not None]
    return " ".join(filter(None, words))


class Orders:
    """The control socket of a feed; `turn` is called by the supervisor, once a round."""

    def __init__(self, feed: Feed, server: ControlServer) -> None:
        self._feed, self._server = feed, server
        feed.poller.register(server.socket, zmq.POLLIN)
        self._ticket: Ticket

    def turn(self) -> None:
        """Answer all that came."""
        for ticket, order in self._server.receive():
            self._ticket = ticket
            try:
                result = self._obey(order)
            except RtsegError as e:
                self._server.refuse(ticket, str(e))
            except Exception as e:  # no order may end a feed
                log.exception("%s", type(order).__name__)
                self._server.refuse(ticket, f"{type(e).__name__}: {e} (a bug, or this machine)")
            else:
                if result is not None:
                    self._server.reply(ticket, result)
                if not isinstance(order, QUESTIONS):
                    self._feed.note("order", "control", said(order))

    @singledispatchmethod
    def _obey(self, order: Any) -> Answer:
        raise TypeError(f"{order!r}")  # messages.py knows an order that this does not

    @_obey.register(m.Add)
    @_obey.register(m.Correct)
    def _prompt(self, order: m.Add | m.Correct) -> Answer:
        frame, feed = self._frame(order.seq), self._feed
        feed.network.keep.check(order.prompt, frame, new=isinstance(order, m.Add))
        feed.network.prompt(frame, [order.prompt], self._later({"id": order.prompt.id, "seq": frame.seq}))
        return None

    @_obey.register
    def _remove(self, order: m.Remove) -> Answer:
        self._feed.network.remove(order.id, self._later({"id": order.id}))
        return None

    @_obey.register
    def _rename(self, order: m.Rename) -> Answer:
        result = {"id": order.id, "label": order.label}
        self._feed.network.rename(order.id, order.label, self._later(result))
        return None

    @_obey.register
    def _reset(self, order: m.Reset) -> Answer:
        removed, refused = self._feed.network.keep.ids, list[str]()
        for i in removed:
            self._feed.network.remove(i, lambda error: refused.append(error) if error else None)
        if refused:  # the first ones are gone; who asks again has the others removed
            raise OutputError(refused[0])
        return {"removed": list(removed)}

    @_obey.register(m.Pause)
    @_obey.register(m.Resume)
    def _pause(self, order: m.Pause | m.Resume) -> Answer:
        on = isinstance(order, m.Pause)
        self._feed.pause(on)
        return {"paused": on}

    @_obey.register
    def _snapshot(self, order: m.TakeSnapshot) -> Answer:
        frame, masks = self._frame(order.seq), self._feed.masks
        for index in range(masks.head - 1, max(-1, masks.head - MASKS.entries), -1):
            entry = masks.read(index)
            found = None if entry is None else masks_of(*entry)
            if found is not None and found.seq <= frame.seq:
                return snapshot_result(frame, found)
        return snapshot_result(frame, None)

    @_obey.register
    def _get(self, order: m.Get) -> Answer:
        return dict(self._feed.settings)

    @_obey.register
    def _set(self, order: m.Set) -> Answer:
        given = {"opacity": order.opacity, "budget_ms": order.budget_ms}
        self._feed.settle(**{key: value for key, value in given.items() if value is not None})
        return dict(self._feed.settings)

    @_obey.register
    def _status(self, order: m.Status) -> Answer:
        return self._feed.counts.status(self._feed)

    @_obey.register
    def _shutdown(self, order: m.Shutdown) -> Answer:
        self._feed.stop()
        return {"state": "ending"}

    def _later(self, result: dict[str, Any]) -> Any:
        """What answers this order once the network has."""
        return partial(self._answer, self._ticket, result)

    def _answer(self, ticket: Ticket, result: dict[str, Any], error: str | None) -> None:
        if error is None:
            warnings = list(self._feed.network.warnings)
            self._server.reply(ticket, {**result, "warnings": warnings} if warnings else result)
        else:
            self._server.refuse(ticket, error)

    def _frame(self, seq: int | None) -> Frame:
        """The frame that a person pointed at; the error says which there are."""
        frame, frames = self._feed.frame(seq), self._feed.frames
        if frame is None:
            there = [n for n in range(max(0, frames.head - FRAMES.entries), frames.head) if frames.holds(n)]
            known = f"{there[0]} to {there[-1]}" if there else "none yet"
            raise OutputError(f"frame {'newest' if seq is None else seq} is not there; those at hand: {known}")
        return frame
