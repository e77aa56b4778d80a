"""The parity gate: a candidate engine and the reference each follow the same objects through a whole clip, each with
its own memory, and their masks are compared on every frame. Errors feed back through memory: one frame proves little.

The measure is the IoU of the two masks at the network's own mask resolution, for each object on each frame; 1 where
both are empty. A union of under 100 pixels counts as 100: on so few, IoU measures pixels at the edge, where the
reference itself stands between yes and no. So every frame is judged, and a mask of any size that is missing counts.

Masks do not show everything: a network may hardly read its pointers. So each verb is judged too, by its answers to the
same questions, early and again where memories are full. By its median error: where two of the decoder's masks compete
closely, rounding alone may choose the other one. And a clip on which the reference sees nothing proves nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..base.errors import EngineError
from ..base.types import BoolMask, Frame, Masks
from ..engine import Engine
from ..track import Tracker
from .clips import Clip
from .probe import FUSED, Errors, Probe

Progress = Callable[[int, int | None], None]

SMALL = 100  # pixels of a mask; a smaller union counts as this
PROBED, LATE = 8, 4  # frames whose verbs are compared: the first, so many with full memories, and the clip's last
FULL = 18  # frames after an object has come, its memories and pointers are full


@dataclass(frozen=True, slots=True)
class Limits:
    """What an engine of some precision must reach: IoU on each frame and in the mean. `step`: its relative rounding."""

    each: float
    mean: float
    step: float


# fp32 differs in the order of its sums alone; bf16 and fp16 may move what lies at an edge. Eight bits are a choice to
# lose accuracy: the gate then keeps out what is broken, and the figures beside it say what the choice costs.
LIMITS = {
    "fp32": Limits(each=0.98, mean=0.999, step=1e-5),
    "bf16": Limits(each=0.98, mean=0.99, step=2**-8),
    "fp16": Limits(each=0.98, mean=0.99, step=2**-11),
    "int16": Limits(each=0.98, mean=0.99, step=2**-11),
    "int8": Limits(each=0.90, mean=0.95, step=2**-6),
    "fp8": Limits(each=0.90, mean=0.95, step=2**-5),
}
# How many roundings' worth a verb's answer may be off: about four times what bf16 and fp16 were measured to give.
STEPS = {"encode_image": 16, "attend": 8, "decode": 8, "remember": 8, FUSED: 24}
MOST_ERROR = 0.2  # and never more than this: what is further off does not compute the same thing


def gate(
    reference: Engine, candidate: Engine, clip: Clip, progress: Progress = lambda done, total: None,
    expected: Sequence[Masks] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Compare a candidate with the reference over a clip; the report's `ok` says whether it may be installed.

    `expected` are the reference's masks, where several candidates are compared with the same ones: `reference_masks`.
    """
    limits = LIMITS[candidate.recipe.precision]
    seen = _follow(
        reference_masks(reference, clip) if expected is None else expected, candidate, clip, limits, progress
    )
    first = seen.first_failure
    late = min(max(clip.prompts) + FULL, max(PROBED, seen.frames - 1 - LATE))
    asked = probe(reference, candidate, clip, PROBED if first is None else int(first["frame"]) + 1, late)
    verbs = {verb: _verdict(asked[verb], late, min(limits.step * STEPS[verb], MOST_ERROR)) for verb in STEPS}
    agrees = seen.passed and all(verb["ok"] for verb in verbs.values())
    blame = None if agrees else _drifted(verbs)
    ok = agrees and seen.told > 0
    return {"ok": ok, "clip": clip.name, **seen.report(), "verbs": verbs, "drifted": blame}


def probe(reference: Engine, candidate: Engine, clip: Clip, stop: int, late: int) -> dict[str, Errors]:
    """Each verb's errors over the frames of a clip before `stop`, over some from `late` on, and on its last one."""
    asked = Probe(reference, candidate)
    tracker = Tracker(asked)
    frames, end = clip.frames(), max(stop, late + LATE)
    for place, frame in enumerate(chain(islice(frames, end), _last(frames))):
        asked.frame, asked.asks = frame.seq, place < stop or place >= late
        _give(tracker, clip, frame)
        tracker.step(frame)
    return asked.errors


def explain(report: dict[str, Any]) -> str:
    """One line about a gate that failed: where, by how much, and whose fault it is."""
    first, limits = report["first_failure"], report["limits"]
    if report["drifted"] is None:
        return (
            f"{report['clip']}: proves nothing: the reference sees nothing on it, each tracked mask is empty or full;"
            " expected weights, prompts and a clip that go together"
        )
    if first is not None:
        found = first.get("error") or f"IoU {first['iou']:.3f}; expected {limits['each']:g} or more"
        what = f"frame {first['frame']}, object {first['object']}: {found}"
    elif report["mean"] < limits["mean"]:
        what = f"mean IoU {report['mean']:.4f}; expected {limits['mean']:g} or more"
    else:
        what = f"the masks agree (IoU {report['least']:.3f} or more), the verbs do not"
    name = report["drifted"]
    verb = report["verbs"][name]
    name = "the fused step" if name == FUSED else name
    size = "no number" if verb["worst"] is None else f"off by {verb['worst']:.2g}"
    blame = f"{name} drifted: {size} on frame {verb['frame']}, its limit is {verb['limit']:.2g}"
    if verb["worst"] is not None and verb["worst"] <= verb["limit"]:
        blame = f"no verb alone drifted; nearest to it is {name}: {size}, its limit is {verb['limit']:.2g}"
    return f"{report['clip']}: {what}; {blame}"


def _verdict(errors: Errors, late: int, limit: float) -> dict[str, Any]:
    worst, frame = errors.worst
    typical = errors.typical_either_side(late)
    return {
        "ok": typical <= limit,
        "typical": _number(typical),
        "worst": _number(worst),
        "frame": frame,
        "limit": limit,
    }


def _drifted(verbs: dict[str, dict[str, Any]]) -> str:
    """The verb to blame: furthest beyond its limit in the median, else furthest on any one frame.

    The fused step only where each verb alone is within its limit.
    """
    for key in ("typical", "worst"):
        excess = {v: math.inf if found[key] is None else found[key] / found["limit"] for v, found in verbs.items()}
        fused = excess.pop(FUSED)
        name = max(excess, key=excess.__getitem__)
        if excess[name] > 1 or fused > 1:
            return name if excess[name] > 1 else FUSED
    return name


def overlap(expected_hw: BoolMask, found_hw: BoolMask) -> tuple[float, int]:
    """IoU of two masks, and the pixels of their union; a union of fewer than `SMALL` counts as that many."""
    union = int((expected_hw | found_hw).sum())
    return 1 - float((expected_hw ^ found_hw).sum()) / max(union, SMALL), union


@dataclass(slots=True)
class _Seen:
    """What has been compared so far.

    `small`: masks whose union counts as `SMALL`. `told`: of the reference's masks on frames where nothing was said of
    their object (`tracked`), those that are neither empty nor full.
    """

    limits: Limits
    ious: list[float] = field(default_factory=list)
    frames: int = 0
    objects: set[int] = field(default_factory=set)
    small: int = 0
    told: int = 0
    tracked: int = 0
    failures: int = 0
    first_failure: dict[str, Any] | None = None
    truth: list[tuple[float, float]] = field(default_factory=list)

    @property
    def mean(self) -> float:
        return float(np.mean(self.ious)) if self.ious else 0.0

    @property
    def passed(self) -> bool:
        return self.first_failure is None and self.mean >= self.limits.mean

    def add(self, frame: Frame, expected: Masks, found: Masks, clip: Clip) -> None:
        self.frames += 1
        said = {prompt.id for prompt in clip.prompts.get(frame.seq, ())}
        for row, i in enumerate(expected.ids):
            expected_hw, found_hw = (np.asarray(m.mask_logits_bhw[row] > 0) for m in (expected, found))
            iou, union = overlap(expected_hw, found_hw)
            self.objects.add(i)
            self.ious.append(iou)
            self.small += 0 < union < SMALL
            if i not in said:
                self.tracked += 1
                self.told += bool(expected_hw.any() and not expected_hw.all())
            if iou < self.limits.each:
                self.fail({"frame": frame.seq, "object": i, "iou": iou})
            if frame.truth_hw is not None and i in clip.truths:
                truth_hw = _shrunk(frame.truth_hw == clip.truths[i], expected_hw.shape)
                self.truth.append((overlap(expected_hw, truth_hw)[0], overlap(found_hw, truth_hw)[0]))

    def fail(self, failure: dict[str, Any]) -> None:
        self.failures += 1
        self.first_failure = self.first_failure or failure

    def report(self) -> dict[str, Any]:
        report = {
            "frames": self.frames,
            "objects": len(self.objects),
            "least": min(self.ious, default=0.0),
            "mean": self.mean,
            "limits": {"each": self.limits.each, "mean": self.limits.mean},
            "failures": self.failures,
            "first_failure": self.first_failure,
            "small_masks": self.small,
            "telling_masks": self.told / max(1, self.tracked),
        }
        if self.truth:
            means = np.mean(self.truth, axis=0)
            report["iou_with_truth"] = {"reference": float(means[0]), "engine": float(means[1])}
        return report


def reference_masks(reference: Engine, clip: Clip) -> Iterable[Masks]:
    """The reference's masks on each frame of a clip, of which only the sign is kept."""
    tracker = Tracker(reference)
    for frame in clip.frames():
        _give(tracker, clip, frame)
        masks = tracker.step(frame)
        yield replace(masks, mask_logits_bhw=(masks.mask_logits_bhw > 0).astype(np.int8))


def _follow(expected: Iterable[Masks], candidate: Engine, clip: Clip, limits: Limits, progress: Progress) -> _Seen:
    """The candidate through the clip, beside the reference's masks. One that gives up has failed on that frame."""
    seen, tracker = _Seen(limits), Tracker(candidate)
    for frame, masks in zip(clip.frames(), expected, strict=True):
        _give(tracker, clip, frame)
        try:
            found = tracker.step(frame)
        except EngineError as e:
            seen.fail({"frame": frame.seq, "object": masks.ids[0], "iou": 0.0, "error": str(e)})
            break
        seen.add(frame, masks, found, clip)
        progress(seen.frames, clip.count)
    return seen


def _give(tracker: Tracker, clip: Clip, frame: Frame) -> None:
    for prompt in clip.prompts.get(frame.seq, ()):
        tracker.give(prompt)


def _last(frames: Iterator[Frame]) -> Iterator[Frame]:
    """The last of what an iterator still holds when it is asked, if anything."""
    last = None
    for last in frames:  # noqa: B007
        pass
    if last is not None:
        yield last


def _shrunk(mask_hw: BoolMask, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    covered_hw = cv2.resize(mask_hw.astype(np.float32), shape[::-1], interpolation=cv2.INTER_AREA)
    return np.asarray(covered_hw >= 0.5)


def _number(value: float) -> float | None:
    """JSON has no infinity."""
    return value if math.isfinite(value) else None
