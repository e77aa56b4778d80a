"""What a rival mask is."""

from __future__ import annotations

import numpy as np

from rtseg.track.rivals import area_and_rival_overlap


def drawn(*squares: tuple[int, int, int]) -> np.ndarray:
    """Logits [64, 64], positive in squares (x, y, side)."""
    logits_hw = np.full((64, 64), -9, np.float32)
    for x, y, side in squares:
        logits_hw[y : y + side, x : x + side] = 3
    return logits_hw


def test_a_rival_is_the_largest_part_of_a_losing_mask_that_lies_outside() -> None:
    mask_hw, nothing_hw, other = drawn((10, 10, 10)), drawn(), (40, 10, 5)

    def against(*rivals: np.ndarray) -> tuple[int, float]:
        return area_and_rival_overlap(mask_hw, np.stack(rivals))

    assert against(nothing_hw, mask_hw) == (100, 1.0)
    assert against(nothing_hw, drawn((9, 9, 12))) == (100, 100 / 144)  # the same thing, with its rim
    assert against(nothing_hw, drawn(other)) == against(drawn(other), mask_hw) == (100, 100 / 350)
    assert against(nothing_hw, drawn((10, 10, 10), other)) == (100, 100 / 350)
    assert against(nothing_hw, drawn(other, (10, 50, 2))) == (100, 100 / 350)  # smaller: not the rival
    assert against(drawn((10, 21, 1)), drawn(other)) == (100, 100 / 350)  # of two masks the one that is further off
    assert area_and_rival_overlap(nothing_hw, np.stack([mask_hw, nothing_hw])) == (0, 1.0)
