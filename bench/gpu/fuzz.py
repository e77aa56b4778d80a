"""Pictures of any size, objects that come and go, every policy, forks: an engine beside fp32 on the CPU, at random.

Both follow the same script. In fp32 every mask has to be the reference's, but for a few pixels at its edge; in half
precision masks of a random script may part company, so that there each answer has to be sound, and most masks alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.gpu.case import Case, noise, poison
from rtseg.base.errors import PromptError, RtsegError
from rtseg.base.types import BoolMask, ImageU8
from rtseg.build.parity import overlap
from rtseg.engine import Engine
from rtseg.engine.base import Prepares
from rtseg.engine.recipe import Recipe
from rtseg.engine.reference import TorchEngine
from rtseg.sam2 import Sam2
from rtseg.track import POLICIES, Tracker

SIZES = ((1, 1), (2, 3), (17, 31), (64, 64), (97, 513), (240, 320), (479, 641), (720, 1280), (1080, 1920), (2160, 3840))
FRAMES = 12  # of a script
LEAST = {"fp32": 0.97, "bf16": 0.0, "fp16": 0.0}  # IoU on each frame
MEAN = {"fp32": 0.995, "bf16": 0.85, "fp16": 0.9}  # and in the mean over a script


@dataclass(slots=True)
class Script:
    """What happens on each frame: pictures, and what is done to the tracker before them."""

    policy: str
    pictures: list[ImageU8]
    acts: list[list[tuple[str, int, Any]]]  # (what, object, how)
    size_hw: tuple[int, int]
    fork_at: int | None = None
    forked: list[tuple[str, int, Any]] = field(default_factory=list)


def script(rng: np.random.Generator, objects: int) -> Script:
    """A random one: a picture that drifts, sometimes one of another size, and one to three things a frame."""
    height, width = SIZES[int(rng.integers(len(SIZES)))]
    other = SIZES[int(rng.integers(6))]
    base = noise(rng, height, width)
    pictures = [np.roll(base, (t * height // 40, t * width // 40), (0, 1)) for t in range(FRAMES)]
    odd = int(rng.integers(2, 2 * FRAMES))
    if odd < FRAMES:
        pictures[odd] = noise(rng, *other)
    alive: set[int] = set()
    acts: list[list[tuple[str, int, Any]]] = []
    for t, picture in enumerate(pictures):
        h, w = picture.shape[:2]
        now: list[tuple[str, int, Any]] = []
        for i in range(1, objects + 1):
            if i not in alive and (rng.random() < 0.35 or (t == 0 and i == 1)):
                now.append(random_prompt(rng, i, h, w))
                alive.add(i)
            elif i in alive and rng.random() < 0.08 and t:
                now.append(("remove", i, None))
                alive.discard(i)
            elif i in alive and rng.random() < 0.1:
                now.append(random_prompt(rng, i, h, w))
        acts.append(now)
    policy = sorted(POLICIES)[int(rng.integers(len(POLICIES)))]
    found = Script(policy, pictures, acts, (height, width))
    if rng.random() < 0.5:
        found.fork_at = int(rng.integers(3, FRAMES))
        found.forked = [random_prompt(rng, 1, *pictures[found.fork_at - 2].shape[:2])]
    return found


def random_prompt(rng: np.random.Generator, i: int, height: int, width: int) -> tuple[str, int, Any]:
    """A prompt that fits a picture of this size."""
    x0, y0 = int(rng.integers(width)), int(rng.integers(height))
    box = tuple(float(n) for n in (x0, y0, rng.integers(x0 + 1, width + 1), rng.integers(y0 + 1, height + 1)))
    kind = int(rng.integers(3))
    if kind == 0:
        return "box", i, box
    if kind == 1:
        return "points", i, [((box[0] + box[2]) / 2, (box[1] + box[3]) / 2, 1)]
    mask_hw = np.zeros((height, width), bool)
    mask_hw[int(box[1]) : int(box[3]), int(box[0]) : int(box[2])] = True
    return "mask", i, mask_hw


def follow(engine: Engine, told: Script) -> list[dict[int, BoolMask] | str]:
    """The masks of every frame by object; where the engine refuses a frame, its error."""
    tracker, seen = Tracker(engine, told.policy), []
    tracker.cuts = False  # pictures of another size, and of nothing, are no cuts here
    for t, (picture, acts) in enumerate(zip(told.pictures, told.acts, strict=True)):
        for act in acts:
            do(tracker, act)
        if t == told.fork_at:
            tracker = rejoined(tracker, told, t)
        seen.append(masks_of(tracker, picture))
    return seen


def rejoined(tracker: Tracker, told: Script, t: int) -> Tracker:
    """What a person does who corrects the past: a fork before the last two frames, prompted there, and adopted."""
    if 1 not in tracker.ids:
        return tracker
    fork = tracker.fork([1], t - 2)
    for act in told.forked:
        do(fork, act)
    for picture in told.pictures[t - 2 : t]:
        fork.step(picture)
    tracker.adopt(fork)
    return tracker


def do(tracker: Tracker, act: tuple[str, int, Any]) -> None:
    what, i, how = act
    if what == "remove":
        if i in tracker.ids:
            tracker.remove(i)
    else:
        with suppress(PromptError):  # refused before any engine hears of it: a mask that covers the whole of one pixel
            tracker.prompt(i, **{what: how})


def masks_of(tracker: Tracker, picture: ImageU8) -> dict[int, BoolMask] | str:
    try:
        masks = tracker.step(picture)
    except RtsegError as e:
        return f"{type(e).__name__}: {e}"
    return {i: np.asarray(masks.mask_logits_bhw[row] > 0) for row, i in enumerate(masks.ids)}


def compare(expected: list[Any], found: list[Any], precision: str) -> dict[str, Any]:
    """IoU of a script's masks; an error, or other objects, on one side alone is a failure."""
    ious, failures = [], []
    for t, (a, b) in enumerate(zip(expected, found, strict=True)):
        if isinstance(a, str) or isinstance(b, str):
            if type(a) is not type(b):
                failures.append(f"frame {t}: {b if isinstance(b, str) else 'answered where the reference refuses'}")
            continue
        if a.keys() != b.keys():
            failures.append(f"frame {t}: objects {sorted(b)}; expected {sorted(a)}")
            continue
        ious += [overlap(a[i], b[i])[0] for i in a]
    least, mean = (min(ious), float(np.mean(ious))) if ious else (1.0, 1.0)
    if least < LEAST[precision]:
        failures.append(f"IoU {least:.3f}; expected {LEAST[precision]} or more on each frame")
    if mean < MEAN[precision]:
        failures.append(f"mean IoU {mean:.3f}; expected {MEAN[precision]} or more")
    return {"least": round(least, 4), "mean": round(mean, 4), "failures": failures}


class SamePicture(TorchEngine):
    """The reference in fp32 on the CPU, on the picture as the candidate resized it: that is judged by itself.

    A grey level more or less, where one rounds up and the other down, is no error, and in a small picture that is
    blown up it moves masks.
    """

    def __init__(self, network: Sam2, recipe: Recipe, candidate: Engine) -> None:
        super().__init__(network, recipe, "", "cpu")
        self._candidate = candidate

    def prepare(self, image_hwc: ImageU8) -> Tensor:
        if isinstance(self._candidate, Prepares):
            return torch.as_tensor(self._candidate.prepare(image_hwc)).cpu().float()
        return super().prepare(image_hwc)


def check(
    case: Case, precision: str, seed: int, deadline: float, most: int, objects: int = 3,
    candidate: Engine | None = None, note: Callable[[dict[str, Any]], None] = lambda report: None,
) -> dict[str, Any]:  # fmt: skip
    """Scripts until the deadline, or so many; `ok` where none failed. One engine for all, as in a long feed."""
    engine = candidate or case.engine(precision, objects=objects)
    reference = SamePicture(case.network(), case.recipe("torch", "fp32", objects=objects), engine)
    report: dict[str, Any] = {"ok": True, "engine": engine.description, "seed": seed, "scripts": 0, "failed": []}
    for number in range(most):
        if number and time.monotonic() > deadline:
            break
        told = script(np.random.default_rng([seed, number]), objects)
        poison(case.device)
        result = compare(follow(reference, told), follow(engine, told), precision)
        report["scripts"] += 1
        report["least"] = min(report.get("least", 1.0), result["least"])
        if result["failures"]:
            report["ok"] = False
            what = {
                "script": number,
                "policy": told.policy,
                "size": list(told.size_hw),
                "failures": result["failures"][:3],
            }
            report["failed"].append(what)
        note(report)
    return report
