"""A live feed accounts for every frame, never waits for a mask, and answers what cannot work in one line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rtseg import Prompt, open_source
from rtseg.base.errors import EngineError, OutputError, PromptError, SourceError
from rtseg.engine.recipe import Recipe
from rtseg.live import run_live, worker_limits, worker_process
from rtseg.live.profile import Publish, StreamProfile
from rtseg.sam2 import Sam2, get_preset, save_weights
from rtseg.synthetic import EndoscopeSource
from tests.live.conftest import SOURCE, WORKER, accounted, watch

Faults = Callable[..., None]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("live") / "nano.safetensors"
    save_weights(Sam2(get_preset("nano"), 64), path)
    return Recipe(weights=str(path), image_size=64)


@pytest.mark.parametrize("overlay", ["latest", pytest.param("sync", marks=pytest.mark.slow)])
def test_the_real_network_and_every_topic(profile: StreamProfile, recipe: Recipe, overlay: str) -> None:
    """The budget is so large that a slow machine keeps to it: what is fresh then came through."""
    report, got = watch(replace(profile, engine=recipe, overlay=overlay, mask_budget_ms=5000.0))
    assert report["ok"] and report["frames"]["in"] == 50 and accounted(report)
    for kind, messages in got.items():
        assert messages, f"nothing on {kind}"
    assert report["mask_states"]["fresh"] > 0.5 * report["frames"]["shown"] > 0
    header = got["overlay"][-1].header
    assert header["captured_ns"] <= header["published_ns"] and header["objects"][0]["label"] == "grasper"
    last = got["status"][-1].status()
    assert last["frames"]["in"] > 0 and got["status"][-1].header["state"] == "ended"
    assert last["memory"]["policy"] == recipe.memory.policy
    step = last["stages_ms"]["segment"]
    assert 0 < step["total"] / step["count"] <= step["max"]


def test_the_video_topic_is_the_source_bit_by_bit(profile: StreamProfile, faults: Faults) -> None:
    _, got = watch(profile)
    truth = {frame.seq: frame.image_hwc for frame in open_source(profile.source)}
    assert got["video"]
    for message in got["video"]:
        np.testing.assert_array_equal(message.image_hwc(), truth[message.seq])
    drawn = [m for m in got["overlay"] if m.header["state"] == "fresh"]
    assert any((m.image_hwc() != truth[m.seq]).any() for m in drawn)


@pytest.mark.slow
def test_latest_never_waits_for_a_mask_and_says_how_old_it_is(profile: StreamProfile, faults: Faults) -> None:
    faults(slow=0.8)
    report, _ = watch(replace(profile, source=SOURCE.format(2)))
    assert accounted(report) and report["frames"]["shown"] > 50
    assert report["stages_ms"]["glass-to-publish"]["p95"] < 0.5 * report["stages_ms"]["segment"]["p50"]
    states = report["mask_states"]
    assert states["expired"] > states["fresh"]


def test_sync_waits_and_shows_each_frame_with_its_own_mask(profile: StreamProfile, faults: Faults) -> None:
    """The negative control of the test above: here the masks' time is in the picture's."""
    faults(slow=0.2)
    report, got = watch(replace(profile, overlay="sync", mask_budget_ms=5000.0))
    assert accounted(report) and report["frames"]["dropped"]["slot"] > 35
    assert report["stages_ms"]["glass-to-publish"]["p50"] > 200
    with_masks = [m for m in got["overlay"] if m.header["state"] == "fresh"]
    assert len(with_masks) > 1 and {m.header["mask_age_ms"] for m in with_masks} == {0.0}
    assert all(m.header["mask_seq"] == m.seq for m in with_masks)


@pytest.mark.slow
def test_sync_goes_on_without_masks_when_none_come(
    profile: StreamProfile, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults(hang_at=3)
    monkeypatch.setitem(worker_limits.SILENT_S, "segment", 60.0)  # it hangs as long as the feed plays
    monkeypatch.setattr(worker_process, "STOP_S", 1.0)
    report, got = watch(replace(profile, overlay="sync", mask_budget_ms=60.0))
    shown = [m.header["captured_ns"] for m in got["overlay"]]
    assert accounted(report) and max(np.diff(shown)) / 1e6 < 1000 and len(shown) > 5
    assert report["restarts"] == {} and report["mask_states"]["fresh"] <= 2


@pytest.mark.slow
@pytest.mark.parametrize("overlay", ["latest", "sync"])
def test_a_slower_target_drops_frames_by_name(profile: StreamProfile, faults: Faults, overlay: str) -> None:
    report, _ = watch(replace(profile, target_fps=10, overlay=overlay))
    assert accounted(report)
    assert 30 <= report["frames"]["dropped"]["rate"] <= 43  # 40, but for frames that came late and in a bunch


def test_a_drawing_that_fails_leaves_the_bare_picture(profile: StreamProfile, faults: Faults) -> None:
    faults(ink=True)
    report, got = watch(replace(profile, source=SOURCE.format(0.6)))
    assert accounted(report) and report["frames"]["shown"] > 5
    assert {m.header["state"] for m in got["overlay"]} == {"none"}
    assert any("no ink" in event for m in got["status"] for event in m.status().get("events", []))


def test_a_recording_that_breaks_ends_the_feed_and_is_named_in_the_last_status(
    profile: StreamProfile, faults: Faults
) -> None:
    faults(break_at=20)
    report, got = watch(profile)
    assert not report["ok"] and report["why"] == "grab: frame 20: cable pulled"
    assert report["frames"]["in"] == 20 and accounted(report) and report["frames"]["shown"] > 5
    assert "cable pulled" in got["status"][-1].status()["faults"]["grab"]


def test_an_engine_that_cannot_be_opened_is_refused_in_one_line(profile: StreamProfile, faults: Faults) -> None:
    """Also where the process is so slow to exit that it is killed on its way out."""
    faults(refuse="no such plan; run: rtseg build", linger=30)
    with pytest.raises(EngineError, match="no such plan"):
        run_live(profile, worker=WORKER)


@pytest.mark.parametrize(
    ("prompt", "why"),
    [
        (Prompt(1, points=((20.0, 20.0, 0),)), "only background points"),
        (Prompt(1, points=((500.0, 10.0, 1),)), "outside the 160x120 frame"),
        (Prompt(1, box=(1.0, 1.0, 9.0, 9.0), label="impossible"), "impossible"),
    ],
)
def test_a_prompt_that_does_not_fit_the_first_frame_is_refused(
    profile: StreamProfile, faults: Faults, prompt: Prompt, why: str
) -> None:
    with pytest.raises(PromptError, match=why):
        run_live(replace(profile, objects=(prompt,)), worker=WORKER)


def test_a_source_that_is_not_there_is_refused_in_one_line(profile: StreamProfile, faults: Faults) -> None:
    with pytest.raises(SourceError, match="no such file"):
        run_live(replace(profile, source="/nowhere.mp4"), worker=WORKER)


def test_a_topic_that_is_off_is_not_shown(profile: StreamProfile, faults: Faults) -> None:
    only_video = Publish("tcp://127.0.0.1:*", ("video",))
    report = run_live(replace(profile, source=SOURCE.format(0.3), publish=only_video), worker=WORKER)
    assert accounted(report) and report["frames"]["shown"] == 0


def test_nobody_watching_is_not_a_drop(profile: StreamProfile, faults: Faults) -> None:
    report = run_live(replace(profile, source=SOURCE.format(0.5)), worker=WORKER)
    assert accounted(report) and report["frames"]["shown"] > 5
    assert report["frames"]["unwatched"] == report["frames"]["shown"] and report["published"]["overlay"] == 0
    assert "overlay" not in report["stages_ms"] and sum(report["mask_states"].values()) == report["frames"]["shown"]


def test_it_stops_after_so_many_seconds(profile: StreamProfile, faults: Faults) -> None:
    report = run_live(replace(profile, source=SOURCE.format(60)), seconds=0.5, worker=WORKER)
    assert accounted(report) and 0 < report["frames"]["in"] < 1500  # of 3000


def test_a_port_in_use_is_refused_in_one_line(profile: StreamProfile, faults: Faults) -> None:
    import zmq

    with zmq.Context() as context, context.socket(zmq.PUB) as other:
        port = other.bind_to_random_port("tcp://127.0.0.1")
        taken = replace(profile, publish=Publish(f"tcp://127.0.0.1:{port}"))
        with pytest.raises(OutputError, match="port is in use"):
            run_live(taken, worker=WORKER)
    assert run_live(replace(taken, source=SOURCE.format(0.1)), worker=WORKER)["ok"]  # and nothing was left bound


@pytest.mark.slow
def test_the_demo_runs_shows_and_judges(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rtseg.live import demo as demo_module

    monkeypatch.setattr(demo_module, "Recipe", lambda: recipe)
    monkeypatch.setattr(demo_module, "POSTER_AFTER", 0.0)
    report = demo_module.demo(tmp_path / "out", seconds=3.0)
    assert accounted(report) and report["display"]["received"]["overlay"] > 0
    assert (tmp_path / "out/overlay.mp4").stat().st_size > 10_000
    assert 0 <= report["iou"]["mean"] <= 1 and report["iou"]["frames judged"] > 0
    assert {p.name for p in (tmp_path / "out").iterdir()} <= {"overlay.mp4", "poster.png"}


@pytest.mark.slow
def test_a_demo_that_stays_stores_its_beginning_alone(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rtseg.live import demo as demo_module

    def play(profile: StreamProfile, seconds: float | None, **options: Any) -> dict[str, Any]:
        assert seconds is None and profile.source == demo_module.ENDLESS  # it does not end by itself
        return run_live(replace(profile, engine=recipe), 6.0, **options)

    monkeypatch.setattr(demo_module, "run_live", play)
    report = demo_module.demo(tmp_path / "out", seconds=2.0, stay=True)
    assert accounted(report) and report["seconds"] > 5
    assert 0 < report["display"]["received"]["overlay"] <= 2 * 25 < report["frames"]["shown"]
    assert (tmp_path / "out/overlay.mp4").exists()


def test_the_poster_of_the_demo_is_of_a_time_after_the_prompts() -> None:
    """In the source's own time, whatever its time base; and the instruments may lie close together on all pictures."""
    from rtseg.live.demo import DemoViewer

    viewer = object.__new__(DemoViewer)
    viewer._poster_rank, viewer._poster_hwc = (False, -1), None
    objects = [{"area": 50, "box": [0, 0, 40, 9]}, {"area": 70, "box": [42, 0, 90, 9]}]
    header = {"seq": 90, "time_base": [1, 12800], "width": 100, "state": "fresh", "objects": objects}
    picture = np.zeros((9, 90, 3), np.uint8)
    viewer._update_poster({**header, "pts": 2 * 12800}, picture)
    assert viewer._poster_hwc is None
    viewer._update_poster({**header, "pts": 4 * 12800}, picture)
    assert viewer._poster_hwc is picture


def test_the_recording_of_the_demo_shows_what_its_truth_is_of() -> None:
    """The synthetic endoscope may change: then `python -m rtseg.live.demo` makes the recording anew."""
    from rtseg.live.demo import RECORDING, SOURCE

    truth, apart = EndoscopeSource(SOURCE), []
    with open_source(RECORDING) as recording:
        assert (recording.frame_count, recording.width, recording.fps) == (500, truth.width, truth.fps)
        for frame in recording:
            if frame.seq % 100 == 50:
                drawn, later = (truth.frame(seq).image_hwc.astype(float) for seq in (frame.seq, frame.seq + 25))
                apart.append((abs(frame.image_hwc - drawn).mean(), abs(frame.image_hwc - later).mean()))
    assert all(own < 2.5 and own < 0.5 * other for own, other in apart), apart


def test_the_judge_knows_good_masks_from_bad_ones() -> None:
    from rtseg.live.demo import judge

    uri = "synthetic:laparoscopy?width=128&height=96&fps=25&seconds=0.4&seed=7"

    def masks(shift: int) -> dict[int, dict[int, np.ndarray]]:
        return {f.seq: {i: np.roll(f.truth_hw == i, shift, axis=1) for i in (1, 2)} for f in open_source(uri)}

    assert judge(uri, masks(0))["mean"] == 1.0
    assert judge(uri, masks(25))["mean"] < 0.5


@pytest.mark.slow
def test_a_720p_clip_at_25_fps(recipe: Recipe) -> None:
    import os

    data = Path(os.environ.get("RTSEG_TEST_DATA", Path(__file__).parents[3] / "shared/data"))
    clip = data / "clips/laparoscopy_720p.mp4"
    if not clip.is_file():
        pytest.skip(f"no test data: {clip} (set RTSEG_TEST_DATA)")
    box = Prompt(1, box=(586.0, 0.0, 752.0, 106.0), label="grasper")
    profile = StreamProfile(str(clip), "lap", recipe, publish=Publish("tcp://127.0.0.1:*"), objects=(box,))
    report, got = watch(profile)
    assert report["frames"]["in"] == 250 and accounted(report)
    assert report["frames"]["shown"] > 50 and all(got.values())
    assert report["seconds"] > 9.5  # as live: no faster than the clip's own 25 fps
