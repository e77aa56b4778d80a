"""The edges of masks, from the network's cells to the picture's pixels: what ways there are, and what each costs.

    python -m bench.edges DATA/davis-subset:dog,goat,libby,kite-surf DATA/robotic-tools:robotic-val
    python -m bench.edges DATA/endovis15-stills:op3 --stills
    python -m bench.edges DATA/davis-subset:dog --truth       # not the network's logits, but the truth in as many cells
    python -m bench.edges DATA/davis-subset:dog --speed       # a step with and without, at three sizes of picture

Each group is a folder in DAVIS's layout with the sequences to take. Objects are tracked from their first mask; with
`--stills` each picture and object is alone, from its box. A column a group: J, F of DAVIS, and F within 2 pixels. All
ways get the same logits; `ours` is what a tracker's masks are (rtseg/base/edges.py).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median

import cv2
import numpy as np

import rtseg
from rtseg.base import edges
from rtseg.base.types import BoolMask, Float32, Frame, ImageU8
from rtseg.data import open_dataset
from rtseg.data.dataset import Sequence
from rtseg.engine.cpu.edges import compiled_refine
from rtseg.evaluate.metrics.boundary import boundary_f, tolerance_px

CLOSE = 2  # pixels, of the stricter F
SIZES = ((854, 480), (1280, 720), (1920, 1080))

Case = tuple[ImageU8, BoolMask, Float32]  # a picture, the truth, the network's logits
Way = Callable[[ImageU8, Float32], Float32]


def bilinear(image_hwc: ImageU8, logits_hw: Float32) -> Float32:
    return np.asarray(cv2.resize(logits_hw, image_hwc.shape[1::-1], interpolation=cv2.INTER_LINEAR), np.float32)


def bicubic(image_hwc: ImageU8, logits_hw: Float32) -> Float32:
    return np.asarray(cv2.resize(logits_hw, image_hwc.shape[1::-1], interpolation=cv2.INTER_CUBIC), np.float32)


def guided(image_hwc: ImageU8, logits_hw: Float32, reach: int = 2, smooth: float = 1e-3) -> Float32:
    """The fast guided filter on luma (He and Sun, arXiv 1505.00996): linear models of cells, applied to pixels."""

    def mean(x_hw: Float32) -> Float32:
        return np.asarray(cv2.blur(x_hw, (2 * reach + 1,) * 2, borderType=cv2.BORDER_REPLICATE), np.float32)

    luma_hw = cv2.cvtColor(image_hwc, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    cells_hw = np.asarray(cv2.resize(luma_hw, logits_hw.shape[::-1], interpolation=cv2.INTER_AREA), np.float32)
    logits_hw = np.clip(logits_hw, -edges.CLIP, edges.CLIP)
    light_hw, level_hw = mean(cells_hw), mean(logits_hw)
    slope_hw = (mean(cells_hw * logits_hw) - light_hw * level_hw) / (mean(cells_hw**2) - light_hw**2 + smooth)
    offset_hw = level_hw - slope_hw * light_hw
    slope_hw, offset_hw = (bilinear(image_hwc, mean(x)) for x in (slope_hw, offset_hw))
    return np.asarray(slope_hw * luma_hw + offset_hw, np.float32)


def walker(
    image_hwc: ImageU8, logits_hw: Float32, rounds: int = 60, alike: float = 300, prior: float = 0.08
) -> Float32:
    """A random walker with a prior, on half cells, near edges alone; Jacobi's iterations."""
    size = 2 * logits_hw.shape[1], 2 * logits_hw.shape[0]
    c = np.asarray(cv2.resize(image_hwc, size, interpolation=cv2.INTER_AREA), np.float32) / 255
    across, down = (np.exp(-alike * ((a - b) ** 2).sum(2)) for a, b in ((c[:, 1:], c[:, :-1]), (c[1:], c[:-1])))
    halves_hw = np.asarray(cv2.resize(logits_hw, size, interpolation=cv2.INTER_LINEAR), np.float32)
    start_hw = np.tanh(np.clip(halves_hw, -edges.CLIP, edges.CLIP) / 2)
    trust_hw = prior * (1 + 4 * start_hw**2)
    side_hw = (logits_hw > 0).astype(np.uint8)
    beside = np.ones((3, 3), np.uint8)
    near_hw = cv2.dilate(cv2.dilate(side_hw, beside) - cv2.erode(side_hw, beside), np.ones((5, 5), np.uint8))
    near_hw = cv2.resize(near_hw, size, interpolation=cv2.INTER_NEAREST)
    x_hw = start_hw.copy()
    for _ in range(rounds):
        total_hw, weight_hw = trust_hw * start_hw, trust_hw.copy()
        for weight, one, other in (
            (across, np.s_[:, 1:], np.s_[:, :-1]), (across, np.s_[:, :-1], np.s_[:, 1:]),
            (down, np.s_[1:], np.s_[:-1]), (down, np.s_[:-1], np.s_[1:]),
        ):  # fmt: skip
            total_hw[one] += weight * x_hw[other]
            weight_hw[one] += weight
        x_hw = np.where(near_hw > 0, total_hw / weight_hw, x_hw)
    return bilinear(image_hwc, np.where(near_hw > 0, 4 * x_hw, halves_hw).astype(np.float32))


def ours(image_hwc: ImageU8, logits_hw: Float32) -> Float32:
    guide = edges.Guide.of(Frame(image_hwc, 0), *logits_hw.shape, compiled_refine())
    return bilinear(image_hwc, guide.fit(logits_hw) if guide else logits_hw)


WAYS: dict[str, Way] = {"bilinear": bilinear, "bicubic": bicubic, "guided": guided, "walker": walker, "ours": ours}


def in_cells(truth_hw: BoolMask, side: int) -> Float32:
    """Logits that say how much of each cell the truth covers."""
    cover_hw = cv2.resize(truth_hw.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(12 * (cv2.GaussianBlur(cover_hw, (3, 3), 0.5) - 0.5), np.float32)


def cases(engine: rtseg.Engine, sequence: Sequence, stills: bool, step: int) -> Iterator[Case]:
    """Every `step`-th frame of a sequence after the prompt, or each object of each still."""
    tracker = rtseg.Tracker(engine)
    for t in range(sequence.count):
        truth, image_hwc = sequence.truth(t) or {}, sequence.image(t)
        if stills:
            for mask_hw in truth.values():
                y, x = (np.flatnonzero(mask_hw.any(axis)) for axis in (1, 0))
                alone = rtseg.Tracker(engine)
                alone.prompt(1, box=(x[0], y[0], x[-1] + 1, y[-1] + 1))
                yield image_hwc, mask_hw, alone.step(image_hwc).mask_logits_bhw[0]
            continue
        new = [i for i in truth if i not in tracker.ids]
        for i in new:
            tracker.prompt(i, mask=truth[i])
        masks = tracker.step(image_hwc)
        none_hw = np.zeros(image_hwc.shape[:2], np.bool_)
        for row, i in enumerate(masks.ids):
            if i not in new and t % step == 0:
                yield image_hwc, truth.get(i, none_hw), masks.mask_logits_bhw[row]


def cases_of(engine: rtseg.Engine, group: str, stills: bool, step: int) -> list[list[Case]]:
    """Those of each sequence of a group: FOLDER:SEQUENCE,..."""
    folder, _, names = group.partition(":")
    dataset = open_dataset(folder, None, tuple(filter(None, names.split(","))))
    return [list(cases(engine, sequence, stills, step)) for sequence in dataset.sequences]


def score(found: list[Case], way: Way) -> tuple[float, float, float, float]:
    """Mean J, F, F within 2 pixels, and milliseconds a mask."""
    rows = []
    for image_hwc, truth_hw, logits_hw in found:
        start = time.perf_counter()
        mask_hw = way(image_hwc, logits_hw) > 0
        ms = (time.perf_counter() - start) * 1e3
        either = np.count_nonzero(mask_hw | truth_hw)
        j = np.count_nonzero(mask_hw & truth_hw) / either if either else 1.0
        f, close = (boundary_f(truth_hw, mask_hw, r) for r in (tolerance_px(*truth_hw.shape), CLOSE))
        rows.append((j, f, close, ms))
    j, f, close, _ = np.mean(rows, axis=0)
    return float(j), float(f), float(close), median(row[3] for row in rows)


def speed(engine: rtseg.Engine, image_hwc: ImageU8, mask_hw: BoolMask, objects: int, rounds: int) -> Iterator[str]:
    """A step and its masks at the picture's size, with edges and without, by turns."""
    for size in SIZES:
        frame = np.asarray(cv2.resize(image_hwc, size), np.uint8)
        full_hw = cv2.resize(mask_hw.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
        tracker = rtseg.Tracker(engine)
        for i in range(objects):
            tracker.prompt(i + 1, mask=full_hw)
        took: dict[str, list[float]] = {"step": [], "plain": [], "edges": []}
        for _ in range(rounds):
            start = time.perf_counter()
            masks = tracker.step(frame)
            took["step"].append(time.perf_counter() - start)
            for name, shown in (("plain", replace(masks, guide=None)), ("edges", replace(masks))):
                start = time.perf_counter()
                if name == "edges":  # the step has made a guide already; made again, so that it counts here alone
                    edges.Guide.of(Frame(frame, 0), *masks.mask_logits_bhw.shape[1:], compiled_refine())
                for i in shown.ids:
                    shown.mask(i)
                took[name].append(time.perf_counter() - start)
        step, plain, fitted = (1e3 * median(took[name]) for name in took)
        share = (fitted - plain) / (step + plain)
        yield f"| {size[0]}x{size[1]} | {objects} | {step:.1f} | {plain:.2f} | {fitted:.2f} | {share:.1%} |"


def main(arguments: list[str] | None = None) -> int:
    """`python -m bench.edges`."""
    parser = argparse.ArgumentParser(prog="python -m bench.edges", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("groups", nargs="+", metavar="FOLDER[:SEQUENCE,...]")
    parser.add_argument("--engine", type=Path, default=Path("engines/nano-cpu.toml"), metavar="RECIPE.toml")
    parser.add_argument("--stills", action="store_true", help="each picture and object alone, from its box")
    parser.add_argument("--truth", action="store_true", help="the truth in cells, instead of the network's logits")
    parser.add_argument("--speed", action="store_true", help="a step with edges and without, in milliseconds")
    parser.add_argument("--step", type=int, default=2, help="score every n-th frame (default: 2)")
    parser.add_argument("--rounds", type=int, default=30, help="for --speed (default: 30)")
    given = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    try:
        engine = rtseg.open_engine(given.engine)
        found = [cases_of(engine, group, given.stills, given.step) for group in given.groups]
    except rtseg.RtsegError as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    if given.speed:
        print(
            "| picture | objects | step, ms | bilinear masks | with edges | more of both |\n|---|---|---|---|---|---|"
        )
        for objects in (1, engine.recipe.max_objects):
            print(*speed(engine, *found[0][0][0][:2], objects, given.rounds), sep="\n", flush=True)
        return 0
    if given.truth:
        found = [[[(i, m, in_cells(m, len(x))) for i, m, x in one] for one in group] for group in found]
    print("| way | " + " | ".join(given.groups) + " | ms |\n" + "|---" * (len(found) + 2) + "|")
    for name, way in WAYS.items():
        scores = [np.mean([score(one, way) for one in group], axis=0) for group in found]
        cells = [f"{j:.3f} {f:.3f} {close:.3f}" for j, f, close, _ in scores]
        print(f"| {name} | " + " | ".join(cells) + f" | {median(s[3] for s in scores):.1f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
