"""The console's server, with a feed that has no network: what a page is sent, and what its orders become."""

from __future__ import annotations

import asyncio
import struct
import time

import cv2
import httpx
import numpy as np
import pytest

from rtseg.base.rle import decode_rle, encode_rle
from rtseg.console.encoder import divisor_for
from rtseg.console.feed_link import _new_lines, control_of
from rtseg.console.still import coco, picture_of

from .publishing import SIZE, console, plain_feed

HEIGHT, WIDTH = SIZE


@pytest.fixture(scope="module")
def feed():
    with plain_feed() as running:
        yield running


@pytest.fixture(scope="module")
def server(feed):
    with console(feed) as running:
        yield running


def test_a_page_gets_pictures_masks_status_and_events(server):
    with server.open() as page:
        welcome = page.hear("welcome")
        assert (welcome["right"], welcome["feeds"][0]["feed"]) == ("pointer", "feed1")
        picture = page.hear("picture")
        image_hwc = cv2.imdecode(np.frombuffer(picture["payload"], np.uint8), cv2.IMREAD_COLOR)
        assert image_hwc.shape == (HEIGHT, WIDTH, 3)
        assert picture["source_width"] == WIDTH and picture["captured_age_ms"] >= 0
        masks = page.hear("masks")
        (thing,) = masks["objects"]
        assert thing["size"] == len(masks["payload"]) and thing["color"] and thing["hidden"] is False
        mask_hw = decode_rle(masks["payload"], masks["height"], masks["width"])
        assert mask_hw.sum() == thing["area"] > 0
        status = page.hear("status", link="up", stream="room1")
        assert status["status"]["state"] == "running"
        assert page.hear("event")["text"].startswith("grab source: ")
    with server.open() as page:
        assert page.hear("welcome")["presets"] == [{"label": "grasper", "color": [1, 2, 3]}]


def test_at_most_two_pictures_are_under_way_and_painted_brings_newer_ones(server):
    with server.open() as page:
        first, second = page.hear("picture"), page.hear("picture")
        for _ in range(3):  # statuses: over a second, in which no third picture comes
            found = page.hear()
            while found["type"] != "status":
                assert found["type"] != "picture"
                found = page.hear()
        page.painted(second)  # and so the first, too
        third = page.hear("picture")
        assert first["seq"] < second["seq"] < third["seq"]


def test_a_ping_comes_back(server):
    with server.open() as page:
        page.say(type="ping", t=12.5)
        assert page.hear("pong")["t"] == 12.5


def test_an_order_is_done_once_and_a_repeated_one_is_answered_from_memory(feed, server):
    feed.done.clear()
    with server.open() as page:
        page.order(1, "rename", id=1, label="grasper")
        first = page.hear("answer", n=1)
        assert first["ok"] and first["result"]["rle"] == "abc"
    with server.open() as page:  # one that is opened later gets the latest events
        assert page.hear("event", kind="order")["who"] == "pointer at 127.0.0.1"
    with server.open() as page:  # the page has lost its connection, and asks again
        page.order(1, "rename", id=1, label="grasper")
        assert page.hear("answer", n=1) == first
        assert feed.done == ["rename"]
        page.order(1, "rename", id=1, label="hook")  # another order under the same number
        assert "another" in page.hear("answer", n=1)["error"]
        page.order(2, "rename", id=1, label="hook")  # negative control: a new number is a new order
        assert page.hear("answer", n=2)["ok"]
        assert feed.done == ["rename", "rename"]


def test_an_order_goes_on_when_its_page_goes_away(feed, server):
    feed.done.clear()
    feed.delay_s = 0.3
    with server.open() as page:
        page.order(5, "reset", client="gone")
        page.order(6, "pause", client="gone")
        page.say(type="ping", t=1)
        page.hear("pong")
    with server.open() as page:
        page.order(6, "pause", client="gone")
        assert page.hear("answer", n=6)["ok"]
    feed.delay_s = 0.0
    assert feed.done == ["reset", "pause"]


@pytest.mark.parametrize(
    ("verb", "args", "line"),
    [
        ("add", {"prompt": {"id": 9, "points": [[5, 5, 1]]}}, "object 9: no such frame"),
        ("add", {"prompt": {"id": 0, "points": [[5, 5, 1]]}}, "id = 0; expected a whole number, 1 to 255"),
        ("add", {"prompt": {"id": 1, "mask": {"rle": "?", "height": 4, "width": 4}}}, "not an RLE"),
        ("fly", {}, "unknown verb 'fly'"),
        ("shutdown", {}, "not an order of the console"),
        ("rename", {"id": 1}, "'label' is missing"),
        ("set", {"opacity": float("inf")}, "opacity"),
    ],
)
def test_what_is_not_done_costs_one_line(server, verb, args, line):
    with server.open() as page:
        page.order(1, verb, client=f"{verb}{args}"[:60], **args)
        if args.get("opacity"):  # JSON has no infinity: the message is refused as a whole
            assert page.hear("refused")["why"]
            return
        answer = page.hear("answer", n=1)
        assert not answer["ok"] and line in answer["error"] and "\n" not in answer["error"]


def test_an_order_by_http_and_its_answers(feed, server):
    feed.done.clear()
    url = f"{server.address}/api/feeds/feed1"
    order = {"verb": "remove", "args": {"id": 1}, "client": "script", "n": 7}
    answers = [httpx.post(f"{url}/orders", json=order).json() for _ in range(2)]
    assert answers[0] == answers[1] and answers[0]["ok"] and feed.done == ["remove"]
    refused = httpx.post(f"{url}/orders", json={"verb": "fly"})
    assert (refused.status_code, refused.json()["ok"]) == (409, False)
    assert httpx.post(f"{url}/orders", json={"args": {}}).status_code == 400
    assert httpx.post(f"{url}/orders", content=b"{}").status_code == 415
    assert httpx.get(f"{server.address}/api/feeds/other").status_code == 404
    assert httpx.get(url).json()["status"]["objects"] == [{"id": 1, "label": "hook"}]
    assert httpx.get(f"{server.address}/api/feeds").json()["feeds"][0]["state"] == "running"


def test_a_still_has_the_masks_of_objects_that_are_shown_in_their_colors():
    image_hwc = np.zeros((24, 32, 3), np.uint8)
    mask_hw = np.zeros((24, 32), bool)
    mask_hw[4:20, 4:20] = True
    png = cv2.imencode(".png", image_hwc)[1].tobytes()
    thing = {"id": 1, "label": "hook", "height": 24, "width": 32, "rle": encode_rle(mask_hw)}
    snapshot = {"png": png, "seq": 3, "session": "s", "mask_seq": 2, "width": 32, "height": 24, "objects": [thing]}

    def drawn(**look):
        found = asyncio.run(picture_of(snapshot, "room/1", "png", True, {1: look}))
        assert "room-1-000003.png" in found.headers["content-disposition"]
        return cv2.imdecode(np.frombuffer(found.body, np.uint8), cv2.IMREAD_COLOR_RGB)

    assert not drawn(hidden=True).any()
    red_hwc = drawn(color=[255, 0, 0])
    assert red_hwc[12, 12, 0] > 50 and not red_hwc[12, 12, 1:].any() and not red_hwc[22, 30].any()
    document = coco(snapshot, "x.png")
    counts = document["annotations"][0]["segmentation"]["counts"]
    assert (decode_rle(counts.encode(), 24, 32) == mask_hw).all() and document["categories"][0]["name"] == "hook"


def test_the_openapi_document_names_every_route(server):
    document = httpx.get(f"{server.address}/api/openapi.json").json()
    assert document["openapi"].startswith("3.1") and len(document["paths"]) == 4
    refs = str(document).split("#/components/schemas/")[1:]
    assert {ref.split("'")[0] for ref in refs} <= document["components"]["schemas"].keys()
    page = httpx.get(f"{server.address}/api/docs")
    assert all(path in page.text for path in document["paths"]) and "<script" not in page.text


def test_each_frame_is_coded_once_however_many_watch(server):
    link = server.links[0]
    before = link.coded
    pages = [server.open() for _ in range(5)]
    seen = [set() for _ in pages]
    for _ in range(12):
        for page, mine in zip(pages, seen, strict=True):
            picture = page.hear("picture", paint=True)
            mine.add(picture["seq"])
    coded = link.coded - before
    every = set.union(*seen)
    for page in pages:
        page.socket.close()
    assert sum(map(len, seen)) >= 5 * 10
    assert len(every) <= coded < sum(map(len, seen)) / 2


def test_the_video_is_subscribed_to_only_while_somebody_watches(feed, server):
    def subscribed() -> bool:
        return feed.publisher.watched("video")

    def until(wanted: bool) -> None:
        end = time.monotonic() + 20
        while subscribed() != wanted:
            assert time.monotonic() < end
            time.sleep(0.02)

    until(False)
    with server.open() as page:
        page.hear("picture")
        until(True)
    until(False)
    behind = feed.seq
    with server.open() as page:  # and a page that is opened later gets no old picture
        assert page.hear("picture")["seq"] >= behind


@pytest.mark.parametrize(
    ("width", "wanted", "divisor"), [(1280, None, 1), (1280, 1280, 1), (1280, 641, 1), (1280, 640, 2), (1280, 90, 4)]
)
def test_a_picture_is_divided_never_enlarged(width, wanted, divisor):
    assert divisor_for(width, wanted) == divisor


def test_a_small_page_gets_small_pictures_of_the_same_frame(server):
    with server.open(hello=False) as page:
        page.say(type="hello", width=WIDTH // 2)
        found = [page.hear("picture", paint=True) for _ in range(4)][-1]
        assert (found["width"], found["source_width"]) == (WIDTH // 2, WIDTH)
        image_hwc = cv2.imdecode(np.frombuffer(found["payload"], np.uint8), cv2.IMREAD_COLOR)
        assert image_hwc.shape[1] == WIDTH // 2


def test_new_lines_of_a_list_that_moves_on():
    assert _new_lines(["a", "b", "c"], ["b", "c", "d"]) == ["d"]
    assert _new_lines([], ["a"]) == ["a"]
    assert _new_lines(["a", "b"], ["a", "b"]) == []
    assert _new_lines(["a", "a"], ["a", "a", "a"][-2:]) == []
    assert _new_lines(["x"], ["a", "b"]) == ["a", "b"]


def test_the_control_address_is_the_next_port():
    assert control_of("tcp://room1:5555") == "tcp://room1:5556"
    assert control_of("ipc:///run/room1") is None


def test_binary_messages_begin_with_their_header(server):
    with server.open() as page:
        page.hear("welcome")
        message = page.socket.recv()
        while not isinstance(message, bytes):
            message = page.socket.recv()
        (length,) = struct.unpack_from("<I", message)
        assert message[4:5] == b"{" and message[3 + length : 4 + length] == b"}"
