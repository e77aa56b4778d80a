"""A feed that stalls, freezes, jumps, breaks and is cut, from a camera that does so on command; and recordings."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.camera import Camera
from rtseg.base.account import Account, Gap
from rtseg.base.errors import SourceError
from rtseg.base.types import Frame, now_ns
from rtseg.grab import open_source
from rtseg.grab.capture import Capture, added_up

SIZE = (160, 120)
LONG_S = 60.0  # what comes at all comes by then, on a slow machine beside others
CLIP = "synthetic:laparoscopy?seconds=0.4&seed=3&width=96&height=64"


@pytest.fixture(scope="module")
def camera() -> Iterator[Camera]:
    with Camera(size=SIZE) as camera:
        yield camera


class Reader:
    """An intake read by a thread, and watched by this one."""

    def __init__(self, uri: str, **options: Any) -> None:
        self.intake = Capture(uri, **options)
        self.frames: list[Frame] = []
        self.states: list[str] = []
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        for frame in self.intake.frames():
            self.frames.append(frame)

    def watch(self, seconds: float, until: str = "") -> float:
        """Look every 5 ms, for so long or until a state is seen; how long it took."""
        began = time.monotonic()
        while (spent := time.monotonic() - began) < seconds:
            self.states.append(self.intake.health.state(now_ns()))
            if self.states[-1] == until:
                return spent
            time.sleep(0.005)
        assert not until, f"not {until} in {seconds} s, but {Counter(self.states)}"
        return spent

    def count(self, name: str, least: int) -> None:
        """Look until something was counted so often."""
        until = time.monotonic() + LONG_S
        while self.counters[name] < least:
            assert time.monotonic() < until, f"{name}: {self.counters[name]} in {LONG_S} s; expected {least}"
            self.watch(0.05)

    @property
    def counters(self) -> dict[str, int]:
        return self.intake.health.counters

    def __enter__(self) -> Reader:
        self.watch(LONG_S, "running")
        self.watch(0.5)
        return self

    def __exit__(self, *_: object) -> None:
        self.intake.close()
        self._thread.join(LONG_S)
        assert not self._thread.is_alive()
        assert self.intake.health.state(now_ns()) == "ended"


def test_a_live_feed_brings_what_the_camera_sees(camera: Camera) -> None:
    with Reader(camera.url) as reader:
        pass
    scene, frame = open_source(f"synthetic:laparoscopy?width={SIZE[0]}&height={SIZE[1]}&seconds=2"), reader.frames[-1]
    errors = [np.abs(frame.image_hwc.astype(int) - shown.image_hwc).mean() for shown in scene]
    assert min(errors) < 5 and np.median(errors) > 2 * min(errors)
    assert reader.intake.live and reader.intake.uri == camera.url and reader.intake.fps == 25
    assert [f.seq for f in reader.frames] == list(range(len(reader.frames)))
    assert frame.pixfmt == "yuv420p" and frame.color.matrix == "smpte170m"
    assert not any(n for name, n in reader.counters.items() if name not in ("frames", "connections"))


@pytest.mark.slow
def test_stall_and_freeze_are_seen_and_outlived_without_a_loss(camera: Camera) -> None:
    with Reader(camera.url) as reader:
        camera.say("stall 0.9")  # a camera that is silent for 2 s is lost
        assert reader.watch(LONG_S, "stalled") > 0.4
        reader.watch(LONG_S, "running")
        camera.say("freeze 1")
        assert reader.watch(LONG_S, "frozen") > 0.4
        reader.watch(LONG_S, "running")
        counters = reader.counters
    assert counters["stalls"] >= 1 and counters["freezes"] == 1 and counters["losses"] == 0
    assert len({frame.session for frame in reader.frames}) == 1


@pytest.mark.slow
def test_a_cut_feed_comes_back_in_a_session_of_its_own(camera: Camera) -> None:
    with Reader(camera.url) as reader:
        camera.say("cut 1.2")
        reader.watch(LONG_S, "lost")
        assert "ended by its sender" in reader.intake.health.why or "refused" in reader.intake.health.why
        reader.watch(LONG_S, "running")
        reader.watch(0.3)
        counters = reader.counters
    assert counters["losses"] == 1 and counters["connections"] == 2
    sessions = list(dict.fromkeys(frame.session for frame in reader.frames))
    assert len(sessions) == 2
    assert [f.seq for f in reader.frames if f.session == sessions[1]][:3] == [0, 1, 2]


@pytest.mark.slow
def test_damage_a_jump_a_rush_and_another_size_are_counted_and_no_loss(camera: Camera) -> None:
    with Reader(camera.url) as reader:
        camera.say("corrupt 0.4")
        reader.count("corrupt", 1)
        reader.watch(0.4)
        camera.say("jump 100")
        reader.count("pts_jumps", 1)
        camera.say("fast 0.7")
        reader.count("too_fast", 1)
        camera.say("size 96x64")
        reader.count("resized", 1)  # the camera has to draw its pictures anew, which takes it a while
        camera.say(f"size {SIZE[0]}x{SIZE[1]}")
        reader.count("resized", 2)
        counters = reader.counters
    assert counters["pts_jumps"] >= 1 and counters["too_fast"] > 0
    assert counters["resized"] >= 2 and counters["losses"] == 0
    assert {(f.width, f.height) for f in reader.frames} == {SIZE, (96, 64)}


def test_a_camera_that_is_not_there_yet_is_waited_for() -> None:
    with Camera(size=SIZE) as first:
        url = first.url
    intake = Capture(url)
    threading.Timer(0.3, intake.close).start()
    assert list(intake.frames()) == []
    assert "Connection refused" in intake.health.why
    counters = intake.health.counters
    assert (counters["losses"], counters["connections"]) == (1, 0)


def test_h264_and_a_box(camera: Camera) -> None:
    with Camera(size=SIZE, codec="h264") as h264:
        intake = Capture(h264.url, crop=[20, 10, 140, 110])
        frames = intake.frames()
        assert {(frame.width, frame.height) for frame in (next(frames) for _ in range(5))} == {(120, 100)}
        frames.close()
        huge = Capture(h264.url, crop=[0, 0, 1280, 720])
        frames = huge.frames()
        assert next(frames).width == 160 and huge.health.counters["misfits"] == 1
        frames.close()


def test_open_source_takes_one_live_connection_and_raises_its_loss() -> None:
    with Camera(size=SIZE) as camera, open_source(camera.url) as source:
        frames = iter(source)
        first = next(frames)
        camera.kill()
        with pytest.raises(SourceError, match="the feed was ended by its sender|reading failed"):
            list(frames)
        with pytest.raises(SourceError, match="Connection refused"):
            next(iter(source))
    assert first.session == source.session


@pytest.mark.parametrize("pace", ["native", "flat-out"])
def test_a_recording_is_played_to_its_end(pace: Any) -> None:
    intake = Capture("synthetic:laparoscopy?seconds=1&fps=10&seed=3&width=96&height=64", pace=pace)
    began = time.monotonic()
    frames = list(intake.frames())
    spent = time.monotonic() - began
    assert (spent > 0.88) == (pace == "native")
    assert [frame.seq for frame in frames] == list(range(10))
    assert not intake.live and intake.fps == 10 and intake.health.state(now_ns()) == "ended"
    assert {name: n for name, n in intake.health.counters.items() if n} == {"frames": 10, "connections": 1}


def test_a_broken_recording_raises(tmp_path: Path) -> None:
    for index in range(3):
        (tmp_path / f"{index}.png").write_bytes(b"" if index == 2 else _png())
    intake = Capture(str(tmp_path), fps=50, pace="flat-out")
    frames = intake.frames()
    next(frames)
    next(frames)
    with pytest.raises(SourceError, match="not a readable image"):
        next(frames)
    assert intake.health.state(now_ns()) == "lost"


def _png() -> bytes:
    import cv2

    return bytes(cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1])


@pytest.mark.parametrize(
    ("uri", "options", "says"),
    [
        ("nowhere.mp4", {}, "no such file"),
        ("rstp://camera/1", {}, "did you mean 'rtsp'"),
        ("rtsp:///path", {}, "no host"),
        ("tcp://127.0.0.1:9", {"fps": 25}, "a live input has its own times"),
        (CLIP, {"pace": "fast"}, "pace 'fast'"),
        (CLIP, {"deinterlace": "yes"}, "deinterlace 'yes'"),
        (CLIP, {"crop": "none"}, "expected 'off', 'auto', or [x0, y0, x1, y1]"),
        (CLIP, {"crop": [0, 0, 64]}, "expected 'off', 'auto', or [x0, y0, x1, y1]"),
        (CLIP, {"crop": [0, 0, 63, 64]}, "expected even numbers"),
        (CLIP, {"crop": [32, 0, 32, 64]}, "with x0 < x1"),
        (CLIP, {"crop": [0, 0, 98, 64]}, "does not lie inside the 96x64 picture"),
    ],
)
def test_what_can_never_work_is_said_at_once(uri: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(SourceError) as error:
        Capture(uri, **options)
    assert says in str(error.value) and "\n" not in str(error.value)


def test_close_ends_a_recording_in_the_middle_of_a_wait() -> None:
    intake = Capture("synthetic:laparoscopy?seconds=60&width=64&height=64&fps=0.1")
    frames = intake.frames()
    next(frames)
    threading.Timer(0.05, intake.close).start()
    began = time.monotonic()
    assert list(frames) == [] and time.monotonic() - began < 9  # the next is due in ten


@pytest.mark.parametrize("first", [True, False])
def test_what_trying_again_does_not_mend_is_an_error_until_there_was_a_frame(
    first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rtseg.base.source import PermanentSourceError
    from rtseg.grab import live_stream as stream

    intake, tries = Capture("rtsp://camera/live", first=first), list[str]()

    def refuse(uri: str, **_: Any) -> None:
        tries.append(uri)
        if len(tries) == 3:
            intake.close()
        raise PermanentSourceError("rtsp://camera/live: cannot be opened (Unauthorized)")

    monkeypatch.setattr(stream, "StreamSource", refuse)
    if first:
        with pytest.raises(SourceError, match="Unauthorized"):
            list(intake.frames())
        assert len(tries) == 1
    else:  # a camera that begins to ask for a password may stop it again
        assert list(intake.frames()) == [] and len(tries) == 3
        assert "Unauthorized" in intake.health.why


def test_a_device_that_is_unplugged_is_waited_for_and_one_that_never_was_there_is_an_error() -> None:
    with pytest.raises(SourceError, match="no such device; there are: .*plug it in"):
        Capture("/dev/video99")
    assert Capture("/dev/video99", first=False).live


def test_the_account_of_a_live_input_is_over_all_its_connections() -> None:
    one = Account(shown=100, leading=2, damaged=3, gaps=[Gap(40, 1.6, 3, "damaged")], ended="lost", count=7)
    two = Account(shown=50, damaged=1, gaps=[Gap(10, 0.4, 1, "damaged")], assumed={"colours": "BT.709"}, ended="lost")
    both = added_up(one, two)
    assert (both.shown, both.leading, both.damaged, both.ended, both.count) == (150, 2, 4, "", None)
    assert [gap.before for gap in both.gaps] == [40, 110] and both.assumed == {"colours": "BT.709"}


def test_the_size_of_a_recording_is_known_before_it_is_read() -> None:
    assert Capture(CLIP).size == (64, 96) and Capture(CLIP, crop=[0, 0, 32, 48]).size == (48, 32)
    assert Capture(CLIP, crop="auto").size is None and Capture("rtsp://camera/live").size is None


def test_a_name_that_leads_nowhere_is_said() -> None:
    with pytest.raises(SourceError, match="no host of this name is known here"):
        open_source("rtsp://no-such-host.invalid/live")
