"""Each verb of an engine beside the reference in fp32 on the CPU, on fresh random inputs.

An error is ||found - expected|| / ||expected|| of the worst object; what is no number, or of another shape, is
infinitely wrong. A verb's verdict is by the median over draws, as the parity check's: where two masks compete closely
rounding alone may choose the other. Its limit is the parity check's too. Inputs of each verb are the reference's, so
that none answers for the one before it; memories are the candidate's own, and the reference reads their maps.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.gpu.case import Case, noise, poison
from rtseg.build.parity import LIMITS, MOST_ERROR, STEPS
from rtseg.engine import CLAMP_LOGIT, Decoded, Engine, Features, PromptBatch, Recall, Remembered
from rtseg.engine.base import Prepares
from rtseg.engine.reference import TorchEngine
from rtseg.sam2 import STD

# The parity check's name of the verb whose limit holds for each question.
QUESTIONS = {
    "encode_image": "encode_image", "attend": "attend", "attend, one new": "attend",
    "decode": "decode", "decode, box": "decode", "decode, points and mask": "decode", "decode, mask": "decode",
    "remember": "remember", "track": "track", "track, again": "track",
}  # fmt: skip

LEVEL = 1.01  # grey levels that a resized picture may be off by, anywhere: where the reference rounds up, or down

Found = dict[str, list[float]]


def check(
    case: Case, precision: str, objects: int, draws: int, seed: int, candidate: Engine | None = None
) -> dict[str, Any]:
    """How far off each verb is at this precision; `ok` if none is beyond its limit."""
    reference = case.reference(objects=objects)
    engine = candidate or case.engine(precision, objects=objects)
    errors: Found = {question: [] for question in ("prepare", *QUESTIONS)}
    for draw in range(draws):
        ask(reference, engine, objects, np.random.default_rng([seed, draw]), case.device, errors)
    step = LIMITS[precision].step
    limits = {"prepare": LEVEL, **{q: min(step * STEPS[verb], MOST_ERROR) for q, verb in QUESTIONS.items()}}
    verbs = {
        q: {
            "typical": number(statistics.median(seen)), "worst": number(max(seen)), "limit": limits[q],
            # Of a picture no chance decides, so that each has to be right.
            "ok": (max(seen) if q == "prepare" else statistics.median(seen)) <= limits[q],
        }
        for q, seen in errors.items() if seen
    }  # fmt: skip
    ok = all(verb["ok"] for verb in verbs.values())
    return {"ok": ok, "engine": engine.description, "objects": objects, "draws": draws, "seed": seed, "verbs": verbs}


def ask(
    reference: TorchEngine, engine: Engine, objects: int, rng: np.random.Generator, device: str, errors: Found
) -> None:
    """One draw: a picture, memories and prompts at random, and every question about them."""
    # At the network's own size: resizing is judged by itself, for where it rounds to another grey level that is no
    # error of a verb.
    side = reference.image_size
    picture, other = noise(rng, side, side), noise(rng, *(int(n) for n in rng.integers(side // 2, 2 * side, 2)))

    def note(question: str, expected: Sequence[Any], found: Sequence[Any]) -> None:
        errors[question].append(max(error_of(e, f) for e, f in zip(expected, found, strict=True)))
        poison(device)

    poison(device)
    if isinstance(engine, Prepares):
        errors["prepare"].append(levels_off(reference.prepare(other), engine.prepare(other)))
    features = reference.encode_image(picture)
    note("encode_image", maps(features), maps(engine.encode_image(picture)))
    there = Features(*(t.to(device) for t in maps(features)))

    full = bool(rng.integers(2))  # memories in every slot, or fewer: two ways through the engine
    recalls, known = memories(reference, engine, there, objects, full, rng, device, note)
    conditioned = reference.attend(features, known)
    note("attend", [conditioned], [engine.attend(there, recalls)])
    if objects > 1:
        fresh = reference.attend(features, [None, *known[1:]])
        note("attend, one new", [fresh], [engine.attend(there, [None, *recalls[1:]])])
    for question, prompts in questions(reference.image_size, objects, rng).items():
        expected = reference.decode(conditioned, features, prompts)
        note(question, answers(expected), answers(engine.decode(conditioned.to(device), there, prompts)))
    for question, seen in (("track", picture), ("track, again", noise(rng, side, side))):
        # The second picture shows what the first one left behind.
        decoded, written = reference.track(seen, known)
        found, kept = engine.track(seen, recalls)
        note(question, [*answers(decoded), kept_maps(written)], [*answers(found), kept_maps(kept)])


def memories(
    reference: TorchEngine, engine: Engine, there: Features, objects: int, full: bool, rng: np.random.Generator,
    device: str, note: Any,
) -> tuple[list[Recall], list[Recall]]:  # fmt: skip
    """What each object remembers, as the candidate wrote it and as the reference reads it; `remember` is asked here."""
    preset, side = reference.preset, reference.image_size // 4
    window = preset.num_maskmem
    slots = window if full else int(rng.integers(1, window))
    pointers = preset.max_pointers if full else int(rng.integers(1, preset.max_pointers))
    kept: list[list[Remembered]] = []
    for _ in range(slots):
        logits = np.stack([noise(rng, side, side)[None, :, :, 0] for _ in range(objects)]).astype(np.float32) / 16 - 8
        scores = rng.normal(2, 3, objects).astype(np.float32)
        given, prompted = (
            (torch.from_numpy(a) for a in (logits, scores)),
            [bool(b) for b in rng.integers(0, 2, objects)],
        )
        logits_b1hw, score_b = given
        features = Features(*(t.cpu() for t in maps(there)))
        expected = reference.remember(features, logits_b1hw, score_b, prompted)
        found = engine.remember(there, logits_b1hw.to(device), score_b.to(device), prompted)
        note("remember", [kept_maps(expected)], [kept_maps(found)])
        kept.append(found)
    order = (window - 1, *range(slots - 1))
    ages = tuple(range(1, pointers + 1))
    recalls = []
    for i in range(objects):
        own = torch.from_numpy(rng.normal(0, 1, (pointers, preset.dim)).astype(np.float32))
        recalls.append(Recall([step[i] for step in kept], order, own.to(device), ages))
    known = [
        replace(r, memories=[without_keys(m) for m in r.memories], pointers_pc=r.pointers_pc.cpu()) for r in recalls
    ]
    return recalls, known


def without_keys(memory: Remembered) -> Remembered:
    """A memory as the reference reads it, which projects the keys itself."""
    cells_cgg = None if memory.cells_cgg is None else torch.as_tensor(memory.cells_cgg).cpu().float()
    return Remembered(torch.as_tensor(memory.map_chw).cpu().float(), cells_cgg=cells_cgg)


def questions(size: int, objects: int, rng: np.random.Generator) -> dict[str, PromptBatch]:
    """Prompts of every kind for so many objects."""

    def places(count: int) -> Any:
        return rng.uniform(0, size, (objects, count, 2)).astype(np.float32)

    box = np.sort(places(2), axis=1)
    earlier = rng.normal(0, 4, (objects, 1, size // 4, size // 4)).astype(np.float32)
    answer = np.zeros((objects, 1, size, size), np.float32)
    answer[:, :, size // 4 : size // 2, size // 3 : size // 2] = 1
    nothing = PromptBatch.none(objects)
    return {
        "decode": nothing,
        "decode, box": PromptBatch(box, np.tile([2, 3], (objects, 1))),
        "decode, points and mask": PromptBatch(places(3), rng.integers(0, 2, (objects, 3)), mask_b1hw=earlier),
        "decode, mask": PromptBatch(nothing.points_bpc, nothing.labels_bp, answer_b1hw=answer),
    }


def error_of(expected_bx: Any, found_bx: Any) -> float:
    """The relative error of the worst object; infinite where either is no number, or the shapes differ."""
    expected, found = (torch.as_tensor(t).detach().cpu().float() for t in (expected_bx, found_bx))
    if expected.shape != found.shape or not (expected.isfinite().all() and found.isfinite().all()):
        return math.inf
    expected, found = expected.flatten(1), found.flatten(1)
    return float(((found - expected).norm(dim=1) / expected.norm(dim=1).clamp(min=1e-12)).max())


def levels_off(expected_1chw: Any, found_1chw: Any) -> float:
    """The largest difference of two normalised pictures in grey levels of 255; infinite where one is no picture."""
    if not math.isfinite(error_of(expected_1chw, found_1chw)):
        return math.inf
    scale = 255 * torch.tensor(STD).view(1, 3, 1, 1)
    return float(((torch.as_tensor(found_1chw).cpu().float() - expected_1chw.cpu()).abs() * scale).max())


def maps(features: Features) -> list[Tensor]:
    return [features.top, features.mid, features.fine]


def answers(decoded: Decoded) -> list[Tensor]:
    """Logits are clamped as the network clamps them: -1024 means absent, and is not a thousand times as wrong."""
    logits, iou, score, pointer = (
        torch.as_tensor(t).cpu().float()
        for t in (decoded.logits_b1hw, decoded.iou_b, decoded.score_b, decoded.pointer_bc)
    )
    return [logits.clamp(-CLAMP_LOGIT, CLAMP_LOGIT), pointer, torch.stack((score.sigmoid(), iou), dim=1)]


def kept_maps(written: Sequence[Remembered]) -> Tensor:
    return torch.stack([torch.as_tensor(w.map_chw).cpu().float() for w in written])


def number(value: float) -> float | None:
    """JSON has no infinity."""
    return value if math.isfinite(value) else None
