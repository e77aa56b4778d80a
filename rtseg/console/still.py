"""One frame of a feed to take away: the original picture as PNG, with its masks drawn on it, or its masks as COCO."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from starlette.responses import JSONResponse, Response

from ..base.colors import color_of
from ..base.defaults import OPACITY
from ..base.errors import OutputError
from ..base.rle import decode_rle
from ..base.types import BoolMask, Frame
from ..publish.mask_state import ObjectSummary
from ..publish.overlay import draw_masks

Found = list[tuple[BoolMask, ObjectSummary]]


async def picture_of(
    snapshot: dict[str, Any], stream: str, kind: str, with_masks: bool, looks: Mapping[int, Mapping[str, Any]]
) -> Response:
    """The answer to a download.

    Arguments:
        snapshot: the result of the order `snapshot`, as a feed gives it.
        stream: names the file.
        kind: "png" or "coco".
        with_masks: whether masks are drawn on the PNG.
        looks: by the id of an object, its `color`, and whether it is `hidden` on the PNG.

    Raises:
        OutputError: the snapshot is broken.
    """
    name = f"{''.join(c if c.isalnum() or c in '._-' else '-' for c in stream)}-{snapshot['seq']:06d}"
    if kind == "coco":
        document = await asyncio.to_thread(coco, snapshot, f"{name}.png")
        return JSONResponse(document, headers=_attached(f"{name}.json"))
    png = _bytes(snapshot["png"])
    if with_masks and snapshot["objects"]:
        shown = [one for one in _objects(snapshot, looks) if not looks.get(one[1].id, {}).get("hidden")]
        png = await asyncio.to_thread(_drawn, png, shown)
    return Response(png, media_type="image/png", headers=_attached(f"{name}.png"))


def coco(snapshot: dict[str, Any], file_name: str) -> dict[str, Any]:
    """The masks of a snapshot as one COCO document, of one image."""
    objects = _objects(snapshot, {})
    images = [
        {
            "id": snapshot["seq"],
            "file_name": file_name,
            "width": snapshot["width"],
            "height": snapshot["height"],
            "rtseg": {"session": snapshot["session"], "mask_seq": snapshot["mask_seq"]},
        }
    ]
    annotations = []
    for number, (thing, (mask_hw, found)) in enumerate(zip(snapshot["objects"], objects, strict=True), 1):
        x0, y0, x1, y1 = found.box
        annotations.append(
            {
                "id": number,
                "image_id": snapshot["seq"],
                "category_id": found.id,
                "track_id": found.id,
                "segmentation": {"size": list(mask_hw.shape), "counts": _bytes(thing["rle"]).decode("ascii")},
                "area": found.area,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "iscrowd": 0,
            }
        )
    categories = [
        {"id": found.id, "name": found.label or f"object {found.id}", "supercategory": "object"} for _, found in objects
    ]
    return {"info": {"description": "rtseg console"}, "images": images, "annotations": annotations,
            "categories": categories}  # fmt: skip


def _objects(snapshot: dict[str, Any], looks: Mapping[int, Mapping[str, Any]]) -> Found:
    found: Found = []
    for thing in snapshot["objects"]:
        mask_hw = decode_rle(_bytes(thing["rle"]), thing["height"], thing["width"])
        x, y, width, height = cv2.boundingRect(mask_hw.view(np.uint8))
        box = (x, y, x + width, y + height)
        label = str(thing.get("label") or "")
        red, green, blue = looks.get(thing["id"], {}).get("color") or color_of(thing["id"])
        found.append((mask_hw, ObjectSummary(thing["id"], label, 1.0, int(mask_hw.sum()), box, (red, green, blue))))
    return found


def _drawn(png: bytes, objects: Found) -> bytes:
    image_bgr = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    if image_bgr is None:
        raise OutputError("snapshot: not a PNG; check the feed")
    image_hwc = np.asarray(cv2.cvtColor(image_bgr, cv2.COLOR_BGR2RGB), np.uint8)
    frame = Frame(image_hwc=image_hwc, seq=0)
    drawn_hwc = draw_masks(frame, None, [one for one in objects if one[1].area], OPACITY)
    done, drawn = cv2.imencode(".png", cv2.cvtColor(drawn_hwc, cv2.COLOR_RGB2BGR))
    if not done:
        raise OutputError("snapshot: cannot be coded as PNG")
    return drawn.tobytes()


def _bytes(value: bytes | str) -> bytes:
    """Bytes as a feed sends them, or the text that JSON made of them."""
    return value if isinstance(value, bytes) else value.encode("ascii", "replace")


def _attached(name: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{name}"'}
