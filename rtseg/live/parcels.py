"""Frames, masks and prompts as bytes: how they cross from one process of a feed to another."""

from __future__ import annotations

from dataclasses import asdict
from fractions import Fraction
from typing import Any

import msgpack
import numpy as np

from ..base.rle import decode_rle, encode_rle
from ..base.types import Color, Frame, ImageU8, Masks, Prompt


def frame_meta(frame: Frame) -> bytes:
    """All of a frame but its picture and its `seq`, which the ring gives it."""
    return bytes(
        msgpack.packb(
            {
                "session": frame.session, "pts": frame.pts, "captured_ns": frame.captured_ns, "pixfmt": frame.pixfmt,
                "time_base": [frame.time_base.numerator, frame.time_base.denominator], "color": asdict(frame.color),
                "interlaced": frame.interlaced, "size": [frame.height, frame.width],
                "sample_aspect": [frame.sample_aspect.numerator, frame.sample_aspect.denominator],
            }
        )
    )  # fmt: skip


def frame_of(seq: int, meta: bytes, flat: ImageU8 | None = None) -> Frame:
    """The frame again; without its bytes, its picture is black."""
    facts = msgpack.unpackb(meta)
    height, width = facts.pop("size")
    image_hwc = np.broadcast_to(np.uint8(0), (height, width, 3)) if flat is None else flat.reshape(height, width, 3)
    color, time_base = Color(**facts.pop("color")), Fraction(*facts.pop("time_base"))
    aspect = Fraction(*facts.pop("sample_aspect"))
    return Frame(image_hwc, seq, color=color, time_base=time_base, sample_aspect=aspect, **facts)


_PLAIN = (
    "seq", "session", "captured_ns", "done_ns", "height", "width", "ids", "labels", "scores", "ious", "cut", "lost",
)  # fmt: skip


def masks_parcel(masks: Masks) -> tuple[bytes, ImageU8]:
    """Meta and payload for a ring."""
    facts: dict[str, Any] = {name: getattr(masks, name) for name in _PLAIN}
    logits_bhw = np.ascontiguousarray(masks.mask_logits_bhw)
    return bytes(msgpack.packb({**facts, "shape": logits_bhw.shape})), logits_bhw.view(np.uint8)


def masks_of(meta: bytes, flat: ImageU8) -> Masks:
    """The masks again."""
    facts = msgpack.unpackb(meta, use_list=False)
    shape = facts.pop("shape")
    return Masks(**facts, mask_logits_bhw=flat.view(np.float32).reshape(shape))


def prompt_parcel(prompt: Prompt) -> dict[str, Any]:
    """A prompt as a plain map; a mask as its RLE and size."""
    plain: dict[str, Any] = {"id": prompt.id, "points": prompt.points, "box": prompt.box, "label": prompt.label}
    if prompt.mask is not None:
        plain["mask"] = [encode_rle(prompt.mask), *prompt.mask.shape]
    return plain


def prompt_of(plain: dict[str, Any]) -> Prompt:
    """The prompt again."""
    mask = decode_rle(*plain["mask"]) if "mask" in plain else None
    points = tuple((float(x), float(y), int(kind)) for x, y, kind in plain["points"])
    box = None if plain["box"] is None else tuple(plain["box"])
    return Prompt(plain["id"], points, box, mask, plain["label"])
