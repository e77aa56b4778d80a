"""Publisher and subscriber, joined on loopback."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import zmq

from bench import fuzz
from rtseg.base.defaults import TOPICS
from rtseg.base.errors import OutputError
from rtseg.base.types import now_ns
from rtseg.publish import publisher as publisher_module
from rtseg.publish import subscriptions as subscriptions_module
from rtseg.publish.overlay import draw_overlay
from rtseg.publish.publisher import Publisher
from rtseg.publish.subscriber import Subscriber
from rtseg.publish.subscriptions import Subscriptions
from rtseg.publish.wire import decode, encode_masks, encode_status, encode_video

ANYWHERE = "tcp://127.0.0.1:*"


def _wait(condition, seconds: float = 30.0) -> bool:
    until = time.monotonic() + seconds
    while not (met := bool(condition())) and time.monotonic() < until:
        time.sleep(0.005)
    return met


def _watched(publisher: Publisher, *kinds: str) -> bool:
    return _wait(lambda: {f"demo/{kind}" for kind in kinds} <= set(publisher._subscriptions._subscribers))


@pytest.fixture
def thrown_out(monkeypatch) -> list[bool]:
    """Grows with each connection that a publisher hangs up on; False: it had gone already."""
    found: list[bool] = []
    real = Subscriptions._disconnect
    monkeypatch.setattr(Subscriptions, "_disconnect", lambda self, peer: found.append(real(self, peer)))
    return found


@pytest.mark.parametrize("stream", [None, "demo"])
@pytest.mark.parametrize("size", [(12, 16), (480, 640)])  # under and over ZeroMQ's limit for sending without a copy
def test_all_topics_arrive_whole(make_frame, make_masks, box_mask, size, stream):
    frame = make_frame(*size)
    masks = make_masks(frame, [box_mask(frame, 2, 2, 9, 9)], age_ms=30)
    drawn = draw_overlay(frame, masks)
    with Publisher(ANYWHERE) as publisher, Subscriber(publisher.endpoint, stream=stream) as subscriber:
        assert _watched(publisher, *TOPICS)
        publisher.publish_video(frame)
        publisher.publish_overlay(frame, drawn)
        publisher.publish_masks(masks, frame)
        publisher.set_status({"state": "live"})
        video, overlay, found = (subscriber.get(kind, timeout=30) for kind in ("video", "overlay", "masks"))
        assert np.array_equal(video.image_hwc(), frame.image_hwc)
        assert np.array_equal(overlay.image_hwc(), drawn.image_hwc)
        assert np.array_equal(found.masks()[1], masks.mask(1))
        assert not np.array_equal(overlay.image_hwc(), frame.image_hwc)
        assert _wait(lambda: subscriber.get("status", timeout=30).status()["state"] == "live")


def test_status_comes_at_once_to_whoever_joins(monkeypatch):
    monkeypatch.setattr(publisher_module, "_STATUS_PERIOD_NS", 60_000_000_000)  # so that only the joining can bring it
    with Publisher(ANYWHERE) as publisher:
        publisher.set_status({"state": "live"})
        time.sleep(0.2)
        for _ in range(2):
            with Subscriber(publisher.endpoint, ["status"], "demo") as late:
                message = late.get("status", timeout=30)
                assert message.status()["state"] == message.header["state"] == "live"
                assert message.header["published_ns"] - message.header["captured_ns"] > 150e6  # when it was said
                assert late.get("status", timeout=0.3) is None


def test_status_comes_every_second_whatever_else_happens(make_frame):
    frame = make_frame(480, 640)
    stamps: list[int] = []
    with Publisher(ANYWHERE, jpeg_quality=90) as publisher, Subscriber(publisher.endpoint, stream="demo") as subscriber:
        assert _watched(publisher, *TOPICS)
        until = time.monotonic() + 30
        while len(stamps) < 4 and time.monotonic() < until:
            publisher.publish_video(frame)
            publisher.publish_overlay(frame, "no drawing")  # fails in the publisher's thread, over and over
            message = subscriber.get("status", timeout=0.005)
            stamps += [message.header["published_ns"]] if message else []
        status = message.status() if (message := subscriber.get("status", timeout=30)) else {}
        counts = publisher.counts()
    assert len(stamps) >= 4
    assert np.median(np.diff(stamps)) < 1e9
    assert counts["overlay"]["sent"] == 0 < counts["overlay"]["dropped"]["failed"]
    assert "overlay: AttributeError" in status["publisher"]["error"]


def test_no_call_blocks_and_every_frame_is_accounted_for(make_frame, monkeypatch):
    frame = make_frame(480, 640)
    monkeypatch.setattr(publisher_module, "encode_video", lambda *a, **k: time.sleep(0.02) or encode_video(*a, **k))
    with Publisher(ANYWHERE) as publisher, zmq.Context() as context, context.socket(zmq.SUB) as stalled:
        stalled.setsockopt(zmq.RCVHWM, 1)
        stalled.setsockopt(zmq.LINGER, 0)
        stalled.setsockopt_string(zmq.SUBSCRIBE, "")
        stalled.connect(publisher.endpoint)
        assert _wait(lambda: "" in publisher._subscriptions._subscribers)
        waits = []
        for seq in range(300):
            start = now_ns()
            publisher.publish_video(replace(frame, seq=seq))
            waits.append(now_ns() - start)
            time.sleep(0.0005 * (seq % 2))
        closing = now_ns()
        publisher.close()
        assert now_ns() - closing < 10e9
        publisher.close()
        publisher.publish_video(frame)
        counts = publisher.counts()["video"]
    assert np.median(waits) < 5e6  # a quarter of what encoding takes
    assert counts["dropped"]["slot"] > 0 < counts["sent"]
    assert counts["dropped"]["closed"] == 1
    assert counts["offered"] == 301 == counts["sent"] + sum(counts["dropped"].values())


def test_a_slow_reader_gets_the_newest_not_the_oldest(make_frame):
    frame, last = make_frame(480, 640), 79
    with Publisher(ANYWHERE) as publisher, zmq.Context() as context, context.socket(zmq.SUB) as naive:
        naive.setsockopt(zmq.RCVHWM, 1)
        naive.setsockopt(zmq.LINGER, 0)
        naive.setsockopt_string(zmq.SUBSCRIBE, "demo/video")
        naive.connect(publisher.endpoint)
        with Subscriber(publisher.endpoint, ["video"], "demo") as subscriber:
            assert _wait(lambda: "demo/video" in publisher._subscriptions._subscribers)
            time.sleep(0.2)
            for seq in range(last + 1):
                publisher.publish_video(replace(frame, seq=seq))
                time.sleep(0.004)
            assert _wait(lambda: publisher.counts()["video"]["sent"] and subscriber._last["video"][1] == last)
            assert subscriber.get("video", timeout=30).seq == last
            assert subscriber.get("video", timeout=0.05) is None  # each is given out once
            assert subscriber.skipped["video"] == subscriber.received["video"] - 1 > 0
            first = subscriber._last["video"][1] + 1 - subscriber.received["video"] - subscriber.lost["video"]
            assert 0 <= first < last  # received and lost are all that lie between the first and the last
            assert decode(naive.recv_multipart()).seq < last // 2  # the control: without draining, the oldest


def test_what_nobody_watches_is_counted_but_not_encoded(make_frame, monkeypatch):
    encoded = []
    real = publisher_module.encode_video
    monkeypatch.setattr(publisher_module, "encode_video", lambda *a, **k: encoded.append(1) or real(*a, **k))
    with Publisher(ANYWHERE, topics=("video", "status")) as publisher:
        with Subscriber(publisher.endpoint, ["status"], "demo"):
            assert _watched(publisher, "status")
            publisher.publish_video(make_frame())
            assert _wait(lambda: publisher.counts()["video"]["dropped"].get("unwatched"))
        assert not encoded
        assert publisher.counts()["video"]["sent"] == 0
        assert _wait(lambda: not publisher._subscriptions._subscribers)  # those who leave are forgotten
        with Subscriber(publisher.endpoint, ["video"], "demo") as subscriber:
            assert _watched(publisher, "video")
            publisher.publish_video(make_frame())
            assert subscriber.get("video", timeout=30).seq == 7
        assert encoded == [1]
        publisher.publish_masks(None, make_frame())
        assert publisher.counts()["masks"] == {"offered": 1, "sent": 0, "dropped": {"off": 1}}


@pytest.mark.parametrize(
    "bind",
    ["tcp://0.0.0.0:5555", "tcp://*:5555", "tcp://192.168.1.5:5555", "tcp://eth0:5555", "tcp://[::]:5555",
     "tcp://example.com:5555", "tcp://127.0.0.1.example.com:5555"],
)  # fmt: skip
def test_another_address_than_loopback_is_refused(bind):
    with pytest.raises(OutputError, match=r"CURVE keys.*rtseg keys new") as caught:
        Publisher(bind)
    assert bind in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "bind", ["127.0.0.1:5555", "tcp://127.0.0.1", "tcp://127.0.0.1:99999", "udp://127.0.0.1:5", ""]
)
def test_an_address_that_is_none_is_refused(bind):
    with pytest.raises(OutputError, match="expected an address like tcp://127"):
        Publisher(bind)


@pytest.mark.parametrize("bind", ["tcp://localhost:*", "tcp://127.0.0.1:0", "tcp://127.0.0.9:*"])
def test_loopback_is_accepted(bind):
    with Publisher(bind) as publisher:
        assert publisher.endpoint.startswith("tcp://127.0.0.")
        with pytest.raises(OutputError, match="port is in use") as caught:
            Publisher(publisher.endpoint)
        assert "\n" not in str(caught.value)
        endpoint = publisher.endpoint
    Publisher(endpoint).close()  # close() frees the port


def test_names_and_values_that_cannot_be_sent_are_refused():
    with pytest.raises(OutputError, match="stream name"):
        Publisher(ANYWHERE, stream="a/b")
    with Publisher(ANYWHERE) as publisher, pytest.raises(OutputError, match="cannot be sent"):
        publisher.set_status({"path": object()})
    with pytest.raises(OutputError, match="endpoint"):
        Subscriber("nowhere", stream="demo")


def test_noise_old_news_and_gaps_are_counted(make_frame, raw_xpub):
    frame = make_frame(4, 5)

    def send(seq: int, session: str = "s1", delay_ns: int = 0) -> None:
        parts = encode_video(replace(frame, seq=seq, session=session), "demo")
        if delay_ns:
            parts = _aged(parts, delay_ns)
        raw_xpub.send_multipart(parts)

    endpoint = raw_xpub.getsockopt_string(zmq.LAST_ENDPOINT)
    with Subscriber(endpoint, ["video"], "demo") as subscriber:
        assert raw_xpub.recv() == b"\1demo/video"
        raw_xpub.send_multipart([b"demo/video", b"noise", b""])
        raw_xpub.send(b"demo/video")
        send(10)
        send(14)
        send(12)
        send(14)
        send(99, delay_ns=2 * 10**9)
        send(3, session="s2")
        assert _wait(lambda: subscriber._last.get("video") == ("s2", 3))
        assert subscriber.get("video").seq == 3
        assert (subscriber.bad, subscriber.received["video"], subscriber.lost["video"]) == (2, 6, 3)
        assert (subscriber.rejected["video"], subscriber.late["video"], subscriber.skipped["video"]) == (2, 1, 2)


def _aged(parts, delay_ns: int):
    import msgpack

    header = msgpack.unpackb(parts[1])
    return [parts[0], msgpack.packb(header | {"published_ns": header["published_ns"] - delay_ns}), *parts[2:]]


def test_iteration_ends_when_closed_and_a_waiter_is_released(raw_xpub):
    endpoint = raw_xpub.getsockopt_string(zmq.LAST_ENDPOINT)
    subscriber = Subscriber(endpoint, ["status"], "demo")
    raw_xpub.recv()
    raw_xpub.send_multipart(encode_status({}, "demo", session="p", seq=1, stated_ns=now_ns()))
    seen: list[int] = []
    reader = threading.Thread(target=lambda: seen.extend(message.seq for message in subscriber))
    reader.start()
    assert _wait(lambda: seen == [1])
    subscriber.close()
    reader.join(timeout=30)
    assert not reader.is_alive()
    subscriber.close()


def test_many_threads_may_publish(make_frame, make_masks, box_mask):
    frame = make_frame(24, 32)
    masks = make_masks(frame, [box_mask(frame, 2, 2, 9, 9)])

    def work(publisher: Publisher) -> None:
        for seq in range(50):
            publisher.publish_video(replace(frame, seq=seq))
            publisher.publish_masks(masks, replace(frame, seq=seq))
            publisher.set_status({"state": "live", "seq": seq})

    with Publisher(ANYWHERE) as publisher, Subscriber(publisher.endpoint, stream="demo"):
        assert _watched(publisher, *TOPICS)
        threads = [threading.Thread(target=work, args=(publisher,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        publisher.close()
        for kind in ("video", "masks", "status"):
            counts = publisher.counts()[kind]
            assert counts["offered"] >= 200
            assert counts["offered"] == counts["sent"] + sum(counts["dropped"].values())


def test_masks_too_old_to_draw_are_still_sent_and_say_so(make_frame, make_masks, box_mask):
    frame = make_frame(captured_ns=10**12)
    masks = make_masks(frame, [box_mask(frame, 2, 2, 9, 9)], age_ms=500)
    header = decode([bytes(part) for part in encode_masks(masks, frame, "demo")]).header
    assert (header["state"], header["mask_age_ms"], len(header["objects"])) == ("expired", 500.0, 1)


@pytest.mark.parametrize(("topics", "said"), [("overlay", "expected a list"), (["overlya"], "did you mean 'overlay'")])
def test_topics_that_do_not_exist_are_refused(topics, said):
    with pytest.raises(OutputError, match=said):
        Subscriber("tcp://127.0.0.1:5999", topics)


def test_a_hiccup_of_the_thread_loses_no_original_picture(make_frame, monkeypatch):
    frame, hiccup = make_frame(), threading.Event()
    monkeypatch.setattr(publisher_module, "encode_overlay", lambda *a, **k: hiccup.wait(5) and [])
    with Publisher(ANYWHERE) as publisher, Subscriber(publisher.endpoint, ["video"], "demo") as subscriber:
        with Subscriber(publisher.endpoint, ["overlay"], "demo"):
            assert _watched(publisher, "video", "overlay")
            for start, count, lost in ((0, 8, 0), (8, 11, 3)):
                publisher.publish_overlay(frame, "no drawing")
                assert _wait(lambda: not publisher._slots["overlay"])
                for seq in range(start, start + count):
                    publisher.publish_video(replace(frame, seq=seq))
                hiccup.set()
                assert _wait(lambda: subscriber._last.get("video", ("", -1))[1] == start + count - 1)  # noqa: B023
                hiccup.clear()
                assert subscriber.lost["video"] == lost == publisher.counts()["video"]["dropped"].get("slot", 0)
            hiccup.set()


def test_no_peer_can_unsubscribe_another(make_frame):
    with Publisher(ANYWHERE) as publisher, Subscriber(publisher.endpoint, ["video"], "demo") as subscriber:
        assert _watched(publisher, "video")
        with fuzz.talker(publisher.endpoint) as raw:
            raw.sendall(fuzz.framed(b"\0demo/video") * 3 + fuzz.framed(b"\1demo/masks"))
            assert _watched(publisher, "masks")  # so it was heard
            publisher.publish_video(make_frame())
            assert subscriber.get("video", timeout=30) is not None
            raw.sendall(fuzz.framed(b"\1demo/video") + fuzz.framed(b"\0demo/video") * 3 + fuzz.framed(b"\0demo/masks"))
            assert _wait(
                lambda: "demo/masks" not in publisher._subscriptions._subscribers
            )  # what is one's own may be left
            publisher.publish_video(make_frame(seq=8))
            assert subscriber.get("video", timeout=30) is not None


@pytest.mark.parametrize("ipc", [False, True])
def test_who_only_makes_noise_is_thrown_out_and_nobody_else(tmp_path, monkeypatch, thrown_out, ipc):
    heard: list[int] = []
    real = Subscriptions._count
    monkeypatch.setattr(Subscriptions, "_count", lambda self, peer, user: heard.append(peer) or real(self, peer, user))
    with Publisher(f"ipc://{tmp_path}/s" if ipc else ANYWHERE) as publisher:
        with Subscriber(publisher.endpoint, ["status"], "demo") as subscriber:
            assert subscriber.get("status", timeout=30) is not None
            with fuzz.talker(publisher.endpoint) as raw, suppress(OSError):
                for _ in range(50):
                    raw.sendall(b"".join(fuzz.framed(b"\1%060d" % number) for number in range(1000)))
                while raw.recv(65536):
                    pass
            assert _wait(lambda: sum(thrown_out) == 1)
            assert subscriber.get("status", timeout=30) is not None
            assert len(heard) < 20_000  # of 50,000: what ZeroMQ takes in before we hear of it, it keeps


@pytest.mark.parametrize("ipc", [False, True])
def test_visitors_who_come_and_go_are_no_flood(tmp_path, monkeypatch, thrown_out, ipc):
    monkeypatch.setattr(subscriptions_module, "_MAX_MESSAGES", 50)
    with Publisher(f"ipc://{tmp_path}/s" if ipc else ANYWHERE) as publisher, zmq.Context() as context:
        for _ in range(40):  # over file descriptors that are used again, each with a handful of messages
            with context.socket(zmq.SUB) as visitor:
                for kind in TOPICS:
                    visitor.subscribe(f"demo/{kind}")
                visitor.connect(publisher.endpoint)
                assert visitor.poll(30_000)
        assert _wait(lambda: len(publisher._subscriptions._peers) < 20)
        assert not thrown_out
        with context.socket(zmq.SUB) as noisy:  # the control: as many messages, of one connection
            noisy.connect(publisher.endpoint)
            for number in range(60):
                noisy.subscribe(f"demo/{number}")
            assert _wait(lambda: any(thrown_out))
            noisy.close(linger=0)


def test_a_flood_of_subscriptions_delays_no_picture(make_frame, thrown_out):
    frame, over = make_frame(), threading.Event()
    burst = b"".join(fuzz.framed(b"\1%060d" % number) for number in range(2000))

    def flood(endpoint: str) -> None:
        while not over.is_set():
            with suppress(OSError), fuzz.talker(endpoint) as raw:
                while not over.is_set():
                    raw.sendall(burst)

    with Publisher(ANYWHERE) as publisher, Subscriber(publisher.endpoint, ["video"], "demo") as subscriber:
        assert _watched(publisher, "video")
        thread = threading.Thread(target=flood, args=(publisher.endpoint,))
        thread.start()
        try:
            assert _wait(lambda: any(thrown_out))
            waits_ms = []
            for seq in range(20):
                publisher.publish_video(replace(frame, seq=seq, captured_ns=now_ns()))
                message = subscriber.get("video", timeout=30)
                assert message is not None
                waits_ms.append(message.age_ms)
        finally:
            over.set()
            thread.join()
    assert np.median(waits_ms) < 1000
