"""A snapshot: the original picture without loss, and the masks of the network."""

from __future__ import annotations

from typing import Any

import cv2

from ...base.errors import OutputError
from ...base.rle import encode_rle
from ...base.types import Frame, Masks


def snapshot_result(frame: Frame, masks: Masks | None) -> dict[str, Any]:
    """The answer to `TakeSnapshot`: the picture as PNG, its seq, and the masks with the seq they belong to."""
    done, png = cv2.imencode(".png", cv2.cvtColor(frame.image_hwc, cv2.COLOR_RGB2BGR))
    if not done:
        raise OutputError(f"a {frame.width}x{frame.height} picture cannot be coded as PNG")
    objects = [] if masks is None else [_object(masks, object_id) for object_id in masks.ids]
    picture = {"png": png.tobytes(), "seq": frame.seq, "session": frame.session}
    return {**picture, "width": frame.width, "height": frame.height, "objects": objects,
            "mask_seq": None if masks is None else masks.seq}  # fmt: skip


def _object(masks: Masks, object_id: int) -> dict[str, Any]:
    about = {"id": object_id, "label": masks.label(object_id), "height": masks.height, "width": masks.width}
    return {**about, "rle": encode_rle(masks.mask(object_id))}
