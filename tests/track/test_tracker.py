"""What a user may do while it runs: prompt, correct, rename, remove, and get it wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from rtseg import Frame, Tracker
from rtseg.base.errors import ConfigError, EngineError, PromptError
from rtseg.engine.reference import TorchEngine

H, W = 90, 120


@pytest.fixture()
def tracker(small_engine: TorchEngine) -> Tracker:
    return Tracker(small_engine)


def frame(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (H, W, 3), dtype=np.uint8)


def test_masks_have_the_frames_size_and_identity(tracker: Tracker) -> None:
    tracker.prompt(3, points=[(60, 40, 1)], label="grasper")
    given = Frame(frame(), seq=41, session="abc", captured_ns=7)
    masks = tracker.step(given)
    assert (masks.seq, masks.session, masks.captured_ns) == (41, "abc", 7)
    assert masks.ids == (3,) and masks.label(3) == "grasper"
    assert masks.logits(3).shape == (H, W) and masks.logits(3).dtype == np.float32
    assert masks.mask(3).dtype == bool and 0 <= masks.score(3) <= 1
    with pytest.raises(KeyError, match="no object 4"):
        masks.mask(4)


def test_no_objects_no_masks(tracker: Tracker) -> None:
    assert tracker.step(frame()).ids == ()


def test_a_mask_prompt_is_the_answer(tracker: Tracker) -> None:
    given = np.zeros((H, W), bool)
    given[20:60, 30:90] = True
    tracker.prompt(1, mask=given)
    got = tracker.step(frame()).mask(1)
    assert (got & given).sum() / (got | given).sum() > 0.9
    assert (got & ~given).sum() / (got | ~given).sum() < 0.2


def test_objects_join_and_leave_without_touching_the_others(small_engine: TorchEngine) -> None:
    alone, busy = Tracker(small_engine), Tracker(small_engine)
    for t in (alone, busy):
        t.prompt(1, box=(10, 10, 80, 70))
    for i in range(8):
        if i == 2:
            busy.prompt(2, points=[(100, 50, 1)])
        if i == 5:
            busy.remove(2)
        a, b = alone.step(frame(i)), busy.step(frame(i))
        assert b.ids == ((1, 2) if 2 <= i < 5 else (1,))
        np.testing.assert_allclose(a.logits(1), b.logits(1), rtol=1e-4, atol=1e-4)


def test_a_removed_object_starts_anew(small_engine: TorchEngine) -> None:
    tracker, fresh = Tracker(small_engine), Tracker(small_engine)
    tracker.prompt(1, box=(10, 10, 80, 70))
    tracker.step(frame(0))
    tracker.step(frame(1))
    tracker.remove(1)
    for t in (tracker, fresh):
        t.prompt(1, points=[(30, 30, 1)])
    np.testing.assert_array_equal(tracker.step(frame(2)).logits(1), fresh.step(frame(2)).logits(1))


def test_rename_changes_the_label_alone(tracker: Tracker) -> None:
    tracker.prompt(1, points=[(60, 40, 1)])
    assert tracker.step(frame()).label(1) == "object 1"
    tracker.rename(1, "scissors")
    assert tracker.step(frame()).label(1) == "scissors"
    with pytest.raises(PromptError, match="no object 2 is tracked; there are: 1"):
        tracker.rename(2, "x")


def test_clicks_before_a_step_add_up(small_engine: TorchEngine) -> None:
    one, two = Tracker(small_engine), Tracker(small_engine)
    one.prompt(1, points=[(60, 40, 1), (20, 20, 0)])
    two.prompt(1, points=[(60, 40, 1)])
    two.prompt(1, points=[(20, 20, 0)], label="x")
    a, b = one.step(frame()), two.step(frame())
    np.testing.assert_array_equal(a.logits(1), b.logits(1))
    assert b.label(1) == "x"


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ({"points": [(W, 5, 1)]}, "lies outside the 120x90 frame"),
        ({"points": [(5, 5, 0)]}, "only background points"),
        ({"box": (10, 10, 40, H + 1)}, "inside the 120x90 frame"),
        ({"mask": np.eye(H, W + 1, dtype=bool)}, "mask is 121x90, the frame is 120x90"),
    ],
)
def test_a_bad_prompt_is_named_and_dropped(tracker: Tracker, prompt: dict, said: str) -> None:  # type: ignore[type-arg]
    tracker.prompt(1, points=[(60, 40, 1)])
    before = tracker.step(frame(0))
    tracker.prompt(2, **prompt)
    with pytest.raises(PromptError, match=said):
        tracker.step(frame(1))
    assert tracker.step(frame(1)).ids == (1,) == before.ids


@pytest.mark.parametrize(
    ("object_id", "prompt", "said"),
    [
        (0, {"points": [(1, 1, 1)]}, "id = 0; expected a whole number, 1 to 255"),
        (1, {}, "found neither points, box nor mask"),
        (1, {"points": [(5, 5, 7)]}, "points = \\[\\[5, 5, 7\\]\\]; expected points like"),
        (1, {"box": (10, 10, 10, 40)}, "x0 < x1"),
        (1, {"mask": np.zeros((H, W), bool)}, "mask is empty"),
        (1, {"points": [(1, 1)]}, "expected points like \\[\\[x, y, 1 or 0\\]"),
        (1, {"box": (1, 2, 3)}, "expected a box like \\[x0, y0, x1, y1\\]"),
    ],
)
def test_a_prompt_that_makes_no_sense_is_refused_at_once(
    tracker: Tracker, object_id: int, prompt: dict, said: str  # type: ignore[type-arg]
) -> None:  # fmt: skip
    with pytest.raises(PromptError, match=said):
        tracker.prompt(object_id, **prompt)
    assert tracker.ids == ()


def test_no_more_objects_than_the_recipe_says(tracker: Tracker) -> None:
    for i in range(1, 5):
        tracker.prompt(i, points=[(60, 40, 1)])
    with pytest.raises(PromptError, match="4 objects are tracked already"):
        tracker.prompt(5, points=[(60, 40, 1)])


def test_a_background_click_corrects_a_known_object(tracker: Tracker) -> None:
    tracker.prompt(1, points=[(60, 40, 1)])
    tracker.step(frame(0))
    tracker.prompt(1, points=[(10, 10, 0)])
    assert tracker.step(frame(1)).ids == (1,)


def test_steps_leave_no_gradients(tracker: Tracker) -> None:
    tracker.prompt(1, points=[(60, 40, 1)])
    tracker.step(frame(0))
    assert all(not m.map_chw.requires_grad for o in tracker._objects.values() for m in o.bank.memories)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("object_id", [torch.tensor(1.0), np.int64(1), 1.0])
def test_an_id_is_the_whole_number_that_it_is(tracker: Tracker, object_id: Any) -> None:
    tracker.prompt(object_id, points=[(60, 40, 1)])
    tracker.prompt(1, points=[(20, 20, 0)])
    assert tracker.step(frame(0)).ids == (1,)
    tracker.rename(object_id, "hook")
    assert tracker.step(frame(1)).label(object_id) == "hook"
    assert tracker.fork([object_id], 1).ids == (1,)
    tracker.remove(object_id)
    assert tracker.step(frame(2)).ids == tracker.ids == ()


@pytest.mark.parametrize("object_id", [1.7, "1", True, None, float("nan"), 0, [1], 10**401])
def test_what_is_no_id_changes_nothing(tracker: Tracker, object_id: Any) -> None:
    tracker.prompt(1, points=[(60, 40, 1)])
    tracker.step(frame(0))
    lines = set()
    for act in (
        lambda: tracker.prompt(object_id, points=[(60, 40, 1)]), lambda: tracker.rename(object_id, "x"),
        lambda: tracker.remove(object_id), lambda: tracker.fork([object_id], 0),
    ):  # fmt: skip
        with pytest.raises(PromptError) as caught:
            act()
        lines.add(str(caught.value).split(": ", 1)[1])
    assert len(lines) == 1 and lines.pop().startswith("id = ")
    assert tracker.step(frame(1)).ids == (1,)


def test_what_else_is_given_to_a_tracker_is_checked(tracker: Tracker) -> None:
    tracker.prompt(1, points=[(60, 40, 1)])
    for act, line in (
        (lambda: tracker.give({"id": 2}), "expected a Prompt"),
        (lambda: tracker.rename(1, ""), "rename: label = ''; expected a text"),
        (lambda: tracker.rename(1, "a\nb"), "rename: label = 'a\\nb'; expected one line"),
        (lambda: tracker.rename(1, 5), "rename: label = 5; expected a text"),
        (lambda: tracker.rename(2, "x"), "no object 2 is tracked; there are: 1"),
        (lambda: tracker.fork("1", 0), "fork: ids = '1'; expected a list of object ids"),
        (lambda: tracker.fork(1, 0), "fork: ids = 1; expected a list of object ids"),
        (lambda: tracker.fork([1], "0"), "fork: seq = '0'; expected the number of a frame"),
        (lambda: tracker.adopt(None), "adopt: found None"),
        (lambda: [tracker.prompt(1, points=[(60, 40, 1)] * 16) for _ in range(4)], "65 points; expected at most 64"),
    ):  # fmt: skip
        with pytest.raises(PromptError) as caught:
            act()  # type: ignore[no-untyped-call]
        assert line in str(caught.value)


def test_what_is_given_may_be_written_over(small_engine: TorchEngine) -> None:
    one, other = Tracker(small_engine), Tracker(small_engine)
    mask_hw = np.zeros((H, W), bool)
    mask_hw[20:60, 30:90] = True
    one.prompt(1, mask=mask_hw)
    other.prompt(1, mask=mask_hw.copy())
    mask_hw[:] = True
    np.testing.assert_array_equal(one.step(frame()).logits(1), other.step(frame()).logits(1))


def test_logits_are_no_mask(tracker: Tracker) -> None:
    tracker.prompt(1, points=[(60, 40, 1)])
    masks = tracker.step(frame(0))
    with pytest.raises(PromptError, match=r"mask is float32 from -.*; for logits: mask=\(logits > 0\)"):
        tracker.prompt(1, mask=masks.logits(1))
    for array in (masks.logits(1), masks.mask_logits_bhw):
        with pytest.raises(ValueError, match="read-only"):
            array[:] = 0


def test_a_tracker_needs_an_engine_and_a_policy_by_name(small_engine: TorchEngine) -> None:
    for engine in ("engines/nano-cpu.toml", None, 5):
        with pytest.raises(EngineError, match="expected what open_engine gives"):
            Tracker(engine)  # type: ignore[arg-type]
    for policy in ("", "fofo", 5, ["fifo"]):
        with pytest.raises(ConfigError, match="no such policy; (did you mean|expected one of)"):
            Tracker(small_engine, policy)  # type: ignore[arg-type]
