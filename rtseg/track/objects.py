"""The tracked objects, and how a frame changes them: lost at a scene cut, re-identified, moved, reported."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from ..base.edges import Guide
from ..base.types import Float32, Frame, Masks, Prompt, now_ns
from ..engine.cpu.edges import compiled_refine
from ..engine.policy import MaskQuality
from .answer import Answer
from .bank import Bank
from .cut_detector import SmallPicture
from .host_copy import HostCopy
from .location import Location, follow
from .reidentify import Lost, SceneMatcher
from .rivals import area_and_rival_overlap


@dataclass(slots=True, eq=False)
class Object:
    """One tracked object."""

    id: int
    label: str
    bank: Bank
    lost: Lost | None = None  # set while its scene is gone, or the camera has turned away from it
    location: Location | None = None  # where it is, or should be while it is lost; None: not known


def with_lost(objects: Mapping[int, Object], ids: Iterable[int], cut: int) -> dict[int, Object]:
    """These objects, lost since frame `cut`. Those that an earlier cut lost keep that earlier frame."""
    return {
        i: o if o.lost and o.lost.matcher else replace(o, lost=Lost(cut, SceneMatcher(o.bank.memories)), location=None)
        for i, o in ((i, objects[i]) for i in ids)
    }


def reidentified(objects: list[Object], answer: Answer, copy: HostCopy) -> list[Object]:
    """The objects, no longer lost where their scene is back. The answer of those still lost is set absent."""
    after = []
    for row, o in enumerate(objects):
        if o.lost and o.lost.matcher:
            logits_hw = answer.logits_bhw[row]
            if answer.is_visible(row) and o.lost.matcher.matches(copy.map_of(row), logits_hw):
                o = replace(o, lost=None)
            else:
                answer.set_absent(row)
        after.append(o)
    return after


def located(
    objects: list[Object], prompts: Mapping[int, Prompt], answer: Answer, seq: int,
    old: SmallPicture | None, new: SmallPicture | None,
) -> list[Object]:  # fmt: skip
    """The objects with their new locations. A mask that `follow` does not ascribe to its object is set absent."""
    after = []
    for row, o in enumerate(objects):
        if not (o.lost and o.lost.matcher):
            shown_hw = answer.logits_bhw[row] if answer.is_visible(row) else None
            location = None if o.id in prompts else o.location
            location, lost = follow(location, shown_hw, old, new, o.lost is not None)
            if lost:
                answer.set_absent(row)
            o = replace(o, location=location, lost=(o.lost or Lost(seq, None)) if lost else None)
        after.append(o)
    return after


def to_masks(frame: Frame, objects: list[Object], answer: Answer, cut: bool) -> Masks:
    """The answer as the public `Masks`, with edges where the picture has them."""
    side = answer.logits_bhw.shape[-1]
    guide = Guide.of(frame, side, side, compiled_refine()) if (answer.logits_bhw > 0).any() else None
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
        guide=guide,
        lost=tuple(o.id for o in objects if o.lost),
    )


def mask_qualities(answer: Answer, rivals_bkhw: Float32 | None) -> list[MaskQuality]:
    """The quality of each object's mask; `rivals_bkhw` are the logits of its rival masks, where there are any."""
    scores = zip(map(float, answer.scores_b), map(float, answer.ious_b), strict=True)
    if rivals_bkhw is None:
        return [MaskQuality(*both) for both in scores]
    measured = map(area_and_rival_overlap, answer.logits_bhw, rivals_bkhw)
    return [MaskQuality(*both, *rival) for both, rival in zip(scores, measured, strict=True)]
