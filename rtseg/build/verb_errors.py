"""The error of each verb of an engine against the reference on the same inputs. It shows which verb drifts.

A tracker on an `ErrorProbe` tracks with the reference; on the way, each verb of the candidate gets the same inputs.
Only memories are an exception: the candidate reads its own (of the reference's masks), because a memory has parts that
only the engine that wrote it can read. For the comparison the reference reads the maps of the same memories.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace

import torch
from torch import Tensor

from ..base.errors import EngineError
from ..base.types import ImageU8
from ..engine import CLAMP_LOGIT, Array, Decoded, Engine, Features, PromptBatch, Recall, Remembered
from ..engine.base import Verbs

VERBS = ("encode_image", "attend", "decode", "remember")
FUSED = "track"  # the four verbs in a row, which an engine may run as one fused step


@dataclass(frozen=True, slots=True, eq=False)
class PairedMemory(Remembered):
    """The reference's memory, with the candidate's memory of the same mask."""

    candidate: Remembered | None = None


@dataclass(slots=True)
class VerbErrors:
    """A verb's relative errors: (error, frame) for each frame on which it was compared.

    An error is infinite if the candidate's answer is not finite, or if it gave none.
    """

    pairs: list[tuple[float, int]] = field(default_factory=list)

    @property
    def typical(self) -> float:
        """The median; 0 for a verb that was never compared."""
        return statistics.median(error for error, _ in self.pairs) if self.pairs else 0.0

    def typical_either_side(self, frame: int) -> float:
        """The larger of two medians: over the frames before `frame`, and over the frames from it on."""
        before = [pair for pair in self.pairs if pair[1] < frame]
        after = [pair for pair in self.pairs if pair[1] >= frame]
        return max(VerbErrors(before).typical, VerbErrors(after).typical)

    @property
    def worst(self) -> tuple[float, int | None]:
        """The largest error, and the first frame with it."""
        return max(self.pairs, key=lambda pair: pair[0], default=(0.0, None))


class ErrorProbe(Verbs):
    """An engine that gives the answers of `reference`, and records in `errors` those of `candidate`, verb by verb.

    Before each step the caller sets `frame`, the frame's number, and `compares`, whether verbs are compared on it. On
    other frames the candidate only writes its memories.
    """

    def __init__(self, reference: Engine, candidate: Engine) -> None:
        self.reference, self.candidate = reference, candidate
        self.recipe, self.preset, self.image_size = reference.recipe, reference.preset, reference.image_size
        self.weights_hash, self.description = reference.weights_hash, reference.description
        self.errors = {verb: VerbErrors() for verb in (*VERBS, FUSED)}
        self.frame, self.compares = 0, True
        self._failed = False  # the candidate raised an error

    def encode_image(self, image_hwc: ImageU8) -> Features:
        expected = self.reference.encode_image(image_hwc)
        self._compare("encode_image", _features(expected), lambda c: _features(c.encode_image(image_hwc)))
        return expected

    def attend(self, features: Features, recalls: Sequence[Recall | None]) -> Array:
        if self.compares and not self._failed:
            expected_bchw = self.reference.attend(features, [r and _readable(r) for r in recalls])
            asked = [r and _candidates(r) for r in recalls]
            self._compare("attend", (expected_bchw,), lambda c: (c.attend(features, asked),))
        return self.reference.attend(features, recalls)

    def decode(self, conditioned_bchw: Array, features: Features, prompts: PromptBatch) -> Decoded:
        expected = self.reference.decode(conditioned_bchw, features, prompts)
        self._compare("decode", _decoded(expected), lambda c: _decoded(c.decode(conditioned_bchw, features, prompts)))
        return expected

    def remember(
        self, features: Features, logits_b1hw: Array, score_b: Array, prompted: Sequence[bool]
    ) -> list[Remembered]:
        expected = self.reference.remember(features, logits_b1hw, score_b, prompted)
        found: list[Remembered] = []

        def answer(candidate: Engine) -> Sequence[Tensor]:
            found.extend(candidate.remember(features, logits_b1hw, score_b, prompted))
            return (_maps(found),)

        self._compare("remember", (_maps(expected),), answer)
        return (
            [PairedMemory(e.map_chw, e.keys_lnd, e.cells_cgg, f) for e, f in zip(expected, found, strict=True)]
            if found
            else expected
        )

    def track(self, image_hwc: ImageU8, recalls: Sequence[Recall]) -> tuple[Decoded, list[Remembered]]:
        if self.compares and not self._failed:
            decoded, written = self.reference.track(image_hwc, [_readable(r) for r in recalls])
            asked = [_candidates(r) for r in recalls]
            self._compare(FUSED, _tracked(decoded, written), lambda c: _tracked(*c.track(image_hwc, asked)))
        return super().track(image_hwc, recalls)

    def _compare(self, verb: str, expected: Sequence[Tensor], answer: Callable[[Engine], Sequence[Tensor]]) -> None:
        """Run the candidate's verb and record its error. After an exception the candidate is not run again."""
        if self._failed or not (self.compares or verb == "remember"):
            return
        try:
            error = max(relative_error(e, f) for e, f in zip(expected, answer(self.candidate), strict=True))
        except EngineError:
            self._failed, error = True, math.inf
        if self.compares or self._failed:
            self.errors[verb].pairs.append((error, self.frame))


def relative_error(expected_bx: Tensor, found_bx: Array) -> float:
    """||found - expected|| / ||expected|| of the worst of B objects, [B, ...]; infinite if `found` is not finite.

    It is 0 if `expected` is not finite, because then nothing can be compared.
    """
    expected = expected_bx.float().flatten(1)
    found = torch.as_tensor(found_bx).to(expected_bx.device).float().flatten(1)
    if not expected.isfinite().all():
        return 0.0
    errors_b = (found - expected).norm(dim=1) / expected.norm(dim=1).clamp(min=1e-12)
    worst = float(errors_b.max())
    return worst if math.isfinite(worst) else math.inf


def _features(features: Features) -> tuple[Tensor, ...]:
    return features.top, features.mid, features.fine


def _decoded(decoded: Decoded) -> tuple[Tensor, ...]:
    """The parts of an answer. Logits are clamped as the network clamps them, because an absent object has -1024."""
    names = (field.name for field in fields(Decoded))
    d = Decoded(*(torch.as_tensor(getattr(decoded, name)) for name in names))
    confidence_b2 = torch.stack((d.score_b.float().sigmoid(), d.iou_b.float()), dim=1)
    return d.logits_b1hw.float().clamp(-CLAMP_LOGIT, CLAMP_LOGIT), d.pointer_bc, confidence_b2


def _tracked(decoded: Decoded, written: Sequence[Remembered]) -> tuple[Tensor, ...]:
    return *_decoded(decoded), _maps(written)


def _maps(written: Sequence[Remembered]) -> Tensor:
    return torch.stack([torch.as_tensor(w.map_chw) for w in written])


def _candidates(recall: Recall) -> Recall:
    """A recall with the memories that the candidate wrote."""
    return replace(
        recall, memories=[m.candidate for m in recall.memories if isinstance(m, PairedMemory) and m.candidate]
    )


def _readable(recall: Recall) -> Recall:
    """A recall with what the reference reads of the candidate's memories, maps and cells, in its own dtype."""

    def own(x: Array) -> Tensor:
        return torch.as_tensor(x).to(recall.pointers_pc)

    memories = [
        Remembered(own(m.map_chw), cells_cgg=None if m.cells_cgg is None else own(m.cells_cgg))
        for m in _candidates(recall).memories
    ]
    return replace(recall, memories=memories)
