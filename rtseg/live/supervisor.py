"""The supervisor of one feed: it starts the processes, watches them, keeps what people said, and answers them.

It touches no picture on its way: `grab` and `publish` meet in the frame ring, so the video goes on while this process
is stopped, and ends, with all the others, when it is killed.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import zmq

from .. import errors
from ..config import StreamProfile
from ..control import ControlServer
from ..errors import OutputError, PromptError
from ..metrics import serve
from ..types import Frame, now_ns
from .board import ROLES, Board
from .child import WORKER, Child
from .network import Network, Ticket
from .orders import Orders
from .parcels import frame_of
from .remedy import Remedy
from .ring import Ring, new_bell
from .seat import FRAMES, SHOWN, Fds, masks_plan
from .state import Facts, has_recovered, state_of
from .statement import Counts, plain_config

log = logging.getLogger("rtseg.live")

TICK_MS = 20
STATUS_NS = 500_000_000
GRAB_WAITS_NS = 30_000_000_000  # for the network, so that a recording is tracked from its first frame; then it goes on
STEPS_OF_SILENCE = 10  # a network may be silent for so many of its steps
STOP_S = 2.0
MINOR = {"record", "prompts"}  # whose faults are loud, and leave the feed what it is
NOTICES = {"frozen": "source frozen", "paused": "paused"}  # what the picture itself has to say
NEWS = {"resized", "too_fast", "pts_jumps", "misfits"}  # counts of the source that are told when they rise


class Feed:
    """A running stream profile. `run` blocks until the source ends, `stop` is called, or `seconds` have passed."""

    def __init__(self, profile: StreamProfile, worker: Sequence[str] = WORKER) -> None:
        """`worker` is the command that begins a process; tests put faults into it."""
        self.profile = profile
        self.settings = {"opacity": profile.opacity, "budget_ms": profile.mask_budget_ms}
        self.facts = Facts()
        self.events: list[str] = []
        self.faults: dict[str, str] = {}  # what stands: the role that failed, and how
        self.source: dict[str, Any] = {"uri": "", "state": "opening", "counts": {}}
        self.engine, self.endpoint, self.control, self.recording = "", "", "", ""
        self.published: dict[str, Any] = {}
        self._worker, self._over = worker, False
        self._first_given = not profile.objects
        self._ended_ns = 0
        self._status_ns = self._recovery_ns = 0
        self.on_ready: Callable[[Feed, str], None] = lambda feed, endpoint: None

    def stop(self) -> None:
        """End the feed; from any thread."""
        self._over = True

    # A run.

    def run(self, seconds: float | None = None) -> dict[str, Any]:
        """Play the feed; returns what happened to every frame, and how long each stage took."""
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
                    self._close()
                except KeyboardInterrupt:  # somebody is in a hurry
                    for child in self.children.values():
                        child.kill()
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
            endpoint = stack.enter_context(serve(profile.metrics, lambda: self.counts.snapshot(self)))
            log.info("metrics at %s", endpoint.address)
        if profile.record is not None:
            _check_folder(profile.record)
        self.began_ns = 0
        self._start_ns = now_ns()
        for role in ("segment", "publish", "grab"):
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
        for child in self.children.values():
            self._listen(child)
            self._watch(child)
        self._begin_when_ready()
        self._give_first_prompts()
        if self._orders is not None:
            self._orders.turn()
        self._judge()
        if now_ns() >= self._status_ns:
            self.state_now()
        self._end_when_done()

    # The processes.

    def _watch(self, child: Child) -> None:
        if child.hangs(self.board[f"beat {child.role}"]):
            self.note("hung", child.role, f"no sign of life for {child.silent_s:g} s; it is ended")
            child.kill()
        child.see_out()
        if child.ended:
            self._listen(child)  # why it ends is the last that a process says
            self._died(child, child.reap())
        came = child.tick(lambda: plain_config(child.role, self))
        if came is not None:
            self.note("started", child.role, came)

    def _died(self, child: Child, how: str) -> None:
        text = f"{how}: {child.last_fault}" if child.last_fault else how
        child.last_fault = ""
        if child.role == "grab" and self._ended_ns:
            return
        if child.role == "segment":
            self._lose_masks()
        if child.role == "grab":
            self.source["state"] = "lost"
        if child.refused:
            self.faults[child.role] = text = str(child.refused)
            if not self.began_ns or child.role == "grab":
                raise child.refused
        self.note("died", child.role, text)
        if child.role == "publish" and child.hopeless:
            raise OutputError(f"{self.profile.name}: nothing can be published ({text}); RTSEG_DEBUG=1 shows where")

    def _listen(self, child: Child) -> None:
        for facts, fds in child.heard():
            for fd in fds:  # they send none
                os.close(fd)
            heard: Callable[..., None] = getattr(self, f"_on_{facts.pop('say')}")
            heard(child, **facts)

    def _on_ready(self, child: Child, engine: str, step_ms: float) -> None:
        """The network is there: say again what was said to the one before."""
        child.worked()
        child.silent_s = max(child.silent_s, STEPS_OF_SILENCE * step_ms / 1e3)
        self.engine = engine
        self.note("ready", child.role, engine)
        self.network.begin()
        self.children["publish"].say("engine", engine=engine)
        self.remedy.ready(step_ms)

    def _on_kept(self, child: Child, why: str) -> None:
        """The network could not be opened otherwise, and is there as it was."""
        self.remedy.refused(why)

    def restore(self, kind: str, text: str) -> None:
        """The network opens again: until it is `ready`, it is as if it had not begun."""
        self.children["segment"].up = False
        self._recovery_ns, self.facts.recovering = now_ns(), bool(self.network.keep.ids)
        self.note(kind, "segment", text)

    def _on_bound(self, child: Child, endpoint: str) -> None:
        child.worked()
        self.endpoint = endpoint
        self.note("bound", child.role, endpoint)
        child.say("set", settings=self.settings)

    def _on_source(self, child: Child, uri: str, **facts: Any) -> None:
        child.worked()
        self.source = {**self.source, "uri": uri, **facts}

    def _on_state(self, child: Child, state: str, why: str, crop: list[int] | None, counts: dict[str, int]) -> None:
        if state != self.source["state"]:
            self.note("source", child.role, f"{state} ({why})" if why else state)
        for name in sorted(NEWS & counts.keys()):
            if counts[name] > self.source["counts"].get(name, 0):
                self.note("source", child.role, f"{name} {counts[name]}")
        if crop and crop != self.source.get("crop"):
            self.note("source", child.role, f"cropped to {crop}")
        self.source = {**self.source, "state": state, "why": why, "crop": crop, "counts": counts}
        if state == "ended" and not self._ended_ns:
            self._ended_ns = now_ns()
            child.rest()

    def _on_recording(self, child: Child, folder: str) -> None:
        child.worked()
        self.recording = folder
        self.note("recording", child.role, folder)

    def _on_counts(self, child: Child, counts: dict[str, Any]) -> None:
        self.published = counts

    def _on_fault(self, child: Child, text: str) -> None:
        child.last_fault = text
        self.note("fault", child.role, text)

    def _on_refused(self, child: Child, text: str, kind: str) -> None:
        child.error = getattr(errors, kind)(text)

    def _on_answer(self, child: Child, ticket: Ticket, error: str | None) -> None:
        self.network.answer(ticket, error)

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

    def _give_first_prompts(self) -> None:
        """The profile's objects are those of the feed's first frame."""
        if self._first_given or not self.frames.head:
            return
        frame = self.frame(0) or self.frame()
        if frame is None:
            return
        self._first_given = True
        try:
            for prompt in self.profile.objects:
                self.network.keep.check(prompt, frame, new=True)
        except PromptError as e:
            self._first_answer(str(e))
        else:
            self.network.prompt(frame, self.profile.objects, self._first_answer, stay=True)

    def _first_answer(self, error: str | None) -> None:
        """Of a recording, prompts that do not fit are a mistake in the profile; a live picture goes on without them."""
        if error is None:
            return
        if not self.source.get("live"):
            raise PromptError(error)
        self.faults["prompts"] = error
        self.note("fault", "prompts", error)

    # States.

    def _begin_when_ready(self) -> None:
        """Begin to grab once there is somebody to publish, and the network is ready or has had its time."""
        grab, segment = self.children["grab"], self.children["segment"]
        if self.began_ns or not grab.up or not self.children["publish"].up:
            return
        if segment.up or segment.starts > 1 or now_ns() - self._start_ns > GRAB_WAITS_NS:
            self.on_ready(self, self.endpoint)
            self.began_ns = now_ns()
            if "record" in self.children:
                self.children["record"].begin()
            grab.say("go")

    def _lose_masks(self) -> None:
        self._recovery_ns = now_ns()
        self.facts.recovering = bool(self.network.keep.ids) or not self._first_given
        gone = self.network.lost()
        if gone is not None:
            self.faults["prompts"] = gone
            self.note("fault", "segment", gone)

    def _judge(self) -> None:
        facts = self.facts
        facts.paused = self.network.paused
        self.network.proved(self.board["masks captured_ns"])
        facts.source = self.source["state"] if self.began_ns else "opening"
        self.remedy.turn()
        if not facts.recovering or facts.paused:
            return
        meta = self.frames.meta(self.frames.head - 1)
        newest_ns = now_ns() if meta is None else frame_of(0, meta).captured_ns
        if self._first_given and not self.network.keep.ids:
            facts.recovering = False  # there is nothing to come back with
        elif has_recovered(self.board, newest_ns, self._recovery_ns, self.settings["budget_ms"]):
            facts.recovering = False
            self.note("recovered", "segment", f"after {(now_ns() - self._recovery_ns) / 1e9:.1f} s")

    def state_now(self) -> None:
        """Tell the displays, and the record, how the feed is."""
        self._status_ns = now_ns() + STATUS_NS
        status, notice, behind = self.counts.status(self), NOTICES.get(self.state, ""), self.remedy.now is not None
        recovering = self.facts.recovering
        self.children["publish"].say("status", status=status, recovering=recovering, notice=notice, behind=behind)

    def settle(self, **changed: float) -> None:
        """Change the settings of the display."""
        self.settings = {**self.settings, **changed}
        self.children["publish"].say("set", settings=self.settings)

    @property
    def state(self) -> str:
        unpublished = bool(self.began_ns) and not self.children["publish"].up and not self.facts.over
        return state_of(replace(self.facts, failed=unpublished or bool(set(self.faults) - MINOR)))

    def note(self, kind: str, role: str, text: str) -> None:
        """Something happened: to the log, the status and the record."""
        log.log(logging.WARNING if kind in ("died", "hung", "fault") else logging.INFO, "%s %s: %s", role, kind, text)
        self.events = [*self.events, f"{role} {kind}: {text}"][-20:]
        if "record" in self.children:
            self.children["record"].say("note", kind=kind, facts={"role": role, "text": text})
        self._status_ns = 0

    # The end.

    def _end_when_done(self) -> None:
        """After the last frame: once every frame's fate is known, or the publisher has had its time."""
        if not self._ended_ns:
            return
        waited_ms = (now_ns() - self._ended_ns) / 1e6
        if self.board.decided() >= self.frames.head or waited_ms > 2000 + 2 * self.settings["budget_ms"]:
            self._over = True

    def _close(self) -> None:
        """Against the stream's direction nothing waits: each process ends after those that it takes from."""
        if self.began_ns and not self.frames.head and "grab" not in self.faults:
            self.faults["grab"] = self.source.get("why") or "no picture came"
        for role in ("grab", "segment", "publish", "record"):
            if role == "publish":
                self.state_now()
            if role in self.children:
                self.children[role].stop(STOP_S)
                self._listen(self.children[role])
        self.board.add("dropped restart", self.frames.head - self.board.decided())


def _check_folder(folder: Path) -> None:
    """`OutputError` unless recordings can be written there: better now than after the first picture."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as e:
        raise OutputError(f"record folder {folder}: cannot be written ({e.strerror}); choose another folder") from e
