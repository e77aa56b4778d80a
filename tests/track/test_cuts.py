"""After a cut an object is lost until its scene is seen again, or it is prompted; without a cut nothing changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from rtseg import Frame, Tracker
from rtseg.base.errors import EngineError
from rtseg.base.types import ImageU8
from rtseg.engine.policy import Memory
from rtseg.engine.recipe import Recipe
from rtseg.engine.reference import TorchEngine
from rtseg.sam2 import Sam2, get_preset
from rtseg.track.reidentify import SceneMatcher

from .test_cut_detector import tissue, window

A = [window(tissue(1), 40 + i) for i in range(30)]
B = [window(tissue(2), 40 + i) for i in range(30)]


class AlwaysVisible:
    """An engine that finds every object on every picture, as a network does that jumps to whatever is there."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def _drawn(self, decoded: Any) -> Any:
        logits = torch.full_like(decoded.logits_b1hw, -8)
        logits[..., 3:9, 3:9] = 8
        return replace(decoded, logits_b1hw=logits, score_b=torch.full_like(decoded.score_b, 6))

    def decode(self, conditioned: Any, features: Any, prompts: Any) -> Any:
        return self._drawn(self._engine.decode(conditioned, features, prompts))

    def track(self, image_hwc: ImageU8, recalls: Any) -> Any:
        return type(self._engine).track(self, image_hwc, recalls)


@pytest.fixture()
def jumpy() -> Any:
    torch.manual_seed(0)
    network = Sam2(get_preset("nano-hiera"), 128)
    return AlwaysVisible(TorchEngine(network, Recipe(model="nano-hiera", image_size=128, runtime="torch"), "", "cpu"))


def track(tracker: Tracker, pictures: list[ImageU8], first: int = 0) -> list[Any]:
    return [tracker.step(Frame(picture, first + i)) for i, picture in enumerate(pictures)]


def seen(masks: Any, object_id: int = 1) -> bool:
    return masks.score(object_id) > 0.5 and bool(masks.mask(object_id).any())


def test_an_object_is_lost_at_a_cut_and_found_where_it_was(jumpy: Any) -> None:
    tracker = Tracker(jumpy)
    tracker.prompt(1, box=(20, 20, 120, 120))
    before = track(tracker, A[:12])
    assert all(seen(m) and not m.cut and m.lost == () for m in before)
    bank = tracker._objects[1].bank.memories
    gone = track(tracker, B[:8], 12)
    assert [m.cut for m in gone] == [True] + [False] * 7
    assert all(m.lost == (1,) and m.ids == (1,) and m.score(1) == m.iou(1) == 0 for m in gone)
    assert not any(m.mask(1).any() for m in gone)
    assert tracker._objects[1].bank.memories == bank  # nothing of another scene is remembered
    back = track(tracker, A[12:20], 20)
    assert back[0].cut and all(seen(m) and m.lost == () for m in back)
    assert tracker._objects[1].bank.memories != bank


def test_without_cut_detection_it_jumps(jumpy: Any) -> None:
    """Negative control of the test above: this network draws whatever is there."""
    tracker = Tracker(jumpy)
    tracker.cuts = False
    tracker.prompt(1, box=(20, 20, 120, 120))
    assert all(seen(m) and not m.cut and m.lost == () for m in track(tracker, [*A[:12], *B[:8]]))


def test_across_cuts_it_is_said_and_tracked_on(jumpy: Any) -> None:
    tracker = Tracker(jumpy)
    tracker.across_cuts = True
    tracker.prompt(1, box=(20, 20, 120, 120))
    masks = track(tracker, [*A[:12], *B[:8]])
    assert [n for n, m in enumerate(masks) if m.cut] == [12]
    assert all(seen(m) and m.lost == () for m in masks)
    assert all(seen(m) for m in track(tracker.fork([1], 20), B[8:9], 20))


def test_a_prompt_overrides_lost(jumpy: Any) -> None:
    tracker = Tracker(jumpy)
    tracker.prompt(1, box=(20, 20, 120, 120))
    tracker.prompt(2, box=(120, 20, 220, 120))
    track(tracker, A[:12])
    tracker.prompt(2, points=[(50, 50, 1)])  # on the very frame of the cut
    first = tracker.step(Frame(B[0], 12))
    assert first.cut and first.lost == (1,) and seen(first, 2)
    assert all(seen(m, 2) and m.lost == (1,) for m in track(tracker, B[1:5], 13))
    tracker.prompt(1, points=[(50, 50, 1)])  # later
    tracker.prompt(3, box=(20, 20, 90, 90))  # new
    after = track(tracker, B[5:8], 17)
    assert all(m.lost == () and all(seen(m, i) for i in (1, 2, 3)) for m in after)


def test_a_step_that_fails_has_detected_no_cut(jumpy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = Tracker(jumpy)
    tracker.prompt(1, box=(20, 20, 120, 120))
    track(tracker, A[:12])

    def fail(*_: object) -> None:
        raise EngineError("out of memory")

    with monkeypatch.context() as broken:
        broken.setattr(jumpy, "track", fail)
        with pytest.raises(EngineError, match="out of memory"):
            tracker.step(Frame(B[0], 12))
    assert tracker.ids == (1,) and tracker._objects[1].lost is None
    masks = tracker.step(Frame(B[1], 13))
    assert masks.cut and masks.lost == (1,)
    assert not tracker.step(Frame(B[2], 14)).cut


def test_a_cut_is_reported_where_nothing_is_tracked(jumpy: Any) -> None:
    assert [m.cut for m in track(Tracker(jumpy), [*A[:3], *B[:3]])] == [False] * 3 + [True] + [False] * 2


@pytest.mark.parametrize("policy", ["fifo", "efp", "confident"])
def test_where_there_is_no_cut_every_bit_is_the_same(small_engine: TorchEngine, policy: str) -> None:
    detecting, plain = Tracker(small_engine, policy), Tracker(small_engine, policy)
    plain.cuts = False
    for i, picture in enumerate(A[:14]):
        for t in (detecting, plain):
            if i == 0:
                t.prompt(1, box=(20, 20, 120, 120))
            if i == 5:
                t.prompt(2, points=[(200, 100, 1)])
        a, b = detecting.step(picture), plain.step(picture)
        assert_array_equal(a.mask_logits_bhw, b.mask_logits_bhw)
        assert (a.scores, a.ious, a.lost, a.cut) == (b.scores, b.ious, (), False)


def test_a_prompt_on_a_past_frame_is_lost_at_a_later_cut(jumpy: Any) -> None:
    tracker = Tracker(jumpy)
    tracker.prompt(1, box=(20, 20, 120, 120))
    track(tracker, [*A[:12], *B[:3]])
    fork = tracker.fork((1, 2), 10)
    fork.prompt(2, box=(120, 20, 220, 120))
    fork.prompt(1, points=[(60, 60, 1)])
    fork.step(Frame(A[10], 10))
    tracker.adopt(fork)  # it has not reached the cut
    assert tracker.step(Frame(B[3], 15)).lost == (1, 2)
    fork = tracker.fork((1, 2), 14)
    fork.prompt(2, box=(120, 20, 220, 120))
    fork.step(Frame(B[2], 14))
    tracker.adopt(fork)  # it begins after the cut
    after = tracker.step(Frame(B[4], 16))
    assert after.lost == (1,) and seen(after, 2)
    fork = tracker.fork((1,), 10)  # goes back before the cut: there it was not lost
    assert fork.step(Frame(A[10], 10)).lost == ()


def test_two_cuts_in_a_row_leave_one_matcher(jumpy: Any) -> None:
    tracker = Tracker(jumpy)
    tracker.prompt(1, box=(20, 20, 120, 120))
    track(tracker, A[:12])
    third = [window(tissue(3), 40 + i) for i in range(4)]
    assert [m.lost for m in track(tracker, [*B[:4], *third], 12)] == [(1,)] * 8
    assert all(m.lost == () for m in track(tracker, A[12:16], 20))


def memory(map_chw: np.ndarray, step: int) -> Memory:
    from rtseg.engine import Remembered

    return Memory(step, Remembered(map_chw.astype(np.float32)), np.zeros(4, np.float32), step == 0)


def test_a_scene_matches_by_the_surroundings_of_the_object_wherever_they_lie() -> None:
    random = np.random.default_rng(0)
    scene, other = random.normal(size=(2, 16, 12, 12))
    matcher = SceneMatcher([memory(scene + 0.2 * random.normal(size=scene.shape), step) for step in (0, 6, 12)])
    mask_hw = np.full((48, 48), -5.0, np.float32)
    mask_hw[8:24, 8:24] = 5
    assert matcher.matches(scene.astype(np.float32), mask_hw)
    assert matcher.matches(np.roll(scene, 3, 2).astype(np.float32), mask_hw)  # it has moved
    changed = scene.copy()
    changed[:, 2:6, 2:6] = other[:, 2:6, 2:6]
    assert matcher.matches(changed.astype(np.float32), mask_hw)  # what the mask covers does not count
    assert not matcher.matches(other.astype(np.float32), mask_hw)
    assert matcher.similarity(other.astype(np.float32), mask_hw) < matcher.threshold <= 0.83


@pytest.mark.parametrize("side", [7, 20, 21, 64])
def test_scenes_match_by_maps_of_any_size(side: int) -> None:
    scene, other = np.random.default_rng(1).normal(size=(2, 8, side, side)).astype(np.float32)
    everything_hw = np.full((4 * side, 4 * side), 5.0, np.float32)
    for mask_hw in (everything_hw, -everything_hw):
        matcher = SceneMatcher([memory(scene, 0)])
        assert matcher.similarity(scene, mask_hw) > 0.99 > matcher.similarity(other, mask_hw)
