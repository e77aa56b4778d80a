"""Prompts that derive from the truth: where they lie, that they repeat, and that they survive being stored."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rtseg.base.errors import ConfigError, PromptError
from rtseg.base.prompt_files import load_prompts
from rtseg.base.types import BoolMask, Prompt
from rtseg.data.dataset import Sequence, Target
from rtseg.evaluate.prompting import PROMPTS, from_entry, make_prompt, next_click, prompter, stored, to_entry

TOOL = Target(3, "grasper")


def rectangle(y0: int, y1: int, x0: int, x1: int) -> BoolMask:
    mask_hw = np.zeros((60, 80), bool)
    mask_hw[y0:y1, x0:x1] = True
    return mask_hw


@pytest.fixture
def hook() -> BoolMask:
    """A thin shaft with a thick head: its centre of mass lies outside of it."""
    return rectangle(10, 14, 5, 70) | rectangle(10, 50, 64, 78)


def say(truth_hw: BoolMask, kind: str, seed: int = 0, sequence: str = "a", frame: int = 0) -> Prompt:
    return make_prompt(truth_hw, kind, seed, sequence, TOOL, frame)


def depth(truth_hw: BoolMask, x: int, y: int) -> float:
    """How far a pixel is from the nearest one outside, by looking at all of them."""
    outside_n2 = np.argwhere(~np.pad(truth_hw, 1))
    return float(np.hypot(*(outside_n2 - (y + 1, x + 1)).T).min())


def test_a_box_is_tight(hook: BoolMask) -> None:
    x0, y0, x1, y1 = map(int, say(hook, "box").box or ())
    inside_hw = hook[y0:y1, x0:x1]
    assert inside_hw.sum() == hook.sum()
    assert all(edge.any() for edge in (inside_hw[0], inside_hw[-1], inside_hw[:, 0], inside_hw[:, -1]))


def test_a_mask_is_the_truth_and_has_the_label(hook: BoolMask) -> None:
    prompt = say(hook, "mask")
    assert prompt.mask is not None and (prompt.mask == hook).all()
    assert (prompt.id, prompt.label) == (3, "grasper")


def test_one_click_is_where_the_object_is_thickest(hook: BoolMask) -> None:
    ((x, y, kind),) = say(hook, "points-1").points
    deepest = max(depth(hook, int(column), int(row)) for row, column in np.argwhere(hook))
    assert kind == 1 and depth(hook, int(x), int(y)) == pytest.approx(deepest, abs=1e-3)
    centre = np.argwhere(hook).mean(axis=0).round().astype(int)
    assert not hook[tuple(centre)]  # the negative control: a centre of mass would have missed


def test_where_an_object_is_cut_off_by_the_picture_the_border_is_an_edge() -> None:
    ((x, _, _),) = say(rectangle(0, 60, 0, 20), "points-1").points
    assert 8 <= x <= 11


@pytest.mark.parametrize("kind", ["points-3", "points-5"])
def test_further_clicks_are_spread_well_inside(hook: BoolMask, kind: str) -> None:
    points = say(hook, kind).points
    assert points[0] == say(hook, "points-1").points[0]
    assert len(set(points)) == len(points) == int(kind[-1])
    assert all(hook[int(y), int(x)] and kind == 1 for x, y, kind in points)
    assert all(depth(hook, int(x), int(y)) > 2.5 for x, y, _ in points)  # none on the shaft, which is four pixels thick
    assert min(np.hypot(a[0] - b[0], a[1] - b[1]) for a in points for b in points if a != b) > 5


def test_clicks_are_the_same_again_and_others_by_seed_sequence_and_frame(hook: BoolMask) -> None:
    points = say(hook, "points-5", 7, "a", 4).points
    assert say(hook, "points-5", 7, "a", 4).points == points
    others = [say(hook, "points-5", *key).points for key in ((8, "a", 4), (7, "b", 4), (7, "a", 5))]
    assert all(other != points for other in others)


def test_an_object_of_few_pixels_has_a_click_on_each() -> None:
    truth_hw = rectangle(20, 21, 30, 33)
    assert {(x, y) for x, y, _ in say(truth_hw, "points-5").points} == {(30, 20), (31, 20), (32, 20)}


def test_an_unknown_kind_is_refused_with_the_nearest() -> None:
    sequence = Sequence("a", 0, (), lambda t: np.zeros((1, 1, 3), np.uint8), lambda t: None)
    with pytest.raises(ConfigError, match="did you mean 'points-3'"):
        prompter("points3", 0, sequence)


def test_the_next_click_is_in_the_middle_of_what_is_missed() -> None:
    truth_hw = rectangle(10, 41, 10, 41)
    x, y, kind = next_click(truth_hw, truth_hw & ~rectangle(20, 31, 10, 41)) or (0, 0, -1)
    assert kind == 1 and y == 25 and 10 <= x <= 41


def test_the_next_click_is_in_the_middle_of_what_is_too_much() -> None:
    truth_hw = rectangle(10, 20, 10, 20)
    x, y, kind = next_click(truth_hw, truth_hw | rectangle(30, 51, 40, 61)) or (0, 0, -1)
    assert (x, y, kind) == (50, 40, 0)


def test_the_largest_piece_counts_not_the_larger_sum() -> None:
    truth_hw = rectangle(0, 60, 0, 40)
    many_hw = rectangle(0, 8, 0, 8) | rectangle(20, 28, 0, 8) | rectangle(40, 48, 0, 8)  # missed: 3 times 64
    mask_hw = (truth_hw & ~many_hw) | rectangle(10, 20, 60, 70)  # too much: once 100
    x, y, kind = next_click(truth_hw, mask_hw) or (0, 0, -1)
    assert kind == 0 and 60 <= x < 70 and 10 <= y < 20
    assert many_hw.sum() > 100


def test_pieces_that_touch_at_a_corner_are_one() -> None:
    truth_hw = rectangle(10, 18, 10, 18) | rectangle(18, 26, 18, 26) | rectangle(40, 50, 40, 50)
    x, _, _ = next_click(truth_hw, np.zeros_like(truth_hw)) or (0, 0, -1)
    assert x < 30


def test_where_nothing_is_wrong_there_is_no_click() -> None:
    truth_hw = rectangle(10, 20, 10, 20)
    assert next_click(truth_hw, truth_hw) is None


@pytest.mark.parametrize("kind", PROMPTS)
def test_a_stored_prompt_is_the_same_prompt(hook: BoolMask, kind: str) -> None:
    prompt = say(hook, kind)
    again = from_entry(json.loads(json.dumps(to_entry(5, prompt))))
    assert (again.id, again.points, again.box, again.label) == (prompt.id, prompt.points, prompt.box, prompt.label)
    assert (again.mask is None) == (prompt.mask is None)
    assert again.mask is None or (again.mask == hook).all()


def test_entries_are_those_of_a_prompt_file(hook: BoolMask, tmp_path: Path) -> None:
    prompts = [say(hook, "box"), Prompt(4, points=((3, 4, 1), (9, 9, 0)), box=(1, 2, 30, 40))]
    file = tmp_path / "p.json"
    file.write_text(json.dumps([to_entry(2, prompt) for prompt in prompts]))
    ((frame, read),) = load_prompts(file).items()
    assert frame == 2
    assert [(p.id, p.points, p.box, p.label) for p in read] == [(p.id, p.points, p.box, p.label) for p in prompts]


def test_what_was_not_said_cannot_be_said_again(hook: BoolMask) -> None:
    again = stored([to_entry(5, say(hook, "box"))])
    assert again(TOOL, 5, hook).box == say(hook, "box").box
    with pytest.raises(PromptError, match="frame 6: no prompt is stored for object 3"):
        again(TOOL, 6, hook)
