"""A step that fails is loud, and leaves the tracker as it was: the same frame, or the next one, can be given."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from rtseg import Tracker
from rtseg.base.errors import EngineError, SourceError
from rtseg.engine.policy import BankSize, Choice, Memory, MemoryPolicy, get_policy
from rtseg.engine.policy.window import fifo
from rtseg.engine.reference import TorchEngine

H, W = 90, 120


def frame(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (H, W, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("picture", "said"),
    [
        (np.zeros((H, W), np.uint8), "uint8, 90 x 120; expected"),
        (np.zeros((H, W, 1), np.uint8), "uint8, 90 x 120 x 1"),
        (np.zeros((H, W, 4), np.uint8), "uint8, 90 x 120 x 4"),
        (np.zeros((3, H, W), np.uint8), "uint8, 3 x 90 x 120"),
        (np.zeros((H, W, 3), np.float32), "float32, 90 x 120 x 3"),
        (np.zeros((H, W, 3), bool), "bool"),
        (np.zeros((0, W, 3), np.uint8), "uint8, 0 x 120 x 3"),
    ],
    ids=["grey", "one channel", "alpha", "channels first", "float", "bool", "empty"],
)
def test_what_is_no_picture_is_refused(small_engine: TorchEngine, picture: np.ndarray, said: str) -> None:
    tracker, fresh = Tracker(small_engine), Tracker(small_engine)
    for t in (tracker, fresh):
        t.prompt(1, points=[(60, 40, 1)])
    with pytest.raises(SourceError, match=said):
        tracker.step(picture)
    np.testing.assert_array_equal(tracker.step(frame(0)).logits(1), fresh.step(frame(0)).logits(1))


@pytest.mark.parametrize("verb", ["encode_image", "attend", "decode", "remember"])
def test_a_failed_step_did_not_happen(small_engine: TorchEngine, verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine may fail at any verb, on a first prompt as on a correction: what follows is as if it had not."""
    tracker, steady = Tracker(small_engine), Tracker(small_engine)

    def fail(*_: object) -> None:
        raise EngineError("out of memory")

    for i in range(4):
        for t in (tracker, steady):
            if i == 0:
                t.prompt(1, points=[(60, 40, 1)], label="grasper")
            if i == 2:
                t.prompt(1, points=[(10, 10, 0)])
                t.prompt(2, box=(20, 20, 70, 60))
        with monkeypatch.context() as broken:
            broken.setattr(small_engine, verb, fail)
            with pytest.raises(EngineError):
                tracker.step(frame(i))
        assert tracker.ids == steady.ids
        a, b = tracker.step(frame(i)), steady.step(frame(i))
        assert (a.ids, a.labels, a.seq) == (b.ids, b.labels, b.seq)
        np.testing.assert_array_equal(a.mask_logits_bhw, b.mask_logits_bhw)


def test_a_step_whose_policy_fails_did_not_happen(small_engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy of a user's own may fail for one object of several: none of them has taken in the frame."""
    calls, fails = [], set()

    def sometimes(memories: Sequence[Memory], size: BankSize) -> Choice:
        calls.append(1)
        if len(calls) in fails:
            raise ValueError("mine")
        return fifo(memories, size)

    known = {"sometimes": MemoryPolicy("sometimes", sometimes), "fifo": get_policy("fifo")}
    monkeypatch.setattr("rtseg.track.tracker.get_policy", known.get)
    monkeypatch.setattr("rtseg.track.tracker.warn_once", lambda *_: None)
    tracker, steady = Tracker(small_engine, "sometimes"), Tracker(small_engine, "fifo")
    for i in range(4):
        for t in (tracker, steady):
            if i == 0:
                t.prompt(1, points=[(60, 40, 1)])
                t.prompt(2, box=(20, 20, 70, 60))
        fails.add(len(calls) + 2)  # the second of the two objects
        with pytest.raises(ValueError, match="mine"):
            tracker.step(frame(i))
        a, b = tracker.step(frame(i)), steady.step(frame(i))
        np.testing.assert_array_equal(a.mask_logits_bhw, b.mask_logits_bhw)
    assert len(calls) == 4 * 4


def test_a_step_that_did_happen_leaves_a_trace(small_engine: TorchEngine) -> None:
    """Negative control of the test above."""
    twice, once = Tracker(small_engine), Tracker(small_engine)
    for t in (twice, once):
        t.prompt(1, points=[(60, 40, 1)])
    twice.step(frame(0))
    assert not np.array_equal(twice.step(frame(1)).logits(1), once.step(frame(1)).logits(1))
