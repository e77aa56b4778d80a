"""Whether masks that are moved along with the picture lie better than masks that stay where they were.

    python -m bench.carry --data ../shared/data

A mask of frame m is shown on frame n, `n - m` frames later, as it is and as `rtseg.publish.carry` moves it, and both
are compared with the truth on n: J is the IoU, F that of the boundary within 0.008 of the diagonal. The masks are the
truth on m, at the resolution a network of 512 px gives, and those of the tracker, which was shown the first frame.
J and F are means over frames and objects that are there on m (of the tracker: on both); the interval is of the mean
gain in J, 95 %, by a bootstrap over blocks of ten frames; `worse` is the share whose J falls by more than 0.005. The
control moves masks against the flow, unchecked: it has to lose. The tracker's weights were trained on the group
`davis-train`, and the check's threshold was chosen on these videos.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

import rtseg
from rtseg.adapt.config import read_config
from rtseg.base.types import Float32, Frame, ImageU8, Masks, now_ns
from rtseg.data import open_dataset
from rtseg.data.dataset import Sequence
from rtseg.evaluate.metrics.boundary import boundary_f, tolerance_px
from rtseg.evaluate.metrics.overlap import areas, iou
from rtseg.evaluate.speed.statistics import summary
from rtseg.publish.carry import Carrier
from rtseg.synthetic import HELD_OUT_SEED

ROOT = Path(__file__).parents[1]
ENGINE, TRAINING = ROOT / "engines" / "nano-cpu.toml", ROOT / "engines" / "training" / "nano.toml"
DATA = ROOT.parent / "shared" / "data"
FPS = 25.0
SCENES = f"synthetic:laparoscopy?seed={HELD_OUT_SEED}-{HELD_OUT_SEED + 2}&seconds=3&width=640&height=480"
GRID = 128  # a network of 512 px gives masks of this side
BLOCK, DRAWS = 10, 2000
WORSE = 0.005


class Reversed(Carrier):
    """The control: moves masks against the flow, and asks nothing."""

    def _motion(self, old_seq: int, new_seq: int) -> Float32 | None:
        flow_hw2 = super()._motion(old_seq, new_seq)
        return None if flow_hw2 is None else -flow_hw2

    @staticmethod
    def _is_explained(*pictures: object) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class Pair:
    """One object on one frame, with a mask so many frames old: J and F as it was, moved, and moved the wrong way."""

    block: str
    age: int
    j: tuple[float, float, float]
    f: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Video:
    """A sequence in memory: its frames, and uint8 [T, H, W] the id of what is visible at each pixel."""

    frames: list[Frame]
    ids_thw: ImageU8

    @staticmethod
    def of(sequence: Sequence, most: int | None) -> Video:
        count = min(sequence.count, most or sequence.count)
        period_ns = int(1e9 / FPS)
        frames = [Frame(sequence.image(t), t, sequence.name, captured_ns=t * period_ns) for t in range(count)]
        ids_thw = np.zeros((count, frames[0].height, frames[0].width), np.uint8)
        for t in range(count):
            for i, mask_hw in (sequence.truth(t) or {}).items():
                ids_thw[t][mask_hw] = i
        return Video(frames, ids_thw)


def groups(data: Path, most: int | None) -> Iterator[tuple[str, Video]]:
    """(group, video) of all, one in memory at a time: what nano's training left for validation, and its DAVIS part."""
    training = read_config(TRAINING)
    kept = {m.path: m for m in training.validation}
    used = {m.path: m for m in training.videos}
    chosen = {
        "davis-validation": kept["davis-subset"], "davis-train": used["davis-subset"],
        "robotic-val": kept["robotic-tools"],
    }  # fmt: skip
    for group, m in chosen.items():
        for sequence in open_dataset(data / m.path, m.layout, m.sequences).sequences:
            yield group, Video.of(sequence, most)
    for sequence in open_dataset(SCENES).sequences:
        yield "synthetic", Video.of(sequence, most)


def true_masks(frame: Frame, ids_hw: np.ndarray) -> Masks:
    """The truth as a network would say it; no object that is not there."""
    ids = tuple(int(i) for i in np.unique(ids_hw) if i)
    small = [cv2.resize((ids_hw == i).astype(np.float32), (GRID, GRID), interpolation=cv2.INTER_AREA) for i in ids]
    logits_bhw = np.stack(small).astype(np.float32) - np.float32(0.5) if ids else np.zeros((0, GRID, GRID), np.float32)
    ones = (1.0,) * len(ids)
    size = (frame.height, frame.width)
    at_ns = frame.captured_ns
    return Masks(frame.seq, frame.session, at_ns, at_ns, *size, ids, ("",) * len(ids), ones, ones, logits_bhw)


def tracked_masks(engine: rtseg.Engine, video: Video) -> list[Masks]:
    """What the tracker says, having been shown the true masks on the first frame."""
    tracker = rtseg.Tracker(engine)
    first_hw = video.ids_thw[0]
    for i in [int(i) for i in np.unique(first_hw) if i][: engine.recipe.max_objects]:
        tracker.prompt(i, mask=first_hw == i)
    return [tracker.step(frame) for frame in video.frames]


def compare(video: Video, masks: list[Masks], ages: list[int]) -> list[Pair]:
    """Every frame with masks of every age."""
    pairs = []
    carriers = (Carrier(), Reversed())
    for t, frame in enumerate(video.frames):
        for carrier in carriers:
            carrier.add(frame)
        for age in (age for age in ages if age <= t):
            old = masks[t - age]
            shown = (old, *(carrier.carry(old, frame, np.inf) for carrier in carriers))
            for i in (i for i in old.ids if (video.ids_thw[t - age] == i).any()):
                truth_hw = video.ids_thw[t] == i
                masks_hw = [m.mask(i) for m in shown]
                if not masks_hw[0].any():
                    continue
                near = tolerance_px(frame.height, frame.width)
                j = tuple(iou(*areas(truth_hw, mask_hw)) for mask_hw in masks_hw)
                f = tuple(boundary_f(truth_hw, mask_hw, near) for mask_hw in masks_hw)
                pairs.append(Pair(f"{frame.session} {t // BLOCK}", age, j, f))
    return pairs


def interval(pairs: list[Pair]) -> tuple[float, float]:
    """95 % of the mean gain in J, by drawing blocks of frames with replacement."""
    blocks = list(dict.fromkeys(p.block for p in pairs))
    gains = [[p.j[1] - p.j[0] for p in pairs if p.block == block] for block in blocks]
    sums, counts = np.array([sum(g) for g in gains]), np.array([len(g) for g in gains])
    drawn = np.random.default_rng(0).integers(0, len(blocks), (DRAWS, len(blocks)))
    low, high = np.percentile(sums[drawn].sum(1) / counts[drawn].sum(1), (2.5, 97.5))
    return round(float(low), 4), round(float(high), 4)


def row(group: str, source: str, age: int, pairs: list[Pair]) -> dict[str, Any]:
    j, f = (np.array([getattr(p, name) for p in pairs]) for name in "jf")
    means = {f"{name}_{how}": round(float(v), 4) for name, values in (("j", j), ("f", f))
             for how, v in zip(("still", "carried", "reversed"), values.mean(0), strict=True)}  # fmt: skip
    worse, better = (float((sign * (j[:, 1] - j[:, 0]) > WORSE).mean()) for sign in (-1, 1))
    shares = {"gain": round(float((j[:, 1] - j[:, 0]).mean()), 4), "gain_95": interval(pairs)}
    return {"group": group, "masks": source, "age": age, "count": len(pairs), **means, **shares,
            "worse": round(worse, 4), "better": round(better, 4)}  # fmt: skip


def measure(engine: rtseg.Engine, data: Path, ages: list[int], frames: int | None) -> list[dict[str, Any]]:
    """One row a group, source of masks and age; says on stderr what it is at."""
    found: dict[tuple[str, str], list[Pair]] = {}
    for group, video in groups(data, frames):
        print(f"{group}: {video.frames[0].session}", file=sys.stderr, flush=True)
        truth = [true_masks(frame, ids_hw) for frame, ids_hw in zip(video.frames, video.ids_thw, strict=True)]
        for source, masks in (("truth", truth), ("tracker", tracked_masks(engine, video))):
            found.setdefault((group, source), []).extend(compare(video, masks, ages))
    rows = []
    for (group, source), pairs in found.items():
        some = {age: [p for p in pairs if p.age == age] for age in ages}
        rows += [row(group, source, age, some[age]) for age in ages if some[age]]
    return rows


def cost(ages: list[int]) -> dict[int, dict[str, float]]:
    """`see` and `carry` on 1280x720 with two objects, ms, on one thread."""
    (sequence,) = open_dataset(f"synthetic:laparoscopy?seed={HELD_OUT_SEED}&seconds=2").sequences
    video = Video.of(sequence, 40)
    masks = [true_masks(frame, ids_hw) for frame, ids_hw in zip(video.frames, video.ids_thw, strict=True)]
    return {age: summary(_times(video.frames, masks, age)) for age in ages}


def _times(frames: list[Frame], masks: list[Masks], age: int) -> list[float]:
    carrier, times = Carrier(), []
    for t, frame in enumerate(frames):
        start_ns = now_ns()
        carrier.add(frame)
        if t >= age:
            carrier.carry(masks[t - age], frame, np.inf)
            times.append((now_ns() - start_ns) / 1e6)
    return times


def table(result: dict[str, Any]) -> Table:
    made = Table(title=f"masks carried along, {result['engine']}", title_justify="left", box=None, pad_edge=False)
    for name in ("group", "masks"):
        made.add_column(name, no_wrap=True)
    for name in ("age", "count", "J still", "J carried", "gain (95 %)", "worse", "F still", "F carried", "J reversed"):
        made.add_column(name, justify="right")
    for r in result["rows"]:
        gain = f"{r['gain']:+.3f} ({r['gain_95'][0]:+.3f} to {r['gain_95'][1]:+.3f})"
        values = (f"{r[key]:.3f}" for key in ("f_still", "f_carried", "j_reversed"))
        j = (f"{r[key]:.3f}" for key in ("j_still", "j_carried"))
        made.add_row(r["group"], r["masks"], str(r["age"]), str(r["count"]), *j, gain, f"{r['worse']:.1%}", *values)
    ms = ", ".join(f"{age}: {s['p50']:.1f} / {s['p95']:.1f}" for age, s in result["ms_720p"].items())
    made.caption = f"ms at 1280x720, two objects, one thread, by age, p50 / p95: {ms}"
    return made


def main(arguments: list[str] | None = None) -> int:
    """`python -m bench.carry`."""
    parser = argparse.ArgumentParser(prog="python -m bench.carry", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--engine", type=Path, default=ENGINE, help="the recipe (default: engines/nano-cpu.toml)")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with robotic-tools and davis-subset")
    parser.add_argument("--ages", default="1,2,3,5", help="how many frames old the masks are (default: 1,2,3,5)")
    parser.add_argument("--frames", type=int, help="at most so many frames a sequence (default: all)")
    parser.add_argument("--json", action="store_true", help="print one JSON document in place of the table")
    given = parser.parse_args(arguments)
    try:
        ages = sorted({int(age) for age in given.ages.split(",")})
    except ValueError:
        ages = [0]
    if not 1 <= ages[0] <= ages[-1] <= 15:
        parser.error(f"--ages {given.ages}: expected numbers from 1 to 15 with commas between, as in 1,2,3,5")
    cv2.setNumThreads(1)
    try:
        engine = rtseg.open_engine(given.engine)
        rows = measure(engine, given.data, ages, given.frames)
    except rtseg.RtsegError as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    result = {"version": rtseg.__version__, "engine": engine.description, "rows": rows, "ms_720p": cost(ages)}
    if given.json:
        print(json.dumps(result, indent=1))
    else:
        Console(width=max(Console().width, 132)).print(table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
