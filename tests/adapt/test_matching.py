"""Matches between frames: that they are true of the pictures, and that good features cost less than bad ones."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from rtseg.adapt.compose import Clips, compose
from rtseg.adapt.matching import CELL, matching_loss
from rtseg.adapt.plan import Habits, draw_clip

from .conftest import CPU, squares
from .test_clips import _plain

SIZE = 128


def still_clips(count: int, **habits: float) -> Clips:
    """Clips of one frame each, moved about, in their own colours."""
    video, rng = squares(0, frames=1), np.random.default_rng(3)
    image = F.interpolate(torch.rand(1, 3, 12, 15), size=(80, 100), mode="bicubic").clamp(0, 1)  # something to match
    video.image_t3hw[:] = (255 * image).to(torch.uint8)
    quiet = Habits(**{"layers": 0.0, "field": 0.0, "cut": 0.0, "leave": 0.0, "jumpy": 0.0} | habits)
    plans = [_plain(draw_clip(rng, video, [video], 2, SIZE, quiet)) for _ in range(count)]
    return compose(plans, SIZE, torch.Generator(CPU))


def test_what_is_said_to_match_looks_alike() -> None:
    made = still_clips(12)
    middle = made.image_nt3hw.float()[..., CELL // 2 :: CELL, CELL // 2 :: CELL].flatten(3)  # [n, t, 3, cells]
    a, b = made.place_ntgg4.flatten(2, 3).unbind(1)
    apart_npq = (a[:, :, None, 1:3] - b[:, None, :, 1:3]).norm(dim=-1) / b[:, None, :, 3]
    known_npq = (a[:, :, None, 0] > 0) & (b[:, None, :, 0] > 0)
    differ_npq = (middle[:, 0, :, :, None] - middle[:, 1, :, None, :]).abs().mean(1)
    near, far = differ_npq[known_npq & (apart_npq < 0.2)], differ_npq[known_npq & (apart_npq > 3)]
    assert len(near) > 30
    assert near.mean() < 0.3 * far.mean()


def test_features_of_the_place_cost_less_than_others() -> None:
    made = still_clips(6)
    here, there = made.place_ntgg4.unbind(1)
    wave = torch.randn(2, 32, generator=torch.Generator().manual_seed(0)) * 0.15

    def features(place: torch.Tensor) -> torch.Tensor:
        return torch.cat([(place[..., 1:3] @ wave).sin(), (place[..., 1:3] @ wave).cos()], -1).permute(0, 3, 1, 2)

    good = matching_loss(features(here), features(there), here, there)
    bad = matching_loss(features(here), features(there).roll(3, -1), here, there)
    chance = matching_loss(torch.randn(6, 64, 8, 8), torch.randn(6, 64, 8, 8), here, there)
    assert good < 0.6 * chance < bad


def test_what_moves_by_itself_or_has_a_twin_teaches_nothing() -> None:
    video, rng = squares(0), np.random.default_rng(0)
    moving = [p for p in (draw_clip(rng, video, [video], 2, SIZE, Habits(layers=0)) for _ in range(20)) if not p.still]
    place = compose(moving, SIZE, torch.Generator(CPU)).place_ntgg4
    assert (place[..., 0] == 0).all()
    top = torch.randn(len(moving), 8, 8, 8, requires_grad=True)
    loss = matching_loss(top, top.flip(-1), place[:, 0], place[:, 1])
    assert loss == 0
    twins = still_clips(30, layers=1.0, twin=1.0).place_ntgg4[..., 0]
    assert (twins == -1).any()
