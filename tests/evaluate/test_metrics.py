"""Every metric against another implementation: slow and literal ones here, MONAI, medpy and vos-benchmark."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from rtseg.evaluate.metrics import boundary, instruments, overlap, presence, surface
from rtseg.evaluate.result import ClassRow, Row

Bool = npt.NDArray[np.bool_]
HEIGHT, WIDTH = 54, 72


def blob(rng: np.random.Generator, smooth: float = 6.0, height: int = HEIGHT, width: int = WIDTH) -> Bool:
    """A random shape of one or several pieces, which may touch the frame's edge and have holes."""
    noise_hw = cv2.GaussianBlur(rng.standard_normal((height, width)), (0, 0), smooth)
    return np.asarray(noise_hw > np.quantile(noise_hw, rng.uniform(0.6, 0.95)))


def pairs() -> Iterator[tuple[Bool, Bool]]:
    """Truth and mask: unlike, alike, shifted, of single pixels, at edges and in corners, and full frames."""
    rng = np.random.default_rng(7)
    for smooth in (1.0, 3.0, 6.0, 10.0):
        truth_hw = blob(rng, smooth)
        yield truth_hw, blob(rng, smooth)
        yield truth_hw, np.roll(truth_hw, (1, 2), (0, 1))
        yield truth_hw, truth_hw ^ (rng.random(truth_hw.shape) < 0.02)
        yield truth_hw, truth_hw.copy()
    for y, x in ((0, 0), (0, WIDTH - 1), (HEIGHT - 1, 0), (HEIGHT - 1, WIDTH - 1), (20, 30)):
        dot_hw = np.zeros((HEIGHT, WIDTH), bool)
        dot_hw[y, x] = True
        yield dot_hw, np.roll(dot_hw, 1, 1)
        yield truth_hw, dot_hw
    yield truth_hw, np.ones((HEIGHT, WIDTH), bool)
    yield np.ones((HEIGHT, WIDTH), bool), np.ones((HEIGHT, WIDTH), bool)


def with_empty() -> Iterator[tuple[Bool, Bool]]:
    yield from pairs()
    empty_hw = np.zeros((HEIGHT, WIDTH), bool)
    some_hw = blob(np.random.default_rng(1))
    yield from ((empty_hw, empty_hw), (some_hw, empty_hw), (empty_hw, some_hw))


# overlap


def test_dice_and_iou_are_those_of_the_sets_of_pixels() -> None:
    for truth_hw, mask_hw in with_empty():
        a, b = ({*zip(*np.nonzero(m_hw), strict=True)} for m_hw in (truth_hw, mask_hw))
        areas = overlap.areas(truth_hw, mask_hw)
        assert areas == (len(a), len(b), len(a & b))
        assert overlap.iou(*areas) == (len(a & b) / len(a | b) if a | b else 1)
        assert overlap.dice(*areas) == (2 * len(a & b) / (len(a) + len(b)) if a | b else 1)


def test_dice_and_iou_are_monai_s() -> None:
    metrics, torch = pytest.importorskip("monai.metrics"), pytest.importorskip("torch")
    for truth_hw, mask_hw in pairs():
        theirs = [torch.from_numpy(m_hw)[None, None] for m_hw in (mask_hw, truth_hw)]
        areas = overlap.areas(truth_hw, mask_hw)
        assert overlap.dice(*areas) == pytest.approx(metrics.DiceMetric()(*theirs).item(), abs=1e-6)
        assert overlap.iou(*areas) == pytest.approx(metrics.MeanIoU()(*theirs).item(), abs=1e-6)


def test_figures_are_the_same_in_the_window() -> None:
    for truth_hw, mask_hw in with_empty():
        where = overlap.window(truth_hw, mask_hw)
        small = truth_hw[where], mask_hw[where]
        assert overlap.areas(*small) == overlap.areas(truth_hw, mask_hw)
        assert boundary.boundary_f(*small, 3) == boundary.boundary_f(truth_hw, mask_hw, 3)
        distances, in_window = surface.surface_distances(truth_hw, mask_hw), surface.surface_distances(*small)
        assert (distances is None) == (in_window is None)
        for ours, theirs in zip(distances or (), in_window or (), strict=True):
            np.testing.assert_allclose(np.sort(ours), np.sort(theirs), rtol=1e-9)


def test_a_window_is_tight() -> None:
    mask_hw = np.zeros((HEIGHT, WIDTH), bool)
    mask_hw[10:20, 60:72] = True
    assert overlap.window(mask_hw, mask_hw) == (slice(9, 21), slice(59, 72))


# boundary


def literal_f(truth_hw: Bool, mask_hw: Bool, radius: int) -> float:
    """F by its definition, pixel by pixel: a contour pixel is right if one of the other contour is near enough."""

    def contour(m_hw: Bool) -> set[tuple[int, int]]:
        height, width = m_hw.shape
        found = set()
        for y in range(height):
            for x in range(width):
                down, right = min(y + 1, height - 1), min(x + 1, width - 1)
                if {m_hw[y, x], m_hw[down, x], m_hw[y, right], m_hw[down, right]} == {False, True}:
                    found.add((y, x))
        return found

    def share(edge: set[tuple[int, int]], other: set[tuple[int, int]]) -> float:
        right = (any((y - v) ** 2 + (x - u) ** 2 <= radius**2 for v, u in other) for y, x in edge)
        return sum(right) / len(edge)

    truth, mask = contour(truth_hw), contour(mask_hw)
    if not truth or not mask:
        return float(truth == mask)
    precision, recall = share(mask, truth), share(truth, mask)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@pytest.mark.parametrize("radius", [0, 3])
def test_f_is_its_definition(radius: int) -> None:
    for truth_hw, mask_hw in [*with_empty()][:: 3 - bool(radius)]:
        assert boundary.boundary_f(truth_hw, mask_hw, radius) == pytest.approx(literal_f(truth_hw, mask_hw, radius))


def test_f_is_that_of_vos_benchmark() -> None:
    evaluator = pytest.importorskip("vos_benchmark.evaluator").Evaluator()
    radius = boundary.tolerance_px(HEIGHT, WIDTH)
    for truth_hw, mask_hw in with_empty():
        evaluator.feed_frame(mask_hw.astype(np.uint8), truth_hw.astype(np.uint8))
        assert boundary.boundary_f(truth_hw, mask_hw, radius) == pytest.approx(evaluator.boundary_f[1][-1])
        assert overlap.iou(*overlap.areas(truth_hw, mask_hw)) == pytest.approx(evaluator.object_iou[1][-1])


def test_f_falls_at_its_tolerance() -> None:
    truth_hw = np.zeros((HEIGHT, WIDTH), bool)
    truth_hw[:, :30] = True
    for shift in (3, 4):
        mask_hw = np.zeros((HEIGHT, WIDTH), bool)
        mask_hw[:, : 30 + shift] = True
        assert boundary.boundary_f(truth_hw, mask_hw, 3) == (shift <= 3)


def test_the_tolerance_is_davis_s() -> None:
    assert boundary.tolerance_px(480, 854) == 8
    assert boundary.tolerance_px(720, 1280) == 12


# surface


def literal_distances(truth_hw: Bool, mask_hw: Bool, spacing: tuple[float, float]) -> tuple[list[float], list[float]]:
    """From each surface pixel of the mask to the nearest of the truth, and the other way; each beside each."""

    def points(m_hw: Bool) -> npt.NDArray[np.float64]:
        wide_hw = np.pad(m_hw, 1)
        inner_hw = wide_hw[:-2, 1:-1] & wide_hw[2:, 1:-1] & wide_hw[1:-1, :-2] & wide_hw[1:-1, 2:]
        return np.argwhere(m_hw & ~inner_hw) * np.asarray(spacing)

    truth, mask = points(truth_hw), points(mask_hw)
    table = np.sqrt(((mask[:, None] - truth[None]) ** 2).sum(-1))
    return table.min(1).tolist(), table.min(0).tolist()


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.7, 0.7), (0.5, 1.25)])
def test_distances_are_their_definition(spacing: tuple[float, float]) -> None:
    for truth_hw, mask_hw in pairs():
        ours = surface.surface_distances(truth_hw, mask_hw, spacing)
        assert ours is not None
        for one, literal in zip(ours, literal_distances(truth_hw, mask_hw, spacing), strict=True):
            np.testing.assert_allclose(np.sort(one), np.sort(literal), rtol=1e-6)


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 1.25)])
def test_hd95_and_surface_dice_are_monai_s(spacing: tuple[float, float]) -> None:
    metrics, torch = pytest.importorskip("monai.metrics"), pytest.importorskip("torch")
    for truth_hw, mask_hw in pairs():
        theirs = [torch.from_numpy(m_hw)[None, None] for m_hw in (mask_hw, truth_hw)]
        distances = surface.surface_distances(truth_hw, mask_hw, spacing)
        assert distances is not None
        hd95 = metrics.compute_hausdorff_distance(*theirs, include_background=True, percentile=95, spacing=spacing)
        assert surface.hd95(*distances) == pytest.approx(hd95.item(), rel=1e-5)
        near = metrics.compute_surface_dice(*theirs, [1.9], include_background=True, spacing=spacing)
        assert surface.surface_dice(*distances, 1.9) == pytest.approx(near.item(), abs=1e-6)


def test_surface_dice_where_a_mask_is_empty_is_monai_s() -> None:
    """0 where one of the two is, nan where both are; and HD95 is no number in either case."""
    metrics, torch = pytest.importorskip("monai.metrics"), pytest.importorskip("torch")
    some_hw, empty_hw = blob(np.random.default_rng(3)), np.zeros((HEIGHT, WIDTH), bool)
    figures = []
    for truth_hw, mask_hw in ((some_hw, empty_hw), (empty_hw, some_hw), (empty_hw, empty_hw), (some_hw, some_hw)):
        areas, distances = overlap.areas(truth_hw, mask_hw), surface.surface_distances(truth_hw, mask_hw)
        figures.append(surface.surface_dice_of(areas[:2], distances, 1.9))
        theirs = [torch.from_numpy(m_hw)[None, None] for m_hw in (mask_hw, truth_hw)]
        near = metrics.compute_surface_dice(*theirs, [1.9], include_background=True).item()
        assert figures[-1] == (None if math.isnan(near) else near)
        hd95 = metrics.compute_hausdorff_distance(*theirs, include_background=True, percentile=95).item()
        assert (distances is None) == (not math.isfinite(hd95))
    assert figures == [0, 0, None, 1]


def test_hd95_of_medpy_is_the_percentile_of_both_together() -> None:
    binary = pytest.importorskip("medpy.metric.binary")
    differ = 0
    for truth_hw, mask_hw in pairs():
        distances = surface.surface_distances(truth_hw, mask_hw, (0.5, 1.25))
        assert distances is not None
        theirs = binary.hd95(mask_hw, truth_hw, voxelspacing=(0.5, 1.25))
        assert np.percentile(np.concatenate(distances), 95) == pytest.approx(theirs, rel=1e-6)
        farthest = max(one.max() for one in distances)
        assert farthest == pytest.approx(binary.hd(mask_hw, truth_hw, voxelspacing=(0.5, 1.25)), rel=1e-6)
        differ += surface.hd95(*distances) > 1.1 * theirs
    assert differ > 2  # so it matters which of the two a paper means


def test_where_a_mask_is_empty_there_is_no_distance() -> None:
    some_hw, empty_hw = blob(np.random.default_rng(3)), np.zeros((HEIGHT, WIDTH), bool)
    for truth_hw, mask_hw in ((some_hw, empty_hw), (empty_hw, some_hw), (empty_hw, empty_hw)):
        assert surface.surface_distances(truth_hw, mask_hw) is None


def test_a_distance_of_exactly_the_tolerance_counts() -> None:
    """In millimetres, too, where three pixels of 0.1 mm are a little more than 0.3 in floating point, or less."""
    truth_hw, mask_hw = np.zeros((2, HEIGHT, WIDTH), bool)
    truth_hw[:, 20], mask_hw[:, 23] = True, True
    for size in (1.0, 0.1, 0.3, 0.7, 1 / 3):
        distances = surface.surface_distances(truth_hw, mask_hw, (size, size))
        assert distances is not None
        assert surface.surface_dice(*distances, 3 * size) == 1
        assert surface.surface_dice(*distances, 2.99 * size) == 0
        assert surface.hd95(*distances) == pytest.approx(3 * size)


# instruments


def random_maps(rng: np.random.Generator, frames: int, classes: int) -> tuple[npt.NDArray[np.int64], ...]:
    """Truth and prediction as label maps [T, H, W], some frames of which have nothing in one or the other."""
    maps = []
    for _ in range(2):
        map_thw = rng.integers(0, classes + 1, (frames, 6, 8))
        map_thw[rng.random((frames, 6, 8)) < 0.5] = 0
        for label in range(1, classes + 1):  # most frames have few of the classes
            map_thw[(map_thw == label) & (rng.random((frames, 1, 1)) < 0.6)] = 0
        maps.append(map_thw)
    return tuple(maps)


def class_rows(truth_thw: npt.NDArray[np.int64], mask_thw: npt.NDArray[np.int64], classes: int) -> list[ClassRow]:
    rows = []
    for frame, (truth_hw, mask_hw) in enumerate(zip(truth_thw, mask_thw, strict=True)):
        for label in range(1, classes + 1):
            areas = overlap.areas(truth_hw == label, mask_hw == label)
            if areas[0] or areas[1]:
                rows.append(ClassRow("a", frame, str(label), *areas))
    return rows


def literal_endovis(truth_thw: npt.NDArray[np.int64], mask_thw: npt.NDArray[np.int64]) -> dict[str, float]:
    """The definitions read aloud, over label maps."""
    challenge, isi, of_class = [], [], {}
    for truth_hw, mask_hw in zip(truth_thw, mask_thw, strict=True):
        ious = {}
        for label in {*truth_hw.flat, *mask_hw.flat} - {0}:
            a, b = truth_hw == label, mask_hw == label
            ious[label] = (a & b).sum() / (a | b).sum()
            of_class.setdefault(label, []).append(ious[label])
        in_truth = [iou for label, iou in ious.items() if label in truth_hw]
        challenge += [sum(in_truth) / len(in_truth)] if in_truth else []
        isi += [sum(ious.values()) / len(ious)] if ious else []
    by_class = [np.mean(ious) for ious in of_class.values()]
    return {"challenge": np.mean(challenge), "isi": np.mean(isi), "mc": np.mean(by_class)}


@pytest.mark.parametrize("seed", range(5))
def test_instrument_ious_are_their_definitions(seed: int) -> None:
    truth_thw, mask_thw = random_maps(np.random.default_rng(seed), 30, 4)
    rows, literal = class_rows(truth_thw, mask_thw, 4), literal_endovis(truth_thw, mask_thw)
    classes = instruments.by_class(rows)
    assert np.mean([*instruments.challenge_by_frame(rows).values()]) == pytest.approx(literal["challenge"])
    assert np.mean([*instruments.isi_by_frame(rows).values()]) == pytest.approx(literal["isi"])
    assert np.mean([np.mean([*ious.values()]) for ious in classes.values()]) == pytest.approx(literal["mc"])
    assert len({round(value, 6) for value in literal.values()}) == 3  # so that none could stand for another


def test_a_wrong_class_costs_isi_iou_and_not_challenge_iou() -> None:
    right = ClassRow("a", 0, "grasper", 10, 10, 10)
    rows = [right, ClassRow("a", 0, "hook", 0, 10, 0), ClassRow("a", 1, "hook", 0, 10, 0)]
    assert instruments.challenge_by_frame(rows) == {("a", 0): 1.0}
    assert instruments.isi_by_frame(rows) == {("a", 0): 0.5, ("a", 1): 0.0}


# presence


def track(truth: str, mask: str, *, given: tuple[int, ...] = (), step: int = 1) -> list[Row]:
    """Rows of one object, a letter a frame: `x` where it is visible; in `mask` where it is found, `o` a false mask."""
    rows = []
    for i, (seen, drawn) in enumerate(zip(truth, mask, strict=True)):
        found = float(drawn == seen)
        areas = (25 * (seen == "x"), 10 * (drawn != "."), 0)
        rows.append(Row("a", 1, "", "", step * i, i in given, 100, *areas, 1.0, found, found, found, None, None))
    return rows


@pytest.mark.parametrize(
    ("truth", "mask", "times"),
    [
        ("xxxxx", "xxxxx", []),
        ("xx..xx", "xx..xx", []),  # too short to be an absence
        ("xx...xx", "xx...xx", [0]),
        ("xx...xxxx", "xx.....xx", [2]),
        ("xx...xx", "xx.....", [None]),
        ("xx...xx...xx", "xx........xx", [None, 0]),  # it left again before it was found
        ("xx...x..x", "xx......x", [None]),  # and after two frames is no new return
        ("xx....", "xx....", []),
        ("....xx", "....xx", [0]),
        ("xx...xxxx", "xx...x.x.", [0]),  # lost again, but found
    ],
)
def test_reacquisition(truth: str, mask: str, times: list[int | None]) -> None:
    assert presence.reacquisition(track(truth, mask)) == times


def test_reacquisition_is_counted_in_frames_of_the_video() -> None:
    assert presence.reacquisition(track("x...xxx", "x.....x", step=30)) == [60]


def test_a_prompt_ends_what_is_asked_of_the_network() -> None:
    assert presence.reacquisition(track("x...xxx", "x....xx", given=(5,))) == [None]
    assert presence.reacquisition(track("x...xxx", "x...xxx", given=(4,))) == []


def test_what_is_found_by_clicks_is_not_found_by_the_network() -> None:
    def clicked(mask: str, frame: int) -> list[int | None]:
        rows = track("x...xxxx", mask)
        return presence.reacquisition([replace(row, clicks=2 * (row.frame == frame)) for row in rows])

    assert clicked("x.....xx", 6) == [None]
    assert clicked("x....xxx", 6) == [1]  # found before anyone clicked
    assert clicked("x...xxxx", 4) == []


def test_what_is_drawn_while_the_object_is_absent() -> None:
    rows = track("xx....x", "x.oo..x", given=(3,))
    assert presence.false_areas(rows) == [0.1, 0.0, 0.0]
    assert presence.misses(rows) == [False, True, False]


def test_soon_is_within_ten_frames() -> None:
    assert [presence.found_soon(time) for time in (0, 10, 11, None)] == [True, True, False, False]
    assert math.isclose(presence.FOUND_IOU, 0.5)
