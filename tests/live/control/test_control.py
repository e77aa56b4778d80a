"""Client and server, joined on loopback; and everything that is no request."""

from __future__ import annotations

import pickle
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict

import cv2
import msgpack
import numpy as np
import pytest
import zmq

from bench.fuzz import bombs, fuzz_control, fuzz_wire
from rtseg.base.errors import ConfigError, OutputError, PromptError, RtsegError
from rtseg.base.types import Frame, Masks, Prompt
from rtseg.live.control import (
    Add,
    Client,
    ControlServer,
    Correct,
    Get,
    Hold,
    Look,
    Memory,
    Pause,
    Preview,
    Redo,
    Remove,
    Rename,
    Reset,
    Resume,
    Set,
    Shutdown,
    Status,
    TakeSnapshot,
    Undo,
    snapshot_result,
)
from rtseg.live.control import server as server_module
from rtseg.live.control.messages import MAX_BYTES, number_of, opened, pack_request, request_of, who_of
from rtseg.publish import keys
from rtseg.publish.publisher import Publisher
from rtseg.publish.subscriber import Subscriber

ANYWHERE = "tcp://127.0.0.1:*"
MASK_HW = np.zeros((48, 64), bool)
MASK_HW[10:30, 5:50] = True


def _values(**changed):
    return {"v": 1, "n": 5, "verb": "status", "args": {}} | changed


def _add(**prompt):
    return _values(verb="add", args={"prompt": {"id": 3, **prompt}})


class _Feed:
    """Answers as a supervisor would, in a thread: `add` of object 9 is refused, `pause` is never answered."""

    def __init__(self, server: ControlServer) -> None:
        self.server, self.seen = server, []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            self.server.socket.poll(20)
            for ticket, request in self.server.receive():
                self.seen.append(request)
                if isinstance(request, Add) and request.prompt.id == 9:
                    self.server.refuse(ticket, "object 9:\nno such frame")
                elif isinstance(request, TakeSnapshot):
                    self.server.reply(ticket, _snapshot())
                elif not isinstance(request, Pause):
                    self.server.reply(ticket, {"said": type(request).__name__, "at": np.int64(3)})

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.server.close()


@pytest.fixture
def feed() -> Iterator[_Feed]:
    running = _Feed(ControlServer(ANYWHERE))
    yield running
    running.close()


def _snapshot():
    image_hwc = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    logits_bhw = np.where(MASK_HW, 8, -8).astype(np.float32)[None]
    masks = Masks(6, "s", 0, 0, 48, 64, (3,), ("hook",), (0.9,), (0.9,), logits_bhw)
    return snapshot_result(Frame(image_hwc, 7), masks) | {"image_hwc": image_hwc.tobytes()}


REQUESTS = [
    Add(Prompt(3, ((1.5, 2.0, 1), (3.0, 4.0, 0)), (1.0, 2.0, 3.0, 4.0), label="hook"), 120),
    Add(Prompt(3, box=(1.0, 2.0, 3.0, 4.0))),
    Correct(Prompt(255, ((0.0, 0.0, 0),))),
    Correct(Prompt(1, mask=MASK_HW, label="scissors"), 0),
    Preview(Prompt(3, box=(1.0, 2.0, 3.0, 4.0)), 7, "s1"), Preview(Prompt(1, mask=MASK_HW)), Hold(), Hold(7, "s1"),
    Memory(), Look(3, (0, 128, 255)), Look(3, hidden=False), Look(3, (1, 2, 3), True), Undo(), Redo(),
    Remove(3), Rename(3, "Hämolok"), Reset(), Pause(), Resume(), TakeSnapshot(), TakeSnapshot(2**40), Get(),
    Set(0.0), Set(budget_ms=1), Set(1.0, 10_000.0), Status(), Shutdown(),
]  # fmt: skip


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda r: type(r).__name__)
def test_a_request_comes_back_as_it_was(request_):
    values = opened(pack_request(41, request_))
    found = request_of(values)
    assert number_of(values) == 41
    assert type(found) is type(request_)
    assert who_of(values) == ""
    if isinstance(request_, Add | Correct | Preview):
        mine, other = asdict(request_.prompt), asdict(found.prompt)
        assert np.array_equal(mine.pop("mask"), other.pop("mask"))
        assert (mine, request_.seq, request_.session) == (other, found.seq, found.session)
    else:
        assert found == request_


def test_a_request_says_who_asks():
    values = opened(pack_request(1, Remove(3), "Dr. Ada"))
    assert who_of(values) == "Dr. Ada" and request_of(values) == Remove(3)
    for wrong in ("a\nb", "", " ", "x" * 65):
        with pytest.raises(OutputError, match="who = "):
            Client(who=wrong)
        with pytest.raises(OutputError, match="who"):
            pack_request(1, Remove(3), wrong)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (_values(who="a\nb"), "one line of 1 to 64"), (_values(who=7), "expected a text"),
        (_values(verb="look", args={"id": 3}), "nothing to change; expected color"),
        (_values(verb="look", args={"id": 3, "color": [1, 2]}), "color"),
        (_values(verb="look", args={"id": 3, "color": [1, 2, 256]}), "color"),
        (_values(verb="look", args={"id": 3, "hidden": 1}), "true or false"),
        (_values(verb="undo", args={"n": 1}), "nothing more"), (_values(verb="hold", args={"seq": -1}), "seq = -1"),
        (_values(verb="preview"), "'prompt' is missing"),
        (_values(verb="preview", args={"prompt": {"id": 3}}), "neither points, box nor mask"),
        (_values(v=2), "update the older side"), (_values(v=True), "version"), (_values(n=-1), "n = -1"),
        (_values(n=2**64 - 1), "expected a whole number"), (_values(verb="statsu"), "did you mean 'status'"),
        (_values(verb=None), "expected a text"), (_values(more=1), "unknown key 'more'"),
        (_values(args={"x": 1}), "nothing more"), (_values(args=[1]), "expected a table"),
        (_values(verb="set"), "nothing to set"), (_values(verb="set", args={"opacity": 1.01}), "a number, 0 to 1$"),
        (_values(verb="set", args={"opacity": float("nan")}), "expected a number"),
        (_values(verb="set", args={"opactiy": 1}), "did you mean 'opacity'"),
        (_values(verb="set", args={"budget_ms": 0.5}), "1 to 10000$"),
        (_values(verb="set", args={"budget_ms": True}), "expected a number"),
        (_values(verb="remove"), "'id' is missing"), (_values(verb="remove", args={"id": 256}), "1 to 255"),
        (_values(verb="rename", args={"id": 1, "label": "a\nb"}), "one line"),
        (_values(verb="rename", args={"id": 1, "label": "x" * 65}), "1 to 64"),
        (_values(verb="snapshot", args={"seq": -1}), "seq = -1"), (_values(verb="add"), "'prompt' is missing"),
        (_add(), "neither points, box nor mask"), (_add(points=[[1, 2, 2]]), "expected points"),
        (_add(pointz=[[1, 2, 1]]), "did you mean 'points'"), (_add(points=[[1, 2, 1]] * 65), "at most 64"),
        (_add(points=[[float("inf"), 2, 1]]), "points = \\[\\[inf"), (_add(points=[[-1, 2, 1]]), "coordinate -1"),
        (_add(box=[3, 2, 1, 4]), "x0 < x1"), (_add(mask="/etc/passwd"), "expected a table"),
        (_add(mask={"rle": b"0", "height": 4}), "'width' is missing"),
        (_add(mask={"rle": b"00", "height": 4, "width": 4}), "not an RLE"),
        (_add(mask={"rle": b"@0", "height": 4, "width": 4}), "not an RLE"),
        (_add(mask={"rle": b"0", "height": 16384, "width": 16384}), "at most 16777216 pixels"),
        (_add(mask={"rle": "text", "height": 4, "width": 4}), "the bytes of"),
        (_add(mask={"rle": b"0", "height": 4, "width": 4}, box=[1, 2, 3, 4]), "found box and mask; expected"),
        ({"v": 1, "a": [[[[[[1]]]]]]}, "nested deeper"), ({1: 2}, "msgpack"), ({b"v": 1}, "not a text"),
        ([1, 2], "a list; expected a map"), (_values(args={"x": list(range(1025))}), "within the limits"),
        (_values(verb="x" * 257), "within the limits"), (_values(args=msgpack.ExtType(5, b"")), "found a ExtType"),
        (_values(args=msgpack.ExtType(5, b"abc")), "within the limits"),
        (_values(args=msgpack.Timestamp(1)), "found a Timestamp|within the limits"),
    ],
)  # fmt: skip
def test_every_mistake_costs_one_line(values, said):
    with pytest.raises((OutputError, PromptError), match=said) as caught:
        request_of(opened(msgpack.packb(values)))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_bombs_are_refused_quickly():
    for bomb in [*bombs(), bytes(MAX_BYTES + 1)]:
        start_s = time.thread_time()  # of the processor: what others take of it does not count
        with pytest.raises(RtsegError) as caught:
            request_of(opened(bomb))
        assert time.thread_time() - start_s < 2
        assert "\n" not in str(caught.value)


def test_a_pickle_is_never_loaded():
    marks: list[int] = []

    class Danger:
        def __reduce__(self):
            return marks.append, (1,)

    payload = pickle.dumps(Danger(), protocol=0)
    with pytest.raises(OutputError):
        opened(payload)
    with pytest.raises(PromptError, match="the bytes of|not an RLE"):
        request_of(opened(msgpack.packb(_add(mask={"rle": payload, "height": 4, "width": 4}))))
    assert not marks


def test_every_method_arrives_and_is_answered(feed):
    with Client(feed.server.endpoint) as client:
        assert client.add(3, [(1, 2, 1)], label="hook", seq=4) == {"said": "Add", "at": 3}
        assert client.correct(3, mask=MASK_HW)["said"] == "Correct"
        for method, args in (("remove", (3,)), ("rename", (3, "x")), ("reset", ()), ("resume", ()), ("get", ()),
                             ("set", (0.5,)), ("status", ()), ("shutdown", ())):  # fmt: skip
            assert getattr(client, method)(*args)["said"].lower() == method
        assert np.array_equal(feed.seen[1].prompt.mask, MASK_HW)
        shot, sent = client.snapshot(7), _snapshot()
        image_hwc = cv2.imdecode(np.frombuffer(shot.png, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        assert image_hwc.tobytes() == sent["image_hwc"]
        assert (shot.seq, shot.mask_seq) == (7, 6)
        assert np.array_equal(shot.masks()[3], MASK_HW)
        assert feed.seen[-1] == TakeSnapshot(7)


def test_refusals_are_one_line_of_the_right_kind(feed):
    with Client(feed.server.endpoint) as client:
        with pytest.raises(PromptError, match=r"^object 9: no such frame$"):
            client.add(9, [(1, 2, 1)])
        with pytest.raises(PromptError, match="id = 999"):
            client.add(999, [(1, 2, 1)])
        with pytest.raises(PromptError, match="neither points"):
            client.correct(1)
        with pytest.raises(OutputError, match="nothing to set"):
            client.set()
        with pytest.raises(PromptError, match="is empty"):
            client.add(1, mask=np.zeros((4, 4), bool))
        assert client.status()["said"] == "Status"


def test_no_answer_is_an_error_and_nothing_is_done_later():
    with ControlServer(ANYWHERE) as server:
        endpoint = server.endpoint
    with Client(endpoint, timeout=0.2) as client:
        for _ in range(2):
            with pytest.raises(OutputError, match="no answer from.* may still do it"):
                client.reset()
        with pytest.raises(OutputError, match=r"no answer from.*\[control\]; check the address"):
            client.status()
        late = _Feed(ControlServer(endpoint))
        try:
            assert client.status()["said"] == "Status"
            assert [type(request) for request in late.seen] == [Status]  # no reset out of the past
            with pytest.raises(OutputError, match="no answer"):
                client.pause()
            assert client.get()["said"] == "Get"
        finally:
            late.close()
    with pytest.raises(OutputError, match="closed"):
        client.status()
    with pytest.raises(OutputError, match="endpoint"):
        Client("nowhere")


def _ask(dealer: zmq.Socket[bytes], number: int, request) -> None:
    dealer.send(pack_request(number, request))


def _answers(dealer: zmq.Socket[bytes], count: int) -> list[dict]:
    found = []
    while len(found) < count and dealer.poll(20_000):
        found.append(msgpack.unpackb(dealer.recv()))
    return found


def _received(server: ControlServer, count: int):
    found, until_s = [], time.monotonic() + 30
    while len(found) < count and time.monotonic() < until_s:
        server.socket.poll(100)
        found += server.receive()
    return found


@pytest.fixture
def dealer() -> Iterator[zmq.Socket[bytes]]:
    with zmq.Context() as context, context.socket(zmq.DEALER) as one:
        one.setsockopt(zmq.LINGER, 0)
        yield one


def test_answers_may_come_in_any_order_once_and_to_the_living(dealer):
    with ControlServer(ANYWHERE) as server:
        dealer.connect(server.endpoint)
        for number in range(3):
            _ask(dealer, number, Status())
        tickets = [ticket for ticket, _ in _received(server, 3)]
        for ticket in reversed(tickets):
            server.reply(ticket, {"number": ticket.number})
            server.reply(ticket, {"twice": True})
            server.refuse(ticket, "twice")
        assert [answer["n"] for answer in _answers(dealer, 3)] == [2, 1, 0]
        assert not dealer.poll(50)
        _ask(dealer, 7, Status())
        ((ticket, _),) = _received(server, 1)
        server.reply(ticket, {"cannot": object()})
        assert "cannot be sent" in _answers(dealer, 1)[0]["error"]
        _ask(dealer, 8, Status())
        ((ticket, _),) = _received(server, 1)
        dealer.close()
        until_s = time.monotonic() + 30
        while server.lost == 0 and time.monotonic() < until_s:
            server._open[ticket] = None
            server.reply(ticket, {})
            time.sleep(0.01)
        assert server.lost == 1
        assert not server._open


def test_what_waits_is_bounded(dealer, monkeypatch):
    with ControlServer(ANYWHERE) as server:
        dealer.connect(server.endpoint)
        for number in range(20):
            _ask(dealer, number, Status())
        got = _received(server, 8)
        refused, until_s = [], time.monotonic() + 30
        while len(refused) + server.lost < 12 and time.monotonic() < until_s:
            server.receive()
            refused += _answers(dealer, 1) if dealer.poll(10) else []
        assert len(got) == 8 == len(server._open)
        assert len(refused) + server.lost == 12
        assert len(refused) >= 8  # the high-water mark: some nos of a burst may be lost
        assert all("too many requests" in answer["error"] for answer in refused)
        with zmq.Context() as context, context.socket(zmq.DEALER) as other:
            other.setsockopt(zmq.LINGER, 0)
            other.connect(server.endpoint)
            _ask(other, 1, Status())
            assert len(_received(server, 1)) == 1  # one who asks too much keeps nobody else out
        monkeypatch.setattr(server_module, "_TIME_LIMIT_NS", 0)
        server.receive()
        assert not server._open
        assert "not answered in time" in _answers(dealer, 1)[0]["error"]


def test_a_req_socket_is_a_client_too():
    with ControlServer(ANYWHERE) as server, zmq.Context() as context, context.socket(zmq.REQ) as req:
        req.setsockopt(zmq.LINGER, 0)
        req.connect(server.endpoint)
        req.send(pack_request(1, Status()))
        ((ticket, _),) = _received(server, 1)
        server.reply(ticket, {"state": "live"})
        assert req.poll(20_000)
        assert msgpack.unpackb(req.recv())["result"] == {"state": "live"}


def test_noise_is_answered_and_others_are_served(feed):
    counts = fuzz_control(feed.server.endpoint, 2000)  # it fails if no answer comes
    assert counts["sent"] == 2000
    assert counts["checks"] >= 20
    assert counts["refused"] > 50
    assert feed.server.bad > 500  # of 2000; what was not read in time was not heard
    assert not any(isinstance(request, Shutdown | Reset) for request in feed.seen)


def test_a_server_that_does_not_answer_fails_the_fuzz(monkeypatch):
    from bench import fuzz

    monkeypatch.setattr(fuzz, "ANSWER_S", 0.2)
    with ControlServer(ANYWHERE) as server, pytest.raises(OutputError, match="no answer"):
        fuzz.fuzz_control(server.endpoint, 100)


def test_noise_on_the_wire_stops_neither_publisher_nor_subscriber():
    with Publisher(ANYWHERE) as publisher:
        counts = fuzz_wire(publisher.endpoint, 2000)
        assert len(publisher._subscriptions._subscribers) <= 4 * 16
    assert counts["publisher_sent"] == counts["subscriber_sent"] == 2000
    assert counts["subscriber_good"] == 10
    assert counts["subscriber_bad"] > 50


def test_only_an_allowed_key_controls(tmp_path):
    home = tmp_path / "keys"
    for name in ("server", "anna", "bert"):
        keys.new(home, name)
    keys.allow(home, "anna")
    running = _Feed(ControlServer(ANYWHERE, keys=home))
    try:
        end = running.server.endpoint
        with Client(end, keys=home / "anna.key_secret") as anna:
            assert anna.status()["said"] == "Status"
            for stranger, said in (({"keys": home / "bert.key_secret"}, "allow list there"), ({}, "on both sides")):
                with Client(end, 3, **stranger) as client, pytest.raises(OutputError, match=said):
                    client.shutdown()
            assert anna.status()["said"] == "Status"
            keys.allow(home, "bert")
            with Client(end, keys=home / "bert.key_secret") as bert:
                assert bert.status()["said"] == "Status"
        assert not any(isinstance(request, Shutdown) for request in running.seen)
    finally:
        running.close()
    with pytest.raises(ConfigError, match="several keys"):
        Client(end, keys=home)
    with pytest.raises(OutputError, match="not loopback"):
        ControlServer("tcp://0.0.0.0:0")


def test_a_key_that_is_taken_off_the_list_controls_no_more(tmp_path):
    home = tmp_path / "keys"
    for name in ("server", "anna", "bert"):
        keys.new(home, name)
    for name in ("anna", "bert"):
        keys.allow(home, name)
    running = _Feed(ControlServer(ANYWHERE, keys=home))
    try:
        end = running.server.endpoint
        with Client(end, keys=home / "anna.key_secret") as anna, Client(end, keys=home / "bert.key_secret") as bert:
            assert anna.status() == bert.status()
            (home / "allowed/anna.key").unlink()
            with pytest.raises(OutputError, match=r"^this key is no longer on the allow list$"):
                anna.shutdown()
            (home / "allowed/anna.key").write_bytes((home / "bert.key").read_bytes())  # another key of that name
            with pytest.raises(PromptError, match="no longer on the allow list"):
                anna.add(3, [(1, 2, 1)])
            assert bert.get()["said"] == "Get"
            (home / "allowed/anna.key").write_bytes((home / "anna.key").read_bytes())
            assert anna.get()["said"] == "Get"
        assert {type(request) for request in running.seen} == {Status, Get}
    finally:
        running.close()


def test_an_ipc_file_serves_too(tmp_path):
    running = _Feed(ControlServer(f"ipc://{tmp_path}/control"))
    try:
        assert (tmp_path / "control").stat().st_mode & 0o777 == 0o600
        with Client(running.server.endpoint) as client:
            assert client.status()["said"] == "Status"
    finally:
        running.close()
    assert not (tmp_path / "control").exists()


def test_silent_connections_hold_nobody_up(feed):
    port = int(feed.server.endpoint.rpartition(":")[2])
    idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
    with Client(feed.server.endpoint) as client:
        assert client.status()["said"] == "Status"
    for one in idle:
        one.close()


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), "5", None, True])
def test_a_client_waits_for_some_seconds(timeout):
    with pytest.raises(OutputError, match="^timeout = .*; expected seconds, above 0$"):
        Client("tcp://127.0.0.1:5556", timeout=timeout)


@pytest.mark.parametrize("endpoint", [5, None, b"tcp://127.0.0.1:1"])
def test_an_endpoint_is_a_text(endpoint):
    for opens in (Client, Subscriber):
        with pytest.raises(OutputError, match=r"expected tcp://HOST:PORT"):
            opens(endpoint)


def test_a_subscriber_waits_for_some_seconds_or_for_ever():
    with Subscriber("tcp://127.0.0.1:5597") as subscriber:
        assert subscriber.get(timeout=np.float32(0.01)) is None
        for timeout in (-1, float("nan"), "5", True):
            with pytest.raises(OutputError, match="timeout = .*; expected seconds, 0 or more, or None"):
                subscriber.get(timeout=timeout)
