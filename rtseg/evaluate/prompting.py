"""Simulated prompts, derived from an object's truth as a careful person would give them: mask, box, clicks, next click.

Everything here is a pure function: the same truth, kind, seed, sequence, object and frame give the same prompt, so a
comparison of two engines gives both the same. Prompts are stored as entries of a prompt file
(rtseg/base/prompt_files.py) and can be given again.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from typing import Any

import cv2
import numpy as np

from ..base.errors import ConfigError, PromptError, did_you_mean
from ..base.rle import decode_rle, encode_rle
from ..base.types import BoolMask, Float32, Prompt
from ..data.dataset import Sequence, Target

CLICKS = {"points-1": 1, "points-3": 3, "points-5": 5}
PROMPTS = ("mask", "box", *CLICKS)
DRAWN = ("points-3", "points-5")  # kinds that are drawn at random, by the seed
INTERIOR = 0.4  # of the greatest depth: further clicks are at least this far from the edge
CANDIDATES = 64  # places that are drawn for each further click; the one farthest from the others is taken

Prompter = Callable[[Target, int, BoolMask], Prompt]  # a target, a frame and the truth there give the prompt
Click = tuple[float, float, int]


def prompter(kind: str, seed: int, sequence: Sequence) -> Prompter:
    """A `Prompter` of one kind for one sequence. `ConfigError` if there is no such kind."""
    if kind not in PROMPTS:
        raise ConfigError(f"prompt {kind!r}: no such kind; {did_you_mean(kind, PROMPTS)}")

    def give(target: Target, frame: int, truth_hw: BoolMask) -> Prompt:
        return make_prompt(truth_hw, kind, seed, sequence.name, target, frame)

    return give


def make_prompt(truth_hw: BoolMask, kind: str, seed: int, sequence: str, target: Target, frame: int) -> Prompt:
    """The prompt of a kind in `PROMPTS` for an object that is visible as `truth_hw`, bool [H, W], not empty.

    `mask` is the truth itself, or the box of an object that fills the frame; `box` is its tight box. `points-1` is a
    click where the object is thickest. `points-3` and `points-5` start with it; the others are drawn by the seed,
    spread out well inside. An object of fewer pixels gets a click on each.
    """
    label = target.label or None
    if kind == "mask" and not truth_hw.all():
        return Prompt(target.id, mask=truth_hw, label=label)
    if kind in ("mask", "box"):
        x, y, width, height = cv2.boundingRect(truth_hw.view(np.uint8))
        return Prompt(target.id, box=(float(x), float(y), float(x + width), float(y + height)), label=label)
    rng = np.random.default_rng((seed, zlib.crc32(sequence.encode()), target.id, frame))
    return Prompt(target.id, points=_clicks(truth_hw, CLICKS[kind], rng), label=label)


def next_click(truth_hw: BoolMask, mask_hw: BoolMask) -> Click | None:
    """The click (x, y, label) at the centre of the largest connected error; None without an error.

    An error is a missed region (label 1: object) or a false one (0: background), 8-connected; of two of one size, the
    missed one is taken. Its centre is its thickest point, so the click always lies inside.
    """
    errors = ((truth_hw & ~mask_hw, 1), (mask_hw & ~truth_hw, 0))
    regions = [(region_hw, kind) for wrong_hw, kind in errors if (region_hw := _largest(wrong_hw)) is not None]
    if not regions:
        return None
    region_hw, kind = max(regions, key=lambda region: (int(region[0].sum()), region[1]))
    x, y = _thickest(_depth(region_hw))
    return float(x), float(y), kind


def to_entry(frame: int, prompt: Prompt) -> dict[str, Any]:
    """A prompt as an entry of a prompt file; a mask is {"size": [h, w], "counts": COCO's compressed RLE}."""
    entry: dict[str, Any] = {"frame": frame, "id": prompt.id}
    if prompt.label is not None:
        entry["label"] = prompt.label
    if prompt.points:
        entry["points"] = [list(point) for point in prompt.points]
    if prompt.box is not None:
        entry["box"] = list(prompt.box)
    if prompt.mask is not None:
        entry["mask"] = {"size": list(prompt.mask.shape), "counts": encode_rle(prompt.mask).decode("ascii")}
    return entry


def from_entry(entry: dict[str, Any]) -> Prompt:
    """The prompt of an entry that `to_entry` made."""
    box, mask = entry.get("box"), entry.get("mask")
    return Prompt(
        id=entry["id"],
        points=entry.get("points", ()),
        box=box,
        mask=None if mask is None else decode_rle(mask["counts"].encode("ascii"), *mask["size"]),
        label=entry.get("label"),
    )


def stored(entries: Iterable[dict[str, Any]]) -> Prompter:
    """A `Prompter` that gives stored prompts again; `PromptError` where none is stored."""
    known = {(entry["frame"], entry["id"]): entry for entry in entries}

    def give(target: Target, frame: int, truth_hw: BoolMask) -> Prompt:
        if (frame, target.id) not in known:
            raise PromptError(f"frame {frame}: no prompt is stored for object {target.id}; expected one")
        return from_entry(known[frame, target.id])

    return give


def _clicks(truth_hw: BoolMask, count: int, rng: np.random.Generator) -> tuple[Click, ...]:
    """The thickest point, then repeatedly the candidate well inside that is farthest from all earlier clicks."""
    depth_hw = _depth(truth_hw)
    first = _thickest(depth_hw)
    inside_n2 = np.argwhere(depth_hw >= INTERIOR * depth_hw.max())[:, ::-1]  # x, y
    if len(inside_n2) < count:
        inside_n2 = np.argwhere(truth_hw)[:, ::-1]
    clicks = [first]
    while len(clicks) < min(count, int(truth_hw.sum())):
        drawn_n2 = inside_n2[rng.integers(len(inside_n2), size=CANDIDATES)]
        apart_n = np.min([np.hypot(*(drawn_n2 - click).T) for click in clicks], axis=0)
        if apart_n.max() > 0:  # else all candidates have been clicked on: draw again
            x, y = drawn_n2[int(apart_n.argmax())].tolist()
            clicks.append((x, y))
    return tuple((float(x), float(y), 1) for x, y in clicks)


def _depth(mask_hw: BoolMask) -> Float32:
    """The distance of each pixel to the nearest one outside the mask, float32 [H, W]; the image border is outside."""
    padded_hw = np.pad(mask_hw, 1).view(np.uint8)
    return np.asarray(cv2.distanceTransform(padded_hw, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1], np.float32)


def _thickest(depth_hw: Float32) -> tuple[int, int]:
    """(x, y) of the greatest depth; of several, the first in reading order."""
    y, x = divmod(int(depth_hw.argmax()), depth_hw.shape[1])
    return x, y


def _largest(wrong_hw: BoolMask) -> BoolMask | None:
    """The largest 8-connected region, bool [H, W]; None if the mask is empty."""
    count, labels_hw, stats, _ = cv2.connectedComponentsWithStats(wrong_hw.view(np.uint8), connectivity=8)
    if count == 1:
        return None
    return np.asarray(labels_hw == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax()), np.bool_)
