"""Cuts are detected from the pictures; motion, light, menus and pictures without content are none."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
import pytest

from rtseg.base.types import ImageU8
from rtseg.track.cut_detector import CutDetector


def tissue(seed: int, height: int = 360, width: int = 480) -> ImageU8:
    """A large picture with structure at many scales, in the hues of its seed."""
    random = np.random.default_rng(seed)
    image_hwc = np.zeros((height, width, 3), np.float32)
    for cells in (4, 8, 16, 32, 64):
        coarse = random.normal(size=(cells * 3 // 4, cells, 1)) * random.uniform(0.6, 1.4, 3)
        image_hwc += cv2.resize(coarse.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC) / cells**0.5
    image_hwc = image_hwc / image_hwc.std() * 35 + random.uniform(80, 160, 3)
    return np.clip(image_hwc, 0, 255).astype(np.uint8)


def window(image_hwc: ImageU8, x: int, y: int = 40) -> ImageU8:
    return image_hwc[y : y + 240, x : x + 320]


def cuts(pictures: Iterable[ImageU8]) -> list[int]:
    detector, found = CutDetector(), []
    for i, picture in enumerate(pictures):
        detector, cut = detector.update(picture)
        found += [i] if cut else []
    return found


A, B = tissue(1), tissue(2)
STILL = [window(A, 40)] * 5


@pytest.mark.parametrize("pair", range(8))
def test_another_scene_is_a_cut_at_its_first_frame(pair: int) -> None:
    one, other = tissue(10 + pair), tissue(50 + pair)
    moving = [window(one, 30 + 3 * i) for i in range(6)]
    assert cuts([*moving, *(window(other, 60 - 3 * i) for i in range(6))]) == [6]
    assert cuts([*moving, window(other, 20), *moving]) == [6, 7]


def test_grey_scenes_are_told_apart() -> None:
    one, other = (np.repeat(cv2.cvtColor(x, cv2.COLOR_RGB2GRAY)[..., None], 3, 2) for x in (A, B))
    assert cuts([*[window(one, 40)] * 5, *[window(other, 40)] * 3]) == [5]


@pytest.mark.parametrize("size", [(24, 32), (120, 160), (1080, 1920), (1000, 300)])
def test_pictures_of_any_size(size: tuple[int, int]) -> None:
    one, other = (cv2.resize(x, size[::-1], interpolation=cv2.INTER_AREA) for x in (A, B))
    assert cuts([one, one, other, other]) == [2]
    assert cuts([one, one, one[:, ::-1][:, ::-1], one]) == []


def test_a_change_of_the_pictures_size_is_none() -> None:
    assert cuts([A, A, cv2.resize(A, (240, 180), interpolation=cv2.INTER_AREA), A, cv2.resize(A, (960, 720))]) == []


def test_motion_is_none() -> None:
    assert cuts(window(A, 5 * i) for i in range(30)) == []  # a pan
    assert cuts(window(A, x) for x in (40, 40, 44, 60, 84, 110, 130)) == []  # that gains speed
    away = [A[i : 360 - i, i : 480 - i] for i in range(120, 0, -10)]
    assert cuts(cv2.resize(x, (320, 240)) for x in away) == []  # the camera withdraws
    bar = [window(A, 40).copy() for _ in range(10)]
    for i, picture in enumerate(bar):
        picture[:, 30 * i : 30 * i + 60] = (180, 180, 190)  # an instrument
    assert cuts(bar) == []


def flash(gain: float) -> ImageU8:
    return np.clip(STILL[0] * float(gain) + 60 * (gain > 1), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "odd",
    [flash(2), flash(4), flash(0.4), flash(0), np.full_like(STILL[0], 255), np.zeros_like(STILL[0])],
    ids=["flash", "strong flash", "dim", "dark", "white", "black"],
)
@pytest.mark.parametrize("length", [1, 2])
def test_light_is_none(odd: ImageU8, length: int) -> None:
    assert cuts([*STILL, *[odd] * length, *STILL]) == []


def test_static_noise_is_skipped() -> None:
    noise = [np.random.default_rng(i).integers(0, 255, STILL[0].shape, dtype=np.uint8) for i in range(4)]
    assert cuts([*STILL, *noise, *STILL]) == []
    assert cuts(noise) == []


def test_what_follows_an_empty_picture_is_compared_with_what_was_before_it() -> None:
    black = [np.zeros_like(STILL[0])] * 20
    assert cuts([*STILL, *black, *STILL]) == []
    assert cuts([*STILL, *black, *[window(B, 40)] * 3]) == [25]


def test_a_menu_and_smoke_are_none() -> None:
    menu = STILL[0].copy()
    menu[150:, :] = 40
    menu[160::20, 20:200:3] = 230
    assert cuts([*STILL, menu, menu, *STILL]) == []
    smoke = [np.clip(STILL[0] * (1 - a) + 200 * a, 0, 255).astype(np.uint8) for a in (0.2, 0.4, 0.6, 0.6, 0.4, 0.2)]
    assert cuts([*STILL, *smoke, *STILL]) == []


def test_an_update_changes_no_earlier_state() -> None:
    """A step that fails leaves the detector as it was."""
    detector, _ = CutDetector().update(window(A, 40))
    assert detector.update(window(B, 40))[1] and detector.update(window(B, 40))[1]
    assert not detector.update(window(A, 42))[1]
