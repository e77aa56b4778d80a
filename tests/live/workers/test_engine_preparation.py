"""Before the first frame is due: what a size of pictures needs is made, and a long beginning is told from a hang."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from rtseg.engine.recipe import Recipe
from rtseg.live import worker_process
from rtseg.live.activity import ActivityMonitor, cpu_seconds
from rtseg.live.ipc.reports import Preparing, SizeReady
from rtseg.live.profile import StreamProfile
from rtseg.live.worker_limits import PREPARE_S, START_S
from rtseg.live.worker_process import WorkerProcess
from rtseg.live.workers import priority, segment
from rtseg.live.workers.engine_preparation import OPENS_S, prepare, report_opening, warm_up
from tests.live.conftest import SOURCE, Running

Start = Callable[[StreamProfile], Running]
Faults = Callable[..., None]


# -------------------------------------------------------------------- what is made, and when
class Context:
    """A worker's context that remembers what is sent."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.send = self.sent.append
        self.beats = 0

    def beat(self) -> None:
        self.beats += 1


class Engine:
    """One that prepares, and keeps what it sees."""

    recipe, image_size = Recipe(max_objects=3), 64

    def __init__(self) -> None:
        self.seen: list[object] = []

    def ready(self, height: int, width: int, beat: Callable[[], None]) -> None:
        self.seen.append(("ready", height, width))
        beat()


@pytest.fixture()
def tracker(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tracker that shows its engine what it is given."""

    class Tracker:
        policy = "none"

        def __init__(self, engine: Any) -> None:
            self.engine = engine

        def prompt(self, *_: Any, **__: Any) -> None:
            pass

        def step(self, image_hwc: Any) -> None:
            self.engine.seen.append(image_hwc.shape[:2])

    for module in ("engine_preparation", "segment"):
        monkeypatch.setattr(f"rtseg.live.workers.{module}.Tracker", Tracker)


def test_an_engine_prepares_for_the_size_of_the_feed_and_for_no_other(tracker: None) -> None:
    context, engine = Context(), Engine()
    assert prepare(context, engine, None) is None and engine.seen == []  # type: ignore[arg-type]
    assert prepare(context, engine, (90, 120)) is not None  # type: ignore[arg-type]
    assert engine.seen == [("ready", 90, 120), *[(90, 120)] * 4]
    (message,) = context.sent
    assert isinstance(message, Preparing) and "120x90 and up to 3 objects" in message.what and context.beats > 1


def test_one_that_prepares_nothing_is_left_alone(tracker: None) -> None:
    context, engine = Context(), SimpleNamespace(recipe=Recipe(), seen=[])
    assert prepare(context, engine, (90, 120)) is None and engine.seen == [] == context.sent  # type: ignore[arg-type]


def test_pictures_that_change_their_size_are_prepared_for_again(tracker: None, monkeypatch: pytest.MonkeyPatch) -> None:
    context, engine = Context(), Engine()
    worker: Any = SimpleNamespace(
        _context=context, _size=None, _known_size=None, _tracker=SimpleNamespace(engine=engine)
    )
    for size in (None, (90, 120), (90, 120), (48, 64), None, (48, 64)):
        monkeypatch.setattr(segment, "size_of", lambda *_, size=size: size)
        segment._Segmenter._prepare_for_size(worker)
    assert [seen for seen in engine.seen if seen[0] == "ready"] == [("ready", 90, 120), ("ready", 48, 64)]  # type: ignore[index]
    assert sum(isinstance(message, SizeReady) for message in context.sent) == 2


def test_a_recording_is_segmented_from_its_first_frame_by_an_engine_that_prepares(
    profile: StreamProfile, faults: Faults, running: Start, tmp_path: Path
) -> None:
    """Its pictures wait until the engine is ready for them, and no step comes before that; no square is prepared."""
    faults(readies=str(tmp_path / "seen"), ready_s=0.5)
    run = running(replace(profile, source=SOURCE.format(60)))
    run.until(lambda: run.state.board["segmented"] > 5)
    told = [event for event in run.state.events if "preparing" in event]
    assert any("160x120" in event for event in told), run.state.events
    assert run.state.workers["segment"].preparing == ""
    assert run.finish()["ok"]
    seen = (tmp_path / "seen").read_text().splitlines()
    made_ns = int(seen.pop(1).removeprefix("made "))
    assert run.state.began_ns > made_ns
    assert seen[:5] == ["ready 160x120", *["warm 160x120"] * 4]
    assert seen[5] == "step 160x120 0" and all(line.startswith("step") for line in seen[5:])


def test_while_it_prepares_the_status_says_so_and_what_hangs_is_ended(
    profile: StreamProfile, faults: Faults, running: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults(readies=str(tmp_path / "seen"), hangs=True)
    monkeypatch.setattr("rtseg.live.opening.GRAB_WAITS_NS", 0)  # the picture does not wait
    run = running(replace(profile, source=SOURCE.format(120)))
    status = lambda: run.state.workers["segment"].preparing  # noqa: E731
    run.until(lambda: "making ready for pictures of 160x120" in status())
    monkeypatch.setitem(START_S, "segment", 1.0)
    run.until(lambda: any("hung" in event for event in run.state.events))
    hung = next(event for event in run.state.events if "hung" in event)
    assert "did nothing for 1 s while making ready for pictures" in hung


def test_a_capture_is_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = iter((0.02, 0.3, 0.001, 0.001))

    class Tracker:
        def __init__(self, engine: Any) -> None:
            pass

        def prompt(self, *args: Any, **kwargs: Any) -> None:
            pass

        def step(self, image_hwc: Any) -> None:
            time.sleep(next(steps))

    monkeypatch.setattr("rtseg.live.workers.engine_preparation.Tracker", Tracker)
    assert warm_up(SimpleNamespace(image_size=64)) < 100  # type: ignore[arg-type]


# -------------------------------------------------------------------- a long beginning and a hang
class Clock:
    def __init__(self) -> None:
        self.ns = 10**12


@pytest.fixture()
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(worker_process, "now_ns", lambda: clock.ns)
    return clock


class Sign:
    """A monitor of a process that shows what a test says it does."""

    def __init__(self, clock: Clock, shows: str) -> None:
        self._clock, self._shows = clock, shows
        self.active_ns = self.progress_ns = clock.ns

    def look(self, beat_ns: int) -> None:
        if self._shows in ("works", "beats"):
            self.active_ns = self.progress_ns = self._clock.ns
        if self._shows == "turns":
            self.active_ns = self._clock.ns


@pytest.mark.parametrize(
    ("shows", "after_s", "how"),
    [
        ("nothing", START_S["segment"], "did nothing for 120 s while cuda: compiling"),
        ("turns", OPENS_S["cuda"], "made no progress for 900 s while cuda: compiling"),  # processor time alone
        ("works", PREPARE_S, "not ready within 3600 s while cuda: compiling"),  # files, and compilers that come and go
        ("beats", PREPARE_S, "not ready within 3600 s while cuda: compiling"),  # and be it from a thread of its own
    ],
)
def test_who_gets_on_has_time_and_who_does_not_has_less(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, shows: str, after_s: float, how: str
) -> None:
    context = Context()
    report_opening(context, Recipe(runtime="cuda"))  # type: ignore[arg-type]
    monkeypatch.setattr(worker_process, "ActivityMonitor", lambda pid, beat_ns, children: Sign(clock, shows))
    watched = WorkerProcess("segment", None)  # type: ignore[arg-type]
    watched._process = SimpleNamespace(pid=1)  # type: ignore[assignment]
    (message,) = context.sent
    watched.prepares(message.what, message.part_s, clock.ns)
    began_ns, found = clock.ns, None
    while found is None:
        clock.ns += 10**9
        found = watched.why_hung(clock.ns if shows == "beats" else began_ns)
        assert clock.ns - began_ns < 2 * PREPARE_S * 1e9
    assert how in found and after_s <= (clock.ns - began_ns) / 1e9 <= after_s + 2
    watched.is_up()
    watched._why_killed, watched.silent_s = "", 4.0
    assert watched.why_hung(clock.ns) is None and watched.preparing == ""
    clock.ns += 5 * 10**9
    assert watched.why_hung(0) == "no heartbeat for 4 s"


def test_parts_that_follow_one_another_have_one_limit_in_all(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control of the caps: who says again and again that it begins gains nothing."""
    monkeypatch.setattr(worker_process, "ActivityMonitor", lambda pid, beat_ns, children: Sign(clock, "beats"))
    watched = WorkerProcess("segment", None)  # type: ignore[arg-type]
    watched._process = SimpleNamespace(pid=1)  # type: ignore[assignment]
    began_ns = clock.ns
    while watched.why_hung(clock.ns) is None:
        watched.prepares("again", 100.0, clock.ns)
        clock.ns += 60 * 10**9
        assert clock.ns - began_ns < 2 * PREPARE_S * 1e9
    assert (clock.ns - began_ns) / 1e9 <= PREPARE_S + 120


def test_a_cpu_has_no_minutes_for_a_compiler() -> None:
    for runtime, least in (("cuda", 600), ("tensorrt", 600), ("cpu", 0), ("onnx", 0), ("torch", 0)):
        context = Context()
        report_opening(context, Recipe(runtime=runtime))  # type: ignore[arg-type]
        (message,) = context.sent
        assert isinstance(message, Preparing) and message.what.startswith(runtime)
        assert (message.part_s > 600) == bool(least)


COMPILER = """
import sys, threading
threading.Thread(target=sys.stdin.read).start()
while threading.active_count() > 1:
    pass
"""
WAITS = """
import subprocess, sys, time
subprocess.run([sys.executable, sys.argv[1]])
time.sleep(3600)
"""


@pytest.fixture()
def compiling(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that waits for a compiler of its own, which works until its input is closed."""
    (tmp_path / "compiler.py").write_text(COMPILER)
    process = subprocess.Popen([sys.executable, "-c", WAITS, str(tmp_path / "compiler.py")], stdin=subprocess.PIPE)
    yield process
    assert process.stdin is not None
    process.stdin.close()  # that ends the compiler, too
    process.kill()
    process.wait()


def test_what_its_compilers_do_is_a_sign_of_life(compiling: subprocess.Popen[bytes]) -> None:
    def until(true: Callable[[], bool]) -> None:
        end = time.monotonic() + 60
        while not true():
            assert time.monotonic() < end
            time.sleep(0.01)

    process = psutil.Process(compiling.pid)
    until(lambda: any((cpu_seconds(child.pid) or 0) > 0.05 for child in process.children(recursive=True)))
    family, alone = ActivityMonitor(compiling.pid, 0, children=True), ActivityMonitor(compiling.pid, 0)
    began = family.active_ns, alone.active_ns
    until(lambda: (family.look(0), family.active_ns > began[0])[1])
    alone.look(0)
    assert alone.active_ns == began[1], "negative control: itself, it only waits"
    assert family.progress_ns < family.active_ns, "processor time alone may be a circle"
    assert compiling.stdin is not None
    compiling.stdin.close()
    until(lambda: (family.look(0), family.progress_ns == family.active_ns > began[0])[1])  # a compiler that ends


# -------------------------------------------------------------------- priority
@pytest.mark.parametrize(
    ("runtime", "device", "expected"),
    [
        ("cuda", "cuda:1", os.SCHED_OTHER),
        ("tensorrt", "cuda:0", os.SCHED_OTHER),
        ("onnx:cuda", "cpu", os.SCHED_OTHER),  # its arrays are numpy's
        ("cpu", "cpu", os.SCHED_BATCH),
        ("torch", "cpu", os.SCHED_BATCH),
    ],
)
def test_who_launches_a_gpus_work_waits_for_nobody(
    monkeypatch: pytest.MonkeyPatch, tracker: None, runtime: str, device: str, expected: int
) -> None:
    engine = SimpleNamespace(
        device=device, recipe=Recipe(model="nano", runtime=runtime), description=device, image_size=64, seen=[]
    )
    while_it_opens: list[int] = []

    def open_engine(recipe: Recipe) -> Any:
        while_it_opens.append(os.sched_getscheduler(0))
        return engine

    monkeypatch.setattr(segment, "open_engine", open_engine)
    found: list[int] = []

    def work() -> None:
        segment.opened(Context(), Recipe(runtime="cpu"), None)  # type: ignore[arg-type]
        found.append(os.sched_getscheduler(0))
        inherits = threading.Thread(target=lambda: found.append(os.sched_getscheduler(0)))
        inherits.start()
        inherits.join()

    thread = threading.Thread(target=work)  # a thread has a priority of its own
    before = os.sched_getscheduler(0)
    thread.start()
    thread.join()
    assert while_it_opens == [os.SCHED_BATCH] and found == [expected, expected]
    assert os.sched_getscheduler(0) == before == os.SCHED_OTHER


def test_raising_a_priority_undoes_lowering_it() -> None:
    """Negative control of the one above: without it, a low priority stays."""
    found: list[int] = []

    def work() -> None:
        priority.lower_priority()
        found.append(os.sched_getscheduler(0))
        priority.raise_priority()
        found.append(os.sched_getscheduler(0))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [os.SCHED_BATCH, os.SCHED_OTHER]


def test_a_feed_that_ends_while_its_network_prepares_does_not_wait_for_it(
    profile: StreamProfile, faults: Faults, running: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults(readies=str(tmp_path / "seen"), ready_s=3600)
    monkeypatch.setattr("rtseg.live.opening.GRAB_WAITS_NS", 0)
    run = running(replace(profile, source=SOURCE.format(120)))
    run.until(lambda: run.state.workers["segment"].preparing.startswith("making ready"))
    worker = run.state.workers["segment"]
    run.finish()
    assert worker.pid is None and run.state.faults["segment"] == "it was not ready when the feed ended", (
        "and not that it hung"
    )
