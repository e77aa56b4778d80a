"""Frames and masks, made to measure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction

import numpy as np
import pytest
import zmq

from rtseg.base.types import BoolMask, Color, Frame, Masks

MakeFrame = Callable[..., Frame]
MakeMasks = Callable[..., Masks]


@pytest.fixture(scope="session")
def make_frame() -> MakeFrame:
    def make(height: int = 120, width: int = 160, seq: int = 7, captured_ns: int | None = None) -> Frame:
        rng = np.random.default_rng(seq)
        image_hwc = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        more = {} if captured_ns is None else {"captured_ns": captured_ns}
        return Frame(image_hwc, seq, "s1", 3600 * seq, Fraction(1, 90000), color=Color("bt709", "limited"), **more)

    return make


@pytest.fixture(scope="session")
def make_masks() -> MakeMasks:
    def make(frame: Frame, masks_hw: list[BoolMask], age_ms: float = 0, session: str = "s1") -> Masks:
        logits_bhw = np.where(np.stack(masks_hw), 8, -8).astype(np.float32)
        captured_ns = frame.captured_ns - round(age_ms * 1e6)
        count, (height, width) = len(masks_hw), masks_hw[0].shape
        return Masks(
            seq=frame.seq - 2,
            session=session,
            captured_ns=captured_ns,
            done_ns=captured_ns,
            height=height,
            width=width,
            ids=tuple(range(1, count + 1)),
            labels=("grasper", "gallbladder", "liver", "duct", "clip")[:count],
            scores=(0.75,) * count,
            ious=(0.9,) * count,
            mask_logits_bhw=logits_bhw,
        )

    return make


@pytest.fixture
def box_mask() -> Callable[..., BoolMask]:
    def make(frame: Frame, x0: int, y0: int, x1: int, y1: int) -> BoolMask:
        mask_hw = np.zeros((frame.height, frame.width), bool)
        mask_hw[y0:y1, x0:x1] = True
        return mask_hw

    return make


@pytest.fixture
def raw_xpub() -> Iterator[zmq.Socket[bytes]]:
    """A publisher with no manners: whatever a test wants on the wire."""
    with zmq.Context() as context, context.socket(zmq.XPUB) as xpub:
        xpub.setsockopt(zmq.LINGER, 0)
        xpub.setsockopt(zmq.RCVTIMEO, 5000)
        xpub.bind("tcp://127.0.0.1:*")
        yield xpub
