"""A frame's identity: a value of its own, which a `Frame` is with pixels on it."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from fractions import Fraction

import numpy as np
import pytest

from rtseg.base.types import Color, Frame, FrameId

IMAGE_HWC = np.zeros((4, 6, 3), np.uint8)


def frame() -> Frame:
    color, aspect = Color("bt709", "limited"), Fraction(4, 3)
    return Frame(IMAGE_HWC, 5, "s", 7, Fraction(1, 30), 99, "yuv420p", color, True, None, "a.png", aspect)


def test_an_identity_has_all_but_the_pixels() -> None:
    found = frame().id
    assert type(found) is FrameId
    color, aspect = Color("bt709", "limited"), Fraction(4, 3)
    assert found == FrameId(5, 4, 6, "s", 7, Fraction(1, 30), 99, "yuv420p", color, True, "a.png", aspect)
    assert found.seconds == frame().seconds == 7 / 30
    assert found != replace(found, seq=6) and hash(found) == hash(frame().id)
    with pytest.raises(FrozenInstanceError):
        found.seq = 1  # type: ignore[misc]


def test_pixels_make_a_frame_of_it_again() -> None:
    again = Frame.from_id(frame().id, IMAGE_HWC)
    assert again.image_hwc is IMAGE_HWC and again.id == frame().id and again.truth_hw is None


def test_a_frame_changes_as_other_values_do_and_its_size_is_that_of_its_pixels() -> None:
    one = frame()
    assert replace(one, seq=9).id == replace(one.id, seq=9)
    smaller = replace(one, image_hwc=IMAGE_HWC[:2])
    assert (smaller.height, smaller.width, smaller.id.height) == (2, 6, 2)


def test_frames_are_compared_by_object() -> None:
    one = frame()
    assert one == one and one != replace(one) and len({one, replace(one)}) == 2
