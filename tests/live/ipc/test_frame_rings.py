"""Frames and masks come out of their rings as they were put in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from rtseg.base.types import Color, Frame, Masks
from rtseg.live.ipc.frame_rings import FrameRing
from rtseg.live.ipc.ring import Ring, RingSize
from rtseg.live.ipc.shared_memory import MASKS, SharedMemory, masks_size


@pytest.fixture()
def shared() -> Iterator[SharedMemory]:
    memory = SharedMemory.create(4, 320)
    yield memory
    memory.close()


def frame(seq: int) -> Frame:
    return Frame(np.full((6, 8, 3), seq, np.uint8), seq, "s", color=Color("bt709", "limited"), interlaced=True)


def test_a_frame_has_its_identity_and_its_pixels(shared: SharedMemory) -> None:
    there = frame(0)
    assert shared.frames.newest is None and shared.frames.put(there) == 0
    back = SharedMemory(shared.fds).frames.get(0)  # as another process sees it
    assert back is not None and back.id == there.id == shared.frames.identity(0) == shared.frames.newest
    np.testing.assert_array_equal(back.image_hwc, there.image_hwc)
    assert shared.frames.get(1) is None and shared.frames.identity(1) is None


def test_the_seq_of_a_frame_goes_on_when_its_source_begins_again(shared: SharedMemory) -> None:
    for _ in range(3):
        shared.frames.put(frame(0))
    found = [shared.frames.identity(index) for index in range(3)]
    assert [frame_id.seq for frame_id in found if frame_id is not None] == [0, 1, 2]


def test_an_identity_is_read_without_the_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    size = RingSize(4, 10_000)
    ring = FrameRing(Ring.create("test", size), size)
    ring.put(frame(0))
    monkeypatch.setattr(Ring, "read", lambda *_: pytest.fail("the pixels were copied"))
    assert ring.identity(0) == ring.newest is not None
    os.close(ring.fd)


def test_masks_cross_unchanged(shared: SharedMemory) -> None:
    logits = np.random.default_rng(0).standard_normal((2, 4, 4)).astype(np.float32)
    masks = Masks(3, "s", 1, 2, 6, 8, (1, 7), ("a", "b"), (0.5, 1.0), (0.1, 0.2), logits, cut=True, lost=(7,))
    again = SharedMemory(shared.fds).masks.get(shared.masks.put(masks))
    assert again is not None and repr(again) == repr(masks)
    np.testing.assert_array_equal(again.mask_logits_bhw, logits)
    assert shared.masks.get(1) is None


def test_masks_cross_with_their_edges(shared: SharedMemory) -> None:
    rng = np.random.default_rng(0)
    picture = Frame(rng.integers(0, 255, (40, 60, 3), dtype=np.uint8), 3)
    logits_bhw = rng.standard_normal((2, 8, 8)).astype(np.float32)
    masks = Masks(3, "s", 1, 2, 40, 60, (1, 7), ("a", "b"), (0.5, 1.0), (0.1, 0.2), logits_bhw).on(picture)
    again = SharedMemory(shared.fds).masks.get(shared.masks.put(masks))
    assert again is not None and again.mask_logits_bhw.shape == (2, 32, 32)
    assert all(np.array_equal(again.mask(i), masks.mask(i)) for i in (1, 7))
    assert not np.array_equal(again.mask(1), replace(masks, guide=None).mask(1))


def test_the_mask_ring_holds_four_of_the_largest_masks() -> None:
    large = masks_size(64, 1024)
    assert large.arena == 4 * 64 * 256 * 256 * 4 > MASKS.arena == masks_size(4, 320).arena
    assert masks_size(16, 512).arena == 4 * 16 * 512 * 512 * 4  # with the parts of their cells
