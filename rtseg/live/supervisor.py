"""The supervisor of one feed: it starts the workers, watches them, and answers control requests.

No picture passes through it: `grab` and `publish` share the frame ring, so the video continues while this process is
stopped. When this process is killed, all workers end with it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import zmq

from ..base.errors import OutputError, RtsegError, SourceError
from ..base.types import now_ns
from .closing import close, cut_short, drained
from .control import ControlServer
from .delay_control import control_delay
from .dispatch import receive_all
from .ipc.board import ROLES
from .ipc.messages import Begin, PublishStatus
from .ipc.shared_memory import SharedMemory
from .opening import check_folder, give_first_prompts, may_begin
from .requests import RequestHandler
from .state import FeedState
from .statement import Statement
from .watch import serve
from .worker_config import worker_config
from .worker_process import WorkerProcess

log = logging.getLogger("rtseg.live")

POLL_MS = 20
STATUS_NS = 500_000_000
NEEDED = {"grab": "read", "publish": "published"}  # workers that every feed needs, and what fails without them
NOTICES = {"frozen": "source frozen", "paused": "paused"}  # phases that are shown as a text on the overlay


class Supervisor:
    """Supervises one feed. `on_ready` is called when everything is open, before the first frame is read."""

    def __init__(self, state: FeedState, command: Sequence[str], on_ready: Callable[[], None]) -> None:
        """`command` starts a worker."""
        self._state, self._command, self._on_ready = state, command, on_ready
        self._poller = zmq.Poller()
        self._turns = threading.Lock()  # held while the state changes
        self._requests: RequestHandler | None = None

    def open(self, stack: ExitStack) -> None:
        """Make the shared memory and the sockets, and start the workers; `stack` closes memory and sockets."""
        state, profile = self._state, self._state.profile
        shared = SharedMemory.create(profile.engine.max_objects, profile.engine.image_size)
        stack.callback(shared.close)
        roles = [role for role in ROLES if role != "record" or profile.record]
        final = ("grab", "record")  # roles whose refusal is final even after they have worked
        workers = {role: WorkerProcess(role, shared.fds, self._command, role in final) for role in roles}
        stack.callback(state.close_keeper)
        state.attach(shared, workers)
        self._statement = Statement(state)
        if profile.control is not None:
            server = stack.enter_context(ControlServer(profile.control, profile.keys))
            state.control = server.endpoint
            log.info("control at %s", state.control)
            self._poller.register(server.socket, zmq.POLLIN)
            self._requests = RequestHandler(state, self._statement, server)
        if profile.metrics is not None:
            endpoint = stack.enter_context(serve(profile.metrics, self.snapshot))
            log.info("metrics at %s", endpoint.address)
        if profile.record is not None:
            check_folder(profile.record)
        state.start_ns = now_ns()
        for role in ("publish", "grab", "segment"):  # the role that refuses soonest comes first
            workers[role].start_soon()

    def turn(self) -> None:
        """One round: handle messages, replace workers that died or hang, and update the state."""
        links = [worker.link for worker in self._state.workers.values() if worker.link is not None]
        for link in links:
            self._poller.register(link.fileno(), zmq.POLLIN)
        self._poller.poll(POLL_MS)
        for link in links:
            self._poller.unregister(link.fileno())
        with self._turns:
            self._turn()

    def _turn(self) -> None:
        state = self._state
        for worker in state.workers.values():
            receive_all(state, worker)
            self._watch(worker)
        if state.ending.refusal is not None:
            state.stop()
            return
        if may_begin(state):
            self._begin()
        give_first_prompts(state)
        if self._requests is not None:
            self._requests.turn()
        state.send_looks()
        state.keep_prompts()
        state.update_conditions()
        control_delay(state)
        state.check_recovery()
        if now_ns() >= state.status_due_ns:
            self.publish_status()
        if drained(state):
            state.stop()

    def _begin(self) -> None:
        """Let `grab` read the first frame."""
        state = self._state
        self.publish_status()  # for new subscribers
        self._on_ready()
        state.began_ns = now_ns()
        if "record" in state.workers:
            state.workers["record"].start_soon()
        state.workers["grab"].send(Begin())

    def publish_status(self) -> None:
        """Have the status sent to subscribers, and parts of it shown on the overlay."""
        state = self._state
        state.status_due_ns = now_ns() + STATUS_NS
        message = PublishStatus(
            status=self._statement.status(),
            recovering=state.conditions.recovering or state.conditions.absent,
            notice=NOTICES.get(state.phase, ""),
            behind=state.delay.lag is not None,
        )
        state.workers["publish"].send(message)

    def snapshot(self) -> dict[str, Any]:
        """The figures for Prometheus; from any thread."""
        with self._turns:
            return self._statement.snapshot()

    def report(self) -> dict[str, Any]:
        """The report for the person who ran the feed."""
        return self._statement.report()

    # The workers.

    def _watch(self, worker: WorkerProcess) -> None:
        """Kill the worker if it hangs, note its death, and start it if that is due."""
        state = self._state
        why = worker.why_hung(state.board[f"beat {worker.role}"])
        if why is not None:
            state.note("hung", worker.role, f"{why}; it is ended")
            worker.kill(why)
        worker.kill_if_it_does_not_exit()
        if worker.ended:
            receive_all(state, worker)  # its last message says why it ended
            self._died(worker, worker.reap())
        started = worker.start_if_due(lambda: worker_config(worker.role, state))
        if started is not None:
            state.note("started", worker.role, started)

    def _died(self, worker: WorkerProcess, how: str) -> None:
        state, role = self._state, worker.role
        if role == "grab" and state.source.ended_ns:
            return
        if role == "segment":
            state.lose_masks()
        elif role == "grab":
            state.source.lost(how)
        elif role == "publish":
            state.publisher_counts.restart()
        state.note("died", role, how)
        if worker.refused is not None:
            self._refused(worker, worker.refused)
        elif role in NEEDED and worker.never_worked and not state.began_ns:
            what = f"{state.profile.name}: nothing can be {NEEDED[role]}"
            error = SourceError if role == "grab" else OutputError
            state.ending.refuse(role, error(f"{what} ({how}); RTSEG_DEBUG=1 shows where"))

    def _refused(self, worker: WorkerProcess, why: RtsegError) -> None:
        """Before the first picture a refusal ends the feed; later, the other workers continue."""
        state = self._state
        if not state.began_ns or (worker.role == "grab" and not state.frames.head):
            state.ending.refuse(worker.role, why)
            return
        state.fault(worker.role, str(why))
        if worker.role == "grab":  # a recording broke off: the frames that were read are shown
            state.source.ended_ns = now_ns()

    # The end.

    def close(self) -> None:
        """Stop the workers in order; a second Ctrl-C kills the rest."""
        self._state.conditions.over = True
        try:
            close(self._state, self._statement, self.publish_status)
        except KeyboardInterrupt:
            cut_short(self._state)
        finally:
            self._state.close_keeper()
            for worker in self._state.workers.values():
                worker.abandon()
