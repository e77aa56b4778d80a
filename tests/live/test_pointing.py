"""What a person who points at a running feed can rely on: previews, held frames, undo, colours, and who did what."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from rtseg.base.colors import color_of
from rtseg.base.errors import OutputError, PromptError
from rtseg.live.control import Client
from rtseg.live.profile import StreamProfile
from tests.live.conftest import SOURCE, Running, accounted

Faults = Callable[..., None]


@pytest.fixture()
def run(profile: StreamProfile, faults: Faults, running: Callable[[StreamProfile], Running]) -> Running:
    return running(replace(profile, source=SOURCE.format(60), control="tcp://127.0.0.1:*"))


@pytest.fixture()
def client(run: Running) -> Iterator[Client]:
    with Client(run.state.control, who="Dr. Ada") as client:
        run.until(lambda: run.watcher and run.watcher.got["overlay"] and run.watcher.got["masks"])
        yield client


def objects(run: Running, topic: str = "overlay") -> dict[int, dict[str, Any]]:
    """The objects of the newest message of a topic."""
    assert run.watcher is not None
    return {o["id"]: o for o in run.watcher.got[topic][-1].header["objects"]}


def labels(run: Running) -> dict[int, str]:
    return {i: o["label"] for i, o in objects(run).items()}


def test_a_preview_shows_the_mask_and_changes_nothing_until_it_is_accepted(run: Running, client: Client) -> None:
    seq = client.hold()["seq"]
    session = run.state.frame(seq).session  # type: ignore[union-attr]
    found = client.preview(2, box=(10, 10, 60, 60), seq=seq)
    assert (found.id, found.seq, found.mask_hw.shape, found.score) == (2, seq, (120, 160), 1.0)
    assert found.mask_hw[20:50, 20:50].all() and not found.mask_hw[70:].any() and found.warnings == ()
    assert client.preview(3, box=(10, 10, 11, 60)).warnings == ("object 3: too small",)
    status = client.status()
    assert [bank["id"] for bank in client.memory()] == [1]
    assert [o["id"] for o in status["objects"]] == [1] and status["changes"] == {"undo": None, "redo": None}
    assert run.state.segmenter.history.ids == (1,) and not run.state.segmenter.history.is_busy
    for wrong, why in [
        (lambda: client.preview(2, points=[(999, 3, 1)]), "outside the 160x120 frame"),
        (lambda: client.preview(2, points=[(3, 3, 0)]), "only background points"),
        (lambda: client.preview(2, points=[(3, 3, 1)], seq=10**6), "frame 1000000 is not there"),
        (lambda: client.add(2, box=(1, 1, 9, 9), seq=seq, session="another"), f"frame {seq} is of another session"),
    ]:
        with pytest.raises(PromptError, match=why):
            wrong()
    # The person takes a while: the ring has dropped the frame, and the prompt still means it.
    run.until(lambda: not run.state.frames.holds(seq))
    assert client.add(2, box=(10, 10, 60, 60), label="hook", seq=seq, session=session) == {"id": 2, "seq": seq}
    run.until(lambda: labels(run) == {1: "grasper", 2: "hook"})
    run.until(lambda: not run.state.frames.holds(seq + 12))
    refused = 0  # the negative control: frames that nobody held; eight at most are
    for late in range(seq + 1, seq + 13):
        try:
            client.snapshot(late)
        except OutputError as e:
            assert f"frame {late} is not there; there are: " in str(e)
            refused += 1
    assert refused >= 4
    assert any(event.endswith(f"on frame {seq}, by Dr. Ada") for event in run.state.events)
    os.kill(run.pid("segment"), signal.SIGKILL)
    run.until(lambda: not run.state.workers["segment"].up)
    with pytest.raises(PromptError, match="the network is not ready"):
        client.preview(3, box=(10, 10, 60, 60))
    with pytest.raises(OutputError, match="the network is not ready"):
        client.memory()


def test_changes_are_undone_and_made_again_by_whoever_asks(run: Running, client: Client) -> None:
    with pytest.raises(OutputError, match="nothing to undo"):  # the profile's objects are no change
        client.undo()
    client.add(2, box=(10, 10, 60, 60), label="hook")
    client.rename(2, "scissors")
    client.correct(1, box=(30, 30, 90, 90))
    corrected = run.state.segmenter.history.states([1])[1]
    client.remove(1)
    client.reset()
    run.until(lambda: labels(run) == {})
    with Client(run.state.control, who="Bo") as other:
        assert other.undo()["undone"] == "reset, by Dr. Ada"
        run.until(lambda: labels(run) == {2: "scissors"})
        assert other.undo()["undone"] == "remove id 1, by Dr. Ada"
    run.until(lambda: labels(run) == {1: "grasper", 2: "scissors"})
    assert run.state.segmenter.history.states([1])[1] == corrected and objects(run)[1]["box"][0] >= 20
    assert "correct object 1" in client.undo()["undone"]
    run.until(lambda: objects(run)[1]["box"][0] < 25)
    assert "rename" in client.undo()["undone"]
    run.until(lambda: labels(run) == {1: "grasper", 2: "hook"})
    assert "rename" in client.redo()["redone"] and client.status()["changes"]["redo"].startswith("correct")
    os.kill(run.pid("segment"), signal.SIGKILL)  # the new process gets what the history says
    run.until(lambda: not run.state.workers["segment"].up)
    run.until(lambda: labels(run) == {1: "grasper", 2: "scissors"} and run.state.phase == "running")
    assert "rename" in client.undo()["undone"] and "add object 2" in client.undo()["undone"]
    run.until(lambda: labels(run) == {1: "grasper"})
    client.add(3, box=(10, 10, 60, 60))
    with pytest.raises(OutputError, match="nothing to make again"):
        client.redo()
    assert any("undo" in event and event.endswith("by Bo") for event in run.state.events)
    assert accounted(run.finish())


def test_an_object_is_drawn_as_people_choose(run: Running, client: Client) -> None:
    client.add(2, box=(10, 10, 60, 60), label="hook")
    run.until(lambda: sorted(objects(run)) == [1, 2])
    assert objects(run)[2]["color"] == list(color_of(2))
    assert client.look(2, color=(1, 2, 3)) == {"id": 2, "color": [1, 2, 3], "hidden": False}
    run.until(lambda: objects(run)[2]["color"] == [1, 2, 3])
    assert client.look(1, hidden=True)["hidden"]
    run.until(lambda: sorted(objects(run)) == [2])  # the overlay does not show it, and the masks say so
    run.until(lambda: objects(run, "masks")[1]["hidden"] and objects(run, "masks")[2]["color"] == [1, 2, 3])
    assert {o["id"]: (o["color"], o["hidden"]) for o in client.status()["objects"]} == {
        1: (list(color_of(1)), True), 2: ([1, 2, 3], False),
    }  # fmt: skip
    os.kill(run.pid("publish"), signal.SIGKILL)
    seen = run.state.frames.head
    run.until(lambda: run.watcher.got["masks"][-1].seq > seen + 5)  # type: ignore[union-attr]
    assert objects(run, "masks")[1]["hidden"] and sorted(objects(run)) == [2]
    with pytest.raises(OutputError, match="no object 9"):
        client.look(9, hidden=True)
    client.remove(2)
    client.add(2, box=(10, 10, 60, 60))  # another object, in the colour of its id
    run.until(lambda: objects(run, "masks").get(2, {}).get("color") == list(color_of(2)))
