"""What is true of a feed: its phase, its counts over restarts, and what messages change in it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, get_args
from unittest.mock import Mock

import msgspec
import pytest

from rtseg.live.counters import CumulativeCounters
from rtseg.live.dispatch import dispatch
from rtseg.live.ipc.board import Board
from rtseg.live.ipc.messages import PublishConfig, SetEngine, Stop
from rtseg.live.ipc.reports import EngineReady, Report, SourceOpened, SourceReport
from rtseg.live.profile import StreamProfile
from rtseg.live.source_state import SourceState
from rtseg.live.state import Conditions, FeedState, has_recovered, phase_of
from rtseg.live.statement import Statement
from rtseg.live.worker_config import worker_config
from tests.live.conftest import SOURCE, Running

Start = Callable[[StreamProfile], Running]
Faults = Callable[..., None]


def test_the_phase_is_the_worst_condition() -> None:
    assert phase_of(Conditions(source="running")) == "running"
    assert phase_of(Conditions(source="running", recovering=True, paused=True)) == "paused"
    assert phase_of(Conditions(source="stalled", recovering=True, failed=True)) == "stalled"
    assert phase_of(Conditions(source="running", failed=True)) == "failed"
    assert phase_of(Conditions(source="lost", over=True)) == "ended"


def test_masks_of_before_the_crash_are_no_recovery() -> None:
    board = Board.create()
    board["masks captured_ns"] = 1_000_000_000
    assert not has_recovered(board, 1_010_000_000, since_ns=1_000_000_000, budget_ms=120)
    board["masks captured_ns"] = 1_005_000_000
    assert has_recovered(board, 1_010_000_000, since_ns=1_000_000_000, budget_ms=120)
    assert not has_recovered(board, 1_500_000_000, since_ns=1_000_000_000, budget_ms=120)
    board["masks captured_ns"] = 6_000_000_000  # a network that is always late is back all the same
    assert has_recovered(board, 6_500_000_000, since_ns=1_000_000_000, budget_ms=120)


def test_the_engine_has_one_text_on_the_wire_also_after_a_restart() -> None:
    state = FeedState(StreamProfile("clip.mp4"))
    workers = {"publish": Mock(), "segment": Mock(role="segment", silent_s=1.0)}
    state.workers, state.segmenter = workers, Mock()
    dispatch(state, workers["segment"], EngineReady("nano, cpu: kernels, memory efp", 1.0))
    (sent,) = [call.args[0] for call in workers["publish"].send.call_args_list]
    config = worker_config("publish", state)
    assert isinstance(config, PublishConfig) and sent == SetEngine(config.engine) == SetEngine(state.engine)
    assert state.engine == "nano, cpu: kernels, memory efp"


def test_a_message_that_nothing_handles_is_an_error() -> None:
    state, worker = FeedState(StreamProfile("clip.mp4")), Mock(role="segment")
    with pytest.raises(TypeError, match="segment sent Stop"):
        dispatch(state, worker, Stop())  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", get_args(Report), ids=lambda kind: str(kind.__name__))
def test_every_report_of_a_worker_is_handled(kind: type[Any]) -> None:
    plain = {"text": "x", "kind": "EngineError", "lines": [], "account": {"ended": ""}, "crop": None, "counts": {}}
    plain |= {"size": None if kind is SourceOpened else [6, 8], "lost": [], "found": [], "ticket": 0, "error": None}
    values = {name: plain.get(name, 1.0 if name.endswith(("_ms", "_s")) else 1 if name == "seq" else "x")
              for name in kind.__struct_fields__}  # fmt: skip
    values |= {name: False for name in ("live", "cut") if name in values}
    values |= {"warnings": [], "result": {}} if "warnings" in values else {}
    message = msgspec.convert(values, kind)
    state, worker = FeedState(StreamProfile("clip.mp4")), Mock(role="segment", silent_s=1.0)
    state.workers = {"publish": Mock(), "segment": worker}
    state.segmenter, state.shared, state.board = Mock(), Mock(), defaultdict(int)  # type: ignore[assignment]
    dispatch(state, worker, message)


@pytest.mark.slow
def test_what_was_published_and_what_happened_to_the_source_outlives_their_processes(
    profile: StreamProfile, running: Start, faults: Faults
) -> None:
    run = running(replace(profile, source=SOURCE.format(120)))
    run.until(lambda: run.state.published.get("video", {}).get("sent", 0) > 20)
    run.until(lambda: run.state.source.counts.get("frames", 0) > 20)
    for role in ("publish", "grab"):
        sent, frames = run.state.published["video"]["sent"], run.state.source.counts["frames"]
        os.kill(run.pid(role), signal.SIGKILL)
        run.until(lambda r=role: run.state.workers[r].restarts == 1 and run.state.workers[r].up)  # type: ignore[misc]
        seen = []
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            seen.append((run.state.published["video"]["sent"], run.state.source.counts["frames"]))
            time.sleep(0.01)
        assert min(a for a, _ in seen) >= sent and min(b for _, b in seen) >= frames
        assert seen[-1][0] > sent and seen[-1][1] > frames
    assert run.finish()["source_counts"]["connections"] == 2


def test_counters_are_summed_over_restarts() -> None:
    counters = CumulativeCounters()
    counters.update({"a": 1, "of": {"slot": 2}, "name": "x"})
    assert counters.update({"a": 3, "of": {"slot": 4}, "name": "y"}) == {"a": 3, "of": {"slot": 4}, "name": "y"}
    counters.restart()
    assert counters.update({"a": 0, "of": {"late": 1}}) == {"a": 3, "of": {"slot": 4, "late": 1}, "name": "y"}
    counters.restart()
    assert counters.update({"a": 2, "of": {}})["a"] == 5


@pytest.mark.slow
def test_a_snapshot_is_whole_while_everything_changes(profile: StreamProfile, running: Start, faults: Faults) -> None:
    run = running(replace(profile, source=SOURCE.format(120), control="tcp://127.0.0.1:*"))
    from rtseg.live.control import Client

    failures: list[BaseException] = []
    over = threading.Event()

    def scrape() -> None:
        while not over.is_set():
            try:
                run.feed.snapshot()
            except BaseException as e:
                failures.append(e)

    threads = [threading.Thread(target=scrape) for _ in range(3)]
    for thread in threads:
        thread.start()
    with Client(run.state.control, timeout=60) as client:
        for n in range(20):
            client.add(2 + n % 3, points=[(30, 30, 1)])
            if n % 7 == 0:
                kills = n // 7 + 1
                with suppress(ProcessLookupError):
                    os.kill(run.pid("publish"), signal.SIGKILL)
                # It reads as up until the supervisor has seen its death.
                run.until(
                    lambda k=kills: run.state.workers["publish"].restarts >= k and run.state.workers["publish"].up
                )
            client.remove(2 + n % 3)
    over.set()
    for thread in threads:
        thread.join()
    assert not failures and run.feed.snapshot()["objects"] == 1


def test_rates_are_worked_out_by_one_thread_at_a_time() -> None:
    inside, most = [0], [0]

    class Slow:
        head, stages = 10, {}  # type: ignore[var-annotated]

        def __getitem__(self, name: str) -> int:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.01)
            inside[0] -= 1
            return 5

    statement = Statement(SimpleNamespace(board=Slow(), frames=Slow()))  # type: ignore[arg-type]
    threads = [threading.Thread(target=statement.rates) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 1


def test_what_is_not_there_yet_is_said_less_and_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0]
    monkeypatch.setattr("rtseg.live.source_state.now_ns", lambda: now[0])
    said: list[tuple[float, str]] = []
    source = SourceState(lambda kind, role, text: said.append((now[0] / 1e9, text)))
    source.opened(SourceOpened("tcp://camera", True, None))
    for second in range(120):
        now[0] = second * 1_000_000_000
        source.reported(SourceReport("lost", "refused", None, {}))
        source.remind("")
    assert said[:2] == [(0, "connecting to tcp://camera"), (0, "lost (refused)")]
    assert [at for at, _ in said[2:]] == [6, 17, 38, 79] and "still lost after 6 s (refused)" in said[2][1]
    source.reported(SourceReport("running", "", None, {}))
    source.remind("")
    assert len(said) == 7
