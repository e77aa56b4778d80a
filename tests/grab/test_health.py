"""The state machine of a feed, on a clock of the test's own."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from rtseg.base.types import Frame, ImageU8
from rtseg.grab.health import Health

MS = 1_000_000
PERIOD_MS = 40
NOISE_THWC = np.random.default_rng(0).integers(0, 256, (64, 48, 64, 3), np.uint8)


class Feed:
    """A health and its clock; a frame of the feed is new noise unless told otherwise."""

    def __init__(self, fps: float = 25.0) -> None:
        self.now_ns = 10**12
        self.health = Health(clock=lambda: self.now_ns)
        self.count = self.pts = 0
        self.fps = fps

    def open(self, **options: bool) -> Feed:
        self.health.opened(self.fps, **options)
        return self

    def wait(self, ms: float) -> str:
        self.now_ns += int(ms * MS)
        return self.state

    def frame(self, image_hwc: ImageU8 | None = None, after_ms: float = PERIOD_MS, step: int = PERIOD_MS) -> str:
        self.now_ns += int(after_ms * MS)
        self.pts += step
        image_hwc = NOISE_THWC[self.count % 64] if image_hwc is None else image_hwc
        self.health.frame(Frame(image_hwc, self.count, "s", self.pts, Fraction(1, 1000), self.now_ns))
        self.count += 1
        return self.state

    @property
    def state(self) -> str:
        return self.health.state(self.now_ns)

    @property
    def events(self) -> dict[str, int]:
        plain = ("frames", "connections")
        return {name: n for name, n in self.health.counters.items() if n and name not in plain}


def test_a_good_feed_is_running_and_counts_nothing() -> None:
    feed = Feed()
    assert feed.state == "opening"
    feed.open()
    assert {feed.frame() for _ in range(200)} == {"running"}
    assert feed.events == {}
    assert feed.health.counters["frames"] == 200 and feed.health.counters["connections"] == 1


@pytest.mark.parametrize(("fps", "limit_ms"), [(25, 500), (60, 500), (4, 1250), (0, 500)])
def test_silence_is_a_stall_after_half_a_second_or_five_periods(fps: float, limit_ms: int) -> None:
    feed = Feed(fps).open()
    feed.frame()
    assert feed.wait(limit_ms - 1) == "running"
    assert feed.wait(2) == "stalled"
    assert feed.events == {}  # the watcher writes nothing
    assert feed.frame() == "running"
    assert feed.events == {"stalls": 1}


def test_a_connection_that_brings_no_frame_is_stalled() -> None:
    assert Feed().open().wait(501) == "stalled"


def test_the_same_picture_for_half_a_second_is_frozen_and_one_bit_thaws_it() -> None:
    feed = Feed().open()
    image_hwc = NOISE_THWC[0]
    states = [feed.frame(image_hwc.copy()) for _ in range(30)]
    assert states[:13] == ["running"] * 13 and states[13:] == ["frozen"] * 17
    assert feed.events == {"freezes": 1}
    other_hwc = image_hwc.copy()
    other_hwc[47, 63, 2] ^= 1  # a pixel that the strided comparison does not see
    assert feed.frame(other_hwc) == "running"
    assert [feed.frame(other_hwc.copy()) for _ in range(13)][-1] == "frozen"
    assert feed.events == {"freezes": 2}


def test_a_frozen_feed_that_then_falls_silent_is_stalled() -> None:
    feed = Feed().open()
    for _ in range(20):
        feed.frame(NOISE_THWC[0])
    assert feed.state == "frozen" and feed.wait(501) == "stalled"


def test_frames_that_come_too_fast_for_a_while_are_counted() -> None:
    feed = Feed().open()
    for _ in range(120):
        feed.frame(after_ms=4)
    assert feed.events == {"too_fast": 21}  # from the hundredth on: twice 25 a second for two seconds


def test_a_burst_after_a_gap_and_unpaced_frames_are_not_too_fast() -> None:
    feed = Feed().open()
    feed.frame()
    feed.wait(1000)
    for _ in range(25):
        feed.frame(after_ms=0.1)
    for _ in range(50):
        feed.frame()
    assert "too_fast" not in feed.events
    unpaced = Feed().open(paced=False)
    for _ in range(300):
        unpaced.frame(after_ms=1)
    assert unpaced.events == {}


@pytest.mark.parametrize(
    ("step", "event"), [(0, "pts_repeats"), (-40, "pts_jumps"), (5000, "pts_jumps"), (40, ""), (80, "")]
)
def test_times_that_jump_or_repeat_are_counted(step: int, event: str) -> None:
    feed = Feed().open()
    feed.frame()
    feed.frame(step=step)
    assert feed.events == ({event: 1} if event else {})


def test_times_that_go_on_after_a_stall_do_not_jump() -> None:
    feed = Feed().open()
    feed.frame()
    feed.frame(after_ms=3000, step=3000)
    assert feed.events == {"stalls": 1}


def test_another_size_is_counted_and_is_no_freeze() -> None:
    feed = Feed().open()
    feed.frame()
    feed.frame(np.zeros((48, 32, 3), np.uint8))
    feed.frame(np.zeros((48, 32, 3), np.uint8))
    assert feed.events == {"resized": 1}


def test_loss_reopening_and_end() -> None:
    feed = Feed().open()
    feed.frame()
    feed.health.lost("gone")
    feed.health.lost("still gone")
    assert feed.state == "lost" and feed.health.why == "still gone" and feed.wait(5000) == "lost"
    assert feed.events == {"losses": 1}
    feed.open()
    feed.frame(step=-1000)  # another connection's times start where they like
    assert feed.state == "running" and feed.events == {"losses": 1}
    feed.health.corrupt(3)
    feed.health.misfit()
    feed.health.ended()
    assert feed.wait(5000) == "ended"
    assert feed.events == {"losses": 1, "corrupt": 3, "misfits": 1}


def test_a_call_far_beyond_its_limit_is_hung() -> None:
    feed = Feed()
    hung = feed.health.hung
    assert not hung(feed.now_ns + 10**12)
    feed.health.calling(2.0)
    assert not hung(feed.now_ns + 6_900 * MS) and hung(feed.now_ns + 7_100 * MS)
    feed.health.returned()
    assert not hung(feed.now_ns + 10**12)


def test_the_counters_are_a_copy() -> None:
    health = Health()
    health.counters["frames"] = 7
    assert health.counters["frames"] == 0
