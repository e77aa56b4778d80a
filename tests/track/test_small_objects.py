"""Objects too small for the network: the user is warned, small masks are dilated, and nothing else changes."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import cv2
import numpy as np
import pytest

from rtseg import Frame, Tracker, open_engine
from rtseg.base.types import BoolMask, Prompt
from rtseg.engine import Engine
from rtseg.engine.recipe import load_recipe
from rtseg.engine.reference import TorchEngine
from rtseg.track.small_objects import SMALLEST, is_doubtful, mask_input

H, W, S = 480, 854, 224


def area_mean(mask_hw: BoolMask, side: int) -> np.ndarray:
    """A mask without dilation."""
    return np.asarray(cv2.resize(mask_hw.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA) >= 0.5)


def square(side: int, at: tuple[int, int] = (200, 400), height: int | None = None) -> BoolMask:
    mask_hw = np.zeros((H, W), bool)
    mask_hw[at[0] : at[0] + (height or side), at[1] : at[1] + side] = True
    return mask_hw


def in_cells(answer_b1hw: np.ndarray) -> np.ndarray:
    """The answer as the network draws it: cells of 4 x 4 pixels."""
    torch = pytest.importorskip("torch")
    from rtseg.sam2.network import downsampled

    return np.asarray(downsampled(torch.from_numpy(answer_b1hw) * 20 - 10, (S // 4, S // 4)) > 0)


@pytest.mark.parametrize(("wide", "high"), [(10, 10), (3, 100), (1, 1)])
def test_no_mask_vanishes_on_its_way_to_the_network(wide: int, high: int) -> None:
    positions = [(200 + i, 400 + 2 * i) for i in range(0, 16, 3)]
    vanished = 0
    for at in positions:
        mask_hw = square(wide, at, high)
        cells = in_cells(mask_input(mask_hw, S))[0, 0]
        assert cells.any()
        (cell_y, cell_x), (y, x) = np.argwhere(cells).mean(0) + 0.5, np.argwhere(mask_hw).mean(0) + 0.5
        assert abs(cell_y * 4 * H / S - y) < 4 * H / S and abs(cell_x * 4 * W / S - x) < 4 * W / S
        vanished += not in_cells(area_mean(mask_hw, S)[None, None].astype(np.float32)).any()
    assert vanished > len(positions) // 2  # without dilation


def test_pieces_far_apart_that_are_all_small_are_all_kept() -> None:
    two_hw = square(8, (100, 100)) | square(8, (400, 700))
    cells = in_cells(mask_input(two_hw, S))[0, 0]
    assert cells[: S // 8].any() and cells[S // 8 :].any()


def test_an_ordinary_mask_is_not_dilated() -> None:
    y, x = np.mgrid[:H, :W]
    rng = np.random.default_rng(0)
    blob_hw = (x - 420) ** 2 / 90**2 + (y - 250) ** 2 / 60**2 + 0.3 * np.sin(x / 9.0) < 1
    tool_hw = np.abs((y - 100) - 0.4 * (x - 200)) < 22
    spotted_hw = blob_hw | (rng.random((H, W)) > 0.999) | square(3, (20, 20), 60)  # a small piece beside a large one
    for mask_hw in (blob_hw, tool_hw, spotted_hw, square(60)):
        for side in (S, 320, 1024):
            assert np.array_equal(mask_input(mask_hw, side)[0, 0], area_mean(mask_hw, side))
            assert not is_doubtful(Prompt(1, mask=mask_hw), side)


def test_what_is_small_depends_on_both_sizes() -> None:
    mask = square(20)
    assert is_doubtful(Prompt(1, mask=mask), 224) and not is_doubtful(Prompt(1, mask=mask), 512)
    assert not is_doubtful(Prompt(1, box=(0, 0, 1, 1)), 224) and not is_doubtful(None, 224)


@cache
def micro() -> Engine:
    return open_engine(replace(load_recipe("engines/micro-cpu.toml"), runtime="cpu", precision="auto"))


def dot(t: int, radius: float = 6) -> Frame:
    """A bright dot that moves over something textured."""
    rng = np.random.default_rng(3)
    image_hwc = cv2.resize(rng.integers(60, 120, (24, 43, 3), dtype=np.uint8), (W, H), interpolation=cv2.INTER_CUBIC)
    cv2.circle(image_hwc, (400 + 2 * t, 240), round(radius), (250, 240, 60), -1, cv2.LINE_AA)
    return Frame(np.asarray(image_hwc, np.uint8), t)


def round_mask(radius: float) -> BoolMask:
    y, x = np.mgrid[:H, :W]
    return np.asarray((x - 400) ** 2 + (y - 240) ** 2 <= radius**2)


@pytest.mark.parametrize("radius", [7, 10])
def test_a_small_mask_is_tracked_with_a_warning(radius: float) -> None:
    tracker = Tracker(micro())
    tracker.prompt(1, mask=round_mask(radius))
    first = tracker.step(dot(0, radius))
    assert len(first.warnings) == 1
    assert "object 1: the mask covers" in first.warnings[0] and "26x26" in first.warnings[0]
    assert "image_size 224" in first.warnings[0] and "\n" not in first.warnings[0]
    assert first.mask(1).any()
    later = [tracker.step(dot(t, radius)) for t in range(1, 6)]
    assert all(masks.warnings == () for masks in later)  # once, not on every frame
    if radius == 10:
        assert all(masks.mask(1)[235:245, 395 + 2 * t : 405 + 2 * t].any() for t, masks in enumerate(later, 1))


def test_the_score_of_a_mask_that_the_network_cannot_find_is_low() -> None:
    flat = Frame(np.full((H, W, 3), 90, np.uint8), 0)
    tracker = Tracker(micro())
    tracker.prompt(1, mask=square(4))
    masks = tracker.step(flat)
    assert masks.score(1) < 0.5 or masks.iou(1) < 0.2
    assert "not found again even on the same picture" in masks.warnings[0]


def test_an_ordinary_mask_is_certain_and_not_warned_of() -> None:
    tracker = Tracker(micro())
    tracker.prompt(1, mask=round_mask(60))
    masks = tracker.step(dot(0, 60))
    assert masks.score(1) > 0.9999 and masks.iou(1) == 1 and masks.warnings == ()


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({"box": (400, 100, 401, 400)}, "the box covers 300 pixels"),
        ({"box": (394, 234, 406, 246)}, "the box covers 144 pixels"),
        ({"box": (300, 140, 500, 340)}, None),
        ({"points": [(400, 240, 1)]}, None),
    ],
)
def test_boxes_and_clicks(said: dict[str, object], found: str | None) -> None:
    tracker = Tracker(micro())
    tracker.prompt(1, **said)  # type: ignore[arg-type]
    lines = tracker.step(dot(0, 100)).warnings
    assert (found is None and not lines) or (found is not None and len(lines) == 1 and found in lines[0])


def test_a_click_with_a_small_answer_is_warned_of(small_engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = small_engine.decode

    def few_cells(*given):  # type: ignore[no-untyped-def]
        decoded = answer(*given)
        logits = decoded.logits_b1hw * 0 - 1
        logits[:, :, 3:5, 3:5] = 1
        return replace(decoded, logits_b1hw=logits)

    monkeypatch.setattr(small_engine, "decode", few_cells)
    tracker = Tracker(small_engine)
    tracker.prompt(1, points=[(40, 40, 1)])
    picture = np.zeros((192, 64, 3), np.uint8)
    (line,) = tracker.step(picture).warnings
    assert "the network found 192 pixels" in line
    tracker.prompt(1, points=[(5, 5, 0)])  # which does not say how large it is
    assert tracker.step(picture).warnings == ()


def test_the_smallest_is_the_same_for_every_engine_size() -> None:
    """A square just above the limit is not warned of, one below it is, at any image size and shape of picture."""
    for height, width, side in ((480, 854, 224), (1080, 1920, 512), (320, 320, 64)):
        least = SMALLEST * (height * width) ** 0.5 / side
        for factor, warned in ((0.9, True), (1.15, False)):
            edge = round(least * factor)
            mask_hw = np.zeros((height, width), bool)
            mask_hw[50 : 50 + edge, 60 : 60 + edge] = True
            area = np.count_nonzero(mask_hw) * side**2 / (height * width)
            assert (area < SMALLEST**2) == warned
