"""An answer with any part that is not finite is refused as a whole: as if the frame had not been given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rtseg import Tracker
from rtseg.base.errors import AnswerError, EngineError
from rtseg.engine import Decoded, Remembered
from rtseg.engine.arrays import namespace
from rtseg.engine.reference import TorchEngine

NAN, INF = float("nan"), float("inf")


def frame(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (90, 120, 3), dtype=np.uint8)


class Broken:
    """An engine whose answer is spoilt by `spoil`, if that is set."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.recipe = engine.recipe
        self.spoil: Callable[[Decoded, list[Remembered]], tuple[Decoded, list[Remembered]]] | None = None
        self._decoded: Decoded | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def track(self, image_hwc: Any, recalls: Sequence[Any]) -> tuple[Decoded, list[Remembered]]:
        answer = self._engine.track(image_hwc, recalls)
        return self.spoil(*answer) if self.spoil else answer

    def remember(self, features: Any, logits: Any, score: Any, prompted: Sequence[bool]) -> list[Remembered]:
        written: list[Remembered] = self._engine.remember(features, logits, score, prompted)
        return self.spoil(self._fake(len(written)), written)[1] if self.spoil else written

    def decode(self, conditioned: Any, features: Any, prompts: Any) -> Decoded:
        decoded: Decoded = self._engine.decode(conditioned, features, prompts)
        return self.spoil(decoded, [])[0] if self.spoil else decoded

    def _fake(self, objects: int) -> Decoded:
        zeros = np.zeros((objects, 1, 1, 1), np.float32)
        return Decoded(zeros, zeros[:, 0, 0, 0], zeros[:, 0, 0, 0], zeros[:, 0, 0])


def spoiling(part: str, value: float) -> Callable[[Decoded, list[Remembered]], tuple[Decoded, list[Remembered]]]:
    """One number of a part is another."""

    def spoil(decoded: Decoded, written: list[Remembered]) -> tuple[Decoded, list[Remembered]]:
        if part != "map_chw":
            whole = namespace(getattr(decoded, part)).asarray(getattr(decoded, part), copy=True)
            whole[(-1,) * whole.ndim] = value
            return replace(decoded, **{part: whole}), written
        if not written:
            return decoded, written
        whole = namespace(written[-1].map_chw).asarray(written[-1].map_chw, copy=True)
        whole[(-1,) * whole.ndim] = value
        return decoded, [*written[:-1], replace(written[-1], map_chw=whole)]

    return spoil


PARTS = {
    "logits_b1hw": "masks",
    "pointer_bc": "pointers",
    "iou_b": "predicted IoUs",
    "score_b": "object scores",
    "map_chw": "memories",
}


@pytest.mark.parametrize("value", [NAN, INF, -INF], ids=["nan", "inf", "minus inf"])
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("prompted", [False, True], ids=["tracked", "corrected"])
def test_every_part_has_to_be_finite(small_engine: TorchEngine, part: str, value: float, prompted: bool) -> None:
    engine = Broken(small_engine)
    tracker, steady = Tracker(engine), Tracker(small_engine)  # type: ignore[arg-type]
    for t in (tracker, steady):
        t.prompt(1, points=[(60, 40, 1)])
        t.prompt(2, box=(20, 20, 70, 60))
        t.step(frame(0))
        if prompted:
            t.prompt(1, points=[(10, 10, 0)])
    engine.spoil = spoiling(part, value)
    with pytest.raises(AnswerError, match=f"frame 1: the network's .*{PARTS[part]}.* are not finite; nothing of this"):
        tracker.step(frame(1))
    assert len(tracker._objects[1].bank) == 1
    engine.spoil = None
    for i in (1, 2, 3):
        a, b = tracker.step(frame(i)), steady.step(frame(i))
        np.testing.assert_array_equal(a.mask_logits_bhw, b.mask_logits_bhw)
        assert a.scores == b.scores and a.ious == b.ious and a.seq == b.seq


def test_an_answer_of_another_shape_is_refused(small_engine: TorchEngine) -> None:
    engine = Broken(small_engine)
    tracker = Tracker(engine)  # type: ignore[arg-type]
    tracker.prompt(1, points=[(60, 40, 1)])
    tracker.step(frame(0))
    for spoil in (
        lambda d, w: (replace(d, logits_b1hw=d.logits_b1hw[..., ::2]), w),
        lambda d, w: (replace(d, pointer_bc=d.pointer_bc[:0]), w),
        lambda d, w: (replace(d, score_b=d.score_b[:, None]), w),
        lambda d, w: (d, [replace(w[0], map_chw=w[0].map_chw[:, ::2])]),
        lambda d, w: (d, []),
    ):
        engine.spoil = spoil
        with pytest.raises(AnswerError, match="frame 1: the network's [a-zIU ]+ have the shape"):
            tracker.step(frame(1))
    engine.spoil = None
    assert tracker.step(frame(1)).seq == 1


@pytest.mark.parametrize(
    ("precision", "said"),
    [("fp16", 'use precision = "fp32" \\(it is "fp16"\\)'), ("fp32", "are these weights sound: package:nano")],
)
def test_the_advice_suits_the_precision(small_engine: TorchEngine, precision: str, said: str) -> None:
    engine = Broken(small_engine)
    engine.recipe = replace(small_engine.recipe, precision=precision)
    tracker = Tracker(engine)  # type: ignore[arg-type]
    tracker.prompt(1, points=[(60, 40, 1)])
    tracker.step(frame(0))
    engine.spoil = spoiling("pointer_bc", NAN)
    with pytest.raises(EngineError, match=said) as caught:
        tracker.step(frame(1))
    assert "\n" not in str(caught.value)


def test_large_numbers_are_accepted(small_engine: TorchEngine) -> None:
    """Negative control: what is only large goes through."""
    engine = Broken(small_engine)
    tracker = Tracker(engine)  # type: ignore[arg-type]
    tracker.prompt(1, points=[(60, 40, 1)])
    tracker.step(frame(0))
    for number, part in enumerate(PARTS, 1):
        engine.spoil = spoiling(part, 60000.0)
        masks = tracker.step(frame(number))
        assert masks.ids == (1,) and np.isfinite(masks.mask_logits_bhw).all() and np.isfinite(masks.scores).all()


def test_masks_are_done_when_they_are_remembered(small_engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stage `segment` of a feed ends with `done_ns`; the policy's work is a part of it."""
    from rtseg.base.types import now_ns

    tracker, ended_ns = Tracker(small_engine), []
    commit = Tracker._commit

    def timed(self: Tracker, *made: Any) -> None:
        commit(self, *made)
        ended_ns.append(now_ns())

    monkeypatch.setattr(Tracker, "_commit", timed)
    tracker.prompt(1, points=[(60, 40, 1)])
    for i in range(3):
        assert tracker.step(frame(i)).done_ns >= ended_ns[-1]
