"""A loopback measures what the picture itself says: a delay is seen, and a header that lies is found."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rtseg import Frame
from rtseg.base.errors import SourceError
from rtseg.base.types import Prompt
from rtseg.evaluate.speed.loopback import Received, figures, loopback
from rtseg.live.profile import Publish, StreamProfile
from rtseg.publish import Publisher, draw_overlay
from rtseg.synthetic.coded import CodedSource

PROFILE = StreamProfile("", "loop", target_fps=50, publish=Publish("tcp://127.0.0.1:5555"))
Change = Callable[[Frame], Frame]


def player(delay_ms: float = 0.0, change: Change = lambda frame: frame, skip: int = 0) -> Any:
    """A feed of the simplest kind, with faults as asked: all pictures late, changed, or every `skip`th left out."""

    def play(profile: StreamProfile, seconds: float | None, *, ready: Callable[[Any, str], None]) -> dict[str, Any]:
        assert profile.source.startswith("coded:?") and profile.objects
        with Publisher(profile.publish.bind, profile.name, profile.publish.topics) as publisher:
            ready(None, publisher.endpoint)
            time.sleep(0.15)  # slow joiners
            timers: deque[threading.Timer] = deque()
            for frame in CodedSource(profile.source):
                if skip and frame.seq % skip == skip - 1:
                    continue
                timers.append(threading.Timer(delay_ms / 1e3, publish, (publisher, change(frame))))
                timers[-1].start()
            for timer in timers:
                timer.join()
            time.sleep(0.05)
        return {"ok": True, "engine": "none"}

    def publish(publisher: Publisher, frame: Frame) -> None:
        publisher.publish_video(frame)
        publisher.publish_overlay(frame, draw_overlay(frame, None))

    return play


def measure(seconds: float = 0.6, **faults: Any) -> dict[str, Any]:
    return loopback(PROFILE, seconds, width=320, height=240, play=player(**faults))


def test_a_delay_is_read_as_it_was() -> None:
    plain, late = measure(), measure(delay_ms=300)
    for report in (plain, late):
        assert report["ok"] and report["frames"]["released"] == 30
        for topic in ("video", "overlay"):
            assert report[topic]["seen"] > 15 and not report[topic]["wrong"] + report[topic]["unread"]
    for topic in ("video", "overlay"):
        assert 0 < plain[topic]["ms"]["p50"] < 100
        assert 250 < late[topic]["ms"]["p50"] - plain[topic]["ms"]["p50"] < 400
    assert plain["video"]["header_late_ms"]["p50"] < 50


@pytest.mark.parametrize(
    "lie",
    [
        lambda frame: replace(frame, seq=frame.seq + 1),
        lambda frame: replace(frame, captured_ns=frame.captured_ns - 50_000_000),
    ],
    ids=["seq", "time"],
)
def test_a_header_that_lies_is_found(lie: Change) -> None:
    report = measure(0.3, change=lie)
    assert not report["ok"] and report["video"]["wrong"] > 6


def test_a_header_that_makes_itself_younger_is_measured() -> None:
    def younger(frame: Frame) -> Frame:
        return replace(frame, captured_ns=frame.captured_ns + 200_000_000)

    assert measure(0.3, change=younger)["video"]["header_late_ms"]["p50"] > 190


def test_missing_and_unreadable_pictures_are_counted() -> None:
    def blurred(frame: Frame) -> Frame:
        return replace(frame, image_hwc=frame.image_hwc // 4 + 150) if frame.seq % 4 == 0 else frame

    for report, fault in ((measure(0.5, skip=5), "missing"), (measure(0.5, change=blurred), "unread")):
        video, released = report["video"], report["frames"]["released"]
        assert video[fault] >= 2 and video["seen"] + video["missing"] <= released
        assert fault == "unread" or not video["unread"]


def test_a_feed_that_says_nothing_is_not_ok() -> None:
    def silent(profile: StreamProfile, seconds: float | None, *, ready: Any) -> dict[str, Any]:
        next(iter(CodedSource(profile.source)))
        return {"ok": True}

    report = loopback(PROFILE, 0.2, width=160, height=120, play=silent)
    assert not report["ok"] and report["video"] == {"seen": 0, "missing": 0, "wrong": 0, "unread": 0, "again": 0}


def heard_of(latencies_ms: list[float], stamps_ns: Any) -> Received:
    numbers = list(range(len(latencies_ms)))
    arrived = [int(stamps_ns[n] + 1e6 * ms) for n, ms in zip(numbers, latencies_ms, strict=True)]
    return Received(list(numbers), list(numbers), list(stamps_ns[numbers]), arrived, [0.1] * len(numbers))


def test_intervals_hold_the_truth_and_narrow_with_more_frames() -> None:
    rng = np.random.default_rng(4)
    widths = {}
    for count in (250, 2000):
        stamps_ns = (1 + np.arange(count)) * 40_000_000
        inside = 0
        for _ in range(10):
            ms = figures(heard_of(list(10 + rng.exponential(5, count)), stamps_ns), stamps_ns, 25)["ms"]
            low, high = ms["p50_ci95"]
            inside += low <= 10 + 5 * np.log(2) <= high
            widths[count] = high - low
            if count == 2000:
                break
        assert inside >= (7 if count == 250 else 0)
    assert widths[2000] < 0.5 * widths[250]


def test_no_interval_is_made_of_too_few_frames() -> None:
    stamps_ns = (1 + np.arange(30)) * 40_000_000
    assert figures(heard_of([5.0] * 30, stamps_ns), stamps_ns, 25)["ms"]["p99_ci95"] is None


def test_numbers_nobody_released_and_pictures_seen_twice() -> None:
    stamps_ns = np.array([100, 200, 0])
    received = Received(
        [0, 0, 1, 2, 9, None], [0, 0, 1, 2, 9, 3], [100, 100, 200, 0, 0, 0], [150] * 2 + [250] * 4, [0.1] * 6
    )
    found = figures(received, stamps_ns, 25)
    assert (found["seen"], found["again"], found["wrong"], found["unread"]) == (2, 1, 2, 1)


def test_a_profile_is_taken_without_what_outlives_the_measurement() -> None:
    seen: list[StreamProfile] = []

    def play(profile: StreamProfile, seconds: float | None, *, ready: Any) -> dict[str, Any]:
        seen.append(profile)
        next(iter(CodedSource(profile.source)))
        return {}

    two = tuple(Prompt(i, points=((9000.0, 1.0, 1),), label="far out") for i in (1, 2))
    loopback(replace(PROFILE, objects=two, control="tcp://127.0.0.1:1", crop="auto", mask_budget_ms=70), 0.1, play=play)
    loopback(None, 0.1, play=play)
    given, default = seen
    assert [p.id for p in given.objects] == [1, 2] and all(p.box for p in given.objects)
    assert given.control is None and given.crop == "off" and given.mask_budget_ms == 70
    assert given.publish.bind == "tcp://127.0.0.1:*" and default.publish.bind.startswith("ipc://")
    for prompt in (*given.objects, *default.objects):
        prompt.check(720, 1280, first=True)


def test_bad_settings_are_one_line() -> None:
    with pytest.raises(SourceError, match="seconds=0; expected"):
        loopback(PROFILE, 0, play=player())
    with pytest.raises(SourceError, match="width=10; expected"):
        loopback(PROFILE, 0.1, width=10, play=player())
