"""How a feed begins: what cannot get better is refused at once, what can is tried again, and no cause is lost."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from rtseg import Prompt
from rtseg.base.errors import EngineError, OutputError, PromptError, RtsegError, SourceError
from rtseg.base.types import Frame
from rtseg.engine.recipe import Recipe
from rtseg.live import Feed, run_live
from rtseg.live.ipc.messages import Message
from rtseg.live.ipc.reports import Answer
from rtseg.live.profile import Publish, StreamProfile
from rtseg.live.segment_client import ENDED, SegmentClient
from rtseg.live.worker_process import WorkerProcess
from rtseg.live.workers.lifecycle import public_class_of
from tests.live.conftest import LONG_S, SOURCE, WORKER, Running

Start = Callable[[StreamProfile], Running]
Faults = Callable[..., None]


@pytest.fixture()
def gate(tmp_path: Path, faults: Faults) -> Callable[[], None]:
    """A network that is loaded when this is called, and not before."""
    faults(gate=str(tmp_path / "gate"))
    return (tmp_path / "gate").touch


@pytest.mark.slow
def test_a_network_that_dies_before_it_is_ready_takes_no_object_with_it(
    profile: StreamProfile, faults: Faults, running: Start, tmp_path: Path
) -> None:
    faults(die=4, life=str(tmp_path / "life"))
    run = running(replace(profile, source=SOURCE.format(120)))
    assert run.watcher is not None and run.state.workers["segment"].starts > 1
    got, scraped = run.watcher.got, set()
    while not run.state.workers["segment"].up:
        scraped.add(run.feed.snapshot()["state"])
        run.until(lambda: True)
        time.sleep(0.005)
    assert scraped <= {"opening", "recovering", "failed"} and "failed" in scraped
    run.until(lambda: run.state.phase == "running" and run.state.board["masks fresh"] > 5)
    without = [m.header["state"] for m in got["status"] if not m.status().get("engine")]
    assert "failed" in without and "running" not in without
    since = next(m.header["captured_ns"] for m in got["overlay"] if m.header["state"] == "fresh")
    assert "recovering" in {m.header["state"] for m in got["overlay"] if m.header["captured_ns"] < since}
    assert run.state.segmenter.history.ids == (1,) and run.finish()["ok"]


class FakeWorker(WorkerProcess):
    """A worker that reads messages, or does not."""

    def __init__(self) -> None:
        self.up, self.listens = True, True
        self.sent: list[Message] = []
        self.role = "segment"

    def send(self, message: Message, fds: tuple[int, ...] = ()) -> bool:
        self.sent += [message] if self.listens else []
        return self.listens


def picture(seq: int = 0) -> Frame:
    return Frame(np.zeros((6, 8, 3), np.uint8), seq)


def click(object_id: int, label: str | None = None) -> Prompt:
    return Prompt(object_id, points=((1.0, 1.0, 1),), label=label)


def test_only_the_deaths_of_a_network_that_was_told_count_against_a_prompt() -> None:
    worker = FakeWorker()
    client = SegmentClient(worker, 4)
    worker.up = False
    client.prompt(picture(), [click(1)], lambda error: None, stay=True)
    assert [client.ended() for _ in range(9)] == [None] * 9
    worker.up = True
    for _ in range(2):
        assert client.replay() and client.ended() is None
    assert client.ended() is None  # of another that was killed before it was ready
    assert client.replay()
    assert "object 1" in str(client.ended()) and client.history.ids == ()


def test_an_order_that_cannot_be_sent_changes_nothing() -> None:
    worker = FakeWorker()
    client, answers = SegmentClient(worker, 4), list[str | None]()
    client.prompt(picture(), [click(1, "grasper")], answers.append)
    client.answered(Answer(1, None))
    worker.listens = False
    for order in (
        lambda: client.remove([1], answers.append),
        lambda: client.rename(1, "hook", answers.append),
        lambda: client.prompt(picture(3), [click(1, "hook")], answers.append),
        lambda: client.prompt(picture(3), [click(2)], answers.append),
    ):
        order()
        assert "try again" in str(answers.pop())
    with pytest.raises(OutputError, match="try again"):
        client.pause(True)
    assert (client.history.ids, client.history.label(1), client.paused) == ((1,), "grasper", False)
    assert [p.seq for p, _ in client.history.replay()] == [0] and not client.replay()
    worker.listens = True
    client.rename(1, "hook", answers.append)
    client.remove([1], answers.append)
    assert client.history.ids == ()


def test_a_correction_that_is_refused_pushes_nothing_out_and_gives_no_label() -> None:
    client, answers = SegmentClient(FakeWorker(), 4), list[str | None]()
    for seq in range(4):
        client.prompt(picture(seq), [click(1, "grasper")], answers.append)
        client.answered(Answer(seq + 1, None))
    client.prompt(picture(4), [click(1, "hook")], answers.append)
    client.answered(Answer(5, "impossible"))
    assert [p.seq for p, _ in client.history.replay()] == [0, 1, 2, 3] and client.history.label(1) == "grasper"
    client.prompt(picture(5), [click(1, "hook")], answers.append)
    client.rename(1, "scissors", answers.append)
    client.answered(Answer(6, None))  # what was said before the name that it has now
    assert [p.seq for p, _ in client.history.replay()] == [0, 2, 3, 5] and client.history.label(1) == "scissors"
    client.prompt(picture(6), [click(1)], answers.append)
    client.remove([1], answers.append)
    client.answered(Answer(8, None))
    assert client.history.ids == ()
    client.prompt(picture(7), [click(2)], answers.append)
    client.ended()
    assert client.history.ids == () and answers[-1] is ENDED


def test_a_change_that_is_replayed_is_done_also_if_the_process_ends_before_it_answers() -> None:
    client, answers = SegmentClient(FakeWorker(), 4), list[str | None]()
    for object_id in (1, 2):
        client.prompt(picture(0), [click(object_id, "grasper")], answers.append)
        client.answered(Answer(object_id, None))
    client.rename(1, "hook", answers.append)
    client.remove([2], answers.append)
    client.prompt(picture(1), [click(3, "scissors")], answers.append)  # negative control: this is not
    client.ended()
    assert client.history.ids == (1,) and client.history.label(1) == "hook"
    assert sorted(map(str, answers[-3:])) == sorted(["None", "None", ENDED])


@pytest.mark.parametrize("role", ["grab", pytest.param("publish", marks=pytest.mark.slow)])
def test_a_part_that_never_works_ends_the_feed_with_its_reason(
    profile: StreamProfile, faults: Faults, role: str
) -> None:
    faults(crash=role)
    with pytest.raises((SourceError, OutputError), match="nothing can be .*RuntimeError: a bug"):
        run_live(profile, worker=WORKER)


def test_objects_that_do_not_fit_a_recording_are_refused_before_the_network_is_loaded(
    profile: StreamProfile, gate: Callable[[], None]
) -> None:
    outside = Prompt(1, points=((500.0, 10.0, 1),))
    with pytest.raises(PromptError, match="outside the 160x120 frame"):
        run_live(replace(profile, objects=(outside,)), worker=WORKER)
    with pytest.raises(PromptError, match="inside the 80x60 frame"):
        run_live(replace(profile, crop=(0, 0, 80, 60)), worker=WORKER)
    many = tuple(replace(profile.objects[0], id=n) for n in range(1, 6))
    with pytest.raises(PromptError, match="5 objects; the recipe says max_objects = 4"):
        run_live(replace(profile, objects=many), worker=WORKER)


def test_a_device_that_is_not_there_is_refused_at_once(profile: StreamProfile, gate: Callable[[], None]) -> None:
    with pytest.raises(SourceError, match="no such device; there are: "):
        run_live(replace(profile, source="/dev/video99"), worker=WORKER)


def test_a_camera_that_is_not_there_yet_is_waited_for_and_said_while_the_network_loads(
    profile: StreamProfile, gate: Callable[[], None]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    feed = Feed(replace(profile, source=f"tcp://127.0.0.1:{port}"), WORKER)
    thread = Thread(target=feed.run, daemon=True)
    thread.start()
    until = time.monotonic() + LONG_S
    while not any("lost" in event for event in feed.state.events) and time.monotonic() < until:
        time.sleep(0.01)
    assert (
        feed.state.workers["segment"].starts <= 1 and not feed.state.workers["segment"].up and not feed.state.began_ns
    )
    assert any("connecting to tcp://" in event for event in feed.state.events)
    assert any("refused" in event for event in feed.state.events), feed.state.events
    feed.stop()
    thread.join(LONG_S)
    assert "refused" in feed.state.ending.line and feed.state.ending.code == 1


def test_a_camera_that_asks_for_another_password_is_refused_at_once(
    profile: StreamProfile, gate: Callable[[], None]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            with suppress(OSError):
                while True:
                    client, _ = server.accept()
                    with client:
                        while request := client.recv(4096):
                            number = request.split(b"CSeq: ")[1].split(b"\r\n")[0]
                            client.sendall(b"RTSP/1.0 401 Unauthorized\r\nCSeq: " + number + b"\r\n\r\n")

        Thread(target=answer, daemon=True).start()
        uri = f"rtsp://anna:secret@127.0.0.1:{server.getsockname()[1]}/live"
        with pytest.raises(SourceError, match="(?i)unauthorized") as caught:
            run_live(replace(profile, source=uri), worker=WORKER)
    assert "secret" not in str(caught.value)


def test_a_refusal_in_the_words_of_a_room_is_one_of_ours() -> None:
    class OwnError(SourceError):
        pass

    assert public_class_of(OwnError("x")) == "SourceError" and public_class_of(RtsegError("x")) == "RtsegError"


@pytest.fixture()
def slow_machine(faults: Faults) -> Iterator[None]:
    """A process that has said why it ends takes half a minute to exit."""
    faults(refuse="no such plan; run: rtseg build", linger=30)
    yield


def test_a_refusal_is_not_lost_to_a_kill(profile: StreamProfile, slow_machine: None) -> None:
    with pytest.raises(EngineError, match="no such plan"):
        run_live(replace(profile, engine=Recipe(), publish=Publish("tcp://127.0.0.1:*")), worker=WORKER)
