"""What each message of a worker changes in the state of its feed."""

from __future__ import annotations

import os

from ..base import errors
from ..publish.looks import PLAIN
from .delay_control import check_first_step, keep_image_size
from .ipc import reports as r
from .ipc.messages import DisplaySettings, SetEngine
from .opening import check_objects
from .state import FeedState
from .worker_limits import NEW_SIZE_S, silence_s
from .worker_process import WorkerProcess


def receive_all(state: FeedState, worker: WorkerProcess) -> None:
    """Handle all messages that a worker has sent."""
    for message, fds in worker.receive():
        for fd in fds:  # workers send none
            os.close(fd)
        dispatch(state, worker, message)


def dispatch(state: FeedState, worker: WorkerProcess, message: r.Report) -> None:
    """Handle one message."""
    match message:
        case r.Fault(text):
            worker.last_fault = text
            state.note("fault", worker.role, text)
        case r.Refused(text, kind):
            worker.error = getattr(errors, kind)(text)
        case r.Done():
            worker.finished = True
        case r.Bound(endpoint):
            worker.is_up()
            state.endpoint = endpoint
            state.note("bound", worker.role, endpoint)
            worker.send(DisplaySettings(**state.settings))
            state.looks_sent = PLAIN  # what a publisher that has just begun draws
        case r.PublishCounts(counts):
            state.publisher_counts.update(counts)
        case r.RecordingOpened(folder):
            worker.is_up()
            state.recording = folder
            state.note("recording", worker.role, folder)
        case r.SourceOpened() | r.SourceSize() | r.SourceReport() | r.SourceAccount():
            _from_grab(state, worker, message)
        case _:
            _from_segment(state, worker, message)


def _from_grab(
    state: FeedState,
    worker: WorkerProcess,
    message: r.SourceOpened | r.SourceSize | r.SourceReport | r.SourceAccount,
) -> None:
    match message:
        case r.SourceOpened(size=size):
            worker.is_up()
            state.source.opened(message)
            if size is not None:
                state.set_size(size)
                if not state.began_ns:
                    check_objects(state, size)
        case r.SourceSize(size):
            state.set_size(size)
        case r.SourceReport():
            if state.source.reported(message):
                worker.do_not_restart()
            if state.source.live and state.source.counts.get("frames"):
                worker.refusal_is_final = False  # a source that was there once may come back
        case r.SourceAccount(account):
            state.source.accounted(message)
            state.record("account", account)
            if account["ended"]:
                state.fault("grab", f"{state.source.facts['uri']}: ended early: {account['ended']}")


def _from_segment(state: FeedState, worker: WorkerProcess, message: r.Report) -> None:
    match message:
        case r.EngineReady(engine, step_ms):
            _engine_ready(state, worker, engine, step_ms)
        case r.Preparing(what, part_s):
            worker.prepares(what, part_s, state.board[f"beat {worker.role}"])
            state.note("preparing", worker.role, what)
        case r.SizeReady(step_ms):
            worker.is_prepared()
            state.segmenter.preparing_size = False
            if step_ms is not None:
                worker.silent_s = silence_s(worker.role, step_ms)
                check_first_step(state, step_ms)
        case r.NewSize():
            worker.silent_s = max(worker.silent_s, NEW_SIZE_S)
        case r.StepTime(step_ms):
            worker.silent_s = silence_s(worker.role, step_ms)
        case r.ImageSizeRefused(why):
            keep_image_size(state, why)
        case r.SceneReport():
            _scene(state, worker, message)
        case r.Unanswered(text):
            state.note("unanswered", worker.role, text)
        case r.Answer(ticket, _, warnings):
            for line in warnings if ticket else ():  # those of replayed prompts were noted the first time
                state.note("warning", worker.role, line)
            state.segmenter.answered(message)
        case _:
            raise TypeError(f"{worker.role} sent {message!r}, which nothing handles")


def _engine_ready(state: FeedState, worker: WorkerProcess, engine: str, step_ms: float) -> None:
    """The network is ready: replay the prompts to it."""
    worker.is_up()
    worker.silent_s = silence_s(worker.role, step_ms)
    state.engine = engine
    state.note("ready", worker.role, engine)
    if not state.segmenter.replay():
        worker.kill("it does not listen")
    state.workers["publish"].send(SetEngine(engine))
    check_first_step(state, step_ms)


def _scene(state: FeedState, worker: WorkerProcess, report: r.SceneReport) -> None:
    """Another scene begins with a frame, or objects were lost or found again on it."""
    scene, lost = state.scene, ", ".join(map(str, report.lost)) or "none"
    newly = [i for i in report.lost if i not in scene.lost]
    scene.lost = report.lost
    if report.cut:
        scene.last_cut = report.seq
        text = f"another scene begins with frame {report.seq}; lost until found again: {lost}"
        state.note("cut", worker.role, text)
    elif newly:
        gone = ", ".join(map(str, newly))
        state.note(
            "lost", worker.role, f"object {gone} is out of view since frame {report.seq}; lost until found again"
        )
    if report.found:
        found = ", ".join(map(str, report.found))
        state.note("found", worker.role, f"object {found} again, on frame {report.seq}; lost: {lost}")
