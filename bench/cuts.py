"""Cuts from one scene to another: are they found, does the object jump to whatever is there, is it found again.

    python -m bench.cuts DATA... [--engine RECIPE.toml] [--policy POLICY...] [--pairs 20] [--json FILE]

DATA are folders in DAVIS's layout. Each pair is A, prompted with its first mask; then B; then A again, where it was
left; and once more A, then its end. One row a policy, without and with the rule that objects are lost at a cut:

    found         cuts that were said with their first frame, and cuts that were said elsewhere
    locked        pairs in which something was drawn on more than 5 of B's frames
    back          of A's objects that are followed without a cut (J over 0.4), those with J over 0.4 after B, and the
                  frames until then
    other moment  the same of the jump to the end of A
    uncut J       of A without any cut, and how many of its masks are the same as without the rule
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean

import cv2
import numpy as np

import rtseg
from rtseg.base.errors import EngineError
from rtseg.base.types import BoolMask, ImageU8, Masks
from rtseg.engine.recipe import load_recipe
from rtseg.track import POLICIES

ENGINE = Path(__file__).parents[1] / "engines" / "micro-cpu.toml"
BEFORE, AWAY, AFTER = 15, 25, 15  # frames of A, of B, and of A again
DRAWN = 5  # of B's frames: more is a lock
FOLLOWED = 0.4  # J
VISIBLE = 200  # pixels of the first mask


@dataclass(frozen=True)
class Clip:
    """A sequence with a mask for each picture."""

    name: str
    pictures: tuple[Path, ...]
    masks: tuple[Path, ...]

    def picture(self, i: int) -> ImageU8:
        image_hwc = cv2.imread(str(self.pictures[i]), cv2.IMREAD_COLOR)
        assert image_hwc is not None, self.pictures[i]
        return np.asarray(cv2.cvtColor(image_hwc, cv2.COLOR_BGR2RGB), np.uint8)

    def mask(self, i: int) -> BoolMask:
        mask = cv2.imread(str(self.masks[i]), cv2.IMREAD_UNCHANGED)
        assert mask is not None, self.masks[i]
        return np.asarray(mask.reshape(*mask.shape[:2], -1).max(2) > 0)

    def first(self) -> int:
        """The first frame on which the object can be prompted."""
        return next(i for i in range(len(self.masks)) if np.count_nonzero(self.mask(i)) > VISIBLE)


@dataclass
class Row:
    """What one policy did, over all pairs."""

    pairs: int = 0
    cuts_found: int = 0
    cuts: int = 0
    cuts_elsewhere: int = 0
    locked: list[str] = field(default_factory=list)
    back: list[float | None] = field(default_factory=list)  # frames until then; None: never
    moment: list[float | None] = field(default_factory=list)
    uncut: list[float] = field(default_factory=list)
    same: list[bool] = field(default_factory=list)


def clips(folders: Sequence[Path]) -> list[Clip]:
    found = []
    for folder in folders:
        for path in sorted((folder / "JPEGImages").iterdir()):
            pictures = sorted(path.glob("*.jpg"))
            masks = [folder / "Annotations" / path.name / f"{p.stem}.png" for p in pictures]
            if pictures and all(mask.exists() for mask in masks):
                found.append(Clip(path.name, tuple(pictures), tuple(masks)))
    return found


def pairs(all_clips: Sequence[Clip], count: int, seed: int) -> Iterator[tuple[Clip, Clip]]:
    """Each clip as A, with another one as B; then again, with others."""
    order = list(all_clips)
    random.Random(seed).shuffle(order)
    for n in range(count):
        yield order[n % len(order)], order[(n % len(order) + 1 + n // len(order)) % len(order)]


def overlap(masks: Masks, truth_hw: BoolMask) -> float:
    mask_hw = masks.mask(1)
    union = np.count_nonzero(mask_hw | truth_hw)
    return 1.0 if not union else np.count_nonzero(mask_hw & truth_hw) / union


def is_drawn(masks: Masks) -> bool:
    return masks.score(1) > 0.5 and bool((masks.mask_logits_bhw > 0).any())


def play(tracker: rtseg.Tracker, clip: Clip, frames: Sequence[int]) -> list[tuple[Masks, float]]:
    """Masks of these frames, and their J."""
    shown = [(tracker.step(clip.picture(i)), clip.mask(i)) for i in frames]
    return [(masks, overlap(masks, truth_hw)) for masks, truth_hw in shown]


def waited(played: Sequence[tuple[Masks, float]], truth: Sequence[float]) -> tuple[bool, float | None]:
    """Whether the object would be followed without a cut, and after how many frames it is; None: never."""
    due = bool(truth) and fmean(truth) > FOLLOWED
    return due, next((float(n) for n, (_, j) in enumerate(played) if j > FOLLOWED), None)


def measure(engine: rtseg.Engine, policy: str, heeds: bool, joined: Sequence[tuple[Clip, Clip]]) -> Row:
    """One policy over all pairs."""
    row = Row(len(joined))
    for a, b in joined:
        start = a.first()
        before = list(range(start, start + min(BEFORE, (len(a.pictures) - start) // 2)))
        after = list(range(before[-1] + 1, min(before[-1] + 1 + AFTER, len(a.pictures))))
        end = list(range(max(after[0], len(a.pictures) - AFTER), len(a.pictures)))
        trackers = [rtseg.Tracker(engine, policy) for _ in range(4)]
        for n, tracker in enumerate(trackers):
            tracker.cuts = heeds if n < 3 else False
            tracker.prompt(1, mask=a.mask(start))
            play(tracker, a, before)
        whole = play(trackers[0], a, after)
        plain = play(trackers[3], a, after)
        away = play(trackers[1], b, range(min(AWAY, len(b.pictures))))
        again, moment = play(trackers[1], a, after), play(trackers[2], a, end)
        row.cuts += 2
        row.cuts_found += away[0][0].cut + again[0][0].cut
        row.cuts_elsewhere += sum(masks.cut for part in (whole, away[1:], again[1:]) for masks, _ in part)
        row.locked += [f"{a.name} > {b.name}"] if sum(is_drawn(m) for m, _ in away) > DRAWN else []
        row.uncut.append(fmean(j for _, j in whole))
        row.same += [
            np.array_equal(m.mask_logits_bhw, n.mask_logits_bhw) for (m, _), (n, _) in zip(whole, plain, strict=True)
        ]
        due, frames = waited(again, [j for _, j in plain])
        row.back += [frames] if due else []
        rest = play(trackers[3], a, range(after[-1] + 1, len(a.pictures)))
        due, frames = waited(moment, [j for _, j in (plain + rest)[-len(end) :]])
        row.moment += [frames] if due else []
    return row


def told(name: str, row: Row) -> str:
    """One line of the table."""

    def kept(waits: Sequence[float | None]) -> str:
        there = [w for w in waits if w is not None]
        return f"{len(there)} of {len(waits)}, {fmean(there) if there else 0:.1f} frames"

    cuts = f"{row.cuts_found} of {row.cuts}, {row.cuts_elsewhere}"
    same = f"{fmean(row.uncut):.3f}, {fmean(row.same):.0%} the same"
    return (
        f"| {name:22} | {cuts:12} | {len(row.locked):3} of {row.pairs} | {kept(row.back):20} | {kept(row.moment):20} "
        f"| {same} |"
    )


def main(arguments: list[str] | None = None) -> int:
    """`python -m bench.cuts`."""
    parser = argparse.ArgumentParser(prog="python -m bench.cuts", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("data", type=Path, nargs="+", help="folders with JPEGImages/ and Annotations/")
    parser.add_argument("--engine", type=Path, default=ENGINE, help="the recipe (default: engines/micro-cpu.toml)")
    parser.add_argument("--runtime", help="instead of the recipe's")
    parser.add_argument("--policy", nargs="+", choices=tuple(POLICIES), default=tuple(POLICIES))
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write all figures to this file, too")
    given = parser.parse_args(arguments)
    joined = list(pairs(clips(given.data), given.pairs, given.seed))
    recipe = load_recipe(given.engine, **({"runtime": given.runtime} if given.runtime else {}))
    engine, rows = rtseg.open_engine(recipe), {}
    print(f"{engine.recipe.model}, {engine.description}")
    print("| policy                 | cuts found, elsewhere | locked | back | other moment | uncut J |", flush=True)
    for policy in given.policy:
        for heeds in (False, True):
            name = f"{policy}{', cuts heeded' if heeds else ''}"
            try:
                rows[name] = measure(engine, policy, heeds, joined)
            except EngineError as e:
                print(f"| {name:22} | {e} |")
                break
            print(told(name, rows[name]), *rows[name].locked[:6], flush=True)
    if given.json:
        given.json.write_text(json.dumps({name: asdict(row) for name, row in rows.items()}, indent=1), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
