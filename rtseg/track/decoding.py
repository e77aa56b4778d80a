"""The network's part of a step: from a picture, recalls and prompts to masks and new memories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np

from ..base.types import Frame, ImageU8, Prompt
from ..engine import CLAMP_LOGIT, Array, Decoded, Engine, Features, PromptBatch, Recall, Remembered, Rivals
from ..engine.arrays import namespace
from .small_objects import mask_input, read_back, rows_of


def to_batch(prompt: Prompt | None, frame: Frame, side: int) -> PromptBatch | None:
    """A prompt as a batch of one object, in pixels of the network's image of `side` x `side` pixels."""
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


def run_network(
    engine: Engine, rivals_of: Rivals | None, image_hwc: ImageU8, recalled: Sequence[Recall | None],
    prompts: Sequence[PromptBatch | None], doubtful: Sequence[bool],
) -> tuple[Decoded, list[Remembered], Array | None]:  # fmt: skip
    """The masks of all objects on a picture, their new memories, and the rival masks that `rivals_of` decodes.

    For each object, `recalled` is its memory (None for a new object), `prompts` its prompt, and `doubtful` whether its
    prompt is a mask that may be too small to be tracked.
    """
    known = [r for r in recalled if r is not None]
    if len(known) == len(recalled) and not any(prompts) and rivals_of is None:
        return *engine.track(image_hwc, known), None
    features = engine.encode_image(image_hwc)
    conditioned_bchw = engine.attend(features, recalled)
    decoded = decode_objects(engine, features, conditioned_bchw, recalled, prompts)
    rivals = None if rivals_of is None else rivals_of.rivals(conditioned_bchw, features)
    written = engine.remember(features, decoded.logits_b1hw, decoded.score_b, [p is not None for p in prompts])
    return read_back(engine, features, decoded, written, doubtful), written, rivals


def decode_objects(
    engine: Engine, features: Features, conditioned_bchw: Array, recalls: Sequence[Recall | None],
    prompts: Sequence[PromptBatch | None],
) -> Decoded:  # fmt: skip
    """One mask for each object: first all tracked objects in one batch, then the prompted ones, one by one.

    A correction is decoded with the memories and with the mask that the object would have without it; a first prompt
    without either. A mask prompt is the answer itself.
    """
    tracked = [i for i, r in enumerate(recalls) if r is not None]
    answers: dict[int, Decoded] = {}
    if tracked:
        together = engine.decode(rows_of(conditioned_bchw, tracked), features, PromptBatch.none(len(tracked)))
        if not any(prompts):
            return together
        answers = {i: together.select(slice(row, row + 1)) for row, i in enumerate(tracked)}
    for i, prompt in enumerate(prompts):
        if prompt is None:
            continue
        if i in answers and prompt.answer_b1hw is None:
            prompt = replace(prompt, mask_b1hw=_clamped(answers[i].logits_b1hw))
        answers[i] = engine.decode(conditioned_bchw[i : i + 1], features, prompt)
    return _concatenated([answers[i] for i in range(len(recalls))])


def _clamped(logits: Array) -> Array:
    """Mask logits as SAM 2 feeds them back: clamped."""
    return namespace(logits).clip(logits, -CLAMP_LOGIT, CLAMP_LOGIT)


def _concatenated(parts: Sequence[Decoded]) -> Decoded:
    """The answers for several objects as one batch."""
    concat = namespace(parts[0].score_b).concat
    names = (field.name for field in fields(Decoded))
    return Decoded(*(concat([getattr(part, name) for part in parts]) for name in names))
