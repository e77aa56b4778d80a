"""A live feed accounts for every frame, never waits for a mask, and outlives its network."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rtseg import Frame, Prompt, Subscriber
from rtseg.config import Publish, Recipe, StreamProfile
from rtseg.errors import OutputError, PromptError, SourceError
from rtseg.live import Feed, Slot, run_live
from rtseg.sam2 import Sam2, get_preset, save_weights
from rtseg.track import Tracker
from rtseg.types import Masks

SOURCE = "synthetic:laparoscopy?width=160&height=120&fps=50&seconds={}&seed=7"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("live") / "nano.safetensors"
    save_weights(Sam2(get_preset("nano"), 64), path)
    return Recipe(weights=str(path), image_size=64)


@pytest.fixture()
def profile(recipe: Recipe) -> StreamProfile:
    box = Prompt(1, box=(20.0, 20.0, 120.0, 100.0), label="grasper")
    return StreamProfile(
        SOURCE.format(2), "room", recipe, target_fps=50, publish=Publish("tcp://127.0.0.1:*"), objects=(box,)
    )


def accounted(report: dict[str, Any]) -> bool:
    frames = report["frames"]
    return bool(frames["in"] == frames["shown"] + sum(frames["dropped"].values()))


def watch(profile: StreamProfile, *, wait: float = 0.3) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """Play a feed with a subscriber of all topics; what the feed reports, and what the subscriber got."""
    got: dict[str, list[Any]] = {kind: [] for kind in ("video", "overlay", "masks", "status")}
    stop = threading.Event()
    threads: list[threading.Thread] = []

    def ready(feed: Feed, endpoint: str) -> None:
        def listen() -> None:
            with Subscriber(endpoint) as subscriber:
                while not stop.is_set():
                    message = subscriber.get(timeout=0.1)
                    if message is not None:
                        got[message.kind].append(message)

        threads.append(threading.Thread(target=listen))
        threads[0].start()
        time.sleep(wait)

    report = run_live(profile, ready=ready)
    stop.set()
    threads[0].join()
    return report, got


def slow_step(seconds: float) -> Callable[[Tracker, Frame], Masks]:
    real = Tracker.step

    def step(self: Tracker, frame: Frame) -> Masks:
        time.sleep(seconds)
        return real(self, frame)

    return step


@pytest.mark.parametrize("overlay", ["latest", "sync"])
def test_every_frame_is_accounted_for_and_every_topic_arrives(profile: StreamProfile, overlay: str) -> None:
    report, got = watch(replace(profile, overlay=overlay))
    assert report["ok"] and report["frames"]["in"] == 100 and accounted(report)
    for kind, messages in got.items():
        assert messages, f"nothing on {kind}"
    assert report["mask_states"]["fresh"] > 20
    header = got["overlay"][-1].header
    assert header["captured_ns"] <= header["published_ns"] and header["objects"][0]["label"] == "grasper"
    assert got["status"][-1].status()["frames"]["in"] > 0


def test_the_video_topic_is_the_source_bit_by_bit(profile: StreamProfile) -> None:
    from rtseg import open_source

    _, got = watch(profile)
    truth = {frame.seq: frame.image_hwc for frame in open_source(profile.source)}
    assert len(got["video"]) > 20
    for message in got["video"]:
        np.testing.assert_array_equal(message.image_hwc(), truth[message.seq])
    drawn = [m for m in got["overlay"] if m.header["state"] == "fresh"]
    assert any((m.image_hwc() != truth[m.seq]).any() for m in drawn)


def test_latest_never_waits_for_a_mask_and_says_how_old_it_is(
    profile: StreamProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tracker, "step", slow_step(0.4))
    report, _ = watch(profile)
    assert accounted(report) and report["frames"]["shown"] > 70
    assert report["stages_ms"]["glass-to-publish"]["p95"] < 200 < report["stages_ms"]["segment"]["p50"]
    states = report["mask_states"]
    assert states["expired"] > states["fresh"]


def test_sync_waits_and_shows_each_frame_with_its_own_mask(
    profile: StreamProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control of the test above: here the masks' time is in the picture's."""
    monkeypatch.setattr(Tracker, "step", slow_step(0.2))
    report, got = watch(replace(profile, overlay="sync"))
    assert accounted(report) and report["frames"]["dropped"]["slot"] > 70
    assert report["stages_ms"]["glass-to-publish"]["p50"] > 200
    assert {m.header["mask_age_ms"] for m in got["overlay"]} == {0.0}
    assert all(m.header["mask_seq"] == m.seq for m in got["overlay"])


@pytest.mark.parametrize("overlay", ["latest", "sync"])
def test_a_slower_target_drops_frames_by_name(profile: StreamProfile, overlay: str) -> None:
    report, _ = watch(replace(profile, target_fps=10, overlay=overlay))
    assert accounted(report)
    assert 70 <= report["frames"]["dropped"]["rate"] <= 85


@pytest.mark.parametrize("overlay", ["latest", "sync"])
def test_a_network_that_fails_does_not_take_the_picture_with_it(
    profile: StreamProfile, monkeypatch: pytest.MonkeyPatch, overlay: str
) -> None:
    real, calls = Tracker.step, [0]

    def step(self: Tracker, frame: Frame) -> Masks:
        calls[0] += 1
        if calls[0] > 12:
            raise RuntimeError("out of memory")
        return real(self, frame)

    monkeypatch.setattr(Tracker, "step", step)
    report, got = watch(replace(profile, overlay=overlay))
    assert not report["ok"] and "RuntimeError: out of memory" in report["faults"]["network"]
    assert report["frames"]["in"] == 100 and accounted(report)
    assert max(m.seq for m in got["video"]) > 90
    assert got["status"][-1].status()["state"] == "failed"
    assert report["frames"]["shown"] > 70 and report["mask_states"]["none"] > 40


@pytest.mark.parametrize("overlay", ["latest", "sync"])
def test_a_drawing_that_fails_leaves_the_bare_picture(
    profile: StreamProfile, monkeypatch: pytest.MonkeyPatch, overlay: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no ink")

    monkeypatch.setattr("rtseg.live.draw_overlay", fail)
    report, got = watch(replace(profile, overlay=overlay, source=SOURCE.format(0.6)))
    assert "no ink" in report["faults"]["overlay"] and accounted(report) and report["frames"]["shown"] > 20
    assert {m.header["state"] for m in got["overlay"]} == {"none"}


def test_a_source_that_breaks_is_named_in_the_last_status(
    profile: StreamProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rtseg.grab.synthetic import Scene

    real = Scene.render

    def render(self: Scene, index: int, fps: float) -> Any:
        if index == 20:
            raise SourceError("frame 20: cable pulled")
        return real(self, index, fps)

    monkeypatch.setattr(Scene, "render", render)
    said: list[Any] = []
    monkeypatch.setattr("rtseg.publish.Publisher.set_status", lambda self, status: said.append(status))
    with pytest.raises(SourceError, match="cable pulled"):
        run_live(profile)
    assert said[-1]["state"] == "failed" and "cable pulled" in said[-1]["faults"]["source"]
    assert accounted(said[-1])


def test_the_original_picture_is_not_held_hostage_by_a_network_that_hangs(
    profile: StreamProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rtseg.engine.cpu import CpuEngine

    real, calls = CpuEngine.encode_image, [0]

    def encode_image(self: CpuEngine, image: Any) -> Any:
        calls[0] += 1
        if calls[0] == 10:  # two of them warm up
            time.sleep(1.2)
        return real(self, image)

    monkeypatch.setattr(CpuEngine, "encode_image", encode_image)
    report, got = watch(replace(profile, source=SOURCE.format(2)))
    assert report["stages_ms"]["segment"]["max"] > 1100
    sent = [m.header["published_ns"] for m in got["video"]]
    assert max(np.diff(sent)) / 1e6 < 500


def test_a_first_click_on_the_background_alone_is_refused_before_anything_runs(profile: StreamProfile) -> None:
    with pytest.raises(PromptError, match="only background points"):
        run_live(replace(profile, objects=(Prompt(1, points=((20.0, 20.0, 0),)),)))


def test_a_topic_that_is_off_is_not_shown(profile: StreamProfile) -> None:
    only_video = Publish("tcp://127.0.0.1:*", ("video",))
    report = run_live(replace(profile, source=SOURCE.format(0.3), publish=only_video))
    assert accounted(report) and report["frames"]["shown"] == 0


def test_nobody_watching_is_not_a_drop(profile: StreamProfile) -> None:
    report = run_live(replace(profile, source=SOURCE.format(0.5)))
    assert accounted(report) and report["frames"]["shown"] > 15
    assert report["frames"]["unwatched"] == report["frames"]["shown"] and report["published"]["overlay"] == 0


def test_it_stops_after_so_many_seconds(profile: StreamProfile) -> None:
    report = run_live(replace(profile, source=SOURCE.format(60)), seconds=0.5)
    assert accounted(report) and 10 < report["frames"]["in"] <= 26


def test_a_prompt_outside_the_frame_is_refused_before_anything_runs(profile: StreamProfile) -> None:
    far = Prompt(1, points=((500.0, 10.0, 1),))
    with pytest.raises(PromptError, match="outside the 160x120 frame"):
        run_live(replace(profile, objects=(far,)))


def test_a_port_in_use_is_refused_in_one_line(profile: StreamProfile) -> None:
    import zmq

    with zmq.Context() as context, context.socket(zmq.PUB) as other:
        port = other.bind_to_random_port("tcp://127.0.0.1")
        taken = replace(profile, publish=Publish(f"tcp://127.0.0.1:{port}"))
        with pytest.raises(OutputError, match="port is in use"):
            run_live(taken)
    assert run_live(replace(taken, source=SOURCE.format(0.1)))["ok"]  # and nothing was left bound


def frame(seq: int) -> Frame:
    return Frame(np.zeros((2, 2, 3), np.uint8), seq)


def test_a_slot_keeps_the_newest_but_never_loses_the_first() -> None:
    slot = Slot()
    assert [slot.put(frame(i)) for i in range(3)] == [False, True, True]
    first = slot.take()
    assert first is not None and first.seq == 0
    assert [slot.put(frame(i)) for i in (3, 4, 5)] == [False, True, True]
    newest = slot.take()
    assert newest is not None and newest.seq == 5
    slot.close()
    assert slot.take() is None


def test_the_demo_runs_shows_and_judges(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rtseg import demo as demo_module

    monkeypatch.setattr(demo_module, "Recipe", lambda: recipe)
    monkeypatch.setattr(demo_module, "POSTER_AFTER", 0.0)
    report = demo_module.demo(tmp_path / "out", seconds=1.5)
    assert accounted(report) and report["display"]["received"]["overlay"] > 5
    assert (tmp_path / "out/overlay.mp4").stat().st_size > 10_000
    assert 0 <= report["iou"]["mean"] <= 1 and report["iou"]["frames judged"] > 0
    assert {p.name for p in (tmp_path / "out").iterdir()} <= {"overlay.mp4", "poster.png"}


def test_the_judge_knows_good_masks_from_bad_ones() -> None:
    from rtseg import open_source
    from rtseg.demo import judge

    uri = "synthetic:laparoscopy?width=128&height=96&fps=25&seconds=0.4&seed=7"

    def masks(shift: int) -> list[Masks]:
        out = []
        for f in open_source(uri):
            assert f.truth_hw is not None
            logits = np.stack([np.roll(np.where(f.truth_hw == i, 5.0, -5.0), shift, axis=1) for i in (1, 2)])
            out.append(
                Masks(f.seq, f.session, 0, 0, 96, 128, (1, 2), ("", ""), (1, 1), (1, 1), logits.astype(np.float32))
            )
        return out

    assert judge(uri, masks(0), step=1)["mean"] == 1.0
    assert judge(uri, masks(25), step=1)["mean"] < 0.5


def test_a_720p_clip_at_25_fps(recipe: Recipe) -> None:
    import os

    data = Path(os.environ.get("RTSEG_TEST_DATA", Path(__file__).parents[2] / "shared/data"))
    clip = data / "clips/laparoscopy_720p.mp4"
    if not clip.is_file():
        pytest.skip(f"no test data: {clip} (set RTSEG_TEST_DATA)")
    box = Prompt(1, box=(586.0, 0.0, 752.0, 106.0), label="grasper")
    profile = StreamProfile(str(clip), "lap", recipe, publish=Publish("tcp://127.0.0.1:*"), objects=(box,))
    report, got = watch(profile)
    assert report["frames"]["in"] == 250 and accounted(report)
    assert report["frames"]["shown"] > 200 and all(got.values())
    assert report["seconds"] > 9.5  # as live: no faster than the clip's own 25 fps
