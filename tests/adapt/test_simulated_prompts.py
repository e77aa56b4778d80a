"""Simulated prompts: points inside the object, boxes around it, and clicks where the predicted mask is wrong."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from rtseg.adapt import simulated_prompts
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
        prompts = simulated_prompts.point_prompts(mask_bhw, draw)
        for b, (x, y) in enumerate(prompts.points_bpc[:, 0].long().tolist()):
            assert mask_bhw[b, y, x] == 1
            seen.add((b, x, y))
        assert (prompts.labels_bp == 1).all()
    assert len(seen) > 20  # anywhere in it, not always the same place


def test_some_points_are_where_an_object_is_thickest(draw: torch.Generator) -> None:
    mask_bhw = torch.zeros(2, 64, 64, dtype=torch.uint8)
    mask_bhw[0, 8:40, 8:40], mask_bhw[0, 20:26, 40:64] = 1, 1  # a square with a handle
    mask_bhw[1, 30, 10:20] = 1  # thinner than a cell
    drawn = torch.stack([simulated_prompts.point_prompts(mask_bhw, draw).points_bpc[:, 0] for _ in range(60)])
    central = (drawn[:, 0] - 24).abs().amax(1) <= 6
    assert 15 < int(central.sum()) < 50 and len(drawn[:, 0].unique(dim=0)) > 15
    for b in range(2):
        x, y = drawn[:, b].long().unbind(1)
        assert (mask_bhw[b, y, x] == 1).all()


def test_a_box_is_jittered_around_the_object(mask_bhw: torch.Tensor, draw: torch.Generator) -> None:
    boxes = torch.stack([simulated_prompts.box_prompts(mask_bhw, draw).points_bpc for _ in range(200)])
    wanted = torch.tensor([[[20, 10], [50, 30]], [[4, 40], [16, 60]]]).float()
    assert (boxes.mean(0) - wanted).abs().max() < 0.5
    assert boxes.std(0).max() > 0.5
    assert (simulated_prompts.box_prompts(mask_bhw, draw).labels_bp == torch.tensor([2, 3])).all()


def test_corrections_are_where_the_mask_is_wrong(mask_bhw: torch.Tensor, draw: torch.Generator) -> None:
    small = F.avg_pool2d(mask_bhw[:, None].float(), 4)
    logits = small * 20 - 10
    logits[0, :, :, 10:] = -9  # its right half is missing
    logits[1, :, 2:6, 2:6] = 9  # and here is too much
    for _ in range(20):
        prompts = simulated_prompts.corrected_prompts(on_device(PromptBatch.none(2), "cpu"), logits, mask_bhw, draw)
        (x, y), label = prompts.points_bpc[0, 0].long().tolist(), int(prompts.labels_bp[0, 0])
        assert (mask_bhw[0, y, x], label, x >= 40) == (1, 1, True)
        (x, y), label = prompts.points_bpc[1, 0].long().tolist(), int(prompts.labels_bp[1, 0])
        assert (label, mask_bhw[1, y, x]) == (0, 0)
        assert 8 <= x < 24 and 8 <= y < 24
    assert prompts.mask_b1hw is not None and prompts.mask_b1hw.shape == logits.shape


def test_clicks_add_up_and_a_perfect_mask_is_confirmed(mask_bhw: torch.Tensor, draw: torch.Generator) -> None:
    perfect = F.avg_pool2d(mask_bhw[:, None].float(), 4) * 20 - 10
    first = simulated_prompts.point_prompts(mask_bhw, draw)
    prompts = simulated_prompts.corrected_prompts(first, perfect, mask_bhw, draw)
    assert prompts.points_bpc.shape == (2, 2, 2)
    assert torch.equal(prompts.points_bpc[:, :1], first.points_bpc)
    assert (prompts.labels_bp == 1).all()


def test_masks_are_dilated_or_eroded_but_never_removed(mask_bhw: torch.Tensor) -> None:
    area = [simulated_prompts.resized_masks(mask_bhw, by).flatten(1).sum(1) for by in (-2, 0, 2)]
    assert (area[0] < area[1]).all() and (area[1] < area[2]).all()
    thin = torch.zeros(1, 64, 64)
    thin[0, 30, 10:40] = 1
    assert simulated_prompts.resized_masks(thin, -2).sum() == 30
