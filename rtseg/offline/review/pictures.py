"""Thumbnails out of `overlay.mp4`, as data: addresses. They show, and hide, what it does."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2

from ...base.errors import SourceError
from ...base.types import ImageU8
from ...grab.stills import stills

OVERLAY = "overlay.mp4"
WIDTH = 320
JPEG = [cv2.IMWRITE_JPEG_QUALITY, 70, cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_OPTIMIZE, 1]


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A picture as a data: address, and its size in pixels."""

    address: str
    width: int
    height: int


def thumbnails(folder: Path, seconds: Iterable[float]) -> tuple[dict[float, Thumbnail], str]:
    """The overlay's pictures at these times, counted from its start; and why some may be missing, or ""."""
    times = sorted(set(seconds))
    found: dict[float, Thumbnail] = {}
    try:
        for place, image_hwc in stills(folder / OVERLAY, times, WIDTH):
            found[times[place]] = _thumbnail(image_hwc)
    except SourceError as e:
        return found, str(e)
    return found, ""


def _thumbnail(image_hwc: ImageU8) -> Thumbnail:
    height, width = image_hwc.shape[:2]
    coded = cv2.imencode(".jpg", image_hwc[..., ::-1], JPEG)[1]
    return Thumbnail(f"data:image/jpeg;base64,{b64encode(coded.tobytes()).decode()}", width, height)
