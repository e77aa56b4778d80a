"""Spoilt pictures: worse with each level, the same again, coherent in time, and like what they are named after."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from rtseg.base.errors import ConfigError
from rtseg.base.types import ImageU8
from rtseg.data.dataset import Sequence
from rtseg.evaluate.corrupt import CORRUPTIONS, LEVELS, corrupt, corrupted
from rtseg.synthetic import Options, Scene, render_cv2

KINDS = tuple(CORRUPTIONS)
SEEDED = ("smoke", "blood", "motion", "specular")


def picture_of(width: int, height: int) -> ImageU8:
    """A synthetic endoscope's, uint8 [height, width, 3]."""
    return render_cv2(Scene(5, Options(), height).view(0.4), width, height).image_hwc


@pytest.fixture(scope="module")
def picture() -> ImageU8:
    return picture_of(320, 240)


def psnr(a_hwc: ImageU8, b_hwc: ImageU8) -> float:
    return float(-10 * np.log10(np.mean((a_hwc / 255 - b_hwc / 255) ** 2)))


def apart(a_hwc: ImageU8, b_hwc: ImageU8) -> float:
    return float(np.abs(a_hwc.astype(int) - b_hwc).mean())


@pytest.mark.parametrize("kind", KINDS)
def test_each_level_is_worse(picture: ImageU8, kind: str) -> None:
    for seed in range(3):
        values = [psnr(picture, corrupt(picture, kind, level, seed)) for level in LEVELS]
        assert all(worse < better - 0.3 for better, worse in pairwise(values)), values
        assert values[0] < 45  # it does something


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_again_and_the_picture_is_left_alone(picture: ImageU8, kind: str) -> None:
    before_hwc = picture.copy()
    spoilt_hwc = corrupt(picture, kind, 3, 4, 7)
    assert spoilt_hwc.shape == picture.shape and spoilt_hwc.dtype == np.uint8
    assert (corrupt(picture, kind, 3, 4, 7) == spoilt_hwc).all()
    assert (picture == before_hwc).all()


@pytest.mark.parametrize("kind", SEEDED)
def test_another_seed_is_another_cloud(picture: ImageU8, kind: str) -> None:
    assert apart(corrupt(picture, kind, 4, 1), corrupt(picture, kind, 4, 2)) > 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(37, 53), (90, 20), (8, 8)])
def test_any_size_will_do(kind: str, size: tuple[int, int]) -> None:
    image_hwc = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
    assert corrupt(image_hwc, kind, 5).shape == image_hwc.shape


@pytest.mark.parametrize("kind", ["smoke", "motion", "specular"])
def test_what_moves_moves_on_from_frame_to_frame(picture: ImageU8, kind: str) -> None:
    now_hwc, next_hwc, later_hwc = (corrupt(picture, kind, 4, 1, frame) for frame in (20, 21, 60))
    assert 0 < apart(now_hwc, next_hwc) < 0.4 * apart(now_hwc, later_hwc)


def test_blood_stays_on_the_lens(picture: ImageU8) -> None:
    """It covers the same places of quite another picture."""
    other_hwc = np.full_like(picture, 200)
    grey_hwc = np.full_like(picture, 120)
    covered_hw, also_hw = (
        corrupt(p, "blood", 3, 1, frame)[..., 1] < 60 for p, frame in ((other_hwc, 0), (grey_hwc, 90))
    )
    assert 0.05 < covered_hw.mean() < 0.4
    assert (covered_hw & ~also_hw).sum() == 0
    elsewhere_hw = corrupt(other_hwc, "blood", 3, 2)[..., 1] < 60
    assert (covered_hw & elsewhere_hw).sum() < 0.8 * covered_hw.sum()  # the negative control: another lens


def test_blood_lets_red_through(picture: ImageU8) -> None:
    spoilt_hwc = corrupt(np.full_like(picture, 180), "blood", 4, 1)
    changed_n3 = spoilt_hwc[(spoilt_hwc != 180).any(axis=2)].astype(float)
    assert changed_n3[:, 0].mean() > 2 * changed_n3[:, 1].mean()


def test_smoke_takes_contrast_away(picture: ImageU8) -> None:
    seen_hwc = picture > 40
    assert corrupt(picture, "smoke", 4, 1)[seen_hwc].std() < 0.65 * picture[seen_hwc].std()


def test_what_the_endoscope_hides_stays_black() -> None:
    image_hwc = np.zeros((240, 320, 3), np.uint8)
    y, x = np.mgrid[:240, :320]
    inside_hw = np.hypot(y - 120, x - 160) < 110
    image_hwc[inside_hw] = (150, 90, 80)
    for kind in ("smoke", "blood", "specular"):
        spoilt_hwc = corrupt(image_hwc, kind, 5, 1)
        assert spoilt_hwc[np.hypot(y - 120, x - 160) > 124].max() < 8, kind
        assert apart(spoilt_hwc[inside_hw], image_hwc[inside_hw]) > 2, kind  # the negative control


@pytest.mark.parametrize("kind", ["defocus", "motion"])
def test_blur_keeps_the_light_and_loses_the_edges(picture: ImageU8, kind: str) -> None:
    blurred_hwc = corrupt(picture, kind, 4)
    assert abs(blurred_hwc.mean() - picture.mean()) < 2
    edges = [np.abs(np.diff(p.astype(int), axis=1)).mean() for p in (blurred_hwc, picture)]
    assert edges[0] < 0.6 * edges[1]


def test_motion_blurs_along_its_direction_only(picture: ImageU8) -> None:
    spot_hwc = np.zeros((201, 201, 3), np.uint8)
    spot_hwc[98:103, 98:103] = 255
    streak_n2 = np.argwhere(corrupt(spot_hwc, "motion", 5)[..., 0] > 8)
    across, along = np.sqrt(np.linalg.eigvalsh(np.cov(streak_n2.T)))
    assert along > 2 * across
    disc_n2 = np.argwhere(corrupt(spot_hwc, "defocus", 5)[..., 0] > 8)
    across, along = np.sqrt(np.linalg.eigvalsh(np.cov(disc_n2.T)))
    assert along < 1.2 * across  # the negative control


def test_glare_falls_on_what_is_bright_already(picture: ImageU8) -> None:
    blown_hw = (corrupt(picture, "specular", 2, 1) > 245).all(axis=2) & ~(picture > 245).all(axis=2)
    grey_hw = picture.mean(axis=2)
    assert blown_hw.any() and grey_hw[blown_hw].mean() > grey_hw.mean()


def test_dark_and_bright_are_what_they_say(picture: ImageU8) -> None:
    assert corrupt(picture, "dark", 1).mean() < picture.mean() < corrupt(picture, "bright", 1).mean()
    assert (corrupt(picture, "bright", 5) == 255).mean() > (picture == 255).mean()


def test_a_level_means_the_same_at_any_size() -> None:
    small_hwc, large_hwc = (picture_of(w, h) for w, h in ((320, 240), (960, 720)))
    for kind in ("smoke", "blood", "bright"):
        there, here = (psnr(p, corrupt(p, kind, 3, 1)) for p in (small_hwc, large_hwc))
        assert abs(there - here) < 1.5, kind


@pytest.fixture
def sequence(picture: ImageU8) -> Sequence:
    return Sequence("a", 3, (), lambda t: picture, lambda t: {1: picture[..., 0] > 90})


def test_a_sequence_is_spoilt_as_it_is_read(sequence: Sequence) -> None:
    read: list[int] = []
    noted = replace(sequence, image=lambda t: (read.append(t), sequence.image(t))[1])
    spoilt = corrupted(noted, "smoke", 3, 5)
    assert read == []
    assert apart(spoilt.image(2), sequence.image(2)) > 10 and read == [2]
    assert (spoilt.image(2) == corrupted(sequence, "smoke", 3, 5).image(2)).all()
    assert spoilt.truth is sequence.truth and spoilt.name == "a"


def test_each_sequence_has_smoke_of_its_own(sequence: Sequence) -> None:
    here, there = (corrupted(replace(sequence, name=name), "smoke", 3, 5).image(0) for name in "ab")
    assert apart(here, there) > 1


def test_mistakes_are_named(sequence: Sequence) -> None:
    with pytest.raises(ConfigError, match="did you mean 'smoke'"):
        corrupted(sequence, "smok", 3, 0)
    with pytest.raises(ConfigError, match="level 6: expected 1 to 5"):
        corrupted(sequence, "smoke", 6, 0)
