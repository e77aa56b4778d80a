"""The parity check: a candidate engine and the reference track the same objects through a whole clip, each with its own
memory, and their masks are compared on every frame. One frame proves little, because errors feed back through memory.

The measure is the IoU of the two masks at the network's own mask resolution, for each object on each frame; 1 if both
are empty. A union of fewer than 100 pixels counts as 100: of such a mask IoU measures only the edge, where the
reference itself is uncertain. So every frame can be judged, and a missing mask of any size counts.

Masks do not show everything: a network may hardly use its pointers, for example. So each verb is compared, too, on the
same inputs, early in the clip and again with full banks. Its median error counts, because rounding alone may decide
between two masks of the decoder that score alike. A clip on which the reference sees nothing proves nothing.
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
from .verb_errors import FUSED, ErrorProbe, VerbErrors

Progress = Callable[[int, int | None], None]

SMALL = 100  # pixels of a mask; a smaller union counts as this
# Frames on which verbs are compared: the first eight, four with full banks, and the clip's last one.
PROBED, LATE = 8, 4
FULL = 18  # frames from an object's first prompt until its memories and pointers are full


@dataclass(frozen=True, slots=True)
class Limits:
    """What an engine of one precision must reach: the IoU on each frame, and the mean IoU.

    `step` is the relative rounding error of the precision, the unit of the verbs' errors.
    """

    each: float
    mean: float
    step: float


# fp32 differs only in the order of its sums; bf16 and fp16 may move a mask's edge. With eight bits the user accepts a
# loss of accuracy: the check finds what is broken, and the figures in its report say how much is lost.
LIMITS = {
    "fp32": Limits(each=0.98, mean=0.999, step=1e-5),
    "bf16": Limits(each=0.98, mean=0.99, step=2**-8),
    "fp16": Limits(each=0.98, mean=0.99, step=2**-11),
    "int16": Limits(each=0.98, mean=0.99, step=2**-11),
    "int8": Limits(each=0.90, mean=0.95, step=2**-6),
    "fp8": Limits(each=0.90, mean=0.95, step=2**-5),
}
# The error that a verb may have, in units of `Limits.step`: about four times that measured with bf16 and fp16.
STEPS = {"encode_image": 16, "attend": 8, "decode": 8, "remember": 8, FUSED: 24}
MOST_ERROR = 0.2  # the largest limit of all: with a larger error a verb does not compute the same thing


def check_parity(
    reference: Engine, candidate: Engine, clip: Clip, progress: Progress = lambda done, total: None,
    expected: Sequence[Masks] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Compare a candidate with the reference over a clip. The report's `ok` says whether it may be installed.

    `progress` is called with (frames compared, frames in all or None). `expected` are the reference's masks from
    `reference_masks`, for callers that compare several candidates with them.
    """
    limits = LIMITS[candidate.recipe.precision]
    masks = reference_masks(reference, clip) if expected is None else expected
    found = _compare_masks(masks, candidate, clip, limits, progress)
    first = found.first_failure
    late = min(max(clip.prompts) + FULL, max(PROBED, found.frames - 1 - LATE))
    errors = verb_errors(reference, candidate, clip, PROBED if first is None else int(first["frame"]) + 1, late)
    verbs = {verb: _verdict(errors[verb], late, min(limits.step * STEPS[verb], MOST_ERROR)) for verb in STEPS}
    agrees = found.passed and all(verb["ok"] for verb in verbs.values())
    drifted = None if agrees else _drifted(verbs)
    return {
        "ok": agrees and found.informative > 0,
        "clip": clip.name,
        **found.report(),
        "verbs": verbs,
        "drifted": drifted,
    }


def _tracker(engine: Engine) -> Tracker:
    """A tracker without rules for cuts and overlaps: they depend on single pixels, and would hide the network."""
    tracker = Tracker(engine)
    tracker.cuts = False
    return tracker


def verb_errors(reference: Engine, candidate: Engine, clip: Clip, stop: int, late: int) -> dict[str, VerbErrors]:
    """Each verb's errors on the first `stop` frames of a clip, on `LATE` frames from frame `late` on, and the last."""
    probe = ErrorProbe(reference, candidate)
    tracker = _tracker(probe)
    frames, end = clip.frames(), max(stop, late + LATE)
    for place, frame in enumerate(chain(islice(frames, end), _last(frames))):
        probe.frame, probe.compares = frame.seq, place < stop or place >= late
        _give_prompts(tracker, clip, frame)
        tracker.step(frame)
    return probe.errors


def explain(report: dict[str, Any]) -> str:
    """One line about a failed check: where, by how much, and which verb caused it."""
    first, limits = report["first_failure"], report["limits"]
    if report["drifted"] is None:
        return (
            f"{report['clip']}: cannot be checked on this clip: every tracked mask of the reference is empty or full;"
            " expected weights, prompts and a clip that go together"
        )
    if first is not None:
        found = first.get("error") or f"IoU {first['iou']:.3f}; expected {limits['each']:g} or more"
        what = f"frame {first['frame']}, object {first['object']}: {found}"
    elif report["mean"] < limits["mean"]:
        what = f"mean IoU {report['mean']:.4f}; expected {limits['mean']:g} or more"
    else:
        what = f"the masks agree (IoU {report['least']:.3f} or more), but intermediate results do not"
    name = report["drifted"]
    verb = report["verbs"][name]
    name = "the fused step" if name == FUSED else name
    size = "not finite" if verb["worst"] is None else f"off by {verb['worst']:.2g}"
    blame = f"{name} drifted: {size} on frame {verb['frame']}, its limit is {verb['limit']:.2g}"
    if verb["worst"] is not None and verb["worst"] <= verb["limit"]:
        blame = f"no verb alone drifted; nearest to it is {name}: {size}, its limit is {verb['limit']:.2g}"
    return f"{report['clip']}: {what}; {blame}"


def _verdict(errors: VerbErrors, late: int, limit: float) -> dict[str, Any]:
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
    """The verb that exceeds its limit most: by its median error, or else by its worst error on any frame.

    The fused step is named only if every verb alone is within its limit.
    """
    for key in ("typical", "worst"):
        excess = {v: math.inf if found[key] is None else found[key] / found["limit"] for v, found in verbs.items()}
        fused = excess.pop(FUSED)
        name = max(excess, key=excess.__getitem__)
        if excess[name] > 1 or fused > 1:
            return name if excess[name] > 1 else FUSED
    return name


def overlap(expected_hw: BoolMask, found_hw: BoolMask) -> tuple[float, int]:
    """The IoU of two masks, for which a union of fewer than `SMALL` pixels counts as `SMALL`, and their union."""
    union = int((expected_hw | found_hw).sum())
    return 1 - float((expected_hw ^ found_hw).sum()) / max(union, SMALL), union


@dataclass(slots=True)
class _Comparison:
    """The results of the frames compared so far.

    `small` counts masks whose union counts as `SMALL`; `tracked` the reference's masks of objects not prompted on that
    frame; `informative` those of them that are neither empty nor full. `truth` holds pairs of IoU with the truth, of
    the reference and of the candidate.
    """

    limits: Limits
    ious: list[float] = field(default_factory=list)
    frames: int = 0
    objects: set[int] = field(default_factory=set)
    small: int = 0
    informative: int = 0
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
        prompted = {prompt.id for prompt in clip.prompts.get(frame.seq, ())}
        for row, i in enumerate(expected.ids):
            expected_hw, found_hw = (np.asarray(m.mask_logits_bhw[row] > 0) for m in (expected, found))
            iou, union = overlap(expected_hw, found_hw)
            self.objects.add(i)
            self.ious.append(iou)
            self.small += 0 < union < SMALL
            if i not in prompted:
                self.tracked += 1
                self.informative += bool(expected_hw.any() and not expected_hw.all())
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
            "telling_masks": self.informative / max(1, self.tracked),
        }
        if self.truth:
            means = np.mean(self.truth, axis=0)
            report["iou_with_truth"] = {"reference": float(means[0]), "engine": float(means[1])}
        return report


def reference_masks(reference: Engine, clip: Clip) -> Iterable[Masks]:
    """The reference's masks on each frame of a clip, as int8: 1 inside, 0 outside."""
    tracker = _tracker(reference)
    for frame in clip.frames():
        _give_prompts(tracker, clip, frame)
        masks = tracker.step(frame)
        yield replace(masks, mask_logits_bhw=(masks.mask_logits_bhw > 0).astype(np.int8))


def _compare_masks(
    expected: Iterable[Masks], candidate: Engine, clip: Clip, limits: Limits, progress: Progress
) -> _Comparison:
    """Compare the candidate's masks with the reference's. An error of the candidate is a failure on that frame."""
    found, tracker = _Comparison(limits), _tracker(candidate)
    for frame, masks in zip(clip.frames(), expected, strict=True):
        _give_prompts(tracker, clip, frame)
        try:
            candidate_masks = tracker.step(frame)
        except EngineError as e:
            found.fail({"frame": frame.seq, "object": masks.ids[0], "iou": 0.0, "error": str(e)})
            break
        found.add(frame, masks, candidate_masks, clip)
        progress(found.frames, clip.count)
    return found


def _give_prompts(tracker: Tracker, clip: Clip, frame: Frame) -> None:
    for prompt in clip.prompts.get(frame.seq, ()):
        tracker.give(prompt)


def _last(frames: Iterator[Frame]) -> Iterator[Frame]:
    """The last frame that an iterator still yields, if any."""
    last = None
    for last in frames:  # noqa: B007
        pass
    if last is not None:
        yield last


def _shrunk(mask_hw: BoolMask, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """A mask at another size: the pixels of which it covers half or more."""
    covered_hw = cv2.resize(mask_hw.astype(np.float32), shape[::-1], interpolation=cv2.INTER_AREA)
    return np.asarray(covered_hw >= 0.5)


def _number(value: float) -> float | None:
    """The number, or None if it is infinite, which JSON cannot express."""
    return value if math.isfinite(value) else None
