"""What a person would say, from the truth: inside the object, around it, and where the mask at hand is wrong."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from rtseg.adapt import hand
from rtseg.sam2 import PromptBatch, on_device


@pytest.fixture
def draw() -> torch.Generator:
    return torch.Generator().manual_seed(1)


@pytest.fixture
def mask_bhw() -> torch.Tensor:
    mask = torch.zeros(2, 64, 64, dtype=torch.uint8)
    mask[0, 10:30, 20:50] = 1
    mask[1, 40:60, 4:16] = 1
    return mask


def test_points_lie_inside(mask_bhw: torch.Tensor, draw: torch.Generator) -> None:
    seen = set()
    for _ in range(30):
        said = hand.points(mask_bhw, draw)
        for b, (x, y) in enumerate(said.points_bpc[:, 0].long().tolist()):
            assert mask_bhw[b, y, x] == 1
            seen.add((b, x, y))
        assert (said.labels_bp == 1).all()
    assert len(seen) > 40  # anywhere in it, not always the same place


def test_a_box_shakes_around_the_object(mask_bhw: torch.Tensor, draw: torch.Generator) -> None:
    boxes = torch.stack([hand.box(mask_bhw, draw).points_bpc for _ in range(200)])
    wanted = torch.tensor([[[20, 10], [50, 30]], [[4, 40], [16, 60]]]).float()
    assert (boxes.mean(0) - wanted).abs().max() < 0.5
    assert boxes.std(0).max() > 0.5
    assert (hand.box(mask_bhw, draw).labels_bp == torch.tensor([2, 3])).all()


def test_a_correction_says_what_is_wrong(mask_bhw: torch.Tensor, draw: torch.Generator) -> None:
    small = F.avg_pool2d(mask_bhw[:, None].float(), 4)
    logits = small * 20 - 10
    logits[0, :, :, 10:] = -9  # its right half is missing
    logits[1, :, 2:6, 2:6] = 9  # and here is too much
    for _ in range(20):
        said = hand.correction(on_device(PromptBatch.none(2), "cpu"), logits, mask_bhw, draw)
        (x, y), label = said.points_bpc[0, 0].long().tolist(), int(said.labels_bp[0, 0])
        assert (mask_bhw[0, y, x], label, x >= 40) == (1, 1, True)
        (x, y), label = said.points_bpc[1, 0].long().tolist(), int(said.labels_bp[1, 0])
        assert (label, mask_bhw[1, y, x]) == (0, 0)
        assert 8 <= x < 24 and 8 <= y < 24
    assert said.mask_b1hw is not None and said.mask_b1hw.shape == logits.shape


def test_clicks_add_up_and_a_perfect_mask_is_confirmed(mask_bhw: torch.Tensor, draw: torch.Generator) -> None:
    perfect = F.avg_pool2d(mask_bhw[:, None].float(), 4) * 20 - 10
    first = hand.points(mask_bhw, draw)
    said = hand.correction(first, perfect, mask_bhw, draw)
    assert said.points_bpc.shape == (2, 2, 2)
    assert torch.equal(said.points_bpc[:, :1], first.points_bpc)
    assert (said.labels_bp == 1).all()


def test_another_hand_draws_fatter_or_thinner_but_never_nothing(mask_bhw: torch.Tensor) -> None:
    area = [hand.redrawn(mask_bhw, by).flatten(1).sum(1) for by in (-2, 0, 2)]
    assert (area[0] < area[1]).all() and (area[1] < area[2]).all()
    thin = torch.zeros(1, 64, 64)
    thin[0, 30, 10:40] = 1
    assert hand.redrawn(thin, -2).sum() == 30
