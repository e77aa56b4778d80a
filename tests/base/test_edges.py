"""Masks on their picture: edges where the picture has them, and nothing else than edges."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from rtseg import Frame, Masks
from rtseg.base.errors import SourceError
from rtseg.base.types import BoolMask
from rtseg.publish.mask_state import measure

H, W, SIDE = 180, 320, 40  # cells of 8 x 4.5 pixels


def masks_of(logits_hw: np.ndarray) -> Masks:
    logits_bhw = np.asarray(logits_hw, np.float32)[None]
    return Masks(3, "s", 5, 6, H, W, (7,), ("tool",), (0.9,), (0.9,), logits_bhw)


def seen(truth_hw: BoolMask, sure: float = 12.0) -> np.ndarray:
    """A network that is right, as far as its cells go: the logits of each cell say how much of it is covered."""
    cover_hw = cv2.resize(truth_hw.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return np.clip((cv2.GaussianBlur(cover_hw, (3, 3), 0.7) - 0.5) * sure, -sure / 2, sure / 2)


def picture(truth_hw: BoolMask, object_rgb: tuple[int, int, int], around_rgb: tuple[int, int, int]) -> Frame:
    noise_hwc = np.random.default_rng(1).normal(0, 4, (H, W, 3))
    image_hwc = np.where(truth_hw[..., None], object_rgb, around_rgb) + noise_hwc
    return Frame(np.clip(image_hwc, 0, 255).astype(np.uint8), 3)


def iou(a_hw: BoolMask, b_hw: BoolMask) -> float:
    return float((a_hw & b_hw).sum() / (a_hw | b_hw).sum())


def tool() -> BoolMask:
    y, x = np.mgrid[:H, :W]
    return np.asarray((np.abs(y - 40 - 0.35 * x) < 17) & (x < 230))


PAIRS = [((200, 200, 205), (140, 40, 35)), ((40, 45, 60), (150, 60, 50)), ((160, 90, 90), (90, 130, 90))]


@pytest.mark.parametrize(("object_rgb", "around_rgb"), PAIRS)
def test_edges_lie_where_the_picture_has_them(
    object_rgb: tuple[int, int, int], around_rgb: tuple[int, int, int]
) -> None:
    truth_hw = tool()
    wrong_hw = np.random.default_rng(2).normal(0, 2, (SIDE, SIDE))
    masks, frame = masks_of(seen(truth_hw) + wrong_hw), picture(truth_hw, object_rgb, around_rgb)
    plain, fitted = iou(masks.mask(7), truth_hw), iou(masks.on(frame).mask(7), truth_hw)
    assert plain < 0.96 and 1 - fitted < 0.5 * (1 - plain)


def test_a_bar_across_an_object_is_none_of_it() -> None:
    truth_hw = tool()
    y, x = np.mgrid[:H, :W]
    bar_hw = np.abs(x - 120 + 0.3 * (y - 80)) < 5  # little more than a cell
    frame = picture(truth_hw & ~bar_hw, (200, 200, 205), (140, 40, 35))
    frame.image_hwc[bar_hw] = (60, 160, 60)
    masks = masks_of(seen(truth_hw & ~bar_hw))
    over_bar = [float(m.mask(7)[bar_hw & truth_hw].mean()) for m in (masks, masks.on(frame))]
    assert over_bar[0] > 0.15 and over_bar[1] < 0.4 * over_bar[0]


def test_a_picture_that_says_nothing_changes_little() -> None:
    masks = masks_of(seen(tool()))
    flat = Frame(np.full((H, W, 3), 128, np.uint8), 3)
    assert iou(masks.mask(7), masks.on(flat).mask(7)) > 0.97


def test_what_the_network_is_sure_of_stays() -> None:
    truth_hw = tool()
    masks = masks_of(seen(truth_hw, 40.0))
    noise = Frame(np.random.default_rng(0).integers(0, 255, (H, W, 3), dtype=np.uint8), 3)
    plain_hw, fitted_hw = masks.logits(7), masks.on(noise).logits(7)
    assert (plain_hw != fitted_hw).any() and np.isfinite(fitted_hw).all()
    assert np.array_equal(plain_hw[np.abs(plain_hw) > 4], fitted_hw[np.abs(plain_hw) > 4])


@pytest.mark.parametrize("value", [-1024.0, -5.0, 5.0, 0.0])
def test_masks_of_nothing_and_of_everything(value: float) -> None:
    masks = masks_of(np.full((SIDE, SIDE), value))
    fitted_hw = masks.on(picture(tool(), *PAIRS[0])).logits(7)
    assert np.allclose(fitted_hw, value, atol=1e-3)


def test_a_mask_at_the_rim_of_the_picture_keeps_its_rim() -> None:
    truth_hw = np.zeros((H, W), bool)
    truth_hw[:, :50] = truth_hw[-40:] = True
    fitted_hw = masks_of(seen(truth_hw)).on(picture(truth_hw, *PAIRS[0])).mask(7)
    assert iou(fitted_hw, truth_hw) > 0.99


def test_masks_are_as_before_and_all_that_is_made_of_them_agrees() -> None:
    masks, frame = masks_of(seen(tool())), picture(tool(), *PAIRS[0])
    before_hw = masks.logits(7).copy()
    on = masks.on(frame)
    mask_hw, about = measure(on, 7)
    assert np.array_equal(mask_hw, on.mask(7)) and about.area == on.mask(7).sum()
    assert np.array_equal(on.id_map() == 7, on.mask(7))
    assert np.array_equal(masks.logits(7), before_hw)
    assert np.array_equal(before_hw, cv2.resize(masks.mask_logits_bhw[0], (W, H), interpolation=cv2.INTER_LINEAR))
    assert (on.seq, on.ids, on.scores) == (masks.seq, masks.ids, masks.scores)
    assert not np.array_equal(on.mask(7), masks.mask(7))


def test_another_size_is_refused() -> None:
    other = Frame(np.zeros((H, W + 2, 3), np.uint8), 3)
    with pytest.raises(SourceError, match="frame 3 is 322x180; expected .* 320x180"):
        masks_of(seen(tool())).on(other)


def test_a_part_of_a_larger_picture_will_do() -> None:
    """Its rows are not one after the other in memory."""
    truth_hw = tool()
    frame = picture(truth_hw, *PAIRS[0])
    large_hwc = np.zeros((H + 10, W + 10, 3), np.uint8)
    large_hwc[5 : H + 5, 5 : W + 5] = frame.image_hwc
    part = replace(frame, image_hwc=large_hwc[5 : H + 5, 5 : W + 5])
    masks = masks_of(seen(truth_hw))
    assert np.array_equal(masks.on(part).logits(7), masks.on(frame).logits(7))
