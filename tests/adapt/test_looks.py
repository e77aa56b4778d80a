"""How clips look: smoke, highlights, faults of cameras, colours; each does what it says, and no more."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from rtseg.adapt.appearance import _hue_turned, apply_color, sample_appearance
from rtseg.adapt.batches import uniform
from rtseg.adapt.camera_faults import CameraFaults, apply_faults
from rtseg.adapt.clip_spec import sample_clip
from rtseg.adapt.render import render_clips
from rtseg.adapt.veils import apply_veils, sample_highlights, sample_smoke

from .conftest import CPU, squares
from .test_batches import NOISE, QUIET, _plain

SIZE = 64


def picture() -> torch.Tensor:
    """A smooth picture of middle brightness, [1, 3, S, S]."""
    at = torch.linspace(0, 1, SIZE)
    return torch.stack((at.expand(SIZE, -1), at[:, None].expand(-1, SIZE), torch.full((SIZE, SIZE), 0.5)))[None]


def test_smoke_veils_smoothly_and_moves() -> None:
    veil = sample_smoke(np.random.default_rng(2), 4)
    first, last = (apply_veils(picture(), [(veil,)], [t])[0] for t in (0, 3))
    assert (first - picture()[0]).abs().mean() > 0.03 and (first - last).abs().mean() > 0.01
    change = (first - picture()[0]).diff(dim=-1).abs().max()
    assert change < 0.1, "no edges"
    assert torch.equal(apply_veils(picture(), [()], [0]), picture())


def test_highlights_are_few_bright_and_not_in_the_dark() -> None:
    veil = sample_highlights(np.random.default_rng(1), 2)
    bright = apply_veils(torch.full((1, 3, SIZE, SIZE), 0.5), [(veil,)], [0])[0, 0]
    assert 0.002 < (bright > 0.8).float().mean() < 0.15
    assert (apply_veils(torch.full((1, 3, SIZE, SIZE), 0.05), [(veil,)], [0]) < 0.06).all()


@pytest.mark.parametrize(
    "fault", [{"smear_t2": np.array([[6.0, 0.0]])}, {"coarse": 3.0}, {"comb": 2}, {"quantum": 30.0}], ids=str
)
def test_a_fault_spoils_detail_and_keeps_the_rest(fault: dict[str, object]) -> None:
    detail = torch.rand((1, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(0))
    clean = CameraFaults(np.zeros((1, 2)))
    one = replace(clean, **fault)  # type: ignore[arg-type]
    assert torch.equal(apply_faults(detail.clone(), [clean], [0]), detail)
    assert (apply_faults(detail.clone(), [one], [0]) - detail).abs().mean() > 0.03
    smooth = (apply_faults(picture(), [one], [0]) - picture()).abs().mean()
    assert smooth < 0.03


def test_a_fine_quantum_changes_little() -> None:
    detail = torch.rand((1, 3, 60, 61), generator=torch.Generator().manual_seed(0))
    fine = CameraFaults(np.zeros((1, 2)), quantum=0.01)
    assert (apply_faults(detail.clone(), [fine], [0]) - detail).abs().max() < 1e-3


def test_a_turned_hue_keeps_grey_and_a_whole_turn_everything() -> None:
    assert np.allclose(_hue_turned(1.0) @ np.ones(3), 1)
    assert np.allclose(_hue_turned(2 * np.pi), np.eye(3), atol=1e-6)
    assert not np.allclose(_hue_turned(1.0), np.eye(3), atol=0.1)


def test_about_a_third_of_the_clips_are_grey() -> None:
    rng, pixel = np.random.default_rng(0), torch.rand((1, 3, 8, 8), generator=torch.Generator().manual_seed(1))
    looks = [sample_appearance(rng, 1) for _ in range(200)]
    spread = [float(np.ptp(one.color_cc / one.color_cc.sum(1, keepdims=True), axis=0).max()) for one in looks]
    assert 0.2 < np.mean(np.array(spread) < 1e-5) < 0.4
    assert all(torch.isfinite(apply_color(pixel.clone(), [one], [0])).all() for one in looks)


def test_veils_and_faults_leave_masks_alone() -> None:
    video, made = squares(0), []
    spec = _plain(sample_clip(np.random.default_rng(3), video, uniform([video]), 2, SIZE, QUIET))
    smoky = replace(spec, veils=(sample_smoke(np.random.default_rng(0), 2),), faults=CameraFaults(np.ones((2, 2)), 2.0))
    made = [render_clips([one], SIZE, NOISE) for one in (spec, smoky)]
    assert torch.equal(made[0].id_nthw, made[1].id_nthw)
    assert not torch.equal(made[0].image_nt3hw, made[1].image_nt3hw)
    assert made[0].image_nt3hw.device == CPU
