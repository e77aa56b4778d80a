"""The page's modules by themselves, in node: masks, outlines, colours, states in words; and their types."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco

from rtseg.base.colors import COLORS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "rtseg" / "console" / "page"
NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="node is not installed")


def run(module: str, name: str, calls: list[list[Any]]) -> list[Any]:
    """What a function of the page gives for each list of arguments."""
    command = [str(NODE), str(Path(__file__).with_name("node.mjs")), str(PAGE), module, name]
    done = subprocess.run(command, input=json.dumps(calls), capture_output=True, text=True, check=True, timeout=60)
    return list(json.loads(done.stdout))


def some_masks() -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    rng = np.random.default_rng(7)
    masks = [
        (rng.random((h, w)) < p).astype(np.uint8) for h, w, p in ((1, 1, 1), (7, 5, 0.5), (40, 61, 0.3), (3, 90, 0.9))
    ]
    disc = np.zeros((120, 200), np.uint8)
    disc[20:90, 30:150] = 1
    disc[40:60, 60:100] = 0
    return [*masks, disc, np.zeros((9, 4), np.uint8), np.ones((6, 8), np.uint8)]


def counts(mask_hw: np.ndarray[Any, Any]) -> str:
    return bytes(coco.encode(np.asfortranarray(mask_hw))["counts"]).decode()


@needs_node
def test_masks_are_read_and_written_as_pycocotools_does() -> None:
    masks = some_masks()
    read = run("rle.js", "decode", [[counts(mask), *mask.shape] for mask in masks])
    for mask, found in zip(masks, read, strict=True):
        whole = np.zeros_like(mask)
        part = np.array(found["data"], np.uint8).reshape(found["height"], found["width"])
        whole[found["y"] : found["y"] + found["height"], found["x"] : found["x"] + found["width"]] = part
        assert np.array_equal(whole, mask)
    written = run("rle.js", "encode", [[mask.ravel().tolist(), *mask.shape] for mask in masks])
    assert written == [counts(mask) for mask in masks]


@needs_node
def test_what_is_no_mask_is_refused_in_one_line() -> None:
    good = counts(some_masks()[2])
    bad = run(
        "rle.js", "decode", [[good[:-1], 40, 61], [good, 41, 61], ["\x7f", 4, 4], ["~~~~~~~~~~0", 4, 4], ["", 4, 4]]
    )
    assert all(re.fullmatch(r"not a mask of \d+x\d+ pixels: [^\n]+", one["error"]) for one in bad), bad


@needs_node
def test_outlines_enclose_the_pixels_of_the_mask() -> None:
    masks = some_masks()[2:5]
    boxes = run("rle.js", "decode", [[counts(mask), *mask.shape] for mask in masks])
    for mask, outlines in zip(masks, run("contour.js", "outlines", [[box] for box in boxes]), strict=True):
        areas = []
        for points in outlines:
            x, y = np.array(points[0::2]), np.array(points[1::2])
            areas.append(0.5 * float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()))
        # Holes turn the other way. Corners are cut, so a mask of single pixels loses up to half of its area.
        assert 0.45 * mask.sum() <= sum(areas) <= mask.sum()
    assert len(outlines) == 2 and sum(areas) > 0.995 * masks[-1].sum()


@needs_node
def test_colours_are_those_of_the_overlay() -> None:
    assert run("colors.js", "PALETTE", [[]])[0] == [list(color) for color in COLORS]


LIVE = {
    "connected": True, "refused": False, "connectionWhy": "", "link": "up", "linkWhy": "", "silentMs": 0,
    "phase": "running", "sourceWhy": "", "pictureMs": 60, "oldAfterMs": 700, "delayMs": 50, "masks": "fresh",
    "maskMs": 40, "objects": 1, "lost": [], "behind": None, "faults": [], "preparing": "", "recording": False,
    "playing": False,
}  # fmt: skip
BEHIND = {"segmented_fps": 8, "wanted_fps": 25}
STATES: list[tuple[dict[str, Any], str, bool]] = [
    ({}, "Fresh", False), ({"delayMs": 400}, "Late", False), ({"behind": BEHIND}, "Behind", False),
    ({"masks": "stale", "maskMs": 180}, "Stale", False), ({"masks": "expired", "maskMs": 400}, "Stale", False),
    ({"phase": "recovering"}, "Recovering", False), ({"masks": "recovering"}, "Recovering", False),
    ({"phase": "frozen"}, "Frozen", True), ({"phase": "stalled"}, "No signal", True),
    ({"phase": "lost"}, "No signal", True), ({"link": "silent", "silentMs": 2000}, "No signal", True),
    ({"pictureMs": 900}, "No signal", True), ({"pictureMs": None}, "Opening", True),
    ({"phase": "opening"}, "Opening", True), ({"link": None}, "Opening", True), ({"link": "refused"}, "Refused", True),
    ({"connected": False}, "Connection lost", True), ({"refused": True}, "Refused", True),
    ({"phase": "paused"}, "Paused", False), ({"phase": "failed"}, "Failed", False), ({"phase": "ended"}, "Ended", True),
    ({"objects": 0, "masks": "none"}, "Ready", False), ({"masks": "none"}, "No masks", False),
    ({"recording": True}, "Paused", False), ({"recording": True, "playing": True}, "Playing", False),
    ({"recording": True, "masks": "none"}, "No mask yet", False),
    ({"phase": "frozen", "connected": False}, "Connection lost", True),
    ({"phase": "frozen", "behind": BEHIND}, "Frozen", True),
]  # fmt: skip


@needs_node
def test_each_state_has_its_word_and_an_old_picture_is_called_old() -> None:
    found = run("verdict.js", "verdict", [[LIVE | facts] for facts, _, _ in STATES])
    assert [(one["word"], one["old"]) for one in found] == [(word, old) for _, word, old in STATES]
    assert all(one["why"] for one in found)


@needs_node
def test_states_of_one_colour_differ_in_shape() -> None:
    found = run("verdict.js", "verdict", [[LIVE | facts] for facts, _, _ in STATES])
    by_word = {one["word"]: (one["level"], one["shape"]) for one in found if one["word"] != "Stale"}
    alike = {look: {word for word, other in by_word.items() if other == look} for look in by_word.values()}
    # These groups say nearly the same, or are of a recording and of a live feed.
    near = [{"No signal", "Connection lost"}, {"Failed", "Refused"}, {"Ready", "No masks", "No mask yet"}]
    near += [{"Paused", "Ended"}, {"Fresh", "Playing"}]
    assert all(len(words) == 1 or words in near for words in alike.values()), alike


def test_the_page_asks_nobody_else_and_stores_nothing() -> None:
    for path in PAGE.iterdir():
        text = path.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(
            r"https?://|localStorage|sessionStorage|indexedDB|document\.cookie|caches\.|eval\(", text
        ), path
        assert text.count("\n") <= 300, path
    index = (PAGE / "index.html").read_text("utf-8")
    assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=|<style", index)


def test_the_types_of_the_page_are_right(tmp_path: Path) -> None:
    tsc = ROOT / "out" / "page" / "node_modules" / ".bin" / "tsc"
    if not tsc.exists():
        pytest.skip("tsc is not installed: npm install --prefix out/page tests/console")
    done = subprocess.run(
        [tsc, "-p", ROOT / "tests" / "console"], check=False, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout
    settings = json.loads((ROOT / "tests/console/tsconfig.json").read_text())
    (tmp_path / "wrong.js").write_text("/** @type {number} */ export const n = 'text';")
    settings["include"] = [str(tmp_path / "*.js")]
    (tmp_path / "tsconfig.json").write_text(json.dumps(settings))
    assert subprocess.run([tsc, "-p", tmp_path], check=False, capture_output=True, timeout=120).returncode != 0
