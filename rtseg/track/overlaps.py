"""Two objects on one thing: the one that was there keeps it, and the other is absent.

When an object leaves the picture, the network may take another that looks like it for it, with full confidence. If that
other one is tracked too, two masks then cover one thing. The object whose mask was there in the step before is right,
and a prompt is right before an object that was out of sight since its own. Where a person prompts two objects alike, or
one on another that was never out of sight, both are meant, and may cover the same thing from then on.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from ..base.types import BoolMask, Float32
from .answer import Answer

SAME_THING = 0.5  # IoU from which two masks cover the same thing


@dataclass(frozen=True, slots=True, eq=False)
class Overlaps:
    """Where each object was in the latest step, and which may cover the same thing.

    Attributes:
        masks: the latest mask of each object that was visible, by id, bool [h, w].
        allowed: pairs of ids.
        joined: objects that are new to the tracker since that step.
        sure: objects that were visible in every step since their latest prompt.
    """

    masks: Mapping[int, BoolMask] = field(default_factory=dict)
    allowed: frozenset[frozenset[int]] = frozenset()
    joined: frozenset[int] = frozenset()
    sure: frozenset[int] = frozenset()

    def settle(self, ids: Sequence[int], prompted: Collection[int], answer: Answer) -> tuple[Overlaps, set[int]]:
        """Set every object absent whose mask is on another's thing. Returns the overlaps after this step, and the ids.

        `ids` are those of the answer's rows; `prompted`, those with a prompt on this frame.
        """
        rows = [row for row in range(len(ids)) if answer.is_visible(row)]
        allowed, absent = self.allowed, set[int]()
        new = self.joined.union(prompted)
        for one, other in _same_thing([answer.logits_bhw[row] for row in rows]):
            a, b = rows[one], rows[other]
            pair = frozenset((ids[a], ids[b]))
            if pair in allowed or not absent.isdisjoint(pair):
                continue
            known = pair - new
            if known <= self.sure and len(known) < 2:
                allowed |= {pair}
            else:
                absent |= known if len(known) == 1 else {ids[self._absent_row(ids, a, b, answer)]}
        for row in rows:
            if ids[row] in absent:
                answer.set_absent(row)
        masks = {ids[row]: answer.logits_bhw[row] > 0 for row in rows if ids[row] not in absent}
        return Overlaps(masks, allowed, sure=frozenset(masks.keys() & (self.sure | new))), absent

    def _absent_row(self, ids: Sequence[int], a: int, b: int, answer: Answer) -> int:
        """Which of two rows is absent, by what they both cover.

        Right is the object whose mask was there before, over half of it; of two such, the one that was never out of
        sight, for the other may have jumped there; else the one that covered more of it; else the more certain one.
        """
        both_hw = (answer.logits_bhw[a] > 0) & (answer.logits_bhw[b] > 0)
        area = int(np.count_nonzero(both_hw))

        def claim(row: int) -> tuple[bool, bool, int, float]:
            before_hw = self.masks.get(ids[row])
            covered = 0 if before_hw is None else int(np.count_nonzero(before_hw & both_hw))
            return 2 * covered > area, ids[row] in self.sure, covered, float(answer.scores_b[row] * answer.ious_b[row])

        return b if claim(a) >= claim(b) else a

    def with_objects(self, other: Overlaps, ids: Collection[int]) -> Overlaps:
        """These, with objects from another tracker."""
        masks = {**self.masks, **{i: mask_hw for i, mask_hw in other.masks.items() if i in ids}}
        return Overlaps(masks, self.allowed | other.allowed, self.joined.union(ids), self.sure | other.sure)

    def without(self, object_id: int) -> Overlaps:
        """These, without an object that is no longer tracked."""
        masks = {i: mask_hw for i, mask_hw in self.masks.items() if i != object_id}
        allowed = frozenset(pair for pair in self.allowed if object_id not in pair)
        return Overlaps(masks, allowed, self.joined - {object_id}, self.sure - {object_id})


def _same_thing(logits: Sequence[Float32]) -> list[tuple[int, int]]:
    """The pairs of masks that cover the same thing."""
    if len(logits) < 2:
        return []
    masks_bn = (np.stack(logits) > 0).reshape(len(logits), -1).astype(np.float32)
    shared_bb = masks_bn @ masks_bn.T
    area_b = shared_bb.diagonal()
    union_bb = area_b[:, None] + area_b[None] - shared_bb
    return [(a, b) for a, b in combinations(range(len(logits)), 2) if shared_bb[a, b] > SAME_THING * union_bb[a, b]]
