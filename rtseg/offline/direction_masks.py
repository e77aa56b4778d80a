"""A tracker's masks as they are kept between passes over a recording, and back."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from ..base.rle import decode_rle, encode_rle
from ..base.types import BoolMask, FrameId, Masks

LOST, CUT = 1, 2  # flags of a mask: its object is out of view; another scene begins with its frame


@dataclass(frozen=True, slots=True)
class StoredMask:
    """The mask of one object on one frame. `wins`: RLE of its pixels where no other object covers it; None: all."""

    rle: bytes
    wins: bytes | None
    score: float
    iou: float
    area: int
    flags: int = 0


def stored_masks(masks: Masks, ids: Collection[int]) -> dict[int, StoredMask]:
    """The masks of these objects, by id, as they are kept.

    Where objects overlap, an id map shows the one with the highest logit. So the pixels that each wins are kept, too.
    """
    found = {object_id: masks.mask(object_id) for object_id in masks.ids}
    covered = sum(int(mask_hw.sum()) for mask_hw in found.values())
    overlap = len(found) > 1 and covered > int(np.logical_or.reduce(list(found.values())).sum())
    ids_hw = masks.id_map() if overlap else None
    kept = {}
    for object_id in ids:
        mask_hw = found[object_id]
        wins = None if ids_hw is None else encode_rle(mask_hw & (ids_hw == object_id))
        flags = (LOST if object_id in masks.lost else 0) | (CUT if masks.cut else 0)
        score, iou = masks.score(object_id), masks.iou(object_id)
        kept[object_id] = StoredMask(encode_rle(mask_hw), wins, score, iou, int(mask_hw.sum()), flags)
    return kept


def one_mask(mask_hw: BoolMask, score: float, iou: float) -> StoredMask:
    """A mask that belongs to a prompt."""
    return StoredMask(encode_rle(mask_hw), None, score, iou, int(mask_hw.sum()))


def mask_of(stored: StoredMask, frame: FrameId) -> BoolMask:
    """The mask, bool [H, W], of a frame."""
    return decode_rle(stored.rle, frame.height, frame.width)


def as_masks(frame: FrameId, kept: Sequence[tuple[int, str, StoredMask]], *, cut: bool = False) -> Masks:
    """The masks of a frame: the pixels, scores and id map that the tracker gave.

    Arguments:
        frame: the frame, or what identifies it.
        kept: id, label and mask of each object, by ascending id. Where masks of several passes cover one another, the
            id map shows the one with the highest score times IoU.
        cut: whether another scene begins with this frame.
    """
    logits_bhw = np.full((len(kept), frame.height, frame.width), -1, np.float32)
    for logits_hw, (_, _, mask) in zip(logits_bhw, kept, strict=True):
        sure = 2 + mask.score * mask.iou
        logits_hw[mask_of(mask, frame)] = sure if mask.wins is None else 1
        if mask.wins is not None:
            logits_hw[decode_rle(mask.wins, frame.height, frame.width)] = sure
    return Masks(
        seq=frame.seq,
        session=frame.session,
        captured_ns=frame.captured_ns,
        done_ns=frame.captured_ns,
        height=frame.height,
        width=frame.width,
        ids=tuple(object_id for object_id, _, _ in kept),
        labels=tuple(label for _, label, _ in kept),
        scores=tuple(mask.score for _, _, mask in kept),
        ious=tuple(mask.iou for _, _, mask in kept),
        mask_logits_bhw=logits_bhw,
        cut=cut,
        lost=tuple(object_id for object_id, _, mask in kept if mask.flags & LOST),
    )
