"""The losses against plain numpy, and what they ignore on purpose."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rtseg.adapt.losses import FINE_TUNING, FROM_SCRATCH, dice_loss, focal_loss, frame_loss, hard_iou


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(3)
    logits_bkhw = torch.randn(2, 4, 8, 8, generator=draw) * 3
    target_bkhw = (torch.rand(2, 4, 8, 8, generator=draw) > 0.6).float()
    return logits_bkhw, target_bkhw


def test_focal_is_what_the_paper_says(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, target = (t.double().numpy() for t in pair)
    prob = 1 / (1 + np.exp(-logits))
    right = np.where(target == 1, prob, 1 - prob)
    side = np.where(target == 1, 0.25, 0.75)
    expected = (-side * (1 - right) ** 2 * np.log(right)).mean((-2, -1))
    np.testing.assert_allclose(focal_loss(*pair, gamma=2.0, alpha=0.25).numpy(), expected, rtol=1e-4)
    assert not np.allclose(focal_loss(*pair, gamma=0.0, alpha=0.25).numpy(), expected, rtol=1e-2)


def test_dice_and_iou_count_pixels(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, target = (t.double().numpy() for t in pair)
    prob = 1 / (1 + np.exp(-logits))
    expected = 1 - (2 * (prob * target).sum((-2, -1)) + 1) / ((prob + target).sum((-2, -1)) + 1)
    np.testing.assert_allclose(dice_loss(*pair).numpy(), expected, rtol=1e-4)
    mask, truth = logits > 0, target > 0.5
    np.testing.assert_allclose(
        hard_iou(*pair).numpy(), (mask & truth).sum((-2, -1)) / (mask | truth).sum((-2, -1)), rtol=1e-6
    )
    empty = torch.zeros(1, 1, 4, 4)
    assert hard_iou(empty - 1, empty).item() == 1.0
    assert hard_iou(empty + 1, empty).item() == 0.0


def test_only_the_single_mask_and_the_best_candidate_learn() -> None:
    target_bhw = torch.zeros(1, 32, 32, dtype=torch.uint8)
    target_bhw[:, 8:20, 8:20] = 1
    small = torch.nn.functional.avg_pool2d(target_bhw[:, None].float(), 4)[:, 0]
    logits = torch.zeros(1, 4, 8, 8)
    logits[:, 2] = small * 8 - 4
    logits.requires_grad_()
    parts = frame_loss(logits, torch.full((1, 4), 0.5), torch.ones(1), target_bhw, FROM_SCRATCH)
    parts["mask"].backward()
    assert logits.grad is not None
    moved = logits.grad.abs().sum((0, 2, 3)) > 0
    assert moved.tolist() == [True, False, True, False]


def test_an_absent_object_is_judged_on_its_score_alone() -> None:
    empty = torch.zeros(2, 32, 32, dtype=torch.uint8)
    logits, iou = torch.full((2, 4, 8, 8), 9.0), torch.rand(2, 4)
    wrong = frame_loss(logits, iou, torch.full((2,), 6.0), empty, FINE_TUNING)
    right = frame_loss(logits, iou, torch.full((2,), -6.0), empty, FINE_TUNING)
    assert wrong["mask"] == wrong["iou"] == 0
    assert wrong["score"] > 5 > 0.01 > right["score"]
    present = empty.clone()
    present[0, :16] = 1
    assert frame_loss(logits, iou, torch.zeros(2), present, FINE_TUNING)["mask"] > 0
