"""The page in Chromium, against the fake console: it shows, points, says what is wrong, and serves everybody."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.console.fake_console import HEIGHT, WIDTH, FakeConsole

CHROMIUM = Path("/usr/bin/chromium")
AXE = Path(__file__).parents[2] / "out" / "page" / "node_modules" / "axe-core" / "axe.min.js"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="Chromium is not installed: apt-get install chromium"),
]


class Served:
    """A fake console on a port of its own."""

    def __init__(self) -> None:
        import uvicorn

        self.fake = FakeConsole()
        config = uvicorn.Config(self.fake.app, port=0, log_level="warning", ws="websockets-sansio")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.02)
        self.url = f"http://127.0.0.1:{self.server.servers[0].sockets[0].getsockname()[1]}"

    def change(self, **wanted: Any) -> dict[str, Any]:
        body = json.dumps(wanted).encode()
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/fake", body, method="POST")) as answer:
            return dict(json.load(answer))

    def close(self) -> None:
        self.server.should_exit = True
        self.thread.join(10)


@pytest.fixture
def served() -> Iterator[Served]:
    found = Served()
    yield found
    found.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield found
        found.close()


class Console:
    """One open page, and what it did wrong."""

    def __init__(self, browser: Any, served: Served, address: str = "token=right", **options: Any) -> None:
        self.errors: list[str] = []
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        self.page = context.new_page()
        self.page.set_default_timeout(20_000)
        self.page.on("pageerror", lambda e: self.errors.append(str(e)))
        self.page.on("console", lambda m: self.errors.append(m.text) if "Content Security" in m.text else None)
        self.page.goto(f"{served.url}/#{address}")
        self.served = served

    def says(self, word: str) -> None:
        """Wait until the first feed's state is this word."""
        self.page.wait_for_selector(f".view[data-word='{word}']")

    def center(self, disc: int, seq: int) -> tuple[float, float]:
        """Where a disc of a frame is on the screen."""
        box = self.page.locator("canvas.masks").first.bounding_box()
        x, y = self.served.fake.scene.center(disc, seq)
        return box["x"] + (x + 0.5) / WIDTH * box["width"], box["y"] + (y + 0.5) / HEIGHT * box["height"]

    def held_seq(self) -> int:
        """The frame that is held for pointing."""
        self.page.wait_for_selector("#pointing:not([hidden])")
        text = self.page.locator("#pointing-text").text_content()
        return int(text.split("frame ")[1].split()[0].rstrip(",."))

    def hold(self) -> int:
        self.page.keyboard.press("p")
        return self.held_seq()

    def ready(self) -> None:
        self.page.wait_for_selector("#pointing-acts .primary:enabled")

    def orders(self, *verbs: str) -> list[dict[str, Any]]:
        feed = next(iter(self.served.fake.feeds.values()))
        return [order for order in feed.orders if order["verb"] in verbs]

    def until(self, true: str) -> None:
        """Wait until an expression is true; not by `wait_for_function`, which the page's CSP forbids."""
        for _ in range(400):
            if self.page.evaluate(true):
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"never true: {true}")


@pytest.fixture
def console(browser: Any, served: Served) -> Iterator[Console]:
    found = Console(browser, served)
    found.says("Ready")
    yield found
    found.page.context.close()
    assert found.errors == []


def test_the_token_leaves_the_address_and_nothing_is_stored(console: Console) -> None:
    assert console.page.evaluate("location.href").endswith("/")
    stored = "[document.cookie, localStorage.length, sessionStorage.length].join()"
    assert console.page.evaluate(stored) == ",0,0"


def test_a_click_proposes_a_mask_and_enter_gives_it_to_the_feed(console: Console) -> None:
    page = console.page
    page.get_by_role("button", name="grasper").click()
    seq = console.hold()
    page.mouse.click(*console.center(2, seq))
    console.ready()
    assert "Proposed mask" in page.locator("#pointing-text").text_content()
    before = page.locator("canvas.masks").bounding_box()
    x, y = console.center(3, seq)
    page.mouse.click(x, y, button="right")
    console.ready()
    page.keyboard.press("Enter")
    console.says("Fresh")
    assert page.locator("canvas.masks").bounding_box() == before  # the picture did not move under the hand
    (add,) = console.orders("add")
    (preview, *_) = console.orders("preview")
    assert add["args"]["seq"] == seq and add["args"]["prompt"]["label"] == "grasper"
    (one, other) = add["args"]["prompt"]["points"]
    expected = console.served.fake.scene.center(2, seq)
    assert one[2] == 1 and max(abs(one[0] - expected[0]), abs(one[1] - expected[1])) < 2
    assert other[2] == 0 and preview["args"]["prompt"]["points"] == [one]
    page.wait_for_selector(".object .name:text('grasper')")


def test_cancel_changes_nothing_and_the_picture_goes_on(console: Console) -> None:
    seq = console.hold()
    console.page.mouse.click(*console.center(1, seq))
    console.ready()
    console.page.keyboard.press("Escape")
    console.page.wait_for_selector("#pointing", state="hidden")
    assert not console.orders("add", "correct")
    console.says("Ready")


def test_a_drag_is_a_box_and_the_brush_a_mask(console: Console) -> None:
    page, seq = console.page, console.hold()
    x, y = console.center(1, seq)
    page.mouse.move(x - 30, y - 40)
    page.mouse.down()
    page.mouse.move(x + 50, y + 20, steps=4)
    page.mouse.up()
    console.ready()
    page.keyboard.press("Enter")
    console.says("Fresh")
    x0, y0, x1, y1 = console.orders("add")[0]["args"]["prompt"]["box"]
    assert (
        x1 - x0 == pytest.approx(80 * WIDTH / page.locator("canvas.masks").bounding_box()["width"], abs=2) and y0 < y1
    )
    page.keyboard.press("1")
    page.keyboard.press("m")
    seq = console.hold()
    x, y = console.center(1, seq)
    page.mouse.move(x - 20, y)
    page.mouse.down()
    page.mouse.move(x + 20, y, steps=4)
    page.mouse.up()
    console.ready()
    page.keyboard.press("Enter")
    page.wait_for_selector("#pointing", state="hidden")
    (correct,) = console.orders("correct")
    from rtseg.base.rle import decode_rle

    mask = correct["args"]["prompt"]["mask"]
    mask_hw = decode_rle(mask["rle"].encode(), mask["height"], mask["width"])
    cx, cy = console.served.fake.scene.center(1, seq)
    assert mask_hw[cy, cx] and not mask_hw[cy + 60 if cy < 200 else cy - 60, cx]


def test_everything_by_keyboard_alone(console: Console) -> None:
    page, seq = console.page, console.hold()
    x, y = console.served.fake.scene.center(1, seq)
    step = round(WIDTH * 0.02)
    for key, far in (("ArrowRight", x - WIDTH / 2), ("ArrowDown", y - HEIGHT / 2)):
        key = key if far > 0 else {"ArrowRight": "ArrowLeft", "ArrowDown": "ArrowUp"}[key]
        for _ in range(round(abs(far) / step)):
            page.keyboard.press(key)
    page.keyboard.press("Space")
    console.ready()
    page.keyboard.press("Enter")
    console.says("Fresh")
    (add,) = console.orders("add")
    px, py, on = add["args"]["prompt"]["points"][0]
    assert on == 1 and abs(px - x) <= step and abs(py - y) <= step
    page.keyboard.press("1")
    page.keyboard.press("r")
    page.keyboard.type("hook")
    page.keyboard.press("Enter")
    page.wait_for_selector(".object .name:text('hook')")
    page.keyboard.press("h")
    page.wait_for_selector(".object[data-seen=hidden]")
    page.keyboard.press("z")
    page.wait_for_selector(".object", state="detached")
    page.keyboard.press("?")
    page.wait_for_selector("#help[open]")
    page.keyboard.press("Escape")
    page.wait_for_selector("#help[open]", state="detached")


def test_a_long_touch_is_a_point_that_the_object_is_not(browser: Any, served: Served) -> None:
    console = Console(browser, served, has_touch=True, viewport={"width": 1024, "height": 768})
    console.says("Ready")
    box = console.page.locator("canvas.masks").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    session = console.page.context.new_cdp_session(console.page)
    for seconds, on in ((0.0, 1), (1.0, 0)):
        session.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
        time.sleep(seconds)
        session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        console.ready()
        assert console.orders("preview")[-1]["args"]["prompt"]["points"][-1][2] == on
    console.page.context.close()
    assert console.errors == []


def test_what_cannot_be_previewed_is_said(console: Console) -> None:
    console.served.change(preview="frame 12 is not kept any more; point at a newer picture")
    console.page.mouse.click(*console.center(1, console.hold()))
    console.page.wait_for_selector("#pointing[data-level=bad]")
    assert "not kept any more" in console.page.locator("#pointing-text").text_content()


STATES: list[tuple[dict[str, Any], str]] = [
    ({"age_ms": 200}, "Stale"), ({"age_ms": 400}, "Stale"), ({"age_ms": 40}, "Fresh"), ({"behind": True}, "Behind"),
    ({"behind": False, "delay_ms": 9000}, "No signal"), ({"delay_ms": 30}, "Fresh"), ({"state": "frozen"}, "Frozen"),
    ({"state": "recovering"}, "Recovering"), ({"state": "lost"}, "No signal"), ({"state": "running"}, "Fresh"),
    ({"link": "silent"}, "No signal"), ({"link": "up", "pictures": False}, "No signal"), ({"pictures": True}, "Fresh"),
    ({"pongs": False}, "Connection lost"), ({"pongs": True}, "Fresh"),
]  # fmt: skip


def test_the_state_is_said_and_an_old_picture_is_grey_with_its_age(console: Console) -> None:
    console.served.fake.feed("demo").order(
        "add", {"prompt": {"id": 1, "points": [], "label": "grasper"}, "seq": 0, "session": "demo-session"}
    )
    console.says("Fresh")
    for change, word in STATES:
        console.served.change(**change)
        console.says(word)
        old = word in ("No signal", "Frozen", "Connection lost")
        grey = console.page.locator(".over canvas.picture").evaluate("e => getComputedStyle(e).filter")
        assert ("grayscale" in grey) == old, word
        assert ("Old picture" in console.page.locator(".age").text_content()) == old


def test_the_page_comes_back_and_gives_an_order_under_way_again_unless_it_is_old(console: Console) -> None:
    served, page = console.served, console.page
    for restart, later_ms in ((False, 0), (True, 0), (True, 20_000)):
        served.change(answers=False)
        page.mouse.click(*console.center(1, console.hold()))
        page.wait_for_timeout(300)
        page.evaluate(
            f"(() => {{ const now = performance.now.bind(performance); performance.now = () => now() + {later_ms} }})()"
        )
        served.change(drop=True, restart=restart, answers=True)
        page.wait_for_selector("#connection[data-phase=up]")
        if later_ms:  # another console: what the first one did is not known, and doing it now would surprise
            page.wait_for_selector("#pointing[data-level=bad]")
            assert "not known" in page.locator("#pointing-text").text_content()
        else:
            console.ready()
        page.keyboard.press("Escape")
    assert len(console.orders("preview")) == 4  # the first console answered from memory


def test_a_viewer_cannot_point(browser: Any, served: Served) -> None:
    served.change(right="viewer")
    console = Console(browser, served)
    console.says("Ready")
    box = console.page.locator("canvas.masks").bounding_box()
    console.page.mouse.click(box["x"] + 50, box["y"] + 50)
    console.page.wait_for_selector("#alert:text('may look')")
    assert console.page.locator("#tools button:enabled").count() == 3
    assert not console.orders("preview", "add", "hold")
    console.page.context.close()


def test_a_refused_page_asks_for_the_token(browser: Any, served: Served) -> None:
    served.change(refuse="this token is not known here")
    console = Console(browser, served)
    console.says("Ready")  # "right" is let in
    console.page.goto(f"{served.url}/?again#token=wrong")
    console.page.wait_for_selector("#access[open] >> text=not known here")
    console.page.fill("#token", "right")
    console.page.keyboard.press("Enter")
    console.says("Ready")
    console.page.context.close()


def test_a_wall_shows_each_feed_with_its_own_state(browser: Any, served: Served) -> None:
    served.change(feeds=["room 1", "room 2", "room 3"])
    console = Console(browser, served)
    console.until("document.querySelectorAll(\".view[data-word='Ready']\").length === 3")
    served.fake.feed("room 2").script = type(served.fake.script)(state="frozen")
    console.until("document.querySelectorAll(\".view[data-word='Frozen']\").length === 1")
    assert console.page.locator(".view[data-word='Ready']").count() == 2
    console.page.get_by_role("button", name="room 3").click()
    console.until("document.querySelectorAll('.view:not([hidden])').length === 1")
    console.page.keyboard.press("w")
    console.until("document.querySelectorAll('.view:not([hidden])').length === 3")
    console.page.context.close()
    assert console.errors == []


def test_pixels_that_are_not_square_are_shown_as_wide_as_they_are(console: Console) -> None:
    def shape() -> float:
        box = console.page.locator("canvas.masks").first.bounding_box()
        return float(box["width"] / box["height"])

    assert shape() == pytest.approx(WIDTH / HEIGHT, rel=0.01)
    console.served.change(aspect=0.5)
    console.until(f"document.querySelector('canvas.masks').getBoundingClientRect().width < {WIDTH}")
    assert shape() == pytest.approx(0.5 * WIDTH / HEIGHT, rel=0.01)
    seq = console.hold()
    console.page.mouse.click(*console.center(2, seq))  # a click still points at what it is on
    console.ready()
    found = console.orders("preview")[-1]["args"]["prompt"]["points"][0]
    expected = console.served.fake.scene.center(2, seq)
    assert max(abs(found[0] - expected[0]), abs(found[1] - expected[1])) < 3


def test_a_recording_is_scrubbed_tracked_locked(browser: Any, served: Served) -> None:
    served.change(feeds=[], clips=["clip"])
    console = Console(browser, served)
    page = console.page
    console.says("Ready")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    page.wait_for_selector(".where:text('Frame 26 of 200')")
    seq = console.hold()
    assert seq == 26
    page.mouse.click(*console.center(1, seq))
    console.ready()
    page.keyboard.press("Enter")
    console.says("Paused")
    page.keyboard.press("t")
    page.keyboard.press("1")
    page.keyboard.press("g")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("j")  # at once: the frame that was asked for counts, not the last status
    page.wait_for_selector(".where:text('Frame 51 of 200')")
    page.keyboard.press("u")
    console.until("document.querySelector('#timeline .spoken').textContent.includes('locked 26 to 51')")
    assert console.orders("lock")[0]["args"] == {"id": 1, "first": 26, "last": 51}
    page.context.close()
    assert console.errors == []


def test_an_address_with_a_frame_opens_the_recording_there(browser: Any, served: Served) -> None:
    served.change(feeds=[], clips=["clip"])
    console = Console(browser, served, "token=right&frame=137")
    page = console.page
    page.wait_for_selector(".where:text('Frame 137 of 200')")
    assert page.evaluate("location.hash") == ""
    page.evaluate("location.hash = '#frame=3'")
    page.wait_for_selector(".where:text('Frame 3 of 200')")
    page.evaluate("location.hash = '#frame=9999'")  # the last one there is
    page.wait_for_selector(".where:text('Frame 199 of 200')")
    for nonsense in ("-5", "1e2", "0x10", "<b>", "12345678901"):
        page.evaluate(f"location.hash = '#frame={nonsense}'")
    page.wait_for_timeout(500)
    seeks = [order["args"]["frame"] for order in served.fake.feeds["clip"].orders if order["verb"] == "seek"]
    assert seeks == [137, 3, 199] and page.evaluate("location.hash") == ""
    page.context.close()
    assert console.errors == []


@pytest.mark.parametrize("size", [(1280, 800), (1024, 768), (768, 1024), (640, 400)])  # the last: 1280 at 200%
def test_the_picture_is_large_and_what_is_pointed_at_is_readable(
    browser: Any, served: Served, size: tuple[int, int]
) -> None:
    console = Console(browser, served, viewport={"width": size[0], "height": size[1]})
    console.says("Ready")
    box = console.page.locator("canvas.masks").bounding_box()
    assert box["width"] > 0.55 * min(size[0], size[1] * WIDTH / HEIGHT)
    console.page.mouse.click(*console.center(1, console.hold()))
    console.ready()
    text = "document.querySelector('#pointing-text')"
    assert console.page.evaluate(f"{text}.scrollHeight <= {text}.clientHeight + 1")
    acts = console.page.locator("#pointing-acts").bounding_box()
    assert acts["x"] >= 0 and acts["x"] + acts["width"] <= size[0]
    console.page.context.close()
    assert console.errors == []


@pytest.mark.parametrize("width", [1280, 640])  # 640: 1280 at 200%
def test_axe_finds_nothing_serious_and_nothing_is_cut_off(browser: Any, served: Served, width: int) -> None:
    if not AXE.exists():
        pytest.skip("axe-core is not installed: npm install --prefix out/page tests/console")
    served.change(feeds=[], clips=["clip"])
    console = Console(browser, served, viewport={"width": width, "height": 800 * width // 1280}, bypass_csp=True)
    page = console.page
    console.says("Ready")
    page.add_script_tag(path=str(AXE))
    page.mouse.click(*console.center(1, console.hold()))
    console.ready()

    def serious() -> list[str]:
        found = page.evaluate("axe.run()")["violations"]
        bad = [one for one in found if one["impact"] in ("serious", "critical")]
        return [f"{one['id']}: {[node['html'] for node in one['nodes']]}" for one in bad]

    for tab in ("insight", "events", "objects"):
        page.locator(f"#tab-{tab}").click()
        assert serious() == []
        if tab == "insight":
            assert "efp, 5 spatial, 16 pointers" in page.locator("#insight .facts").text_content()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Help").click()
    assert serious() == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.evaluate("document.querySelector('#tab-insight').removeAttribute('role')")
    page.evaluate("document.querySelector('#name').labels[0].remove()")
    page.keyboard.press("Escape")
    assert serious()  # axe does see what is wrong
    page.context.close()
