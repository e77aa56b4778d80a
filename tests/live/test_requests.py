"""What a person asks of a running feed is done on the frame that they meant, and outlives the network."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from rtseg import open_source
from rtseg.base.errors import OutputError, PromptError
from rtseg.live.control import Client
from rtseg.live.profile import StreamProfile
from tests.live.conftest import LONG_S, SOURCE, Running, accounted

Faults = Callable[..., None]


@pytest.fixture()
def run(profile: StreamProfile, faults: Faults, running: Callable[[StreamProfile], Running]) -> Running:
    control = "tcp://127.0.0.1:*"
    return running(replace(profile, source=SOURCE.format(60), control=control))


@pytest.fixture()
def client(run: Running) -> Iterator[Client]:
    with Client(run.state.control) as client:
        run.until(lambda: run.state.board["segmented"] > 3)
        yield client


def shown(run: Running) -> dict[int, str]:
    """The objects on the newest overlay."""
    assert run.watcher is not None
    return {o["id"]: o["label"] for o in run.watcher.got["overlay"][-1].header["objects"]}


def test_objects_come_change_and_go_and_survive_the_network(run: Running, client: Client) -> None:
    assert client.add(2, box=(10, 10, 60, 60), label="hook")["id"] == 2
    run.until(lambda: shown(run) == {1: "grasper", 2: "hook"})
    client.rename(2, "scissors")
    run.until(lambda: shown(run) == {1: "grasper", 2: "scissors"})
    client.correct(1, points=[(30, 30, 1), (5, 5, 0)])
    os.kill(run.pid("segment"), signal.SIGKILL)
    run.until(lambda: run.state.phase == "recovering")
    client.add(3, points=[(50, 50, 1)], label="while it was away")
    run.until(lambda: shown(run) == {1: "grasper", 2: "scissors", 3: "while it was away"})
    client.remove(2)
    run.until(lambda: sorted(shown(run)) == [1, 3])
    assert client.reset()["removed"] == [1, 3]
    run.until(lambda: shown(run) == {})
    client.add(1, box=(10, 10, 60, 60))
    run.until(lambda: sorted(shown(run)) == [1])
    assert accounted(run.finish())


def test_what_makes_no_sense_is_refused_in_one_line_and_nothing_changes(run: Running, client: Client) -> None:
    def correct_the_past() -> None:
        run.until(lambda: run.state.frames.head > 20)
        client.correct(1, points=[(3, 3, 1)])
        client.correct(1, points=[(3, 3, 1)], seq=run.state.frames.head - 15)

    for request, why in [
        (lambda: client.add(1, points=[(3, 3, 1)]), "tracked already"),
        (lambda: client.correct(9, points=[(3, 3, 1)]), "no object 9"),
        (lambda: client.add(2, points=[(999, 3, 1)]), "outside the 160x120 frame"),
        (lambda: client.add(2, points=[(3, 3, 0)]), "only background points"),
        (lambda: client.add(2, points=[(3, 3, 1)], label="impossible"), "impossible"),
        (lambda: client.add(2, points=[(3, 3, 1)], seq=10**6), "frame 1000000 is not there; there are: "),
        (correct_the_past, "it has a prompt on frame"),
    ]:
        with pytest.raises(PromptError, match=why):
            request()
    for request, why in [(lambda: client.remove(9), "no object 9"), (lambda: client.rename(9, "x"), "no object 9")]:
        with pytest.raises(OutputError, match=why):
            request()
    assert [o["id"] for o in client.status()["objects"]] == [1] and run.state.segmenter.history.ids == (1,)


def test_a_click_on_a_past_frame_keeps_that_frame(run: Running, client: Client) -> None:
    run.until(lambda: run.state.frames.head > 30)
    seq = run.state.frames.head - 20
    assert client.add(2, points=[(30, 30, 1)], seq=seq) == {"id": 2, "seq": seq}
    (picture,) = [picture for picture, prompts in run.state.segmenter.history.replay() if prompts[0].id == 2]
    truth = next(f for f in open_source(SOURCE.format(60)) if f.seq == seq)
    assert picture.seq == seq and os.pread(picture.fd, 10**6, 0) == truth.image_hwc.tobytes()


def test_a_snapshot_is_the_original_picture_with_its_masks(run: Running, client: Client, tmp_path: Path) -> None:
    run.until(lambda: run.state.frames.head > 30)
    seq = run.state.frames.head - 10
    snapshot = client.snapshot(seq)
    image_hwc = cv2.cvtColor(cv2.imdecode(np.frombuffer(snapshot.png, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    truth = next(f for f in open_source(SOURCE.format(60)) if f.seq == seq)
    np.testing.assert_array_equal(image_hwc, truth.image_hwc)
    assert snapshot.seq == seq and snapshot.masks()[1].shape == (120, 160) and snapshot.masks()[1].any()
    assert client.snapshot().seq > seq
    assert list(tmp_path.iterdir()) == []


def test_a_pause_rests_the_network_and_not_the_picture(run: Running, client: Client) -> None:
    assert run.watcher is not None
    client.pause()
    segmented = run.steady(lambda: run.state.board["segmented"])
    pictures = run.state.board["shown"]
    run.until(lambda: run.state.board["shown"] > pictures + 30)
    assert run.state.board["segmented"] == segmented and run.state.phase == "paused"
    assert run.watcher.got["overlay"][-1].header["state"] == "expired"
    os.kill(run.pid("segment"), signal.SIGKILL)  # it is still paused when it comes back
    run.until(lambda: run.state.workers["segment"].up and run.state.workers["segment"].restarts == 1)
    assert run.steady(lambda: run.state.board["segmented"]) == segmented
    client.resume()
    run.until(lambda: run.state.phase == "running" and run.state.board["segmented"] > segmented + 5)


def test_settings_change_what_is_drawn_and_outlive_the_publisher(run: Running, client: Client) -> None:
    assert run.watcher is not None
    assert client.set(opacity=0.0, budget_ms=77.0) == {"opacity": 0.0, "budget_ms": 77.0}
    os.kill(run.pid("publish"), signal.SIGKILL)
    before = run.state.board["shown"]
    run.until(lambda: run.state.board["shown"] > before + 20)
    assert client.get() == {"opacity": 0.0, "budget_ms": 77.0}
    seq = run.state.frames.head
    run.until(lambda: (m := run.watcher.got["overlay"][-1]).seq > seq and m.header["state"] == "fresh")  # type: ignore[union-attr]
    message = next(m for m in reversed(run.watcher.got["overlay"]) if m.header["state"] == "fresh")
    truth = next(f for f in open_source(SOURCE.format(60)) if f.seq == message.seq)
    inside = np.s_[50:60, 60:80]  # of the object's box, away from its outline and its label
    np.testing.assert_array_equal(message.image_hwc()[inside], truth.image_hwc[inside])


def test_shutdown_ends_the_feed_in_order(run: Running, client: Client) -> None:
    client.shutdown()
    run.join(LONG_S)
    assert not run.is_alive() and run.report["ok"] and accounted(run.report)


def test_a_prompt_that_is_too_small_is_told_of(run: Running, client: Client) -> None:
    assert "warnings" not in client.add(2, box=(10, 10, 60, 60))
    assert client.add(3, box=(10, 10, 11, 60))["warnings"] == ["object 3: too small"]
    assert "warnings" not in client.rename(3, "needle")
    os.kill(run.pid("segment"), signal.SIGKILL)  # what is said again is not told again
    run.until(lambda: run.state.phase == "recovering")
    run.until(lambda: run.state.phase == "running" and 2 in shown(run))
    assert [event for event in run.state.events if "warning" in event] == ["segment warning: object 3: too small"]
    assert accounted(run.finish())
