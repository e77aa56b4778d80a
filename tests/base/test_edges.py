"""Masks on their picture: edges where the picture has them, and nothing else than edges."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from rtseg import Frame, Masks
from rtseg.base.edges import MOST, PARTS, Guide
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


def bilinear(masks: Masks) -> np.ndarray:
    size = (SIDE * PARTS, SIDE * PARTS)
    return np.asarray(cv2.resize(masks.mask_logits_bhw[0], size, interpolation=cv2.INTER_LINEAR))


def iou(a_hw: BoolMask, b_hw: BoolMask) -> float:
    return float((a_hw & b_hw).sum() / (a_hw | b_hw).sum())


def tool() -> BoolMask:
    y, x = np.mgrid[:H, :W]
    return np.asarray((np.abs(y - 40 - 0.35 * x) < 17) & (x < 230))


Rgb = tuple[int, int, int]
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
    masks = masks_of(seen(tool(), 40.0))
    noise = Frame(np.random.default_rng(0).integers(0, 255, (H, W, 3), dtype=np.uint8), 3)
    plain_hw = bilinear(masks)
    fitted_hw = masks.on(noise).fine_logits(7)
    assert (plain_hw != fitted_hw).any() and np.isfinite(fitted_hw).all()
    assert np.array_equal(plain_hw[np.abs(plain_hw) > 4], fitted_hw[np.abs(plain_hw) > 4])


@pytest.mark.parametrize("seed", range(4))
def test_only_cells_beside_a_change_of_sign_change(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits_hw = cv2.GaussianBlur(rng.normal(0, 9, (SIDE, SIDE)).astype(np.float32), (0, 0), 2.5)
    masks = masks_of(logits_hw)
    noise = Frame(rng.integers(0, 255, (H, W, 3), dtype=np.uint8), 3)
    changed_hw = bilinear(masks) != masks.on(noise).fine_logits(7)
    cells_hw = changed_hw.reshape(SIDE, PARTS, SIDE, PARTS).any((1, 3))
    beside = np.ones((3, 3), np.uint8)
    inside_hw = (logits_hw > 0).astype(np.uint8)
    edge_hw = cv2.dilate(inside_hw, beside) != cv2.erode(inside_hw, beside)
    assert cells_hw.any() and not (cells_hw & ~edge_hw).any()
    assert not (cells_hw & (np.abs(logits_hw) > 3 * 4)).any()


@pytest.mark.parametrize("width", [2, 4, 8])
@pytest.mark.parametrize("colors", PAIRS)
def test_a_thin_shaft_does_not_vanish(width: int, colors: tuple[Rgb, Rgb]) -> None:
    """A shaft of a quarter of a cell, half a cell and one cell, which the network shows as a faint line of cells."""
    y, x = np.mgrid[:H, :W]
    shaft_hw = (np.abs(y - 60 - 0.2 * x) < width / 2) & (x > 30) & (x < 280)
    cover_hw = cv2.resize(shaft_hw.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    masks = masks_of(np.where(cover_hw > 0.05, 2.0, -6.0))
    plain_hw, fitted_hw = masks.mask(7), masks.on(picture(shaft_hw, *colors)).mask(7)
    columns = (shaft_hw & fitted_hw).any(0)[40:270]
    assert columns.mean() > 0.97  # it is there along its whole length
    assert (fitted_hw & ~shaft_hw).sum() < (plain_hw & ~shaft_hw).sum()  # and leaks nowhere
    assert iou(fitted_hw, shaft_hw) > 0.95 * iou(plain_hw, shaft_hw)


@pytest.mark.parametrize("cells", [1, 2, 5])
@pytest.mark.parametrize("sigma", [0, 20])
def test_a_small_or_thin_piece_does_not_vanish_where_colors_say_nothing(cells: int, sigma: float) -> None:
    logits_hw = np.full((SIDE, SIDE), -5.0)
    logits_hw[10, 8 : 8 + cells], logits_hw[25, 3:35], logits_hw[20:26, 30:36] = 1.0, 1.0, 6.0  # a thin tail of a body
    noise_hwc = np.random.default_rng(4).normal(128, sigma, (H, W, 3))
    flat = Frame(np.clip(noise_hwc, 0, 255).astype(np.uint8), 3)
    masks = masks_of(logits_hw)
    plain_hw, fitted_hw = masks.mask(7), masks.on(flat).mask(7)
    for piece in (np.s_[40:54], np.s_[108:120]):
        assert plain_hw[piece].any() and fitted_hw[piece].sum() > 0.4 * plain_hw[piece].sum()
    along = fitted_hw[108:120, 26:230].any(0)
    assert along.mean() > (0.99 if sigma == 0 else 0.85)


def test_a_piece_of_another_color_than_the_rest_is_still_there() -> None:
    truth_hw = tool()
    logits_hw = seen(truth_hw)
    logits_hw[35, 3:5] = 1.0  # on what has the colour of the background
    masks = masks_of(logits_hw)
    assert masks.on(picture(truth_hw, *PAIRS[0])).mask(7)[150:165, :50].any()


def test_a_highlight_beside_the_edge_is_no_part_of_the_background() -> None:
    """A glint on metal is as bright as one on the tissue beside it: the object must neither lose it nor flow out."""
    truth_hw = tool()
    frame = picture(truth_hw, (120, 122, 128), (140, 40, 35))
    y, x = np.mgrid[:H, :W]
    for cx, cy, radius in ((100, 66, 6), (150, 84, 5), (150, 120, 7)):  # two on the tool at its edge, one on the tissue
        frame.image_hwc[(x - cx) ** 2 + (y - cy) ** 2 < radius**2] = 250
    masks = masks_of(seen(truth_hw))
    plain_hw, fitted_hw = masks.mask(7), masks.on(frame).mask(7)
    assert iou(fitted_hw, truth_hw) > iou(plain_hw, truth_hw) - 0.005
    inner_hw = cv2.erode(truth_hw.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    assert fitted_hw[inner_hw].all()
    assert not (fitted_hw & ~(cv2.dilate(truth_hw.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0)).any()


@pytest.mark.parametrize(("sigma", "astray"), [(10, 0), (40, 60)])
def test_noise_makes_no_holes(sigma: float, astray: int) -> None:
    """Noise of the strength of the contrast, 40, may cost a few parts, of 2 x 1 pixels each."""
    truth_hw = tool()
    frame = picture(truth_hw, (150, 150, 150), (120, 110, 110))
    noise_hwc = np.random.default_rng(3).normal(0, sigma, frame.image_hwc.shape)
    noisy = replace(frame, image_hwc=np.clip(frame.image_hwc + noise_hwc, 0, 255).astype(np.uint8))
    fitted_hw = masks_of(seen(truth_hw)).on(noisy).mask(7)
    assert iou(fitted_hw, truth_hw) > 0.95
    for side_hw in (fitted_hw, ~fitted_hw):
        _, _, stats, _ = cv2.connectedComponentsWithStats(side_hw.astype(np.uint8), connectivity=4)
        areas = sorted(stats[1:, cv2.CC_STAT_AREA])
        assert sum(a for a in areas if a < 2000) <= astray  # the larger ones: the tool; what is above and below it


def test_cells_as_small_as_pixels_and_very_many_cells_stay_as_they_are() -> None:
    small = Frame(np.zeros((SIDE * 3, SIDE * 5, 3), np.uint8), 3)
    assert Guide.of(small, SIDE, SIDE) is None  # 15 pixels a cell
    assert Guide.of(Frame(np.zeros((SIDE * 4, SIDE * 4, 3), np.uint8), 3), SIDE, SIDE)
    large = Frame(np.zeros((1600, 1600, 3), np.uint8), 3)
    assert Guide.of(large, MOST // PARTS, MOST // PARTS) and Guide.of(large, MOST // PARTS + 1, 80) is None
    masks = replace(masks_of(seen(tool())), height=SIDE * 3, width=SIDE * 5)
    assert masks.on(small).guide is None and masks.on(small).fine_logits(7).shape == (SIDE, SIDE)


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
