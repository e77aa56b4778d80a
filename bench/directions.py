"""What a backward pass adds: J of each way through sequences whose object is prompted late, or twice.

    python -m bench.directions DATA... [--engine RECIPE.toml] [--every 1] [--most 80] [--json FILE]

DATA are data sets (folders, or `synthetic:laparoscopy?seed=10000-10009&seconds=4&fps=12.5`). Each object of a sequence
is prompted with its mask

    middle   on the frame in the middle of those on which it is visible
    ends     on the first and on the last frame on which it is visible

and tracked. J is the mean over all annotated frames but the prompted ones, where the object or a mask is; a frame
that a way does not reach has no mask. The rows:

    forward, backward  one pass
    nearest            of two passes the one with the nearer prompt
    surest             the one that is surer of what it says
    both               what `--direction both` takes: surer times nearer
    best               the one with the higher J: the most that any rule could reach
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

import numpy as np

import rtseg
from rtseg.base.types import BoolMask, Frame, ImageU8, Masks, Prompt
from rtseg.data import dataset, open_dataset
from rtseg.engine.recipe import load_recipe
from rtseg.offline.direction_merge import sureness, takes_backward

ENGINE = Path(__file__).parents[1] / "engines" / "nano-cpu.toml"
Rule = Callable[["Seen", "Seen", int, int], bool]
RULES: dict[str, Rule] = {
    "forward": lambda f, b, since, until: False,
    "backward": lambda f, b, since, until: True,
    "nearest": lambda f, b, since, until: until < since,
    "surest": lambda f, b, since, until: b.sure > f.sure,
    "both": lambda f, b, since, until: takes_backward(f.sure, b.sure, since, until),
    "best": lambda f, b, since, until: b.j > f.j,
}
ALONE = ("forward", "backward")
VISIBLE, FEW = 200, 5  # pixels of a mask that can be prompted; frames with one that an object needs
Way = dict[int, dict[int, "Seen"]]  # by id and frame


@dataclass(frozen=True)
class Seen:
    """What a pass says of the object on a frame: how sure it is, and the J of it."""

    sure: float
    j: float
    score: float
    iou: float
    drawn: bool
    lost: bool


@dataclass(frozen=True)
class Trace:
    """One object of a sequence, prompted on these frames: what the passes say of each annotated frame."""

    sequence: str
    object_id: int
    prompted: tuple[int, ...]
    forward: dict[int, Seen]
    backward: dict[int, Seen]
    nothing: dict[int, float]  # the J of no mask, of every frame that counts

    def j(self, name: str) -> float:
        """The mean J of one row."""
        return fmean(self.on(name, t) for t in self.nothing)

    def on(self, name: str, t: int) -> float:
        """The J of one row on a frame."""
        f, b = self.forward.get(t), self.backward.get(t)
        if name in ALONE or f is None or b is None:
            only = f if name == "forward" else b if name == "backward" else f or b
            return self.nothing[t] if only is None else only.j
        since = min(t - p for p in self.prompted if p <= t)
        until = min(p - t for p in self.prompted if p >= t)
        return (b if RULES[name](f, b, since, until) else f).j


def overlap(one_hw: BoolMask, other_hw: BoolMask) -> float:
    union = int((one_hw | other_hw).sum())
    return 1.0 if not union else int((one_hw & other_hw).sum()) / union


def seen(masks: Masks, object_id: int, truth_hw: BoolMask) -> Seen:
    mask_hw, lost = masks.mask(object_id), object_id in masks.lost
    drawn, score, iou = bool(mask_hw.any()), masks.score(object_id), masks.iou(object_id)
    return Seen(sureness(score, iou, drawn=drawn, lost=lost), overlap(mask_hw, truth_hw), score, iou, drawn, lost)


@dataclass(frozen=True)
class Clip:
    """Pictures of a sequence, and the masks of its objects on the annotated ones."""

    sequence: dataset.Sequence
    pictures: dict[int, ImageU8]
    truths: dict[int, dict[int, BoolMask]]

    @classmethod
    def read(cls, sequence: dataset.Sequence, frames: Sequence[int]) -> Clip:
        pictures, truths = {t: sequence.image(t) for t in frames}, {}
        none_hw = np.zeros(pictures[frames[0]].shape[:2], np.bool_)
        for t in frames:
            truth = sequence.truth(t)
            if truth is not None:
                truths[t] = {each.id: truth.get(each.id, none_hw) for each in sequence.targets}
        return cls(sequence, pictures, truths)

    def prompted(self, object_id: int, where: str) -> tuple[int, ...]:
        """The frames on which an object is prompted; none if it is visible on too few."""
        visible = [t for t, truth in sorted(self.truths.items()) if truth[object_id].sum() > VISIBLE]
        if len(visible) < FEW:
            return ()
        return (visible[len(visible) // 2],) if where == "middle" else (visible[0], visible[-1])


def one_pass(engine: rtseg.Engine, clip: Clip, prompted: dict[int, tuple[int, ...]], *, back: bool) -> Way:
    """What a pass says of each object, by frame, from its first prompt on."""
    tracker = rtseg.Tracker(engine)
    tracker.cuts = not clip.sequence.volume
    found: Way = {i: {} for i in prompted}
    for t in sorted(clip.pictures, reverse=back):
        for i, frames in prompted.items():
            if t in frames:
                tracker.give(Prompt(i, mask=clip.truths[t][i]))
        if tracker.ids:
            masks = tracker.step(Frame(clip.pictures[t], t))
            for i in masks.ids if t in clip.truths else ():
                found[i][t] = seen(masks, i, clip.truths[t][i])
    return found


def trace(engine: rtseg.Engine, clip: Clip, where: str) -> list[Trace]:
    """Both passes over a clip: one trace for each object."""
    chosen = {each.id: clip.prompted(each.id, where) for each in clip.sequence.targets}
    prompted = {i: frames for i, frames in chosen.items() if frames}
    if not prompted:
        return []
    ways = [one_pass(engine, clip, prompted, back=back) for back in (False, True)]
    found = []
    for i, frames in prompted.items():
        drawn = {t for way in ways for t, each in way[i].items() if each.drawn}
        counted = {t: truth[i].any() for t, truth in clip.truths.items() if t not in frames}
        nothing = {t: 0.0 if there else 1.0 for t, there in counted.items() if there or t in drawn}
        found.append(Trace(clip.sequence.name, i, frames, ways[0][i], ways[1][i], nothing))
    return found


def table(traces: Sequence[Trace], where: str) -> str:
    """One line a row: mean over objects, and on how many objects it is better and worse than forward."""
    lines = [f"{where}: {len(traces)} objects", "| way | J | better | worse |", "|---|---|---|---|"]
    for name in RULES:
        js, ahead = [t.j(name) for t in traces], [t.j("forward") for t in traces]
        pairs = list(zip(js, ahead, strict=True))
        better, worse = sum(a > b + 0.01 for a, b in pairs), sum(a < b - 0.01 for a, b in pairs)
        lines.append(f"| {name} | {fmean(js):.3f} | {better} | {worse} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """`python -m bench.directions`."""
    parser = argparse.ArgumentParser(prog="python -m bench.directions", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("data", nargs="+", help="data sets")
    parser.add_argument("--engine", type=Path, default=ENGINE, help="the recipe (default: engines/nano-cpu.toml)")
    parser.add_argument("--sequences", nargs="*", default=[], help="those to take (default: all)")
    parser.add_argument("--every", type=int, default=1, help="take each so-manieth frame (default: 1)")
    parser.add_argument("--most", type=int, default=80, help="frames of a sequence at most (default: 80)")
    parser.add_argument("--json", type=Path, help="write every frame's values, too")
    given = parser.parse_args(arguments)
    engine = rtseg.open_engine(load_recipe(given.engine))
    print(f"{engine.recipe.model}, {engine.description}")
    sequences = [each for data in given.data for each in open_dataset(data, None, given.sequences).sequences]
    kept: dict[str, list[Trace]] = {"middle": [], "ends": []}
    for sequence in sequences:
        clip = Clip.read(sequence, range(0, sequence.count, given.every)[: given.most])
        for where, traces in kept.items():
            traces += trace(engine, clip, where)
    for where, traces in kept.items():
        print(table(traces, where), flush=True)
    if given.json:
        given.json.write_text(json.dumps({where: [asdict(each) for each in kept[where]] for where in kept}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
