"""A recording behind the console's server: its status, its pictures with their own masks, and its orders."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rtseg.base.errors import OutputError, PromptError
from rtseg.console import messages
from rtseg.console.recording_feed import RecordingFeed
from rtseg.engine.recipe import load_recipe

SOURCE = "synthetic:laparoscopy?seconds=0.4&seed=7&width=160&height=120&fps=25"
PROMPT = {"id": 1, "label": "grasper", "points": [[80, 60, 1]]}


@pytest.fixture
def feed(tmp_path: Path) -> Iterator[RecordingFeed]:
    import torch

    from rtseg.sam2 import Sam2, get_preset, save_weights

    torch.manual_seed(0)
    save_weights(Sam2(get_preset("nano-hiera"), 64), tmp_path / "random.safetensors")
    recipe = load_recipe(weights=tmp_path / "random.safetensors", image_size=64)
    feed = RecordingFeed(SOURCE, replace(recipe, model="nano-hiera", runtime="torch"), tmp_path / "session")
    yield feed
    feed.close()


async def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it did not happen within a minute"
        await asyncio.sleep(0.02)


async def tried(feed: RecordingFeed) -> None:
    feed.start()
    await until(lambda: feed.masks and feed.status)
    assert (feed.link, feed.title.recording) == ("up", True)
    clip = feed.status["recording"]
    assert (clip["frames"], clip["position"], clip["objects"]) == (10, 0, [])

    def ask(verb: str, **args: Any) -> Any:
        return asyncio.to_thread(feed.ask, verb, args, "Ada")

    await ask("seek", frame=4)
    found = await ask("preview", prompt=PROMPT, seq=4)
    assert len(found["rle"]) > 0
    assert (found["seq"], found["height"], found["width"]) == (4, 120, 160)
    assert feed.status["objects"] == []
    await ask("add", prompt=PROMPT, seq=4, session=feed.status["session"])
    await until(lambda: messages.unpack(feed.masks or b"")[0]["objects"])
    header, rle = messages.unpack(feed.masks or b"")
    assert (header["seq"], header["mask_seq"], header["state"]) == (4, 4, "fresh")
    assert rle.decode() == found["rle"]  # what was shown is what was accepted
    assert (await ask("track", direction="both"))["frames"] == 11
    await until(lambda: feed.status["recording"]["tracked"] == [[0, 9]] and "busy" not in feed.status["recording"])
    await ask("lock", id=1, first=2, last=3)
    await ask("step", by=-1)
    await until(lambda: [2, 3, "locked"] in [list(s) for s in feed.status["recording"]["objects"][0]["spans"]])
    assert (await ask("undo"))["undone"].startswith("lock grasper")
    assert (await ask("snapshot", seq=4))["objects"][0]["rle"] == found["rle"]
    for verb, args, error, why in (
        ("seek", {"frame": 10}, PromptError, "expected 0 to 9"),
        ("seek", {"frames": 1}, OutputError, "frame"),
        ("correct", {"prompt": PROMPT, "seq": 4, "session": "other"}, PromptError, "load the page again"),
        ("shutdown", {}, OutputError, "not an order for a recording"),
    ):
        with pytest.raises(error, match=why):
            await ask(verb, **args)


def test_an_order_that_comes_again_is_done_once_also_by_another_console(feed: RecordingFeed) -> None:
    session = feed._session
    for label in ("hook", "grasper"):
        session.store.change(f"add {label}", "Ada", session.state)
    assert feed.ask("undo", {}, "Ada", "key 1") == {"undone": "add grasper"}
    feed.close()
    again = RecordingFeed(SOURCE, session.network.recipe, session.folder)
    try:
        assert again.ask("undo", {}, "Ada", "key 1") == {"repeated": True}
        with pytest.raises(PromptError):
            again.ask("rename", {"id": 7, "label": "hook"}, "Ada", "key 2")
        with pytest.raises(PromptError):  # it was not done, so it is tried again
            again.ask("rename", {"id": 7, "label": "hook"}, "Ada", "key 2")
        assert again.ask("undo", {}, "Ada", "key 3") == {"undone": "add hook"}  # negative control: another order
    finally:
        again.close()


def test_a_recording_is_a_feed(feed: RecordingFeed) -> None:
    asyncio.run(tried(feed))
