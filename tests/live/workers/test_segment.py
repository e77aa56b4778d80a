"""A preview shows what a prompt would give, and leaves the tracker as it is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from rtseg import Frame, Prompt, Tracker
from rtseg.base.rle import decode_rle
from rtseg.engine.recipe import Recipe
from rtseg.engine.reference import TorchEngine
from rtseg.live.ipc.messages import PromptData
from rtseg.live.workers.segment import _Segmenter
from rtseg.sam2 import Sam2, get_preset
from rtseg.track import Proposals

H, W = 90, 120


@pytest.fixture(scope="module")
def engine() -> TorchEngine:
    torch.manual_seed(0)
    network = Sam2(get_preset("nano"), 64)
    return TorchEngine(network, Recipe(model="nano", image_size=64, runtime="torch"), "", "cpu")


def frame(seq: int) -> Frame:
    return Frame(np.random.default_rng(seq).integers(0, 255, (H, W, 3), dtype=np.uint8), seq)


def played(engine: TorchEngine, until: int) -> Tracker:
    tracker = Tracker(engine, policy="fifo")
    tracker.prompt(1, box=(10, 10, 80, 70), label="grasper")
    for seq in range(until):
        tracker.step(frame(seq))
    return tracker


def worker(tracker: Tracker) -> Any:
    """The segment worker around a tracker, with a ring that has dropped all frames."""
    one: Any = object.__new__(_Segmenter)
    frames = SimpleNamespace(head=6, entries=64, holds=lambda seq: False, get=lambda seq: None)
    one._tracker, one._times = tracker, SimpleNamespace(begins=lambda frame: None)
    one._proposals = Proposals()
    one._context = SimpleNamespace(beat=lambda: None, frames=frames)
    return one


def held(tracker: Tracker) -> Any:
    """All that a tracker holds of its objects."""
    objects = {i: (o.label, o.lost, o.bank.memories, list(o.bank._recent)) for i, o in tracker._objects.items()}
    return objects, dict(tracker._prompts), tracker._steps, list(tracker._seqs), tracker._cut_detector


_SMALL_HW = np.zeros((H, W), bool)
_SMALL_HW[40:44, 50:54] = True
CLICKS = {
    "a mask": (2, Prompt(2, mask=np.kron(_SMALL_HW[30:48, 42:66], np.ones((5, 5), bool)))),
    "a small mask": (2, Prompt(2, mask=_SMALL_HW)),
    "a new object": (2, Prompt(2, points=[(50, 50, 1)])),
    "a correction": (1, Prompt(1, points=[(30, 30, 1), (90, 80, 0)])),
}


@pytest.mark.parametrize("what", CLICKS)
@pytest.mark.parametrize("seq", [5, 3])
def test_a_preview_is_the_mask_that_the_prompt_gives_and_changes_nothing(
    engine: TorchEngine, what: str, seq: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    object_id, prompt = CLICKS[what]
    tracker, twin, then = played(engine, 6), played(engine, 6), played(engine, seq)
    before, clicked = held(tracker), (PromptData.from_prompt(prompt),)
    one, encoded = worker(tracker), list[int]()
    real = engine.encode_image
    monkeypatch.setattr(engine, "encode_image", lambda image_hwc: (encoded.append(1), real(image_hwc))[1])
    found = one._preview(frame(seq), clicked)
    once = 2 if what == "a small mask" else 1  # a picture is encoded once; a small mask takes a whole step
    assert one._preview(frame(seq), clicked) == found and len(encoded) == once
    other = worker(tracker)
    assert other._preview(frame(seq), ()) == {} and len(encoded) == once + 1  # it is held: the click will come
    other._preview(frame(seq), clicked)
    assert len(encoded) == 2 * once
    then.give(prompt)
    masks = then.step(frame(seq))
    np.testing.assert_array_equal(decode_rle(found["rle"], H, W), masks.mask(object_id))
    assert found["score"] == pytest.approx(masks.score(object_id), abs=1e-5)
    assert found["iou"] == pytest.approx(masks.iou(object_id), abs=1e-5)
    assert repr(held(tracker)) == repr(before)
    np.testing.assert_array_equal(tracker.step(frame(6)).mask_logits_bhw, twin.step(frame(6)).mask_logits_bhw)


@pytest.mark.parametrize("what", CLICKS)
def test_the_prompt_itself_changes_the_tracker(engine: TorchEngine, what: str) -> None:
    """The negative control of the test above."""
    tracker, twin, before = played(engine, 6), played(engine, 6), repr(held(played(engine, 6)))
    worker(tracker)._prompt(frame(5), (PromptData.from_prompt(CLICKS[what][1]),), is_new=True)
    assert repr(held(tracker)) != before
    mine, other = tracker.step(frame(6)), twin.step(frame(6))
    assert mine.ids != other.ids or not np.array_equal(mine.mask_logits_bhw, other.mask_logits_bhw)


def test_a_click_on_a_frame_that_was_held_is_tracked_through_what_the_ring_still_has(engine: TorchEngine) -> None:
    one = worker(played(engine, 6))
    frames = one._context.frames
    frames.head, frames.holds = 100, lambda seq: 36 <= seq < 100
    assert one._between(5, 8) == [43, 50, 57, 64, 71, 78, 85, 92] and one._between(90, 8) == list(range(91, 99))
    assert one._between(99, 8) == []
    seen: list[int] = []
    frames.get = seen.append
    one._prompt(frame(5), (PromptData.from_prompt(CLICKS["a correction"][1]),), is_new=True)
    assert seen and min(seen) > 36
    seen.clear()  # what is replayed after a crash has to come back soon
    one._prompt(frame(5), (PromptData.from_prompt(CLICKS["a correction"][1]),), is_new=False)
    assert not seen


def test_prompts_of_an_earlier_run_are_as_if_they_had_just_been_given(engine: TorchEngine) -> None:
    """Their pictures have negative numbers."""
    before, now = Tracker(engine, policy="fifo"), Tracker(engine, policy="fifo")
    pictures = [frame(seq).image_hwc for seq in range(6)]
    one = worker(now)
    one._context.frames.head = 0
    for seq, prompt in ((0, Prompt(1, box=(10, 10, 80, 70))), (1, Prompt(1, points=[(30, 30, 1)]))):
        before.give(prompt)
        before.step(Frame(pictures[seq], seq))
        one._prompt(Frame(pictures[seq], seq - 2), (PromptData.from_prompt(prompt),), is_new=False)
    for seq in range(2, 6):
        there = before.step(Frame(pictures[seq], seq)).mask_logits_bhw
        np.testing.assert_allclose(now.step(Frame(pictures[seq], seq - 2)).mask_logits_bhw, there, atol=1e-4)
    assert [m.seq for m in now._objects[1].bank.memories] == [-2, -1, 0, 1, 2, 3]
