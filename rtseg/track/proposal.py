"""The mask that prompts of one object would give on a frame, without changing the tracker.

The picture is encoded once: whoever points again at the same frame waits for the rest of the network alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..base.errors import AnswerError
from ..base.types import Frame, Masks, Prompt
from ..engine import Array, Engine, Features
from ..engine.arrays import copy_to_host, namespace, on_host, sigmoid, to_host
from .answer import Answer
from .bank import recalls
from .decoding import decode_objects, to_batch
from .inputs import check_prompts
from .objects import to_masks
from .small_objects import is_doubtful, warnings
from .tracker import Tracker

_PICTURES = 2  # whose features are kept


class Proposals:
    """Proposes masks by the memories of one tracker, or of another with the same engine."""

    def __init__(self) -> None:
        self._kept: deque[tuple[Engine, tuple[str, int], Features]] = deque(maxlen=_PICTURES)

    def propose(self, tracker: Tracker, prompts: Sequence[Prompt], frame: Frame) -> Masks:
        """The masks, of one object, that these prompts of it would give on a frame, with the memories before it.

        Raises `PromptError` for prompts that do not fit, `AnswerError` for an answer that is not finite.
        """
        fork, engine, size = tracker.fork([prompts[0].id], frame.seq), tracker.engine, tracker.engine.image_size
        for prompt in prompts:
            fork.give(prompt)
        (merged,) = fork._prompts.values()
        if is_doubtful(merged, size):  # the network is asked whether it finds its own memory of such a small mask
            return fork.step(frame)
        check_prompts(fork._prompts, fork._objects, frame)
        objects = fork._objects_on(None)
        recalled, given = recalls([objects[0].bank], fork._steps), [to_batch(merged, frame, size)]
        features = self._features(engine, frame)
        decoded = decode_objects(engine, features, engine.attend(features, recalled), recalled, given)
        logits_b1hw, scores_b, ious_b = copy_to_host([decoded.logits_b1hw, decoded.score_b, decoded.iou_b])
        if not all(np.isfinite(values).all() for values in (logits_b1hw, scores_b, ious_b)):
            raise AnswerError(f"frame {frame.seq}: the network's masks are not finite; point again")
        on_cpu = on_host(decoded.score_b)
        answer = Answer(logits_b1hw[:, 0], to_host(sigmoid(decoded.score_b)) if on_cpu else sigmoid(scores_b), ious_b)
        masks = to_masks(frame, objects, answer, cut=False)
        return replace(masks, warnings=warnings([merged], frame, masks, size))

    def prepare(self, tracker: Tracker, frame: Frame) -> None:
        """Encode a frame that a person begins to point at."""
        self._features(tracker.engine, frame)

    def _features(self, engine: Engine, frame: Frame) -> Features:
        picture = frame.session, frame.seq
        for its_engine, its_picture, features in self._kept:
            if its_engine is engine and its_picture == picture:
                return features
        encoded = engine.encode_image(frame.image_hwc)
        # Copies: an engine may reuse its arrays in its next step.
        kept = Features(*(_copy(part) for part in (encoded.top, encoded.mid, encoded.fine)))
        self._kept.append((engine, picture, kept))
        return kept


def _copy(part: Array) -> Array:
    if isinstance(part, int):  # of a network whose decoder sees no finer maps
        return part
    return namespace(part).asarray(part, copy=True) if on_host(part) else part.clone()
