"""The objects of a tracker, and what becomes of them on a frame: lost, found again, at their place, and told of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from ..base.types import Float32, Frame, Masks, Prompt, now_ns
from ..engine.policy import Verdict
from ..engine.policy.held import rivalry
from .answer import Answer
from .bank import Bank
from .beside import Beside
from .evidence import Lost, Witness
from .place import Place, follow
from .scene import View


@dataclass(slots=True, eq=False)
class Object:
    """One object that is followed."""

    id: int
    label: str
    bank: Bank
    lost: Lost | None = None  # its scene has gone, or the camera has turned away, and it has not been found again
    place: Place | None = None  # where it is, or would be; None: not known


def losing(objects: Mapping[int, Object], ids: Iterable[int], cut: int) -> dict[int, Object]:
    """Those of the objects, lost from frame `cut` on; those that were lost before still are, by what they were."""
    return {
        i: o if o.lost and o.lost.witness else replace(o, lost=Lost(cut, Witness(o.bank.memories)), place=None)
        for i, o in ((i, objects[i]) for i in ids)
    }


def found(objects: list[Object], answer: Answer, beside: Beside) -> list[Object]:
    """The objects, of which those that are seen again are no longer lost; the answers of the others are withheld."""
    after = []
    for row, o in enumerate(objects):
        if o.lost and o.lost.witness:
            logits_hw = answer.logits_bhw[row]
            if answer.shows(row) and o.lost.witness.agrees(beside.map_of(row), logits_hw):
                o = replace(o, lost=None)
            else:
                answer.withhold(row)
        after.append(o)
    return after


def placed(
    objects: list[Object], prompts: Mapping[int, Prompt], answer: Answer, seq: int, old: View | None, new: View | None
) -> list[Object]:
    """The objects with their places; what is drawn while the place of an object is out of view is withheld."""
    after = []
    for row, o in enumerate(objects):
        if not (o.lost and o.lost.witness):
            shown_hw = answer.logits_bhw[row] if answer.shows(row) else None
            place = None if o.id in prompts else o.place
            place, lost = follow(place, shown_hw, old, new, o.lost is not None)
            if lost:
                answer.withhold(row)
            o = replace(o, place=place, lost=(o.lost or Lost(seq, None)) if lost else None)
        after.append(o)
    return after


def masks_of(frame: Frame, objects: list[Object], answer: Answer, cut: bool) -> Masks:
    """The network's answer as a value for people."""
    return Masks(
        seq=frame.seq,
        session=frame.session,
        captured_ns=frame.captured_ns,
        done_ns=now_ns(),
        height=frame.height,
        width=frame.width,
        ids=tuple(o.id for o in objects),
        labels=tuple(o.label for o in objects),
        scores=tuple(float(v) for v in answer.scores_b),
        ious=tuple(float(v) for v in answer.ious_b),
        mask_logits_bhw=answer.logits_bhw,
        cut=cut,
        lost=tuple(o.id for o in objects if o.lost),
    )


def verdicts_of(answer: Answer, rivals_bkhw: Float32 | None) -> list[Verdict]:
    """What the network says of its masks; they have come over already, and so this costs no wait."""
    said = zip(map(float, answer.scores_b), map(float, answer.ious_b), strict=True)
    if rivals_bkhw is None:
        return [Verdict(*both) for both in said]
    against = map(rivalry, answer.logits_bhw, rivals_bkhw)
    return [Verdict(*both, *seen) for both, seen in zip(said, against, strict=True)]
