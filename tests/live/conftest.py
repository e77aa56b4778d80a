"""Feeds to break: a small synthetic source, a network of no weight, and a worker that puts faults into processes."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rtseg import Prompt, Subscriber
from rtseg.engine.recipe import Recipe
from rtseg.live import Feed, run_live
from rtseg.live.profile import Publish, StreamProfile
from rtseg.live.state import FeedState

SOURCE = "synthetic:laparoscopy?width=160&height=120&fps=50&seconds={}&seed=7"
LONG_S = 60.0  # what comes at all comes by then, on a slow machine beside others
WORKER = (sys.executable, str(Path(__file__).with_name("worker.py")))
Watched = tuple[dict[str, Any], dict[str, list[Any]]]


@pytest.fixture()
def profile() -> StreamProfile:
    box = Prompt(1, box=(20.0, 20.0, 120.0, 100.0), label="grasper")
    return StreamProfile(
        SOURCE.format(1), "room", Recipe(), target_fps=50, publish=Publish("tcp://127.0.0.1:*"), objects=(box,)
    )


@pytest.fixture()
def faults(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Say what is to go wrong in the processes; the network is a fake one unless `fake=False`."""

    def say(**what: Any) -> None:
        monkeypatch.setenv("RTSEG_TEST_FAULTS", json.dumps({"fake": True, **what}))

    say()
    return say


def accounted(report: dict[str, Any]) -> bool:
    frames = report["frames"]
    return bool(frames["in"] == frames["shown"] + sum(frames["dropped"].values()))


class Watcher(threading.Thread):
    """A subscriber of all topics that keeps what it got."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(daemon=True)
        self.subscriber = Subscriber(endpoint)
        self.got: dict[str, list[Any]] = {kind: [] for kind in ("video", "overlay", "masks", "status")}
        self.start()

    def run(self) -> None:
        for message in self.subscriber:
            self.got[message.kind].append(message)

    def state(self) -> str | None:
        """The last state that a status told."""
        return self.got["status"][-1].header["state"] if self.got["status"] else None

    def finish(self) -> dict[str, list[Any]]:
        until = time.monotonic() + 3  # for the last status; a feed that was refused sends none
        while self.state() != "ended" and time.monotonic() < until:
            time.sleep(0.01)
        self.subscriber.close()
        self.join()
        return self.got


def watch(profile: StreamProfile, seconds: float | None = None) -> Watched:
    """Play a feed with a subscriber of all topics; what the feed reports, and what the subscriber got."""
    watchers: list[Watcher] = []

    def ready(feed: Feed, endpoint: str) -> None:
        watchers.append(Watcher(endpoint))
        time.sleep(0.3)

    try:
        report = run_live(profile, seconds, ready=ready, worker=WORKER)
    finally:
        got = watchers[0].finish() if watchers else {}
    return report, got


class Running(threading.Thread):
    """A feed that plays while the test does things to it."""

    def __init__(self, profile: StreamProfile) -> None:
        super().__init__(daemon=True)
        self.feed = Feed(profile, WORKER)
        self.feed.on_ready = self._ready
        self.report: dict[str, Any] = {}
        self.watcher: Watcher | None = None
        self._is_ready = threading.Event()

    def begin(self) -> Running:
        self.start()
        self.until(lambda: self._is_ready.is_set() and self.feed.state.frames.head > 0)
        return self

    def _ready(self, feed: Feed, endpoint: str) -> None:
        self.watcher = Watcher(endpoint)
        self._is_ready.set()

    @property
    def state(self) -> FeedState:
        return self.feed.state

    def run(self) -> None:
        self.report = self.feed.run()

    def until(self, true: Callable[[], Any]) -> float:
        """Wait for something, and fail if it does not come; returns how long it took."""
        start = time.monotonic()
        while not true():
            assert self.is_alive(), f"the feed has ended; {self.report or self.feed.state.events}"
            assert time.monotonic() - start < LONG_S, f"nothing came in {LONG_S} s; {self.feed.state.events}"
            time.sleep(0.005)
        return time.monotonic() - start

    def steady(self, value: Callable[[], Any]) -> Any:
        """Wait until a value stays as it is for a while; returns it."""
        last, since = value(), time.monotonic()
        start = since
        while time.monotonic() - since < 0.5:
            assert time.monotonic() - start < LONG_S, f"it does not stay: {last}"
            time.sleep(0.005)
            if value() != last:
                last, since = value(), time.monotonic()
        return last

    def pid(self, role: str) -> int:
        pid = self.feed.state.workers[role].pid
        assert pid is not None
        return pid

    def finish(self) -> dict[str, Any]:
        self.feed.stop()
        self.join(LONG_S)
        assert not self.is_alive()
        assert self.watcher is not None
        self.watcher.finish()
        return self.report


@pytest.fixture()
def running() -> Iterator[Callable[[StreamProfile], Running]]:
    """Start a feed that is ended with the test, whatever happens."""
    all_of_them: list[Running] = []

    def start(profile: StreamProfile) -> Running:
        all_of_them.append(Running(profile))  # before it begins: what does not come up is ended, too
        return all_of_them[-1].begin()

    yield start
    for one in all_of_them:
        one.feed.stop()
    for one in all_of_them:
        one.join(LONG_S)
        assert not one.is_alive()
