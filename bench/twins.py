"""The camera turns away from an object, past its mirror image, and back: is the twin drawn, is the object found again.

    python -m bench.twins DATA... [--engine RECIPE.toml] [--policy POLICY] [--clips 15]

DATA are folders in DAVIS's layout. Each picture is drawn beside its mirror image; a window as wide as the picture pans
over both. One row without and one with the rule that an object has a place (`Tracker.cuts`):

    twin   frames on which the mask is the twin's (IoU over 0.3)
    back   clips in which the object is followed at the end (mean J of the last 10 frames over 0.4)
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

import cv2
import numpy as np

import rtseg
from rtseg.base.types import BoolMask, ImageU8
from rtseg.engine.recipe import load_recipe
from rtseg.track import POLICIES

from .cuts import ENGINE, Clip, clips, overlap

WIDTH, STEP = 512, 0.05  # of the window, and how much of that it moves from one frame to the next
LOOKS, STAYS = 8, 10  # frames before it moves, and at either end


def panned(clip: Clip) -> Iterator[tuple[ImageU8, BoolMask, BoolMask]]:
    """Pictures, the object's mask and its twin's."""
    away = [float(x) for x in np.arange(0, 1, STEP)]
    start = clip.first()
    for k, x in enumerate([0.0] * LOOKS + away + [1.0] * STAYS + [1 - x for x in away] + [0.0] * STAYS):
        i = min(start + k // 3, len(clip.pictures) - 1)
        image_hwc, mask_hw = clip.picture(i), clip.mask(i)
        size = (WIDTH, round(mask_hw.shape[0] * WIDTH / mask_hw.shape[1]))
        image_hwc = np.asarray(cv2.resize(image_hwc, size), np.uint8)
        mask_hw = cv2.resize(mask_hw.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
        none_hw, window = np.zeros_like(mask_hw), slice(round(x * WIDTH), round(x * WIDTH) + WIDTH)
        both_hwc = np.concatenate([image_hwc, image_hwc[:, ::-1]], 1)[:, window]
        object_hw = np.concatenate([mask_hw, none_hw], 1)[:, window]
        yield np.ascontiguousarray(both_hwc), object_hw, np.concatenate([none_hw, mask_hw[:, ::-1]], 1)[:, window]


def measure(engine: rtseg.Engine, policy: str | None, heeds: bool, found: list[Clip]) -> str:
    """One row."""
    twin = back = 0
    for clip in found:
        tracker = rtseg.Tracker(engine, policy)
        js: list[float] = []
        tracker.cuts = heeds
        for image_hwc, object_hw, twin_hw in panned(clip):
            if not js:
                tracker.prompt(1, mask=object_hw)
            masks = tracker.step(image_hwc)
            twin += bool(twin_hw.any()) and masks.score(1) > 0.5 and overlap(masks, twin_hw) > 0.3
            js.append(overlap(masks, object_hw))
        back += fmean(js[-STAYS:]) > 0.4
    return f"| {'with places' if heeds else 'without':11} | {twin:4} | {back} of {len(found)} |"


def main(arguments: list[str] | None = None) -> int:
    """`python -m bench.twins`."""
    parser = argparse.ArgumentParser(prog="python -m bench.twins", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("data", type=Path, nargs="+", help="folders with JPEGImages/ and Annotations/")
    parser.add_argument("--engine", type=Path, default=ENGINE, help="the recipe (default: engines/micro-cpu.toml)")
    parser.add_argument("--policy", choices=tuple(POLICIES), help="instead of the recipe's")
    parser.add_argument("--clips", type=int, default=15, help="the first so many")
    given = parser.parse_args(arguments)
    engine, found = rtseg.open_engine(load_recipe(given.engine)), clips(given.data)[: given.clips]
    print(f"{engine.recipe.model}, {engine.description}\n| rule        | twin | back |")
    for heeds in (False, True):
        print(measure(engine, given.policy, heeds, found), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
