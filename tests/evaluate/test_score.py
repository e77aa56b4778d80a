"""Rows: which there are, and that they are of the right pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, replace

import numpy as np
import pytest

from rtseg.base.errors import OutputError, SourceError
from rtseg.base.rle import encode_rle
from rtseg.base.types import BoolMask
from rtseg.data.dataset import Sequence, Target
from rtseg.evaluate.metrics import boundary, instruments, overlap, surface
from rtseg.evaluate.result import ClassRow, Prediction, Tracked
from rtseg.evaluate.score import masks_of, score

HEIGHT, WIDTH = 40, 60
Maps = Mapping[int, Mapping[int, BoolMask]]  # by frame, then object


def box(x0: int, y0: int, x1: int, y1: int) -> BoolMask:
    mask_hw = np.zeros((HEIGHT, WIDTH), bool)
    mask_hw[y0:y1, x0:x1] = True
    return mask_hw


A, B, NONE = box(5, 5, 25, 20), box(30, 10, 55, 35), box(0, 0, 0, 0)
TARGETS = (Target(1, "left grasper", "grasper"), Target(2, "right grasper", "grasper"), Target(3, "liver"))


def sequence(truth: Maps, count: int = 6) -> Sequence:
    image_hwc = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    return Sequence("clip", count, TARGETS, lambda t: image_hwc, truth.get)


def tracked(masks: Maps) -> Tracked:
    of = {t: {i: Prediction(encode_rle(m), 0.25 * i) for i, m in row.items()} for t, row in masks.items()}
    return Tracked(of)


def test_a_row_holds_the_figures_of_its_two_masks() -> None:
    mask_hw = box(8, 4, 25, 21)
    rows, _ = score(sequence({2: {1: A}}), tracked({t: {1: mask_hw} for t in range(6)}), 1.5)
    (row,) = rows
    areas = overlap.areas(A, mask_hw)
    distances = surface.surface_distances(A, mask_hw)
    assert distances is not None
    assert (row.sequence, row.object, row.label, row.category, row.frame) == ("clip", 1, "left grasper", "grasper", 2)
    assert (row.truth_area, row.mask_area, row.overlap_area, row.pixels) == (*areas, HEIGHT * WIDTH)
    assert (row.score, row.given) == (0.25, False)
    assert (row.dice, row.iou) == (overlap.dice(*areas), overlap.iou(*areas))
    assert row.boundary == boundary.boundary_f(A, mask_hw, boundary.tolerance_px(HEIGHT, WIDTH)) < 1
    assert row.hd95 == surface.hd95(*distances) == 3
    assert row.surface == surface.surface_dice(*distances, 1.5)
    other, _ = score(sequence({2: {1: A}}), tracked({t: {1: mask_hw} for t in range(6)}), 3)
    assert other[0].surface == 1 > row.surface  # the tolerance is the one that is asked for
    assert {type(value) for value in astuple(row)} == {str, int, float, bool}  # and nothing of numpy's


def test_only_annotated_frames_with_a_mask_have_rows() -> None:
    truth = {t: {1: A, 2: B} for t in (0, 1, 3, 5)}
    masks = {t: {2: B, 1: A} if t >= 2 else {1: A} for t in (5, 4, 3, 2, 1)}  # object 2 is prompted later
    rows, _ = score(sequence(truth), tracked(masks))
    assert [(row.frame, row.object) for row in rows] == [(1, 1), (3, 1), (3, 2), (5, 1), (5, 2)]
    assert {(row.dice, row.iou, row.boundary, row.hd95, row.surface) for row in rows} == {(1, 1, 1, 0, 1)}


def test_an_absent_object_has_rows() -> None:
    masks = {0: {1: A}, 1: {1: A}, 2: {1: NONE}, 3: {1: NONE}}
    rows, classes = score(sequence({0: {1: A}, 1: {}, 2: {}, 3: {1: A}}, 4), tracked(masks))
    figures = [(r.truth_area, r.mask_area, r.dice, r.iou, r.boundary, r.hd95, r.surface) for r in rows]
    assert figures == [
        (300, 300, 1, 1, 1, 0, 1),
        (0, 300, 0, 0, 0, None, 0),
        (0, 0, 1, 1, 1, None, None),
        (300, 0, 0, 0, 0, None, 0),
    ]
    assert [row.frame for row in classes] == [0, 1, 3]  # on frame 2 neither truth nor mask has the class


def test_distances_are_in_mm_where_the_size_of_a_pixel_is_known() -> None:
    clip, mask = sequence({0: {1: A}}, 1), tracked({0: {1: box(8, 5, 25, 20)}})
    (pixels,), _ = score(clip, mask, 2)
    (mm,), _ = score(replace(clip, spacing_mm=(0.5, 0.5)), mask, 2)
    assert (pixels.hd95, mm.hd95) == (3, 1.5)
    assert pixels.surface < 1 == mm.surface  # 3 pixels are more than 2 pixels, and 1.5 mm less than 2 mm
    (half,), _ = score(replace(clip, spacing_mm=(0.5, 0.5)), mask, 1)
    assert half.surface == pixels.surface
    (flat,), _ = score(replace(clip, spacing_mm=(4, 0.25)), mask, 0.8)  # across, where the masks differ, 3 x 0.25 mm
    assert (flat.hd95, flat.surface) == (0.75, 1)


def test_a_class_is_all_its_objects_together() -> None:
    masks = {0: {1: B, 2: A, 3: A}}  # the graspers are mixed up, which their class does not mind
    rows, classes = score(sequence({0: {1: A, 2: B, 3: B}}, 1), tracked(masks))
    assert [row.iou for row in rows] == [0, 0, 0]
    both = int(A.sum() + B.sum())
    assert classes == [ClassRow("clip", 0, "grasper", both, both, both)]  # the liver is of no class


def test_pixels_of_two_objects_of_a_class_count_once() -> None:
    _, (row,) = score(sequence({0: {1: A, 2: B}}, 1), tracked({0: {1: A | B, 2: B}}))
    both = int(A.sum() + B.sum())
    assert astuple(row)[3:] == (both, both, both)


def test_a_class_with_a_given_mask_has_no_row() -> None:
    clip, masks = sequence({t: {1: A, 2: B} for t in range(3)}, 3), tracked({t: {1: A, 2: B} for t in range(3)})
    masks.given = {(0, 1), (0, 2), (1, 2)}
    rows, classes = score(clip, masks)
    assert {(row.frame, row.object) for row in rows if row.given} == masks.given
    assert [row.frame for row in classes] == [2]


def test_an_object_that_alone_was_not_annotated_is_no_miss_and_its_class_has_no_row() -> None:
    """On frame 1 nobody said whether object 2 is there, on frame 2 whether one is that is not followed."""
    truth = {0: {1: A, 2: B}, 1: {1: A}, 2: {1: A}}
    masks, unknown = tracked({t: {1: A, 2: B} for t in range(3)}), {1: frozenset({2}), 2: frozenset({3})}
    clip = replace(sequence(truth, 3), unknown=lambda t: unknown.get(t, frozenset()))
    rows, classes = score(clip, masks)
    assert [(row.frame, row.object) for row in rows] == [(0, 1), (0, 2), (1, 1), (2, 1), (2, 2)]
    assert [row.iou for row in rows] == [1, 1, 1, 1, 0]
    assert [row.frame for row in classes] == [0, 2]
    assert [(t, i) for t, i, _ in masks_of(clip, masks)] == [(row.frame, row.object) for row in rows]
    hook = (*TARGETS[:2], Target(3, "third grasper", "grasper"))
    assert [row.frame for row in score(replace(clip, targets=hook), masks)[1]] == [0]


def test_a_class_that_nobody_followed_counts_as_missed() -> None:
    """The hook enters on frame 2, after the prompts: by the published definitions it is a class of that frame."""
    hook = (Target(1, "grasper", "grasper"), Target(2, "hook", "hook"), Target(3, "liver"))
    clip = replace(sequence({0: {1: A}, 1: {1: A}, 2: {1: A, 2: B, 3: NONE}}, 3), targets=hook)
    rows, classes = score(clip, tracked({t: {1: A} for t in range(3)}))
    assert {row.object for row in rows} == {1}
    assert classes[-1] == ClassRow("clip", 2, "hook", int(B.sum()), 0, 0) and len(classes) == 4
    assert list(instruments.challenge_by_frame(classes).values()) == [1, 1, 0.5]
    assert list(instruments.isi_by_frame(classes).values()) == [1, 1, 0.5]
    assert {name: list(ious.values()) for name, ious in instruments.by_class(classes).items()} == {
        "grasper": [1, 1, 1], "hook": [0]
    }  # fmt: skip
    _, followed = score(clip, tracked({t: {1: A, 2: B} for t in range(3)}))
    assert list(instruments.challenge_by_frame(followed).values()) == [1, 1, 1]


def test_the_truth_of_a_class_is_that_of_all_its_objects() -> None:
    """One grasper is followed, the other never; or from later in the pass on, before which it is not asked for."""
    clip = sequence({t: {1: A, 2: B} for t in range(3)}, 3)
    whole, one = int(A.sum() + B.sum()), int(A.sum())
    _, never = score(clip, tracked({t: {1: A} for t in range(3)}))
    assert [astuple(row)[3:] for row in never] == [(whole, one, one)] * 3
    _, later = score(clip, tracked({0: {1: A}, 1: {1: A}, 2: {1: A, 2: B}}))
    assert [astuple(row)[3:] for row in later] == [(one, one, one)] * 2 + [(whole, whole, whole)]


def test_a_row_has_the_clicks_of_its_frame() -> None:
    clip, masks = sequence({t: {1: A, 2: B} for t in range(3)}, 3), tracked({t: {1: A, 2: B} for t in range(3)})
    masks.prompts = [
        {"frame": 0, "id": 1, "points": [[9, 9, 1]] * 3},
        {"frame": 0, "id": 2, "box": [30, 10, 55, 35]},
        {"frame": 2, "id": 2, "points": [[9, 9, 0]]},
    ]
    rows, classes = score(clip, masks)
    assert [(row.frame, row.object, row.clicks) for row in rows if row.clicks] == [(0, 1, 3), (2, 2, 1)]
    assert [row.frame for row in classes] == [0, 1, 2]  # a click gives no mask


def test_what_does_not_fit_is_refused() -> None:
    clip = sequence({t: {1: A} for t in range(3)}, 3)
    with pytest.raises(OutputError, match="RLE of 60x40"):
        score(clip, tracked({t: {1: A[:, 1:]} for t in range(3)}))
    with pytest.raises(SourceError, match=r"clip: frame 0, object 1: the truth is 59x40, the first picture 60x40"):
        score(sequence({0: {1: A[:, 1:]}}, 1), tracked({0: {1: A}}))


def test_nothing_tracked_gives_no_rows() -> None:
    assert score(sequence({0: {1: A}}), Tracked()) == ([], [])
