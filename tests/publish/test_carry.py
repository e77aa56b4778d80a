"""Masks carried along with the picture: better where they move, untouched where nothing can be said."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtseg.base.types import BoolMask, Float32, Frame, ImageU8, Masks
from rtseg.publish.carry import Carrier

WIDTH, HEIGHT, PERIOD_NS = 320, 240, 40_000_000


def texture(seed: int, height: int = HEIGHT, width: int = WIDTH) -> ImageU8:
    noise_hwc = np.random.default_rng(seed).normal(size=(height, width, 3))
    smooth_hwc = cv2.GaussianBlur(noise_hwc, (0, 0), 3)
    return np.clip(128 + smooth_hwc / max(float(smooth_hwc.std()), 1e-6) * 45, 0, 255).astype(np.uint8)


def disk(x: float, y: float, radius: int = 40) -> BoolMask:
    y_hw, x_hw = np.mgrid[:HEIGHT, :WIDTH]
    return np.asarray(np.hypot(x_hw - x, y_hw - y) < radius)


def place(t: int, speed: int = 6) -> tuple[int, int]:
    return 90 + speed * t, 110 + t


def frame(t: int, session: str = "s1", cut_at: int = 10**6) -> Frame:
    """A textured disk that flies over a textured ground; from `cut_at` on all is another scene."""
    if t >= cut_at:
        return Frame(texture(99), t, session, captured_ns=t * PERIOD_NS)
    x, y = place(t)
    x0, y0 = place(0)
    moved_hwc = np.roll(texture(2), (y - y0, x - x0), (0, 1))
    image_hwc = np.where(disk(x, y)[..., None], moved_hwc, texture(1))
    return Frame(image_hwc.astype(np.uint8), t, session, captured_ns=t * PERIOD_NS)


def masks_on(of: Frame, *masks_hw: BoolMask) -> Masks:
    small = [cv2.resize(m.astype(np.float32), (128, 128), interpolation=cv2.INTER_AREA) - 0.5 for m in masks_hw]
    count = len(small)
    logits_bhw = np.stack(small).astype(np.float32) if small else np.zeros((0, 128, 128), np.float32)
    ids, names = tuple(range(1, count + 1)), ("grasper", "liver")[:count]
    at_ns, odds = of.captured_ns, (0.75,) * count
    return Masks(of.seq, of.session, at_ns, at_ns + 1, of.height, of.width, ids, names, odds, odds, logits_bhw)


def iou(a_hw: BoolMask, b_hw: BoolMask) -> float:
    return float((a_hw & b_hw).sum() / (a_hw | b_hw).sum())


def seen(count: int, carrier: Carrier | None = None, cut_at: int = 10**6) -> tuple[Carrier, list[Frame]]:
    carrier = carrier or Carrier()
    frames = [frame(t, cut_at=cut_at) for t in range(count)]
    for one in frames:
        carrier.add(one)
    return carrier, frames


class Reversed(Carrier):
    def _motion(self, old_seq: int, new_seq: int) -> Float32 | None:
        flow_hw2 = super()._motion(old_seq, new_seq)
        return None if flow_hw2 is None else -flow_hw2


class Unchecked(Reversed):
    @staticmethod
    def _is_explained(*pictures: object) -> bool:
        return True


@pytest.mark.parametrize(("age", "least", "gain"), [(1, 0.91, 0.09), (2, 0.83, 0.15), (5, 0.6, 0.25)])
def test_a_carried_mask_lies_where_the_object_went(age: int, least: float, gain: float) -> None:
    carrier, frames = seen(age + 1)
    old, truth_hw = masks_on(frames[0], disk(*place(0))), disk(*place(age))
    still, moved = iou(old.mask(1), truth_hw), iou(carrier.carry(old, frames[age]).mask(1), truth_hw)
    assert moved > max(least, still + gain)


def test_against_the_flow_it_is_worse_and_the_check_sees_it() -> None:
    old = masks_on(frame(0), disk(*place(0)))
    unchecked, frames = seen(3, Unchecked())
    wrong = unchecked.carry(old, frames[2])
    assert iou(wrong.mask(1), disk(*place(2))) < iou(old.mask(1), disk(*place(2))) - 0.1
    checked, _ = seen(3, Reversed())
    assert checked.carry(old, frames[2]) is old


def test_a_carried_mask_is_no_newer() -> None:
    carrier, frames = seen(3)
    old = masks_on(frames[0], disk(*place(0)))
    before_bhw = old.mask_logits_bhw.copy()
    moved = carrier.carry(old, frames[2])
    assert moved is not old
    same = [f.name for f in fields(Masks) if f.name not in ("mask_logits_bhw", "_full")]
    assert all(getattr(moved, name) == getattr(old, name) for name in same) and "captured_ns" in same
    assert np.array_equal(old.mask_logits_bhw, before_bhw)
    assert moved.mask_logits_bhw.dtype == np.float32


def test_what_cannot_be_said_is_left_as_it_is() -> None:
    carrier, frames = seen(4)
    old, now = masks_on(frames[1], disk(*place(1))), frames[3]
    assert carrier.carry(old, now) is not old
    unseen = replace(now, seq=9)
    for masks, at in [
        (replace(old, session="s0"), now), (old, replace(now, session="s0")), (replace(old, height=239), now),
        (old, unseen), (replace(old, seq=77), now), (old, frames[1]), (masks_on(now, disk(50, 50)), frames[1]),
        (masks_on(frames[1]), now),
    ]:  # fmt: skip
        assert carrier.carry(masks, at) is masks
    assert Carrier().carry(old, now) is old


def test_masks_that_are_not_drawn_are_not_moved() -> None:
    carrier, frames = seen(8)
    old = masks_on(frames[0], disk(*place(0)))
    assert carrier.carry(old, frames[6]) is not old  # 240 ms
    assert carrier.carry(old, frames[7]) is old  # 280 ms
    assert carrier.carry(old, frames[7], budget_ms=140) is not old


def test_what_is_kept_is_bounded() -> None:
    carrier = Carrier()
    still = frame(0)
    for t in range(60):
        carrier.add(replace(still, seq=t, captured_ns=t))
        carrier.add(replace(still, seq=t, captured_ns=t))  # the same one again: nothing happens
    assert len(carrier._frames) == 16
    assert carrier.carry(masks_on(replace(still, seq=40, captured_ns=40), disk(90, 110)), still).seq == 40


@pytest.mark.parametrize("again", [frame(0), frame(0, session="s2"), Frame(texture(1, 120, 160), 9, "s1")])
def test_another_feed_or_a_step_back_begins_anew(again: Frame) -> None:
    carrier, frames = seen(3)
    carrier.add(again)
    assert len(carrier._frames) == 1
    old = masks_on(frames[1], disk(*place(1)))
    assert carrier.carry(old, frames[2]) is old


def test_no_mask_crosses_a_cut() -> None:
    carrier, frames = seen(4, cut_at=3)
    old = masks_on(frames[1], disk(*place(1)))
    assert carrier.carry(old, frames[3]) is old
    assert carrier.carry(old, frames[2]) is not old


def test_each_object_is_judged_alone() -> None:
    """One object moves; another lies where the picture only grows darker, which no motion explains."""

    def dimmed(t: int) -> Frame:
        plain = frame(t)
        image_hwc = plain.image_hwc.copy()
        image_hwc[150:, 220:] = (200, 160, 120)[t]
        return replace(plain, image_hwc=image_hwc)

    frames = [dimmed(t) for t in range(3)]
    corner_hw = np.zeros((HEIGHT, WIDTH), bool)
    corner_hw[170:220, 240:300] = True
    old = masks_on(frames[0], disk(*place(0)), corner_hw)
    verdicts = []

    class Listening(Carrier):
        @staticmethod
        def _is_explained(*pictures: Any) -> bool:
            verdicts.append(Carrier._is_explained(*pictures))
            return verdicts[-1]

    carrier = Listening()
    for one in frames:
        carrier.add(one)
    moved = carrier.carry(old, frames[2])
    assert verdicts == [True, False]
    assert iou(moved.mask(1), disk(*place(2))) > iou(old.mask(1), disk(*place(2))) + 0.15
    assert iou(moved.mask(2), old.mask(2)) > 0.97


def test_frames_that_are_missing_do_not_matter() -> None:
    carrier = Carrier()
    frames = [frame(t) for t in (0, 2, 3)]
    for one in frames:
        carrier.add(one)
    moved = carrier.carry(masks_on(frames[0], disk(*place(0))), frames[2])
    assert iou(moved.mask(1), disk(*place(3))) > 0.7


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 400), st.integers(1, 400)),
    grid=st.tuples(st.integers(1, 200), st.integers(1, 300)),
    count=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_any_size_and_any_noise_is_survived(size, grid, count, seed):
    rng = np.random.default_rng(seed)
    carrier = Carrier()
    frames = [Frame(rng.integers(0, 256, (*size, 3), np.uint8), t, "s", captured_ns=t) for t in range(3)]
    for one in frames:
        carrier.add(one)
    logits_bhw = rng.normal(size=(count, *grid)).astype(np.float32)
    ids, ones = tuple(range(1, count + 1)), (1.0,) * count
    old = Masks(0, "s", 0, 0, *size, ids, ("",) * count, ones, ones, logits_bhw)
    moved = carrier.carry(old, frames[2])
    assert moved.ids == ids and np.isfinite(moved.mask_logits_bhw).all()
    assert all(moved.mask(i).shape == size for i in ids)
