"""What several threads or processes share: counts that never fall, values that are read whole, limits that hold."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rtseg.base.types import Frame
from rtseg.live import ring as ring_module
from rtseg.live.board import Board
from rtseg.live.child import SILENT_S, silence_s
from rtseg.live.display import Display
from rtseg.live.input import Input
from rtseg.live.preparing import warm_up
from rtseg.live.profile import StreamProfile
from rtseg.live.ring import Plan, Ring
from rtseg.live.segment import Pacing
from rtseg.live.statement import Counts
from rtseg.live.tally import Tally
from tests.live.conftest import SOURCE, Running

Start = Callable[[StreamProfile], Running]
Faults = Callable[..., None]


def test_a_count_of_shown_frames_never_falls() -> None:
    """The publisher decides later what left: nothing that was counted is taken back."""
    overlay: dict[str, Any] = {"offered": 0, "sent": 0, "dropped": {}}
    display: Any = object.__new__(Display)
    display._publisher = SimpleNamespace(counts=lambda: {"overlay": overlay})
    display._board, display._settled = Board.create(), {}
    seen = [0]
    for fate in ("sent", "slot", "slot", "unwatched", "failed", "sent", "off"):
        overlay["offered"] += 1
        display.settle()
        seen.append(display._board["shown"])
        if fate == "sent":
            overlay["sent"] += 1
        else:
            overlay["dropped"][fate] = overlay["dropped"].get(fate, 0) + 1
        display.settle()
        seen.append(display._board["shown"])
    assert seen == sorted(seen) and seen[-1] == 3 and display._board.decided() == 7
    assert display._board.drops()["slot"] == 2


def test_what_was_published_and_what_happened_to_the_source_outlives_their_processes(
    profile: StreamProfile, running: Start, faults: Faults
) -> None:
    run = running(replace(profile, source=SOURCE.format(120)))
    run.until(lambda: run.feed.published.get("video", {}).get("sent", 0) > 20)
    run.until(lambda: run.feed.source["counts"].get("frames", 0) > 20)
    for role in ("publish", "grab"):
        sent, frames = run.feed.published["video"]["sent"], run.feed.source["counts"]["frames"]
        os.kill(run.pid(role), signal.SIGKILL)
        run.until(lambda r=role: run.feed.children[r].restarts == 1 and run.feed.children[r].up)  # type: ignore[misc]
        seen = []
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            seen.append((run.feed.published["video"]["sent"], run.feed.source["counts"]["frames"]))
            time.sleep(0.01)
        assert min(a for a, _ in seen) >= sent and min(b for _, b in seen) >= frames
        assert seen[-1][0] > sent and seen[-1][1] > frames
    assert run.finish()["source_counts"]["connections"] == 2


def test_a_tally_adds_up_lives() -> None:
    tally = Tally()
    tally.heard({"a": 1, "of": {"slot": 2}, "name": "x"})
    assert tally.heard({"a": 3, "of": {"slot": 4}, "name": "y"}) == {"a": 3, "of": {"slot": 4}, "name": "y"}
    tally.died()
    assert tally.heard({"a": 0, "of": {"late": 1}}) == {"a": 3, "of": {"slot": 4, "late": 1}, "name": "y"}
    tally.died()
    assert tally.heard({"a": 2, "of": {}})["a"] == 5


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
    with Client(run.feed.control, timeout=60) as client:
        for n in range(20):
            client.add(2 + n % 3, points=[(30, 30, 1)])
            if n % 7 == 0:
                kills = n // 7 + 1
                with suppress(ProcessLookupError):
                    os.kill(run.pid("publish"), signal.SIGKILL)
                # It reads as up until the supervisor has seen its death.
                run.until(
                    lambda k=kills: run.feed.children["publish"].restarts >= k and run.feed.children["publish"].up
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

    counts = Counts(Slow(), Slow())  # type: ignore[arg-type]
    threads = [threading.Thread(target=counts.rates) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 1


def test_a_reader_of_a_ring_fences_before_and_after_it_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """On ARM, what is read after a check may have been loaded before it."""
    plan = Plan(4, 64)
    ring = Ring(Ring.create("test", plan), plan)
    ring.write(b"meta", np.arange(8, dtype=np.uint8))
    order: list[str] = []
    real = Ring.holds
    monkeypatch.setattr(ring_module, "_fence", lambda: order.append("fence"))
    monkeypatch.setattr(Ring, "holds", lambda self, index: (order.append("holds"), real(self, index))[1])
    assert ring.read(0) is not None and order == ["holds", "fence", "fence", "holds"]
    order.clear()
    assert ring.meta(0) == b"meta" and order == ["holds", "fence", "fence", "holds"]
    os.close(ring.fd)


def test_a_long_step_does_not_buy_minutes_of_silence() -> None:
    assert silence_s("segment", 20) == SILENT_S["segment"]
    assert silence_s("segment", 1000) == 10  # ten of its steps
    assert silence_s("segment", 20_000) == 60  # two of them, and 20 s
    told: list[tuple[str, dict[str, Any]]] = []
    pacing = Pacing(SimpleNamespace(link=SimpleNamespace(send=lambda say, **facts: told.append((say, facts)))))  # type: ignore[arg-type]
    for height, steps_ms in ((6, (900, 5000, 20, 20, 21, 90)), (12, (30_000, 40, 40))):
        for step_ms in steps_ms:
            pacing.begins(Frame(np.zeros((height, 8, 3), np.uint8), 0))
            pacing.took(step_ms)
    assert told == [
        ("sizing", {}), ("pace", {"step_ms": 20}), ("pace", {"step_ms": 90}), ("sizing", {}), ("pace", {"step_ms": 40}),
    ]  # fmt: skip


def test_a_capture_is_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = iter((0.02, 0.3, 0.001, 0.001))

    class Tracker:
        def __init__(self, engine: Any) -> None:
            pass

        def prompt(self, *args: Any, **kwargs: Any) -> None:
            pass

        def step(self, image_hwc: Any) -> None:
            time.sleep(next(steps))

    monkeypatch.setattr("rtseg.live.preparing.Tracker", Tracker)
    assert warm_up(SimpleNamespace(image_size=64)) < 100  # type: ignore[arg-type]


def test_what_is_not_there_yet_is_said_less_and_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0]
    monkeypatch.setattr("rtseg.live.input.now_ns", lambda: now[0])
    said: list[tuple[float, str]] = []
    source = Input(lambda kind, role, text: said.append((now[0] / 1e9, text)))
    source.opened({"uri": "tcp://camera", "live": True})
    for second in range(120):
        now[0] = second * 1_000_000_000
        source.heard("lost", "refused", None, {})
        source.turn("")
    assert said[:2] == [(0, "connecting to tcp://camera"), (0, "lost (refused)")]
    assert [at for at, _ in said[2:]] == [6, 17, 38, 79] and "still lost after 6 s (refused)" in said[2][1]
    source.heard("running", "", None, {})
    source.turn("")
    assert len(said) == 7
