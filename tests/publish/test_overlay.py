from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtseg.base.colors import COLORS, PALETTE, color_of
from rtseg.base.errors import OutputError
from rtseg.base.types import BoolMask, Frame
from rtseg.publish import overlay
from rtseg.publish.mask_state import measure
from rtseg.publish.overlay import Drawn, draw_overlay


def _touchable(masks_hw: list[BoolMask], drawn: Drawn) -> BoolMask:
    allowed_hw = np.logical_or.reduce(masks_hw)
    for x0, y0, x1, y1 in drawn.label_boxes:
        allowed_hw[y0:y1, x0:x1] = True
    return allowed_hw


def _changed(frame: Frame, drawn: Drawn) -> BoolMask:
    return (frame.image_hwc != drawn.image_hwc).any(axis=2)


@settings(max_examples=80, deadline=None)
@given(
    size=st.tuples(st.integers(1, 90), st.integers(1, 130)),
    count=st.integers(1, 5),
    density=st.sampled_from([0.02, 0.3, 0.6, 1.0]),
    coarse=st.sampled_from([1, 4, 9]),
    age_ms=st.floats(-300, 300),
    notice=st.sampled_from(["", "paused", "source frozen"]),
    seed=st.integers(0, 2**16),
)
def test_nothing_outside_masks_and_labels_is_touched(
    make_frame, make_masks, size, count, density, coarse, age_ms, notice, seed
):
    frame = make_frame(*size, seq=seed)
    rng = np.random.default_rng(seed)
    rough = rng.random((count, -(-size[0] // coarse), -(-size[1] // coarse))) < density
    masks_hw = list(np.kron(rough, np.ones((1, coarse, coarse), bool))[:, : size[0], : size[1]])
    before = frame.image_hwc.copy()
    drawn = draw_overlay(frame, make_masks(frame, masks_hw, age_ms), notice=notice)
    assert not (_changed(frame, drawn) & ~_touchable(masks_hw, drawn)).any()
    assert np.array_equal(frame.image_hwc, before)
    for x0, y0, x1, y1 in drawn.label_boxes:
        assert 0 <= x0 < x1 <= frame.width and 0 <= y0 < y1 <= frame.height


@pytest.mark.parametrize(
    ("age_ms", "state", "filled", "lined"),
    [(0, "fresh", 1, 1), (120, "fresh", 1, 1), (121, "stale", 0, 1), (240, "stale", 0, 1), (241, "expired", 0, 0),
     (-100, "fresh", 1, 1), (-200, "stale", 0, 1), (-300, "expired", 0, 0)],
)  # fmt: skip
def test_age_decides_what_is_drawn(make_frame, make_masks, box_mask, age_ms, state, filled, lined):
    frame = make_frame(200, 300, captured_ns=10**12)
    drawn = draw_overlay(frame, make_masks(frame, [box_mask(frame, 100, 60, 200, 160)], age_ms))
    changed_hw = _changed(frame, drawn)
    assert (drawn.state, drawn.age_ms, drawn.mask_seq) == (state, age_ms, frame.seq - 2)
    assert (changed_hw[80:140, 120:180].mean() > 0.9) == bool(filled)
    assert changed_hw[80:140, 120:180].any() == bool(filled)
    assert (changed_hw[60, 100:200].mean() > 0.9) == bool(lined)
    assert len(drawn.objects) == lined and len(drawn.label_boxes) == 1
    for x0, y0, x1, y1 in drawn.label_boxes:  # of the object; or that says that the masks are too old
        changed_hw[y0:y1, x0:x1] = False
    assert changed_hw.any() == bool(lined)


def test_the_budget_is_the_callers(make_frame, make_masks, box_mask):
    frame = make_frame(captured_ns=10**12)
    masks = make_masks(frame, [box_mask(frame, 20, 20, 80, 80)], age_ms=50)
    assert [draw_overlay(frame, masks, budget_ms=b).state for b in (60, 30, 20)] == ["fresh", "stale", "expired"]


def test_masks_of_another_session_or_size_are_never_drawn(make_frame, make_masks, box_mask):
    frame, other = make_frame(captured_ns=10**12), make_frame(60, 80, captured_ns=10**12)
    mine = make_masks(frame, [box_mask(frame, 20, 20, 80, 80)])
    elsewhere = make_masks(frame, [box_mask(frame, 20, 20, 80, 80)], session="s0")
    smaller = make_masks(other, [box_mask(other, 20, 20, 50, 50)])
    assert [draw_overlay(frame, m).state for m in (mine, elsewhere, smaller, None)] == [
        "fresh", "expired", "expired", "none",
    ]  # fmt: skip
    for masks in (elsewhere, smaller):
        assert not _changed(frame, _bare(frame, draw_overlay(frame, masks))).any()


def _bare(frame: Frame, drawn: Drawn) -> Drawn:
    """As it was drawn, without its plates."""
    image_hwc = drawn.image_hwc.copy()
    for x0, y0, x1, y1 in drawn.label_boxes:
        image_hwc[y0:y1, x0:x1] = frame.image_hwc[y0:y1, x0:x1]
    return replace(drawn, image_hwc=image_hwc)


def test_contour_has_the_objects_colour(make_frame, make_masks, box_mask):
    frame = make_frame(200, 300)
    drawn = draw_overlay(
        frame, make_masks(frame, [box_mask(frame, 10, 40, 90, 120), box_mask(frame, 150, 40, 250, 120)])
    )
    for seen in drawn.objects:
        x0, _, _, y1 = seen.box
        off = [np.abs(drawn.image_hwc[y1 - 1, x0 + 20].astype(int) - color_of(i)).max() for i in (1, 2)]
        assert off[seen.id - 1] < 20 < off[2 - seen.id]


def test_labels_name_the_object_and_its_age(make_frame, make_masks, box_mask, monkeypatch):
    said = []
    real = overlay.render_label
    monkeypatch.setattr(overlay, "render_label", lambda text, *rest: said.append(text) or real(text, *rest))
    frame = make_frame(200, 300, captured_ns=10**12)
    masks_hw = [box_mask(frame, 10, 40, 90, 120), box_mask(frame, 0, 0, 0, 0), box_mask(frame, 150, 40, 250, 120)]
    drawn = draw_overlay(frame, make_masks(frame, masks_hw, age_ms=41.7))
    assert said == ["1 grasper 42 ms", "3 liver 42 ms"]  # object 2 has no pixel
    assert [(seen.id, seen.area, seen.box) for seen in drawn.objects] == [
        (1, 80 * 80, (10, 40, 90, 120)), (3, 100 * 80, (150, 40, 250, 120)),
    ]  # fmt: skip


def test_labels_keep_apart_and_off_the_masks(make_frame, make_masks, box_mask):
    frame = make_frame(300, 400)
    stacked = draw_overlay(frame, make_masks(frame, [box_mask(frame, 0, 0, 400, 300)] * 5))
    assert _overlaps(stacked.label_boxes) == 0
    assert _overlaps((*stacked.label_boxes, stacked.label_boxes[0])) > 0  # the measure can see an overlap
    single = draw_overlay(frame, make_masks(frame, [box_mask(frame, 100, 100, 200, 200)]))
    ((x0, y0, x1, y1),) = single.label_boxes
    assert not (x0 < 200 and x1 > 100 and y0 < 200 and y1 > 100)


def _overlaps(boxes):
    pairs = [(a, b) for i, a in enumerate(boxes) for b in boxes[:i]]
    return sum(a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3] for a, b in pairs)


# Machado, Oliveira and Fernandes 2009, severity 1, for linear RGB.
_EYES = {
    "normal": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def _lab(colors, eye: str):
    value = np.asarray(colors, float) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(_EYES[eye]).T, 0, 1)
    srgb = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
    return cv2.cvtColor(srgb.astype(np.float32)[None], cv2.COLOR_RGB2Lab)[0]


def _closest(colors, eye: str) -> float:
    lab = _lab(colors, eye)
    return min(float(np.linalg.norm(lab[i] - lab[j])) for i in range(len(lab)) for j in range(i))


@pytest.mark.parametrize("eye", _EYES)
def test_colours_are_distinct_to_all_eyes(eye):
    assert _closest(PALETTE[:4], eye) > 35
    assert _closest(PALETTE, eye) > 18
    assert _closest(COLORS, eye) > (25 if eye == "normal" else 13)


def test_the_measure_of_colours_sees_a_confusion():
    red_green = [(200, 60, 40), (110, 110, 40)]
    assert _closest(red_green, "normal") > 35 > 20 > _closest(red_green, "deutan")


def test_no_colour_is_that_of_tissue():
    # Cluster centres of laparoscopic and ophthalmic video: liver, fat, gallbladder, mucosa, gauze.
    tissue = [(131, 80, 62), (88, 46, 46), (228, 163, 91), (214, 174, 162), (245, 207, 191), (182, 142, 135),
              (185, 128, 77), (153, 99, 74), (70, 32, 32), (205, 40, 40)]  # fmt: skip
    lab, tissue_lab = _lab(PALETTE, "normal"), _lab(tissue, "normal")
    assert np.linalg.norm(lab[:, None] - tissue_lab[None], axis=2).min() > 35
    assert len({color_of(i) for i in range(1, 9)}) == 8
    assert np.linalg.norm(_lab(COLORS, "normal")[:, None] - tissue_lab[None], axis=2).min() > 30


def test_twenty_four_objects_have_colours_of_their_own():
    assert len({color_of(i) for i in range(1, 25)}) == 24 and color_of(25) == color_of(1)
    assert _lab(COLORS, "normal")[:, 0].min() > 35  # what is darker is lost in the shadows and the corners


def test_drawing_needs_only_numpy_and_opencv():
    code = (
        "import sys\n"
        "for name in ('zmq', 'msgpack', 'av', 'PIL', 'pycocotools', 'torch', 'rich'): sys.modules[name] = None\n"
        "import rtseg.publish.overlay, rtseg.publish\n"
        "rtseg.publish.draw_overlay\n"
        "try: rtseg.publish.Publisher\n"
        "except ImportError: print('lazy')\n"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "lazy\n"


def test_opacity_is_the_callers(make_frame, make_masks, box_mask):
    frame = make_frame(200, 300, captured_ns=10**12)
    masks = make_masks(frame, [box_mask(frame, 100, 60, 200, 160)], age_ms=40)
    inner = np.s_[80:140, 120:180]
    bare, half, full = (draw_overlay(frame, masks, opacity=o) for o in (0, 0.5, 1))
    assert {d.state for d in (bare, half, full)} == {"fresh"}
    assert np.array_equal(bare.image_hwc[inner], frame.image_hwc[inner])
    assert _changed(frame, bare)[60, 100:200].mean() > 0.9  # the outline stays
    assert (full.image_hwc[inner] == color_of(1)).all()
    middle = (frame.image_hwc[inner].astype(float) + color_of(1)) / 2
    assert np.abs(half.image_hwc[inner] - middle).max() <= 1
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(OutputError, match=r"opacity .* expected 0 \(outline only\) to 1"):
            draw_overlay(frame, masks, opacity=wrong)


@pytest.mark.parametrize(
    ("age_ms", "state"), [(None, "recovering"), (300, "recovering"), (200, "stale"), (40, "fresh")]
)
def test_recovering_is_said_where_there_is_no_mask_to_show(make_frame, make_masks, box_mask, age_ms, state):
    frame = make_frame(200, 300, captured_ns=10**12)
    masks = None if age_ms is None else make_masks(frame, [box_mask(frame, 100, 60, 200, 160)], age_ms)
    drawn, usual = draw_overlay(frame, masks, recovering=True), draw_overlay(frame, masks)
    assert drawn.state == state and usual.state == {None: "none", 300: "expired"}.get(age_ms, state)
    assert (drawn.age_ms, drawn.mask_seq) == (usual.age_ms, usual.mask_seq)
    if state != "recovering":
        assert np.array_equal(drawn.image_hwc, usual.image_hwc)
        return
    ((x0, y0, x1, y1),) = drawn.label_boxes
    assert not _changed(frame, _bare(frame, usual)).any()
    assert _changed(frame, drawn)[y0:y1, x0:x1].mean() > 0.9 and (x0, y1) < (20, 200)
    assert not (_changed(frame, drawn) & ~_touchable([np.zeros((200, 300), bool)], drawn)).any()


@pytest.mark.parametrize(
    ("age_ms", "recovering", "notice", "said"),
    [
        (None, False, "", None),
        (None, True, "paused", "restoring objects"),
        (None, False, "paused", "paused"),
        (300, True, "paused", "restoring objects"),
        (300, False, "paused", "paused"),
        (300, False, "", "masks too old"),
        (200, False, "", None),
        (200, True, "paused", "paused"),
        (40, False, "source frozen", "source frozen"),
        (40, False, "", None),
    ],
)
def test_one_plate_in_the_corner_says_what_matters_most(
    make_frame, make_masks, box_mask, monkeypatch, age_ms, recovering, notice, said
):
    texts = []
    real = overlay.render_label
    monkeypatch.setattr(overlay, "render_label", lambda text, *rest: texts.append(text) or real(text, *rest))
    frame = make_frame(200, 300, captured_ns=10**12)
    # Down in the corner, where the label of the object would go, if that were free.
    masks = None if age_ms is None else make_masks(frame, [box_mask(frame, 0, 100, 60, 186)], age_ms)
    plain = draw_overlay(frame, masks)
    texts.clear()
    drawn = draw_overlay(frame, masks, recovering=recovering, notice=notice)
    assert {text for text in texts if not text.startswith("1 ")} == ({said} if said else set())
    if not (recovering and age_ms in (None, 300)):
        assert drawn.state == plain.state
    assert drawn.objects == plain.objects
    assert len(drawn.label_boxes) == len(drawn.objects) + bool(said)
    assert _overlaps(drawn.label_boxes) == 0
    if said:
        x0, y0, x1, y1 = drawn.label_boxes[-1]
        assert _changed(frame, drawn)[y0:y1, x0:x1].mean() > 0.9 and (x0, y1) < (20, 200)


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (200, 3), (17, 40)])
@pytest.mark.parametrize("plate", [{"recovering": True}, {"notice": "source frozen"}])
def test_a_plate_fits_any_picture(make_frame, size, plate):
    drawn = draw_overlay(make_frame(*size), None, **plate)
    ((x0, y0, x1, y1),) = drawn.label_boxes
    assert 0 <= x0 < x1 <= size[1] and 0 <= y0 < y1 <= size[0]


def test_carried_is_passed_on(make_frame, make_masks, box_mask):
    frame = make_frame(captured_ns=10**12)
    masks = make_masks(frame, [box_mask(frame, 20, 20, 80, 80)], age_ms=50)
    assert draw_overlay(frame, masks, carried=True).carried and not draw_overlay(frame, masks).carried
    late = make_masks(frame, [box_mask(frame, 20, 20, 80, 80)], age_ms=500)
    assert not draw_overlay(frame, late, carried=True).carried  # nothing is drawn


_LEVEL = {"fresh": 0, "stale": 1, "expired": 2}


def _play(make_frame, make_masks, ages_ms, period_ms, remember):
    """Each frame with masks of the next age; `remember`: what is drawn knows of the frame before."""
    drawn, before = [], None
    box_hw = np.zeros((120, 160), bool)
    box_hw[40:80, 40:120] = True
    for n, age_ms in enumerate(ages_ms):
        frame = make_frame(120, 160, captured_ns=10**12 + round(n * period_ms * 1e6))
        masks = make_masks(frame, [box_hw], age_ms)
        drawn.append((frame, draw_overlay(frame, masks, opacity=1, before=before)))
        before = drawn[-1][1].shown_state if remember else None
    return drawn


@settings(max_examples=60, deadline=None)
@given(
    ages_ms=st.lists(st.one_of(st.floats(0, 300), st.sampled_from([119.999, 120, 120.001, 240])), max_size=20),
    period_ms=st.sampled_from([4, 16.7, 40, 400]),
)
def test_no_mask_is_ever_shown_as_fresher_than_its_age(make_frame, make_masks, ages_ms, period_ms):
    for frame, drawn in _play(make_frame, make_masks, ages_ms, period_ms, True):
        by_age = _level(drawn.age_ms)
        assert _LEVEL[drawn.state] >= by_age
        filled = (drawn.image_hwc[55:65, 60:100] == color_of(1)).all()
        assert filled == (drawn.state == "fresh") and not (filled and drawn.age_ms > 120)
        if by_age == 2:
            assert not _changed(frame, _bare(frame, drawn)).any()


def _level(age_ms: float) -> int:
    return 0 if age_ms <= 120 else 1 if age_ms <= 240 else 2


def _flips(drawn) -> int:
    states = [d.state for _, d in drawn]
    return sum(a != b for a, b in pairwise(states))


@pytest.mark.parametrize("nominal_ms", [120, 240])
def test_masks_that_sit_on_a_limit_do_not_flicker(make_frame, make_masks, nominal_ms):
    """25 fps: ages are multiples of 40 ms, with jitter."""
    ages_ms = nominal_ms + np.random.default_rng(0).normal(0, 2, 100)
    flips = [_flips(_play(make_frame, make_masks, ages_ms, 40, remember)) for remember in (False, True)]
    assert flips[0] > 40 and flips[1] <= 2


@pytest.mark.parametrize(
    ("ages_ms", "states"),
    [
        ([80, 121, 119, 80], ["fresh", "stale", "stale", "fresh"]),  # well within: at once
        ([80, 121] + [119] * 14, ["fresh"] + ["stale"] * 14 + ["fresh"]),  # just within: after half a second
        ([80, 121, 119, 121] + [119] * 14, ["fresh"] + ["stale"] * 16 + ["fresh"]),  # and it begins anew
        ([260, 235, 119, 100], ["expired", "expired", "stale", "fresh"]),
        ([119] * 3, ["fresh"] * 3),
    ],
)
def test_when_a_mask_is_filled_again(make_frame, make_masks, ages_ms, states):
    assert [d.state for _, d in _play(make_frame, make_masks, ages_ms, 40, True)] == states


@settings(max_examples=40, deadline=None)
@given(
    grid=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    sizes=st.lists(st.tuples(st.integers(1, 90), st.integers(1, 130)), min_size=2, max_size=3),
    seed=st.integers(0, 2**16),
)
def test_what_is_drawn_is_the_mask_to_the_pixel(make_frame, make_masks, grid, sizes, seed):
    """`measure` has a buffer of its own; `Masks.mask` is the truth, whatever was measured before or after."""
    rng = np.random.default_rng(seed)
    measured = []
    for size in sizes:
        frame = make_frame(*size)
        small = make_masks(frame, [np.zeros(grid, bool)] * 2)
        logits_bhw = rng.normal(size=(2, *grid)).astype(np.float32)
        masks = replace(small, height=size[0], width=size[1], mask_logits_bhw=logits_bhw)
        measured += [(masks, i, *measure(masks, i)) for i in masks.ids]
    for masks, i, mask_hw, seen in measured:
        assert np.array_equal(mask_hw, masks.mask(i)) and seen.area == masks.mask(i).sum()


def test_that_objects_are_lost_is_said_on_the_picture(make_frame, make_masks, box_mask):
    """A bare picture could be taken for one without objects; what is not lost is drawn beside it."""
    frame = make_frame(320, 480)
    masks = make_masks(frame, [box_mask(frame, 10, 20, 90, 90), box_mask(frame, 0, 0, 0, 0)])
    plain, lost = draw_overlay(frame, masks), draw_overlay(frame, replace(masks, lost=(2,)))
    assert lost.lost == (2,) and plain.lost == ()
    assert len(lost.label_boxes) == len(plain.label_boxes) + 1  # the plate
    x0, y0, x1, y1 = lost.label_boxes[-1]
    assert not np.array_equal(lost.image_hwc[y0:y1, x0:x1], plain.image_hwc[y0:y1, x0:x1])
    outside = np.ones(frame.image_hwc.shape[:2], bool)
    outside[y0:y1, x0:x1] = False
    assert np.array_equal(lost.image_hwc[outside], plain.image_hwc[outside])
