"""What the network is asked of each object on a frame: with what a person said of it, or without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np

from ..base.types import Frame, Prompt
from ..engine import CLAMP_LOGIT, Array, Decoded, Engine, Features, PromptBatch, Recall
from ..engine.arrays import namespace
from .small import mask_input, rows_of


def to_network(prompt: Prompt | None, frame: Frame, side: int) -> PromptBatch | None:
    """A prompt in pixels of the network's image, which has `side` pixels a side, as a batch of one."""
    if prompt is None:
        return None
    if prompt.mask is not None:
        blank = PromptBatch.none(1)
        return PromptBatch(blank.points_bpc, blank.labels_bp, answer_b1hw=mask_input(prompt.mask, side))
    corners = () if prompt.box is None else ((*prompt.box[:2], 2), (*prompt.box[2:], 3))
    scale = (side / frame.width, side / frame.height)
    points = [(x * scale[0], y * scale[1]) for x, y, _ in (*corners, *prompt.points)]
    kinds = [kind for _, _, kind in (*corners, *prompt.points)]
    return PromptBatch(np.array([points], np.float32), np.array([kinds], np.int64))


def decode(
    engine: Engine, features: Features, conditioned_bchw: Array, recalls: Sequence[Recall | None],
    given: Sequence[PromptBatch | None],
) -> Decoded:  # fmt: skip
    """One answer for each object. All tracked ones go through the network together; prompted ones after, alone.

    A correction sees the memories and the mask that would have been the answer without it; a first prompt sees
    neither; a mask is the answer itself.
    """
    tracked = [i for i, r in enumerate(recalls) if r is not None]
    answers: dict[int, Decoded] = {}
    if tracked:
        together = engine.decode(rows_of(conditioned_bchw, tracked), features, PromptBatch.none(len(tracked)))
        if not any(given):
            return together
        answers = {i: together.select(slice(row, row + 1)) for row, i in enumerate(tracked)}
    for i, prompt in enumerate(given):
        if prompt is None:
            continue
        if i in answers and prompt.answer_b1hw is None:
            prompt = replace(prompt, mask_b1hw=_clamped(answers[i].logits_b1hw))
        answers[i] = engine.decode(conditioned_bchw[i : i + 1], features, prompt)
    return _together([answers[i] for i in range(len(recalls))])


def _clamped(logits: Array) -> Array:
    """As SAM 2 feeds an earlier mask back."""
    return namespace(logits).clip(logits, -CLAMP_LOGIT, CLAMP_LOGIT)


def _together(parts: Sequence[Decoded]) -> Decoded:
    """Several objects' answers as one."""
    concat = namespace(parts[0].score_b).concat
    names = (field.name for field in fields(Decoded))
    return Decoded(*(concat([getattr(part, name) for part in parts]) for name in names))
