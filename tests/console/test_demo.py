"""A person at the console of a real feed: click on a tool, look at the proposed mask, accept it, and it is followed."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtseg.publish.subscriber import Subscriber
from rtseg.synthetic import EndoscopeSource

pytestmark = pytest.mark.slow
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
SIZE = (800, 450)
SOURCE = f"synthetic:laparoscopy?width={SIZE[0]}&height={SIZE[1]}&fps=25&seed=10010&seconds=300"
FRAMES, GOOD = 50, 0.7  # frames that are followed, and the least mean IoU of their masks
WAIT_MS = 120_000


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(*words: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-m", "rtseg", *words], stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


@pytest.fixture
def page(tmp_path: Path) -> Iterator[tuple[Any, str]]:
    """The page of a console beside a feed without objects, and the address that the feed publishes on."""
    if CHROMIUM is None:
        pytest.skip("no Chromium: apt-get install chromium")
    publish, control, console = (free_port() for _ in range(3))
    profile = tmp_path / "room.toml"
    engine = Path(__file__).parents[2] / "engines" / "nano-cpu.toml"
    profile.write_text(
        f'source = "{SOURCE}"\nengine = "{engine}"\ntarget_fps = 25\n'
        f'[publish]\nbind = "tcp://127.0.0.1:{publish}"\n[control]\nbind = "tcp://127.0.0.1:{control}"\n'
    )
    from playwright.sync_api import sync_playwright

    with (
        running("live", str(profile), "--console", str(console)),
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"]) as browser,
    ):
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(WAIT_MS)
        until = time.monotonic() + WAIT_MS / 1000
        while True:
            try:
                page.goto(f"http://127.0.0.1:{console}/")
                break
            except Exception:
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)
        yield page, f"tcp://127.0.0.1:{publish}"


def true_ids(seq: int) -> np.ndarray:
    """The number of the tool at each pixel of a frame, 0 where there is none."""
    frame = EndoscopeSource(SOURCE).frame(seq)
    assert frame.truth_hw is not None
    return frame.truth_hw


def held_frame(page: Any) -> int:
    page.wait_for_selector("#pointing:not([hidden])")
    return int(page.locator("#pointing-text").text_content().split("frame ")[1].split()[0].rstrip(",."))


def middle_of_a_tool(seq: int) -> tuple[float, float]:
    """A pixel (x, y) well inside the largest tool of a frame."""
    import cv2

    ids_hw = true_ids(seq)
    largest = np.bincount(ids_hw[ids_hw > 0]).argmax()
    depth_hw = cv2.distanceTransform((ids_hw == largest).astype(np.uint8), cv2.DIST_L2, 5)
    y, x = np.unravel_index(depth_hw.argmax(), depth_hw.shape)
    return float(x), float(y)


def test_a_click_on_a_tool_is_followed(page: tuple[Any, str]) -> None:
    page, address = page
    page.wait_for_selector(".view[data-word='Ready']")
    page.keyboard.press("p")
    seq = held_frame(page)
    x, y = middle_of_a_tool(seq)
    box = page.locator("canvas.masks").first.bounding_box()
    page.mouse.click(box["x"] + (x + 0.5) / SIZE[0] * box["width"], box["y"] + (y + 0.5) / SIZE[1] * box["height"])
    page.wait_for_selector("#pointing-acts .primary:enabled")
    with Subscriber(address, topics=("masks",)) as news:
        page.keyboard.press("Enter")
        page.wait_for_selector(".view[data-word='Fresh']")
        followed: dict[int, Any] = {}
        for message in news:
            masks = message.masks()
            if masks:
                followed[message.seq] = masks
            if len(followed) == FRAMES:
                break
    if shots := os.environ.get("RTSEG_SHOTS"):
        page.screenshot(path=f"{shots}/console.png")
    truth = true_ids(seq)
    right = int(truth[int(y), int(x)])
    named = {at: {right: next(iter(masks.values()))} for at, masks in followed.items()}
    assert np.mean(judge_one(named, right)) >= GOOD
    other = next(i for i in np.unique(truth) if i not in (0, right))
    assert np.mean(judge_one({at: {other: masks[right]} for at, masks in named.items()}, other)) < GOOD


def judge_one(masks: dict[int, dict[int, Any]], object_id: int) -> list[float]:
    """The IoU of an object on each frame that shows it."""
    found = []
    for seq, one in masks.items():
        truth_hw = true_ids(seq) == object_id
        if truth_hw.any():
            found.append(float((truth_hw & one[object_id]).sum() / (truth_hw | one[object_id]).sum()))
    return found
