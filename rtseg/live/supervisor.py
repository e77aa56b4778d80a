"""The supervisor of one feed: it starts the processes, watches them, keeps what people said, and answers them.

It touches no picture on its way: `grab` and `publish` meet in the frame ring, so the video goes on while this process
is stopped, and ends, with all the others, when it is killed.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import zmq

from ..base.descriptors import fill_standard
from ..base.errors import OutputError, RtsegError, SourceError
from ..base.types import Frame, now_ns
from .board import ROLES, Board
from .child import WORKER, Child
from .closing import close, cut_short, drained
from .control import ControlServer
from .ending import MINOR, Ending
from .heard import Heard
from .input import Input
from .network import Network
from .opening import begin_when_ready, check_folder, give_first_prompts, waits_for
from .orders import Orders
from .parcels import frame_of
from .profile import StreamProfile
from .remedy import Remedy
from .ring import Ring, new_bell
from .seat import FRAMES, SHOWN, Fds, masks_plan
from .state import Facts, has_recovered, state_of
from .statement import Counts, plain_config
from .tally import Tally
from .watch import serve

log = logging.getLogger("rtseg.live")

TICK_MS = 20
STATUS_NS = 500_000_000
NEEDED = {"grab": "read", "publish": "published"}  # without these there is no feed
NOTICES = {"frozen": "source frozen", "paused": "paused"}  # what the picture itself has to say


class Feed:
    """A running stream profile. `run` blocks until the source ends, `stop` is called, or `seconds` have passed."""

    def __init__(self, profile: StreamProfile, worker: Sequence[str] = WORKER) -> None:
        """`worker` is the command that begins a process; tests put faults into it."""
        self.profile = profile
        self.settings = {"opacity": profile.opacity, "budget_ms": profile.mask_budget_ms}
        self.facts = Facts()
        self.events: list[str] = []
        self.ending = Ending()
        self.input, self.heard = Input(self.note), Heard(self)
        self.engine, self.endpoint, self.control, self.recording = "", "", "", ""
        self.tally = Tally()
        self.scene: dict[str, Any] = {"last": None, "lost": []}  # the frame of the last cut, and who is lost since
        self._worker, self._over = worker, False
        self.size: tuple[int, int] | None = None  # height and width of its pictures, once its source has said so
        self.first_given = not profile.objects
        self._status_ns = self._recovery_ns = 0
        self.began_ns = 0
        self.children: dict[str, Child] = {}
        self._turns = threading.Lock()  # held while anything changes; `snapshot` is taken between two turns
        self.on_ready: Callable[[Feed, str], None] = lambda feed, endpoint: None

    def stop(self) -> None:
        """End the feed; from any thread."""
        self._over = True

    @property
    def faults(self) -> dict[str, str]:
        """What stands: the part that failed, and how."""
        return self.ending.plain()

    @property
    def source(self) -> dict[str, Any]:
        return self.input.facts

    @property
    def published(self) -> dict[str, Any]:
        """What the publishers sent and dropped, all of them together."""
        return self.tally.total

    # A run.

    def run(self, seconds: float | None = None) -> dict[str, Any]:
        """Play the feed; returns what happened to every frame, and how long each stage took.

        An `RtsegError` if it cannot be played.
        """
        fill_standard()  # before memory files are made, which would get these numbers
        with ExitStack() as stack:
            self._make(stack)
            until_ns = float("inf")
            try:
                while not self._over and now_ns() < until_ns:
                    self._turn()
                    if seconds is not None and self.began_ns and until_ns == float("inf"):
                        until_ns = self.began_ns + seconds * 1e9
            except KeyboardInterrupt:  # how a person ends a feed that has no end
                pass
            finally:
                self.facts.over = True
                try:
                    close(self)
                except KeyboardInterrupt:
                    cut_short(self)
                finally:
                    for child in self.children.values():
                        child.leave()
            if self.ending.refusal is not None:
                raise self.ending.refusal
            return self.counts.report(self)

    def _make(self, stack: ExitStack) -> None:
        """Memory, bells and children; all goes with the stack."""
        self.board = Board.create()
        masks = masks_plan(self.profile.engine)
        made = {"frames": Ring.create("frames", FRAMES), "masks": Ring.create("masks", masks)}
        made["shown"] = Ring.create("shown", SHOWN)
        bells = ("frames_for_segment", "frames_for_publish", "masks_for_publish", "shown_for_record")
        fds = Fds(board=self.board.fd, **made, **{bell: new_bell() for bell in bells})
        for fd in fds.all():
            stack.callback(os.close, fd)
        self.frames, self.masks = Ring(fds.frames, FRAMES), Ring(fds.masks, masks)
        self.counts, self.remedy = Counts(self.board, self.frames), Remedy(self)
        profile = self.profile
        roles = [role for role in ROLES if role != "record" or profile.record]
        once = ("grab", "record")
        self.children = {role: Child(role, fds, self._worker, role in once) for role in roles}
        self.network = Network(self.children["segment"], profile.engine.max_objects)
        self.poller = zmq.Poller()
        self._orders = self._listen_for_orders(stack)
        if profile.metrics is not None:
            endpoint = stack.enter_context(serve(profile.metrics, self.snapshot))
            log.info("metrics at %s", endpoint.address)
        if profile.record is not None:
            check_folder(profile.record)
        self.start_ns = now_ns()
        for role in ("publish", "grab", "segment"):  # the quickest to say that something cannot be comes first
            self.children[role].begin()

    def _listen_for_orders(self, stack: ExitStack) -> Orders | None:
        if self.profile.control is None:
            return None
        server = stack.enter_context(ControlServer(self.profile.control, self.profile.keys))
        self.control = server.endpoint
        log.info("orders at %s", self.control)
        return Orders(self, server)

    def _turn(self) -> None:
        """One round: what was said, who died, who hangs, what is due."""
        links = [child.link for child in self.children.values() if child.link is not None]
        for link in links:
            self.poller.register(link.fileno(), zmq.POLLIN)
        self.poller.poll(TICK_MS)
        for link in links:
            self.poller.unregister(link.fileno())
        with self._turns:
            for child in self.children.values():
                self.heard.listen(child)
                self._watch(child)
            if self.ending.refusal is not None:
                self._over = True
                return
            begin_when_ready(self)
            give_first_prompts(self)
            if self._orders is not None:
                self._orders.turn()
            self._judge()
            if now_ns() >= self._status_ns:
                self.state_now()
            self._over |= drained(self)

    def snapshot(self) -> dict[str, Any]:
        """For Prometheus; from any thread."""
        with self._turns:
            return self.counts.snapshot(self)

    # The processes.

    def _watch(self, child: Child) -> None:
        silent = child.hangs(self.board[f"beat {child.role}"])
        if silent is not None:
            self.note("hung", child.role, f"{silent}; it is ended")
            child.kill(silent)
        child.see_out()
        if child.ended:
            self.heard.listen(child)  # why it ends is the last that a process says
            self._died(child, child.reap())
        came = child.tick(lambda: plain_config(child.role, self))
        if came is not None:
            self.note("started", child.role, came)

    def _died(self, child: Child, how: str) -> None:
        role = child.role
        if role == "grab" and self.input.ended_ns:
            return
        if role == "segment":
            self.scene["lost"] = []
            self._lose_masks()
        elif role == "grab":
            self.input.lost(how)
        elif role == "publish":
            self.tally.died()
        self.note("died", role, how)
        if child.refused is not None:
            self._refused(child, child.refused)
        elif role in NEEDED and child.hopeless and not self.began_ns:
            what = f"{self.profile.name}: nothing can be {NEEDED[role]}"
            error = SourceError if role == "grab" else OutputError
            self.ending.refuse(role, error(f"{what} ({how}); RTSEG_DEBUG=1 shows where"))

    def _refused(self, child: Child, why: RtsegError) -> None:
        """Before the first picture a refusal is the end; after that, the feed goes on as far as it can."""
        if not self.began_ns or (child.role == "grab" and not self.frames.head):
            self.ending.refuse(child.role, why)
            return
        self.fault(child.role, str(why))
        if child.role == "grab":  # a recording broke off: what there is of it is shown
            self.input.ended_ns = now_ns()

    def restore(self, kind: str, text: str) -> None:
        """The network opens again: until it is `ready`, it is as if it had not begun."""
        self.children["segment"].up = False
        self._recovery_ns, self.facts.recovering = now_ns(), bool(self.network.keep.ids)
        self.note(kind, "segment", text)

    # Objects.

    def pause(self, on: bool) -> None:
        """Let the network rest, or work again."""
        self.network.pause(on)
        self.note("paused" if on else "resumed", "segment", "by order")

    def frame(self, seq: int | None = None) -> Frame | None:
        """A frame of the last seconds; None: the newest. None if it is gone, or never was."""
        for _ in range(3):  # the newest may be overtaken while it is read, by nothing but a tiny ring
            index = self.frames.head - 1 if seq is None else seq
            entry = self.frames.read(index)
            if entry is not None:
                return frame_of(index, *entry)
        return None

    # States.

    def _lose_masks(self) -> None:
        self._recovery_ns = now_ns()
        self.facts.recovering = bool(self.network.keep.ids) or not self.first_given
        gone = self.network.lost()
        if gone is not None:
            self.fault("prompts", gone)

    def _judge(self) -> None:
        facts, segment = self.facts, self.children["segment"]
        facts.paused, facts.absent = self.network.paused, not segment.up
        failing = {role for role, child in self.children.items() if not child.up and child.failing}
        facts.failed = self.ending.failed or not failing <= set(MINOR)
        facts.failed |= bool(self.began_ns) and not self.children["publish"].up
        self.network.proved(self.board["masks captured_ns"])
        facts.source = self.input.state if self.began_ns else "opening"
        self.input.turn(waits_for(self))
        self.remedy.turn()
        if not facts.recovering or facts.paused:
            return
        meta = self.frames.meta(self.frames.head - 1)
        newest_ns = now_ns() if meta is None else frame_of(0, meta).captured_ns
        if self.first_given and not self.network.keep.ids:
            facts.recovering = False  # there is nothing to come back with
        elif has_recovered(self.board, newest_ns, self._recovery_ns, self.settings["budget_ms"]):
            facts.recovering = False
            self.note("recovered", "segment", f"after {(now_ns() - self._recovery_ns) / 1e9:.1f} s")

    def state_now(self) -> None:
        """Tell the displays, and the record, how the feed is."""
        self._status_ns = now_ns() + STATUS_NS
        status, notice, behind = self.counts.status(self), NOTICES.get(self.state, ""), self.remedy.now is not None
        recovering = self.facts.recovering or self.facts.absent
        self.children["publish"].say("status", status=status, recovering=recovering, notice=notice, behind=behind)

    def settle(self, **changed: float) -> None:
        """Change the settings of the display; `OutputError`, and nothing has changed, if it cannot be told."""
        settings, publish = {**self.settings, **changed}, self.children["publish"]
        if publish.up and not publish.say("set", settings=settings):  # one that begins asks for them
            raise OutputError("the publisher does not listen at the moment; try again")
        self.settings = settings

    @property
    def state(self) -> str:
        return state_of(self.facts)

    def fault(self, part: str, text: str) -> None:
        """Something went wrong for good: see `ending`."""
        if self.ending.add(part, text):
            self.note("fault", part, text)

    def note(self, kind: str, role: str, text: str) -> None:
        """Something happened: to the log, the status and the record."""
        loud = kind in ("died", "hung", "fault", "unanswered", "warning")
        log.log(logging.WARNING if loud else logging.INFO, "%s %s: %s", role, kind, text)
        self.events = [*self.events, f"{role} {kind}: {text}"][-20:]
        if "record" in self.children:
            self.children["record"].say("note", kind=kind, facts={"role": role, "text": text})
        self._status_ns = 0
