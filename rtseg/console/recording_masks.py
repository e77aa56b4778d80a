"""The masks of a recording's session, as its page shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..base.types import FrameId, Masks
from ..offline.direction_masks import CUT, StoredMask, as_masks
from .recording_state import Tracked


def shown_masks(frame: FrameId, objects: Sequence[Tracked], stored: Mapping[int, StoredMask]) -> Masks:
    """The masks of a frame, as the tracker gave them: the same pixels, scores and id map."""
    there = [(each.id, each.label, stored[each.key]) for each in objects if each.key in stored]
    return as_masks(frame, there, cut=any(mask.flags & CUT for _, _, mask in there))
