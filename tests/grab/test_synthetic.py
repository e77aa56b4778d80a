"""The synthetic endoscope: the same every time, with exact truth, and the events that a tracker must survive."""

from __future__ import annotations

import time
from fractions import Fraction
from itertools import pairwise

import cv2
import numpy as np
import pytest

from rtseg.errors import SourceError
from rtseg.grab import open_source
from rtseg.grab.synthetic import Scene

SMALL = (128, 96)
SEEDS = range(6)


def test_same_seed_and_index_give_the_same_bits_in_any_order() -> None:
    one, two = Scene(*SMALL, seed=3), Scene(*SMALL, seed=3)
    forward = [one.render(i, 25) for i in range(0, 300, 50)]
    backward = [two.render(i, 25) for i in reversed(range(0, 300, 50))][::-1]
    for (image_a, truth_a), (image_b, truth_b) in zip(forward, backward, strict=True):
        np.testing.assert_array_equal(image_a, image_b)
        np.testing.assert_array_equal(truth_a, truth_b)


def test_another_seed_or_index_gives_another_picture() -> None:
    image_hwc, _ = Scene(*SMALL, seed=3).render(0, 25)
    assert np.abs(image_hwc.astype(int) - Scene(*SMALL, seed=4).render(0, 25)[0]).mean() > 10
    assert (image_hwc != Scene(*SMALL, seed=3).render(10, 25)[0]).mean() > 0.3


def test_the_same_moment_is_the_same_picture_at_any_rate_but_for_grain() -> None:
    scene = Scene(*SMALL, seed=1)
    image_a, truth_a = scene.render(20, 10)
    image_b, truth_b = scene.render(50, 25)
    np.testing.assert_array_equal(truth_a, truth_b)
    assert np.abs(image_a.astype(int) - image_b).max() <= 8


@pytest.mark.parametrize("size", [(128, 96), (96, 128), (256, 256), (131, 77)])
def test_shapes_and_ids(size: tuple[int, int]) -> None:
    image_hwc, truth_hw = Scene(*size, seed=0).render(0, 25)
    assert image_hwc.shape == (size[1], size[0], 3)
    assert image_hwc.dtype == truth_hw.dtype == np.uint8
    assert truth_hw.shape == image_hwc.shape[:2]
    assert set(np.unique(truth_hw)) == {0, 1, 2}


@pytest.mark.parametrize("seed", SEEDS)
def test_the_first_frame_can_be_prompted(seed: int) -> None:
    """Both tools are there, and neither hides the other: removing one leaves the other as it was."""
    scene = Scene(*SMALL, seed=seed)
    _, truth_hw = scene.render(0, 25)
    for which in (0, 1):
        assert (truth_hw == which + 1).mean() > 0.008
        alone_hw = _alone(scene, which, 0.0)
        assert (truth_hw == which + 1).sum() > 0.97 * alone_hw.sum()


def _alone(scene: Scene, which: int, seconds: float) -> np.ndarray:
    """The whole tool inside the picture's circle, bool [H, W], as if the other were not there."""
    image_hwc = np.zeros((scene.height, scene.width, 3), np.uint8)
    truth_hw = np.zeros((scene.height, scene.width), np.uint8)
    pose = scene._moves.pose(which, seconds)
    scene._tools[which].draw(image_hwc, truth_hw, scene._light_hwc, pose)
    return (truth_hw > 0) & (scene._iris_hw > 0)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("start", [0, 7, 13])
def test_any_twenty_seconds_hold_a_crossing_and_an_exit_with_return(seed: int, start: int) -> None:
    scene, fps = Scene(*SMALL, seed=seed), 4
    crossed, seen = False, []
    for index in range(start * fps, (start + 20) * fps):
        _, truth_hw = scene.render(index, fps)
        seen.append([(truth_hw == k).any() for k in (1, 2)])
        crossed |= bool((_alone(scene, 0, index / fps) & _alone(scene, 1, index / fps)).sum() > 20)
    assert crossed
    assert any(_leaves_and_returns([now[k] for now in seen]) for k in (0, 1))
    assert np.mean(seen) > 0.6  # the negative control: they are not simply gone


def _leaves_and_returns(seen: list[bool]) -> bool:
    changes = [b for a, b in pairwise(seen) if a != b]
    return any(not a and b for a, b in pairwise(changes))


@pytest.mark.parametrize("seed", SEEDS)
def test_where_tools_cross_the_nearer_one_is_seen(seed: int) -> None:
    scene = Scene(*SMALL, seed=seed)
    checked = 0
    for index in range(60, 120, 10):
        _, truth_hw = scene.render(index, 25)
        both_hw = _alone(scene, 0, index / 25) & _alone(scene, 1, index / 25)
        if both_hw.any():
            assert set(np.unique(truth_hw[both_hw])) == {scene._moves.on_top(index / 25) + 1}
            checked += 1
    assert checked


def test_the_picture_changes_where_the_truth_says_and_only_darkens_elsewhere() -> None:
    """Against the same tissue without tools: a shadow may darken it, and the edge is soft by one pixel, no more."""
    scene = Scene(256, 256, seed=2)
    image_hwc, truth_hw = scene.render(0, 25)
    tissue_hwc = cv2.GaussianBlur(scene._lit_tissue(np.zeros_like(truth_hw), 0.0), (3, 3), 0.6)
    change_hw = np.abs(image_hwc.astype(int) - tissue_hwc).max(2)
    tool_hw = truth_hw > 0
    far_hw = (cv2.dilate(truth_hw, np.ones((3, 3), np.uint8)) == 0) & (scene._iris_hw > 0)
    grain = 8
    assert (image_hwc.astype(int) - tissue_hwc).max(2)[far_hw].max() <= grain
    assert (change_hw[far_hw] > grain).mean() < 0.25
    assert (change_hw[tool_hw] > grain).mean() > 0.9
    np.testing.assert_array_equal(image_hwc[scene._iris_hw == 0], 0)


def test_rendering_is_far_faster_than_live() -> None:
    scene = Scene(1280, 720, seed=7)
    scene.render(0, 25)
    began, spent = time.perf_counter(), time.process_time()
    for index in range(0, 100, 20):
        scene.render(index, 25)
    wall_ms = (time.perf_counter() - began) / 5 * 1e3
    assert min(wall_ms, (time.process_time() - spent) / 5 * 1e3) < 60  # about 9 on one core of a laptop


def test_source_carries_identity_time_and_truth() -> None:
    with open_source("synthetic:laparoscopy?seconds=0.2&seed=5&width=96&height=64&fps=30000/1001") as source:
        frames = list(source)
        again = list(source)
    assert (source.width, source.height, source.frame_count) == (96, 64, 6)
    assert source.fps == pytest.approx(29.97, abs=0.01)
    assert [f.seq for f in frames] == [f.pts for f in frames] == list(range(6))
    assert frames[0].time_base == Fraction(1001, 30000)
    assert {f.session for f in frames + again} == {source.session}
    assert all(f.truth_hw is not None and f.color.matrix == "rgb" for f in frames)
    stamps = [f.captured_ns for f in frames]
    assert stamps == sorted(stamps) and len(set(stamps)) == 6
    np.testing.assert_array_equal(frames[3].image_hwc, again[3].image_hwc)


def test_two_sources_have_two_sessions() -> None:
    uri = "synthetic:laparoscopy?seconds=1&width=64&height=64"
    assert open_source(uri).session != open_source(uri).session


def test_the_rate_argument_wins_over_the_uri() -> None:
    source = open_source("synthetic:laparoscopy?seconds=2&width=64&height=64&fps=25", fps=10)
    assert (source.fps, source.frame_count) == (10, 20)


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("synthetic:laparoscopi", "did you mean 'laparoscopy'"),
        ("synthetic:laparoscopy?sed=7", "unknown key 'sed'; did you mean 'seed'"),
        ("synthetic:laparoscopy?zzz=7", "expected one of: seconds, seed, width, height, fps"),
        ("synthetic:laparoscopy?seed=red", "seed='red'; expected a whole number"),
        ("synthetic:laparoscopy?seed=1.5", "expected a whole number"),
        ("synthetic:laparoscopy?seed=-1", "expected a whole number from 0"),
        ("synthetic:laparoscopy?width=3", "width=3; expected a whole number from 64"),
        ("synthetic:laparoscopy?fps=0", "above 0"),
        ("synthetic:laparoscopy?fps=1/0", "fps='1/0'"),
        ("synthetic:laparoscopy?seconds=", "seconds=''"),
        ("synthetic:laparoscopy?seconds=nan", "seconds='nan'"),
    ],
)
def test_a_wrong_uri_is_one_line_that_helps(uri: str, says: str) -> None:
    with pytest.raises(SourceError) as error:
        open_source(uri)
    assert says in str(error.value)
    assert uri in str(error.value)
    assert "\n" not in str(error.value)
