"""Two engines asked the same things: how far apart each verb's answers are, so that a drift has a name.

A tracker that runs on a `Probe` follows the reference; on the way, each verb of the candidate is asked what the
reference was asked. Only memories are the candidate's own (of the reference's masks), and there the reference reads
them too: an engine keeps things beside the map that only it can write.
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
from ..engine import CLAMP_LOGIT, Array, Decoded, Engine, Features, Prompts, Recall, Remembered
from ..engine.base import Verbs

VERBS = ("encode_image", "attend", "decode", "remember")
FUSED = "track"  # the four in a row, which an engine may run as one


@dataclass(frozen=True, slots=True, eq=False)
class Twin(Remembered):
    """The reference's memory, and what the candidate wrote of the same mask."""

    other: Remembered | None = None


@dataclass(slots=True)
class Errors:
    """A verb's relative errors, one for each frame on which it was asked. Infinite: no number, or no answer."""

    seen: list[tuple[float, int]] = field(default_factory=list)

    @property
    def typical(self) -> float:
        """The median; 0 for a verb that was never asked."""
        return statistics.median(error for error, _ in self.seen) if self.seen else 0.0

    def typical_either_side(self, frame: int) -> float:
        """The larger of the medians before a frame and from it on."""
        sides = [pair for pair in self.seen if pair[1] < frame], [pair for pair in self.seen if pair[1] >= frame]
        return max(Errors(side).typical for side in sides)

    @property
    def worst(self) -> tuple[float, int | None]:
        """The largest error, and the first frame that it was on."""
        return max(self.seen, key=lambda seen: seen[0], default=(0.0, None))


class Probe(Verbs):
    """An engine that answers as `reference`, and keeps in `errors` how far `candidate` is from it, verb by verb."""

    def __init__(self, reference: Engine, candidate: Engine) -> None:
        self.reference, self.candidate = reference, candidate
        self.recipe, self.preset, self.image_size = reference.recipe, reference.preset, reference.image_size
        self.weights_hash, self.description = reference.weights_hash, reference.description
        self.errors = {verb: Errors() for verb in (*VERBS, FUSED)}
        self._gave_up = False
        # Whoever steps the tracker says which frame it is, and whether the candidate is asked on it, or only remembers.
        self.frame, self.asks = 0, True

    def encode_image(self, image_hwc: ImageU8) -> Features:
        expected = self.reference.encode_image(image_hwc)
        self._compare("encode_image", _features(expected), lambda c: _features(c.encode_image(image_hwc)))
        return expected

    def attend(self, features: Features, recalls: Sequence[Recall | None]) -> Array:
        if self.asks and not self._gave_up:
            expected_bchw = self.reference.attend(features, [r and _readable(r) for r in recalls])
            asked = [r and _others(r) for r in recalls]
            self._compare("attend", (expected_bchw,), lambda c: (c.attend(features, asked),))
        return self.reference.attend(features, recalls)

    def decode(self, conditioned_bchw: Array, features: Features, prompts: Prompts) -> Decoded:
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
        return [Twin(e.map_chw, e.keys_lnd, f) for e, f in zip(expected, found, strict=True)] if found else expected

    def track(self, image_hwc: ImageU8, recalls: Sequence[Recall]) -> tuple[Decoded, list[Remembered]]:
        if self.asks and not self._gave_up:
            decoded, written = self.reference.track(image_hwc, [_readable(r) for r in recalls])
            asked = [_others(r) for r in recalls]
            self._compare(FUSED, _tracked(decoded, written), lambda c: _tracked(*c.track(image_hwc, asked)))
        return super().track(image_hwc, recalls)

    def _compare(self, verb: str, expected: Sequence[Tensor], answer: Callable[[Engine], Sequence[Tensor]]) -> None:
        """Ask the candidate, and note how far off it is. One that gives up has no answer, and is not asked again."""
        if self._gave_up or not (self.asks or verb == "remember"):
            return
        try:
            error = max(relative_error(e, f) for e, f in zip(expected, answer(self.candidate), strict=True))
        except EngineError:
            self._gave_up, error = True, math.inf
        if self.asks or self._gave_up:
            self.errors[verb].seen.append((error, self.frame))


def relative_error(expected_bx: Tensor, found_bx: Array) -> float:
    """||found - expected|| / ||expected|| of the worst object; infinite if `found` is not a number.

    Where `expected` itself is none, there is nothing to say: 0.
    """
    expected, found = (
        expected_bx.float().flatten(1),
        torch.as_tensor(found_bx).to(expected_bx.device).float().flatten(1),
    )
    if not expected.isfinite().all():
        return 0.0
    errors_b = (found - expected).norm(dim=1) / expected.norm(dim=1).clamp(min=1e-12)
    worst = float(errors_b.max())
    return worst if math.isfinite(worst) else math.inf


def _features(features: Features) -> tuple[Tensor, ...]:
    return features.top, features.mid, features.fine


def _decoded(decoded: Decoded) -> tuple[Tensor, ...]:
    """Logits are clamped as the network clamps them: -1024 means absent, and is not a thousand times as wrong."""
    names = (field.name for field in fields(Decoded))
    d = Decoded(*(torch.as_tensor(getattr(decoded, name)) for name in names))
    confidence_b2 = torch.stack((d.score_b.float().sigmoid(), d.iou_b.float()), dim=1)
    return d.logits_b1hw.float().clamp(-CLAMP_LOGIT, CLAMP_LOGIT), d.pointer_bc, confidence_b2


def _tracked(decoded: Decoded, written: Sequence[Remembered]) -> tuple[Tensor, ...]:
    return *_decoded(decoded), _maps(written)


def _maps(written: Sequence[Remembered]) -> Tensor:
    return torch.stack([torch.as_tensor(w.map_chw) for w in written])


def _others(recall: Recall) -> Recall:
    """The memories as the candidate wrote them."""
    return replace(recall, memories=[m.other for m in recall.memories if isinstance(m, Twin) and m.other is not None])


def _readable(recall: Recall) -> Recall:
    """The same for the reference, which reads fp32 maps and nothing else."""
    maps = [torch.as_tensor(m.map_chw).to(recall.pointers_pc) for m in _others(recall).memories]
    return replace(recall, memories=[Remembered(m) for m in maps])
