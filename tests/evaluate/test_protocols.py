"""When objects are prompted, how they are followed, and that people's clicks do what they would in an operating room.

Most of it with a tracker whose faults are known: it sees the truth in the picture and drifts off it, step by step.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence as Frames
from copy import copy
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rtseg import Tracker
from rtseg.base.rle import decode_rle
from rtseg.base.types import BoolMask, Frame, Prompt
from rtseg.data.dataset import Sequence, Target
from rtseg.engine.recipe import Recipe
from rtseg.engine.reference import TorchEngine
from rtseg.evaluate import Tracked
from rtseg.evaluate.prompting import prompter, stored
from rtseg.evaluate.protocols import (
    Patience,
    alone,
    both_ways,
    every,
    follow,
    interactive,
    on_all,
    on_entry,
    on_first_frame,
    on_slices,
    passes,
    scheduled,
    survey,
)
from rtseg.evaluate.result import Result
from rtseg.evaluate.score import score
from rtseg.evaluate.summary import summarise
from rtseg.sam2 import Sam2, get_preset

H, W = 48, 64
BOXES = {1: (4, 4), 2: (26, 4), 3: (4, 40)}  # top and left of each object, 18 x 20 pixels


def truth_of(i: int) -> BoolMask:
    mask_hw = np.zeros((H, W), bool)
    y, x = BOXES[i]
    mask_hw[y : y + 18, x : x + 20] = True
    return mask_hw


def scene(visible: dict[int, Frames[int]], count: int = 12, annotated: Frames[int] | None = None) -> Sequence:
    """Still objects that are there on the frames given; each picture holds the ids of what is to be seen."""

    def image(t: int) -> np.ndarray:
        image_hwc = np.full((H, W, 3), 9, np.uint8)
        image_hwc[..., 2] = t
        for i, frames in visible.items():
            if t in frames:
                image_hwc[truth_of(i)] = (60 * i, 200 - 50 * i, t)
        return image_hwc

    def truth(t: int) -> dict[int, BoolMask] | None:
        if annotated is not None and t not in annotated:
            return None
        return {i: truth_of(i) for i, frames in visible.items() if t in frames}

    return Sequence("scene", count, tuple(Target(i, f"tool {i}") for i in visible), image, truth)


class Drifter:
    """A tracker that is `drift` pixels further off its object with each step since it was told where it is.

    A mask or a box puts it right; a click brings it `heed` pixels nearer.
    """

    def __init__(self, limit: int = 4, drift: int = 0, heed: int = 3, log: list[Frame] | None = None) -> None:
        self.engine = SimpleNamespace(recipe=SimpleNamespace(max_objects=limit))
        self.log = [] if log is None else log
        self._open = partial(Drifter, limit, drift, heed)
        self._limit, self._drift, self._heed = limit, drift, heed
        self._off: dict[int, int] = {}
        self._said: dict[int, Prompt] = {}

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(sorted({*self._off, *self._said}))

    def give(self, prompt: Prompt) -> None:
        self._said[prompt.id] = prompt
        assert len(self.ids) <= self._limit

    def fork(self, ids: Frames[int], seq: int) -> Drifter:
        fork = self._open()
        fork._off = {i: self._off[i] for i in ids if i in self._off}
        return fork

    def adopt(self, fork: Drifter) -> None:
        self._off |= fork._off

    def step(self, frame: Frame) -> SimpleNamespace:
        self.log.append(frame)
        masks = {}
        for i in self.ids:
            said = self._said.get(i)
            off = self._off.get(i, 20 - self._drift) + self._drift
            if said is not None:
                off = max(0, off - self._heed * len(said.points)) if said.points else 0
            self._off[i] = off
            seen_hw = frame.image_hwc[..., 0] == 60 * i
            masks[i] = np.pad(seen_hw, ((0, 0), (off, 0)))[:, :W]
        self._said = {}
        return SimpleNamespace(ids=tuple(masks), mask=masks.__getitem__, score=lambda i: 1.0)


def iou(sequence: Sequence, tracked: Tracked, t: int, i: int) -> float:
    mask_hw = decode_rle(tracked.masks[t][i].counts, H, W)
    truth_hw = (sequence.truth(t) or {}).get(i, np.zeros((H, W), bool))
    return float((mask_hw & truth_hw).sum() / (mask_hw | truth_hw).sum()) if (mask_hw | truth_hw).any() else 1.0


def mean_iou(sequence: Sequence, tracked: Tracked, i: int = 1) -> float:
    return float(np.mean([iou(sequence, tracked, t, i) for t in tracked.masks]))


def prompted(tracked: Tracked) -> list[tuple[int, int]]:
    return [(entry["frame"], entry["id"]) for entry in tracked.prompts]


AREAS = {1: {0: 5, 1: 9, 2: 9, 3: 1}, 2: {2: 4, 3: 6, 7: 2, 8: 2}}


def test_where_objects_are_visible_and_how_large() -> None:
    sequence = scene({1: range(3), 2: range(6, 9), 3: ()}, annotated=range(0, 12, 2))
    assert survey(sequence) == {1: {0: 360, 2: 360}, 2: {6: 360, 8: 360}}


def test_when_objects_are_prompted() -> None:
    assert on_first_frame(AREAS) == {0: (1,)}
    assert on_first_frame({2: AREAS[2]}) == {2: (2,)}
    assert on_entry(AREAS) == {0: (1,), 2: (2,)}
    assert every(AREAS, 3) == {0: (1,), 2: (2,), 3: (1,), 7: (2,)}
    assert every(AREAS, 2) == {0: (1,), 2: (1, 2), 7: (2,)}  # 2 is due on 4, and next visible on 7
    assert every(AREAS, 1) == on_all(AREAS)
    assert on_slices(AREAS) == {1: (1,), 3: (2,)}
    assert on_slices(AREAS, (8, 1, 3)) == {1: (1,), 3: (1, 2), 8: (2,)}
    assert on_slices(AREAS, (5,)) == on_first_frame({}) == on_entry({}) == {}


def test_objects_that_are_prompted_late_share_a_pass() -> None:
    schedule = {0: (1, 4), 5: (2,), 6: (3, 4)}
    assert passes(schedule, range(9), 2) == [{0: (1, 4), 6: (4,)}, {5: (2,), 6: (3,)}]
    assert passes(schedule, range(9)[::-1], 2) == [{6: (3, 4), 0: (4,)}, {5: (2,), 0: (1,)}]
    assert passes(schedule, range(9), 9) == [schedule]


def test_one_prompt_on_the_first_frame() -> None:
    sequence = scene({1: range(2, 12), 2: range(2, 6), 3: range(4, 12)})
    tracked = run(sequence, on_first_frame, log := [])
    assert prompted(tracked) == [(2, 1), (2, 2)] and tracked.given == {(2, 1), (2, 2)}
    assert [frame.seq for frame in log] == list(range(2, 12))  # nothing is looked at before there is something to do
    assert {t: tuple(masks) for t, masks in tracked.masks.items()} == dict.fromkeys(range(2, 12), (1, 2))
    assert mean_iou(sequence, tracked) == 1 and len(tracked.ms) == 10


def run(sequence: Sequence, rule: object, log: list[Frame] | None = None, kind: str = "mask", **faults: int) -> Tracked:
    say = prompter(kind, 0, sequence)
    return follow(sequence, rule(survey(sequence)), partial(Drifter, log=log, **faults), say)


def test_an_object_is_prompted_as_it_enters() -> None:
    sequence = scene({1: range(12), 2: range(5, 9)})
    tracked = run(sequence, on_entry)
    assert prompted(tracked) == [(0, 1), (5, 2)]
    assert 2 not in tracked.masks[4] and 2 in tracked.masks[5] and 2 in tracked.masks[11]


def test_prompts_again_and_again_keep_a_tracker_that_drifts_on_its_object() -> None:
    sequence = scene({1: range(12)})
    once = run(sequence, on_entry, drift=2)
    again = run(sequence, partial(every, k=4), drift=2)
    assert prompted(again) == [(0, 1), (4, 1), (8, 1)]
    assert [iou(sequence, again, t, 1) for t in (4, 8)] == [1, 1]
    assert mean_iou(sequence, again) > mean_iou(sequence, once) + 0.2
    steady = [run(sequence, rule) for rule in (on_entry, partial(every, k=4))]
    assert mean_iou(sequence, steady[0]) == mean_iou(sequence, steady[1]) == 1  # the negative control


def test_more_objects_than_the_engine_takes_are_followed_in_further_passes() -> None:
    sequence = scene({1: range(12), 2: range(12), 3: range(3, 12)})
    read: list[int] = []
    counted = replace(sequence, image=lambda t: (read.append(t), sequence.image(t))[1])
    together, in_turns = run(counted, on_entry, limit=3), run(counted, on_entry, limit=2)
    assert sorted(read) == sorted([*range(12), *range(12), *range(3, 12)])  # each frame once a pass
    assert in_turns.masks == together.masks and in_turns.prompts == together.prompts


def test_backward_ends_at_the_prompted_slice() -> None:
    sequence = scene({1: range(12)})
    schedule = on_slices(survey(sequence), (7,))
    tracked = follow(
        sequence, schedule, partial(Drifter, log=(log := [])), prompter("mask", 0, sequence), range(12)[::-1]
    )
    assert [int(frame.image_hwc[0, 0, 2]) for frame in log] == [7, 6, 5, 4, 3, 2, 1, 0]
    assert sorted(tracked.masks) == list(range(8)) and tracked.given == {(7, 1)}


def test_both_ways_are_better_than_one_for_a_tracker_that_drifts() -> None:
    sequence = scene({1: range(12)})
    schedule, say = on_slices(survey(sequence), (2, 9)), prompter("box", 0, sequence)
    both = both_ways(sequence, schedule, partial(Drifter, drift=2), say)
    offs = [20 - 20 * 2 * iou(sequence, both, t, 1) / (1 + iou(sequence, both, t, 1)) for t in range(12)]
    assert np.round(offs).tolist() == [4, 2, 0, 2, 4, 6, 6, 4, 2, 0, 2, 4]
    forward = follow(sequence, schedule, partial(Drifter, drift=2), say)
    assert sorted(forward.masks) == list(range(2, 12))
    later = replace(sequence, truth=lambda t: sequence.truth(t) if t >= 2 else None)
    kept = Tracked(masks={t: both.masks[t] for t in forward.masks})
    assert mean_iou(later, kept) > mean_iou(later, forward) + 0.1
    assert both.prompts == forward.prompts and both.given == forward.given == {(2, 1), (9, 1)}


def test_each_slice_between_two_prompts_is_from_the_nearer_of_two_as_near_from_the_forward_one() -> None:
    sequence = scene({1: range(12), 2: range(12)})
    schedule = {2: (1,), 4: (2,), 8: (1,)}
    ways = []

    class Way(Drifter):
        """Says which way it went, by its score."""

        def __init__(self, way: float) -> None:
            super().__init__()
            self._way = way

        def step(self, frame: Frame) -> SimpleNamespace:
            found = super().step(frame)
            return SimpleNamespace(ids=found.ids, mask=found.mask, score=lambda i: self._way)

    def opened() -> Way:
        ways.append(0)
        return Way(1.0 if len(ways) <= 2 else -1.0)  # of each direction the first only tells its limit

    both = both_ways(sequence, schedule, opened, prompter("mask", 0, sequence))
    signs = {i: "".join("+" if both.masks[t][i].score > 0 else "-" for t in range(12)) for i in (1, 2)}
    assert signs == {1: "--++++--++++", 2: "----++++++++"}


def test_a_lost_object_gets_clicks_and_is_found_again() -> None:
    sequence = scene({1: range(12)})
    schedule, say = on_entry(survey(sequence)), prompter("mask", 0, sequence)
    left = follow(sequence, schedule, partial(Drifter, drift=1), say)
    helped = interactive(sequence, schedule, partial(Drifter, drift=1), say)
    # IoU is below 0.75 from 3 pixels off; three clicks of 3 pixels each put that right.
    assert prompted(helped) == [(0, 1), (3, 1), (6, 1), (9, 1)]
    assert [len(entry["points"]) for entry in helped.prompts[1:]] == [1, 1, 1]  # one click was enough: no error is left
    assert helped.given == {(0, 1)}  # which is the truth itself; what was clicked is judged, as it is after the clicks
    assert iou(sequence, left, 3, 1) < 0.75 and iou(sequence, helped, 3, 1) == 1
    assert mean_iou(sequence, helped) > mean_iou(sequence, left) + 0.2
    assert len(helped.ms) == len(left.ms) == 12


class Clock:
    """A second passes with each look at it."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        self.now += 10**9
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step takes a second."""
    module = importlib.import_module("rtseg.evaluate.protocols.passes")  # a function of the package has its name
    monkeypatch.setattr(module, "now_ns", Clock())


@pytest.mark.usefixtures("clock")
def test_the_time_of_a_frame_is_that_of_all_passes_over_it() -> None:
    sequence = scene({1: range(12), 2: range(12), 3: range(3, 12)})
    assert run(sequence, on_entry, limit=3).ms == [1000] * 12
    assert run(sequence, on_entry, limit=2).ms == [1000] * 3 + [2000] * 9
    schedule, say = on_slices(survey(sequence), (4,)), prompter("mask", 0, sequence)
    assert both_ways(sequence, schedule, Drifter, say).ms == [1000] * 4 + [2000] + [1000] * 7


@pytest.mark.usefixtures("clock")
def test_the_time_of_a_frame_is_also_that_of_its_corrections() -> None:
    sequence = scene({1: range(12)})
    schedule, say = on_entry(survey(sequence)), prompter("mask", 0, sequence)
    helped = interactive(sequence, schedule, partial(Drifter, drift=1), say)
    assert [t for t, ms in enumerate(helped.ms) if ms == 2000] == [3, 6, 9] and sum(helped.ms) == 15000
    points = prompter("points-1", 0, sequence)
    one, more = (alone(sequence, schedule, partial(Drifter, drift=9), points, clicks) for clicks in (0, 2))
    assert (one.ms, more.ms) == ([1000], [3000])


@pytest.mark.parametrize(("kind", "given"), [("mask", {(0, 1)}), ("box", set()), ("points-1", set())])
def test_only_a_mask_that_was_the_prompt_is_given_where_people_help(kind: str, given: set[tuple[int, int]]) -> None:
    sequence = scene({1: range(12)})
    tracked = interactive(sequence, {0: (1,)}, partial(Drifter, drift=2), prompter(kind, 0, sequence))
    assert len(prompted(tracked)) > 2 and tracked.given == given


@pytest.mark.parametrize("kind", ["mask", "box", "points-1"])
def test_a_prompted_frame_is_given_whatever_the_prompt_where_nobody_helps(kind: str) -> None:
    """As DAVIS leaves out the first frame: figures after a click are of the frames of those after a mask."""
    assert run(scene({1: range(12)}), partial(every, k=5), kind=kind).given == {(0, 1), (5, 1), (10, 1)}


def test_a_tracker_that_fails_everywhere_is_not_as_good_as_one_that_follows() -> None:
    """With clicks on every frame there is none on which it was left alone; all count, with what they cost beside."""
    sequence = scene({1: range(8)}, count=8)
    found = {}
    for name, faults in {"follows": {}, "helped": {"drift": 4, "heed": 1}, "hopeless": {"drift": 4, "heed": 0}}.items():
        tracked = interactive(sequence, {0: (1,)}, partial(Drifter, **faults), prompter("mask", 0, sequence))
        rows, _ = score(sequence, tracked)
        (found[name],) = summarise(Result({"protocol": "interactive"}, {}, rows)).objects
    assert [of.frames for of in found.values()] == [7, 7, 7]
    assert found["follows"].iou == 1 > found["helped"].iou > found["hopeless"].iou + 0.2
    assert found["hopeless"].iou < 0.3
    assert [(of.clicks, of.corrected) for of in found.values()] == [(0, 0), (21, 7), (21, 7)]


def test_a_good_mask_is_left_alone() -> None:
    sequence = scene({1: range(12)})
    tracked = interactive(sequence, {0: (1,)}, Drifter, prompter("mask", 0, sequence))
    assert prompted(tracked) == [(0, 1)]


def test_clicks_go_on_while_there_is_an_error_and_patience() -> None:
    sequence = scene({1: range(12)})
    slow = partial(Drifter, drift=6, heed=1)
    tracked = interactive(sequence, {0: (1,)}, slow, prompter("mask", 0, sequence), Patience(clicks=2, frames=3))
    assert prompted(tracked) == [(0, 1), (1, 1), (2, 1)]  # the prompted frame is the first of three
    assert [len(entry.get("points", ())) for entry in tracked.prompts] == [0, 2, 2]


def test_first_clicks_are_made_up_to_as_many_as_a_frame_gets() -> None:
    sequence = scene({1: range(4)}, count=4)
    tracked = interactive(sequence, {0: (1,)}, partial(Drifter, heed=7), prompter("points-1", 0, sequence))
    (entry,) = tracked.prompts
    assert len(entry["points"]) == 3 and iou(sequence, tracked, 3, 1) == 1
    box = interactive(sequence, {0: (1,)}, partial(Drifter, heed=7), prompter("box", 0, sequence))
    assert "points" not in box.prompts[0]


def test_nobody_clicks_where_nothing_is_annotated_or_to_be_seen() -> None:
    sequence = scene({1: [*range(3), *range(8, 12)]}, annotated=[0, *range(4, 12)])
    tracked = interactive(sequence, {0: (1,)}, partial(Drifter, drift=4), prompter("mask", 0, sequence))
    assert [t for t, _ in prompted(tracked)] == [0, 8, 9, 10, 11]


def test_each_image_alone_starts_from_nothing() -> None:
    sequence = scene({1: range(12), 2: range(4, 6)}, annotated=(0, 4, 5))
    tracked = alone(
        sequence, on_all(survey(sequence)), partial(Drifter, limit=1, drift=9), prompter("box", 0, sequence)
    )
    assert {t: tuple(masks) for t, masks in tracked.masks.items()} == {0: (1,), 4: (1, 2), 5: (1, 2)}
    assert tracked.given == set() and mean_iou(sequence, tracked) == 1


def test_further_clicks_make_an_image_better() -> None:
    sequence = scene({1: range(2)}, count=2)
    say, schedule = prompter("points-1", 0, sequence), on_all(survey(sequence))
    scores = [mean_iou(sequence, alone(sequence, schedule, Drifter, say, clicks)) for clicks in (0, 2, 5, 9)]
    assert scores == sorted(scores) and scores[0] < 0.2 and scores[2] > scores[1] and scores[3] == 1


@pytest.fixture(scope="module")
def engine() -> TorchEngine:
    """A nano network with fixed random weights: it makes masks of a kind, and remembers them."""
    torch.manual_seed(3)
    network = Sam2(get_preset("nano"), 64)
    return TorchEngine(network, Recipe(model="nano", image_size=64, runtime="torch", max_objects=2), "", "cpu")


@pytest.mark.parametrize("policy", ["fifo", "efp"])
def test_what_was_said_interactively_gives_the_same_masks_when_it_is_said_again(
    engine: TorchEngine, policy: str
) -> None:
    """A correction acts on what was remembered before its frame, as if it had been given at once."""
    sequence = scene({1: range(10), 2: range(1, 10), 3: range(2, 10)}, count=10)
    opened = partial(Tracker, engine, policy)
    tracked = interactive(
        sequence, on_entry(survey(sequence)), opened, prompter("points-1", 0, sequence), Patience(2, 4)
    )
    said = json.loads(json.dumps(tracked.prompts))
    assert len(said) > 6  # a random network needs correction
    schedule = {t: tuple(e["id"] for e in said if e["frame"] == t) for t in sorted({e["frame"] for e in said})}
    again = follow(sequence, schedule, opened, stored(said))
    assert again.prompts == tracked.prompts
    assert tracked.given == set() and again.given == set(prompted(tracked))
    assert agreement(again, tracked) > 0.999
    first_only = {t: ids for t, ids in schedule.items() if t < 3}
    assert agreement(follow(sequence, first_only, opened, stored(said)), tracked) < 0.99  # the negative control


def agreement(a: Tracked, b: Tracked) -> float:
    """The mean share of pixels on which two agree."""
    pairs = [(a.masks[t][i].counts, b.masks[t][i].counts) for t in b.masks for i in b.masks[t]]
    return float(np.mean([(decode_rle(x, H, W) == decode_rle(y, H, W)).mean() for x, y in pairs]))


def test_a_real_tracker_gives_the_same_masks_in_passes(engine: TorchEngine) -> None:
    sequence = scene({1: range(8), 2: range(8), 3: range(2, 8)}, count=8)
    say, schedule = prompter("box", 0, sequence), on_entry(survey(sequence))
    in_turns = follow(sequence, schedule, partial(Tracker, engine, "fifo"), say)
    wide = copy(engine)
    wide.recipe = replace(engine.recipe, max_objects=3)
    assert agreement(in_turns, follow(sequence, schedule, partial(Tracker, wide, "fifo"), say)) > 0.999


def test_the_seed_decides_and_nothing_else(engine: TorchEngine) -> None:
    sequence = scene({1: range(4)}, count=4)
    runs = [
        follow(sequence, {0: (1,)}, partial(Tracker, engine, "efp"), prompter("points-3", seed, sequence))
        for seed in (1, 1, 2)
    ]
    assert runs[0].masks == runs[1].masks and runs[0].prompts == runs[1].prompts
    assert runs[0].prompts != runs[2].prompts


def test_a_frame_that_is_prompted_twice_is_scheduled_once_for_each_object() -> None:
    assert scheduled({0: (1, 2), 4: (1,)}) == {1: [0, 4], 2: [0]}
