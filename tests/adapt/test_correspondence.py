"""Correspondences between frames: they match in the images, and good features have a lower loss than bad ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from rtseg.adapt.batches import uniform
from rtseg.adapt.clip_spec import Augmentation, sample_clip
from rtseg.adapt.correspondence import CELL, correspondence_loss
from rtseg.adapt.render import RenderedClips, render_clips

from .conftest import CPU, squares
from .test_batches import QUIET, _plain

SIZE = 128


def frozen_clips(count: int, **probability: float) -> RenderedClips:
    """Clips of one frame each, moved by the camera, in their own colors."""
    video, rng = squares(0, frames=1), np.random.default_rng(3)
    image = F.interpolate(torch.rand(1, 3, 12, 15), size=(80, 100), mode="bicubic").clamp(0, 1)  # something to match
    video.image_t3hw[:] = (255 * image).to(torch.uint8)
    augmentation = replace(QUIET, **probability)
    specs = [_plain(sample_clip(rng, video, uniform([video]), 2, SIZE, augmentation)) for _ in range(count)]
    return render_clips(specs, SIZE, torch.Generator(CPU))


def test_matching_cells_show_the_same() -> None:
    made = frozen_clips(12)
    middle = made.image_nt3hw.float()[..., CELL // 2 :: CELL, CELL // 2 :: CELL].flatten(3)  # [n, t, 3, cells]
    a, b = made.surface_ntgg4.flatten(2, 3).unbind(1)
    apart_npq = (a[:, :, None, 1:3] - b[:, None, :, 1:3]).norm(dim=-1) / b[:, None, :, 3]
    known_npq = (a[:, :, None, 0] > 0) & (b[:, None, :, 0] > 0)
    differ_npq = (middle[:, 0, :, :, None] - middle[:, 1, :, None, :]).abs().mean(1)
    near, far = differ_npq[known_npq & (apart_npq < 0.2)], differ_npq[known_npq & (apart_npq > 3)]
    assert len(near) > 30
    assert near.mean() < 0.3 * far.mean()


def test_features_of_the_surface_point_have_the_lowest_loss() -> None:
    made = frozen_clips(6)
    here, there = made.surface_ntgg4.unbind(1)
    wave = torch.randn(2, 32, generator=torch.Generator().manual_seed(0)) * 0.15

    def features(surface: torch.Tensor) -> torch.Tensor:
        return torch.cat([(surface[..., 1:3] @ wave).sin(), (surface[..., 1:3] @ wave).cos()], -1).permute(0, 3, 1, 2)

    good = correspondence_loss(features(here), features(there), here, there)
    bad = correspondence_loss(features(here), features(there).roll(3, -1), here, there)
    chance = correspondence_loss(torch.randn(6, 64, 8, 8), torch.randn(6, 64, 8, 8), here, there)
    assert good < 0.6 * chance < bad


def test_moving_and_duplicated_surfaces_have_no_match() -> None:
    video, rng = squares(0), np.random.default_rng(0)
    specs = [sample_clip(rng, video, uniform([video]), 2, SIZE, Augmentation(pasted=0)) for _ in range(20)]
    moving = [spec for spec in specs if not spec.frozen]
    surface = render_clips(moving, SIZE, torch.Generator(CPU)).surface_ntgg4
    assert (surface[..., 0] == 0).all()
    top = torch.randn(len(moving), 8, 8, 8, requires_grad=True)
    loss = correspondence_loss(top, top.flip(-1), surface[:, 0], surface[:, 1])
    assert loss == 0
    duplicates = frozen_clips(30, pasted=1.0, duplicate=1.0).surface_ntgg4[..., 0]
    assert (duplicates == -1).any()
