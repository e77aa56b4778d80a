"""The end of a feed: its workers are stopped in order, and every problem is noted as a fault."""

from __future__ import annotations

from collections.abc import Callable

from ..base.types import now_ns
from .dispatch import receive_all
from .state import FeedState
from .statement import Statement
from .worker_config import worker_config
from .worker_process import WorkerProcess

ORDER = ("grab", "segment", "publish", "record")  # producers before consumers


def close(state: FeedState, statement: Statement, publish_status: Callable[[], None]) -> None:
    """Stop all workers, producers before consumers."""
    if not state.frames.head and state.ending.ok:
        _note_why_nothing_came(state)
    for role in ORDER:
        if role == "publish":
            publish_status()
        if role in state.workers:
            _stop(state, state.workers[role])
    _count_undecided(state)
    if "record" in state.faults:  # frames drawn after the fault are not recorded
        drawn = sum(statement.mask_states().values())
        state.board.add("missed", max(0, drawn - state.board["record next"]))
    missed = state.board["missed"]
    if missed and "record" not in state.faults:
        why = "its process was killed" if state.workers["record"].restarts else "it could not keep up"
        state.fault("record", f"{missed} frames that were shown are not in the recording: {why}")


def cut_short(state: FeedState) -> None:
    """Kill the remaining workers, after a second Ctrl-C."""
    for role, worker in state.workers.items():
        if worker.pid is not None:
            worker.kill("killed by a second Ctrl-C")
            state.fault(role, _consequence(role, worker.abandon()))
    _count_undecided(state)


def drained(state: FeedState) -> bool:
    """After the last frame: whether every frame was shown or dropped, or the publisher's time limit has passed."""
    if not state.source.ended_ns:
        return False
    waited_ms = (now_ns() - state.source.ended_ns) / 1e6
    return state.board.decided() >= state.frames.head or waited_ms > 2000 + 2 * state.settings["budget_ms"]


def _count_undecided(state: FeedState) -> None:
    """Count frames without a decision as dropped: they were lost with the worker that held them."""
    state.board.add("dropped restart", state.frames.head - state.board.decided())


def _note_why_nothing_came(state: FeedState) -> None:
    why = str(state.source.facts.get("why") or "")
    if not state.began_ns:
        why = f"ended before the first picture, while it waited for {state.waits_for}" + (f" ({why})" if why else "")
    state.fault("grab", why or f"{state.source.facts['uri']}: no picture arrived; check that the sender is running")


def _stop(state: FeedState, worker: WorkerProcess) -> None:
    role = worker.role
    if not worker.starts:
        return
    if worker.ended:  # since the last round
        receive_all(state, worker)
        worker.reap()
    if role == "record" and worker.pid is None and worker.refused is None:  # closes what its predecessor left open
        worker.start_soon()
        worker.start_if_due(lambda: worker_config(role, state))
    how = worker.stop(lambda: state.board[f"beat {role}"], lambda: receive_all(state, worker))
    if not how or not state.began_ns or state.ending.refusal is not None or worker.refused is not None:
        return  # a refusal was reported before
    if role == "grab" and state.source.ended_ns and worker.pid is None:
        return  # it had read the whole source
    if role == "segment" and not worker.restarts and not worker.failing and not state.segmenter.history.ids:
        return  # it had no objects to segment
    state.fault(role, _consequence(role, how))


def _consequence(role: str, how: str) -> str:
    return f"{how}; the recording is not closed" if role == "record" else how
