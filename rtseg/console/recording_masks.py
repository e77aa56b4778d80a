"""The tracker's masks as the store keeps them, and back."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from ..base.rle import decode_rle, encode_rle
from ..base.types import BoolMask, FrameId, Masks
from .recording_state import Tracked
from .recording_store import CUT, LOST, StoredMask


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


def shown_masks(frame: FrameId, objects: Sequence[Tracked], stored: Mapping[int, StoredMask]) -> Masks:
    """The masks of a frame, as the tracker gave them: the same pixels, scores and id map."""
    there = [(each, stored[each.key]) for each in objects if each.key in stored]
    logits_bhw = np.full((len(there), frame.height, frame.width), -1, np.float32)
    for logits_hw, (_, mask) in zip(logits_bhw, there, strict=True):
        logits_hw[mask_of(mask, frame)] = 1
        if mask.wins is not None:
            logits_hw[decode_rle(mask.wins, frame.height, frame.width)] = 2
    return Masks(
        seq=frame.seq,
        session=frame.session,
        captured_ns=frame.captured_ns,
        done_ns=frame.captured_ns,
        height=frame.height,
        width=frame.width,
        ids=tuple(each.id for each, _ in there),
        labels=tuple(each.label for each, _ in there),
        scores=tuple(mask.score for _, mask in there),
        ious=tuple(mask.iou for _, mask in there),
        mask_logits_bhw=logits_bhw,
        cut=any(mask.flags & CUT for _, mask in there),
        lost=tuple(each.id for each, mask in there if mask.flags & LOST),
    )
