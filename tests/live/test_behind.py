"""A network that is too slow for its budget: the feed says so and by how much, and does what its profile allows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from rtseg.base.errors import ConfigError
from rtseg.base.hardware.cpu import Cores
from rtseg.engine.reach import advice, nearest, needed_ms, size_for
from rtseg.engine.recipe import Recipe
from rtseg.live.plan import environment, threads_of
from rtseg.live.profile import StreamProfile, load_stream
from rtseg.live.rhythm import Rhythm
from tests.live.conftest import SOURCE, Running

Start = Callable[[StreamProfile], Running]
Faults = Callable[..., None]


@pytest.mark.slow
def test_a_feed_that_is_behind_says_so_and_takes_the_smaller_picture_that_it_may(
    profile: StreamProfile, faults: Faults, running: Start
) -> None:
    """The network takes 0.2 s at 320 px, and next to nothing at 64."""
    faults(slow=0.2, slow_above=64)
    run = running(replace(profile, source=SOURCE.format(120), carry="behind", least_image_size=64))
    assert run.watcher is not None

    def said() -> list[dict[str, Any]]:
        return [m.status()["behind"] for m in run.watcher.got["status"] if m.status().get("behind")]  # type: ignore[union-attr]

    run.until(said)
    assert said()[0]["segmented_fps"] < 10 < said()[0]["wanted_fps"] and said()[0]["fresh"] < 0.9
    assert "image_size" in said()[0]["advice"]
    run.until(lambda: run.feed.remedy.recipe.image_size == 64)
    run.until(lambda: run.feed.state == "running" and run.feed.remedy.now is None)
    assert run.feed.children["segment"].restarts == 0
    fresh = run.feed.board["masks fresh"]
    run.until(lambda: run.feed.board["masks fresh"] > fresh + 50)
    shares = run.watcher.got["status"][-1].status()["processes"]
    assert shares["segment"]["threads"] >= 1 and set(shares["grab"]) >= {"threads", "cores"}
    report = run.finish()
    assert report["behind"]["then image_size"] == 64 and report["cores"]["used"].keys() == set(shares)
    assert any(m.header.get("carried") is True or m.header["state"] == "fresh" for m in run.watcher.got["overlay"])


def test_a_network_that_is_known_to_be_too_slow_begins_with_the_smaller_picture(
    profile: StreamProfile, faults: Faults, running: Start
) -> None:
    faults(slow=0.2, slow_above=64, slow_warm=True)
    run = running(replace(profile, source=SOURCE.format(120), least_image_size=64))
    assert run.feed.remedy.recipe.image_size == 64
    run.until(lambda: run.feed.board["masks fresh"] > 20)
    assert "behind" not in run.finish()


@pytest.mark.slow
def test_one_that_keeps_up_says_nothing(profile: StreamProfile, faults: Faults, running: Start) -> None:
    run = running(replace(profile, source=SOURCE.format(120), least_image_size=64))
    run.until(lambda: run.feed.board["masks fresh"] > 200)
    assert run.feed.remedy.now is None and run.feed.remedy.recipe.image_size == Recipe().image_size
    assert "behind" not in run.finish()


def paced(step_ms: float, apart_ms: float, use: bool, steps: int = 60) -> tuple[set[int], float]:
    """How many frames apart the segmented ones are, and the mean age of what is drawn: a clock that is only counted."""
    rhythm, now, done, drawn = Rhythm(), 0.0, -1, []
    for _ in range(steps):
        frame = max(done + 1, int(now // apart_ms))
        now = max(now, frame * apart_ms)
        wait = rhythm.wait_s(now - frame * apart_ms) if use else 0
        if wait:
            frame, now = frame + 1, (frame + 1) * apart_ms
        now += step_ms
        rhythm.stepped(frame, int(frame * apart_ms * 1e6), step_ms)
        drawn.append((now + 2, frame))
        done = frame
    ages = []
    for shown in range(int(drawn[10][0] // apart_ms) + 1, int(drawn[-1][0] // apart_ms)):
        newest = max(frame for at, frame in drawn if at <= shown * apart_ms)
        ages.append((shown - newest) * apart_ms)
    frames = [frame for _, frame in drawn[20:]]
    return {b - a for a, b in pairwise(frames)}, sum(ages) / len(ages)


@pytest.mark.parametrize(("step_ms", "apart"), [(25, {1}), (70, {2}), (76, {2}), (110, {3})])
def test_segmented_frames_come_at_an_even_pace_and_their_masks_are_no_older_for_it(
    step_ms: float, apart: set[int]
) -> None:
    even, age = paced(step_ms, 40, use=True)
    _, greedy_age = paced(step_ms, 40, use=False)
    assert even == apart and age <= greedy_age


def test_a_step_that_just_misses_two_frames_is_not_waited_for() -> None:
    even, age = paced(45, 40, use=True)
    assert even == {1, 2} and age <= paced(45, 40, use=False)[1]


def test_the_plan_tells_cores_from_hyperthreads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    one, two, four, eight = Cores(2, 1, 2), Cores(2, 2, 2), Cores(8, 4, 8), Cores(16, 8, 4.0)
    assert [threads_of("segment", c) for c in (one, two, four, eight)] == [1, 1, 4, 3]
    assert {threads_of(role, four) for role in ("grab", "publish", "record")} == {1}
    assert environment("segment", four)["OMP_WAIT_POLICY"] == "PASSIVE"  # four threads, and a feed, on four cores
    assert "OMP_WAIT_POLICY" not in environment("segment", Cores(8, 8, 8.0))
    assert environment("grab", two)["OPENCV_FOR_THREADS_NUM"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert threads_of("segment", four) == 2
    assert str(one) == "1 core with 2 hyperthreads" and "limited to the time of 4" in str(eight)


def test_the_advice_names_what_would_hold() -> None:
    assert needed_ms(120, 25) == 60 and needed_ms(60, 25) == 40 and needed_ms(30, 25) == 15
    nano, micro = Recipe(), Recipe("micro", "package:micro", 224)
    assert size_for(nano, 100, 60, 64) < size_for(nano, 70, 60, 64) < 320 == size_for(nano, 60, 60, 64)
    assert nearest(nano, 70, 60).setting == "image_size = 288" and "micro" in nearest(nano, 160, 60).setting
    assert "image_size" in nearest(micro, 75, 60).setting and nearest(micro, 900, 60).step_ms > 60
    assert "the nearest there is" in advice(micro, "", 900, 120, 25)
    assert "rtseg build" in advice(nano, "cpu (not built yet)", 160, 120, 25)
    assert "something else" in advice(micro, "", 30, 120, 25)


def test_a_least_image_size_must_fit_the_engine(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text('source = "x.mp4"\nleast_image_size = 160\n')
    assert load_stream(path).least_image_size == 160
    for wrong in ("352", "150", "32", '"small"'):
        path.write_text(f'source = "x.mp4"\nleast_image_size = {wrong}\n')
        with pytest.raises(ConfigError, match="least_image_size"):
            load_stream(path)
