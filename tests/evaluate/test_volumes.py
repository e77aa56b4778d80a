"""Volumes in three dimensions: MONAI's distances, of the slices that count, once for each object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import numpy as np
import numpy.typing as npt
import pytest

from rtseg.base.rle import encode_rle
from rtseg.data.dataset import Sequence, Target
from rtseg.evaluate import store
from rtseg.evaluate.metrics import surface
from rtseg.evaluate.paired import paired
from rtseg.evaluate.result import Prediction, Result, Tracked, VolumeRow
from rtseg.evaluate.score import score
from rtseg.evaluate.sheets import objects_sheet, overall_sheet
from rtseg.evaluate.summary import difference, summarise
from rtseg.evaluate.volumes import score_volume

DEPTH, HEIGHT, WIDTH = 9, 40, 50
SPACING = (3.0, 0.6, 0.9)  # from slice to slice, down, across, in mm
TOLERANCE = 1.3
Bodies = npt.NDArray[np.bool_]


@pytest.fixture(autouse=True)
def _scipy() -> None:
    pytest.importorskip("scipy", reason="scipy is not installed: rtseg[eval]")


def body(d: float, y: float, x: float, size: float) -> Bodies:
    """An ellipsoid of voxels, bool [D, H, W]."""
    ds, ys, xs = np.mgrid[:DEPTH, :HEIGHT, :WIDTH]
    return np.asarray(((ds - d) * 3) ** 2 + (ys - y) ** 2 + ((xs - x) / 1.4) ** 2 <= size**2, np.bool_)


def pairs() -> list[tuple[Bodies, Bodies]]:
    """Truth and mask: moved along each axis, of another size, in two pieces, cut off at the border."""
    truth_dhw = body(4, 20, 25, 11)
    return [
        (truth_dhw, body(5, 20, 25, 11)),
        (truth_dhw, body(4, 23, 21, 9)),
        (truth_dhw, truth_dhw & (np.arange(DEPTH) != 4)[:, None, None]),
        (body(1, 4, 6, 12), body(0, 6, 6, 10)),
        (truth_dhw, body(4, 20, 25, 8) | body(7, 33, 40, 5)),
    ]


def volume(truths: Mapping[int, Bodies]) -> Sequence:
    def truth(t: int) -> dict[int, Bodies]:
        return {i: dhw[t] for i, dhw in truths.items() if dhw[t].any()}

    image_hwc, targets = np.zeros((HEIGHT, WIDTH, 3), np.uint8), tuple(Target(i, f"organ {i}") for i in truths)
    return Sequence("v", DEPTH, targets, lambda t: image_hwc, truth, SPACING[1:], True, slice_mm=SPACING[0])


def tracked(masks: Mapping[int, Bodies], given: tuple[int, ...] = ()) -> Tracked:
    of = {t: {i: Prediction(encode_rle(dhw[t]), 0.9) for i, dhw in masks.items()} for t in range(DEPTH)}
    return Tracked(of, {(t, i) for t in given for i in masks}, volume=True)


def monai(truth_dhw: Bodies, mask_dhw: Bodies, spacing: tuple[float, ...]) -> tuple[float, float]:
    metrics, torch = pytest.importorskip("monai.metrics"), pytest.importorskip("torch")
    theirs = [torch.from_numpy(dhw)[None, None] for dhw in (mask_dhw, truth_dhw)]
    hd95 = metrics.compute_hausdorff_distance(*theirs, include_background=True, percentile=95, spacing=spacing)
    near = metrics.compute_surface_dice(*theirs, [TOLERANCE], include_background=True, spacing=spacing)
    return hd95.item(), near.item()


@pytest.mark.parametrize("number", range(5))
def test_the_distances_of_a_volume_are_monai_s(number: int) -> None:
    truth_dhw, mask_dhw = pairs()[number]
    (row,) = score_volume(volume({1: truth_dhw}), tracked({1: mask_dhw}), TOLERANCE)
    hd95, near = monai(truth_dhw, mask_dhw, SPACING)
    assert (row.hd95, row.surface) == (pytest.approx(hd95, rel=1e-5), pytest.approx(near, abs=1e-6))
    assert row.surface is not None and 0 < row.surface < 1
    assert monai(truth_dhw, mask_dhw, (1.0, 1.0, 1.0)) != pytest.approx((hd95, near), rel=0.02)  # voxels are no cubes


def test_each_object_is_judged_by_itself() -> None:
    (first, second), (third, fourth) = pairs()[1], pairs()[3]
    both = score_volume(volume({1: first, 2: third}), tracked({1: second, 2: fourth}), TOLERANCE)
    alone = [score_volume(volume({1: t}), tracked({1: m}), TOLERANCE)[0] for t, m in pairs()[1::2]]
    assert [(row.object, row.hd95, row.surface) for row in both] == [
        (i, row.hd95, row.surface) for i, row in enumerate(alone, 1)
    ]


def test_means_over_slices_are_something_else() -> None:
    """A mask that ends a slice early is right on every slice that it has."""
    truth_dhw = body(4, 20, 25, 11)
    mask_dhw = truth_dhw.copy()
    mask_dhw[np.flatnonzero(truth_dhw.any((1, 2)))[-1]] = False
    rows, _ = score(volume({1: truth_dhw}), tracked({1: mask_dhw}), TOLERANCE)
    (whole,) = score_volume(volume({1: truth_dhw}), tracked({1: mask_dhw}), TOLERANCE)
    assert fmean(row.hd95 for row in rows if row.hd95 is not None) == 0
    assert whole.hd95 == 3 and whole.surface is not None and whole.surface < 1


def test_a_slice_that_was_given_is_part_of_the_body_and_not_measured() -> None:
    truth_dhw, mask_dhw = pairs()[1]
    mask_dhw = mask_dhw.copy()
    mask_dhw[4] = truth_dhw[4]
    (row,) = score_volume(volume({1: truth_dhw}), tracked({1: mask_dhw}, given=(4,)), TOLERANCE)
    points = [np.argwhere(surface._surface(dhw)) for dhw in (truth_dhw, mask_dhw)]
    table = np.sqrt((((points[1][:, None] - points[0][None]) * SPACING) ** 2).sum(-1))
    to_truth, to_mask = (
        distances[p[:, 0] != 4] for distances, p in ((table.min(1), points[1]), (table.min(0), points[0]))
    )
    assert row.hd95 == pytest.approx(surface.hd95(to_truth, to_mask))
    assert row.surface == pytest.approx(surface.surface_dice(to_truth, to_mask, TOLERANCE))
    (merit,) = score_volume(volume({1: truth_dhw}), tracked({1: mask_dhw}), TOLERANCE)
    assert merit.surface is not None and row.surface is not None and merit.surface > row.surface


def test_where_nothing_is_drawn_there_is_no_distance_and_no_surface_is_near() -> None:
    truth_dhw, empty_dhw = body(4, 20, 25, 11), np.zeros((DEPTH, HEIGHT, WIDTH), bool)
    clip = volume({1: truth_dhw})
    assert score_volume(clip, tracked({1: empty_dhw})) == [VolumeRow("v", 1, None, 0.0)]
    assert score_volume(clip, tracked({1: truth_dhw})) == [VolumeRow("v", 1, 0.0, 1.0)]
    assert score_volume(clip, tracked({1: truth_dhw}, given=tuple(range(DEPTH)))) == [VolumeRow("v", 1, None, None)]
    for other in (replace(clip, slice_mm=None), replace(clip, spacing_mm=None), replace(clip, volume=False)):
        assert score_volume(other, tracked({1: truth_dhw})) == []


# of an evaluation


def evaluation(mask_dhw: Bodies, given: tuple[int, ...] = (4,)) -> Result:
    clip, found = volume({1: pairs()[0][0]}), tracked({1: mask_dhw}, given)
    rows, classes = score(clip, found, TOLERANCE)
    return Result({}, {}, rows, classes, {"v": found}, score_volume(clip, found, TOLERANCE))


def test_both_kinds_are_in_the_tables_and_say_what_they_are(tmp_path: Path) -> None:
    result = evaluation(pairs()[0][1])
    summary = summarise(result)
    (row,) = result.volumes
    assert (summary.overall["volume_hd95"].value, summary.objects[0].volume_surface) == (row.hd95, row.surface)
    said = {cells[0]: cells[-1] for cells in overall_sheet(summary, "mm").rows}
    assert "in three dimensions" in said["volume HD95"] and "in three dimensions" in said["volume NSD"]
    assert said["slice HD95"].startswith("mean over slices: ") and said["slice NSD"].startswith("mean over slices: ")
    assert not {"HD95", "NSD"} & said.keys()
    assert {"volume HD95", "slice HD95", "volume NSD", "slice NSD"} <= {*objects_sheet(summary.objects).columns}
    store.write(tmp_path, result, {})
    assert store.read(tmp_path) == result
    film = replace(result, tracked={"v": replace(result.tracked["v"], volume=False)}, volumes=[])
    said = {cells[0]: cells[-1] for cells in overall_sheet(summarise(film), "px").rows}
    assert "HD95" in said and not {"volume HD95", "slice HD95"} & said.keys()


def test_distances_are_compared_where_the_same_slices_were_given() -> None:
    good, bad = evaluation(pairs()[0][0]), evaluation(pairs()[0][1])
    assert difference(good, bad)["volume_hd95"].value == bad.volumes[0].hd95
    elsewhere = evaluation(pairs()[0][1], given=(2,))
    assert not {"volume_hd95", "volume_surface"} & difference(good, elsewhere).keys()
    assert "volume_dice" in difference(good, elsewhere) and paired(*paired(good, elsewhere)) == paired(good, elsewhere)
