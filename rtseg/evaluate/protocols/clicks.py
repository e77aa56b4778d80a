"""Protocols with simulated clicks: each next click is where the error is largest, up to a given number.

`interactive` is SAM 2's online interactive evaluation (arXiv 2408.00714, appendix "Interactive offline and online
evaluation details"): one pass, paused when a mask's IoU with the truth is below 0.75, with 3 clicks on each of at most
8 frames, including the first; each object on its own. `alone` is single-image segmentation.
"""

from __future__ import annotations

from collections.abc import Sequence as Frames
from dataclasses import dataclass, replace

from ...base.types import BoolMask, Frame, Masks, Prompt
from ...data.dataset import Sequence
from ...track import Tracker
from ..prompting import Prompter, next_click, to_entry
from ..result import Tracked
from .passes import OpenTracker, Times, in_order, limit_of, record, timed_step
from .schedule import Schedule, passes


@dataclass(frozen=True, slots=True)
class Patience:
    """What a simulated user does for one object: `clicks` on each of at most `frames` frames with an IoU `below`."""

    clicks: int = 3
    frames: int = 8
    below: float = 0.75


def interactive(
    sequence: Sequence,
    schedule: Schedule,
    open_tracker: OpenTracker,
    prompter: Prompter,
    patience: Patience = Patience(),
) -> Tracked:
    """Track each object from its first prompt on, and correct a bad mask before the next frame.

    Clicks are added to a first prompt by points up to `clicks`; a box or a mask stays as it is. Later, the clicks of a
    corrected frame replace its mask, and affect only later frames. A frame without an annotation of the object, or on
    which it is not visible, is never corrected. Only frames prompted by a mask count as given; on others the mask after
    the clicks is scored.
    """
    tracked, times = Tracked(), Times()
    for part in passes(schedule, range(sequence.count), limit_of(open_tracker)):
        session = _Session(sequence, open_tracker(), prompter, patience, tracked, times)
        for t in range(sequence.count):
            session.step(t, part.get(t, ()))
    return in_order(tracked, times)


def alone(
    sequence: Sequence, schedule: Schedule, open_tracker: OpenTracker, prompter: Prompter, clicks: int = 0
) -> Tracked:
    """Segment each scheduled frame alone, with `clicks` further clicks for each object.

    No mask counts as given, because the answer to the prompt is what is scored.
    """
    tracked, times, limit = Tracked(), Times(), limit_of(open_tracker)
    targets = {target.id: target for target in sequence.targets}
    for t, ids in sorted(schedule.items()):
        frame, truth = Frame(sequence.image(t), seq=t), sequence.truth(t) or {}
        for chunk in (ids[start : start + limit] for start in range(0, len(ids), limit)):
            prompts = {i: prompter(targets[i], t, truth[i]) for i in chunk}
            tracker = open_tracker()
            for given in prompts.values():
                tracker.give(given)
            masks = timed_step(tracker, frame, t, times)
            record(tracked, t, masks)
            for i, given in prompts.items():
                corrected = _correct(open_tracker(), frame, i, truth[i], given, masks, clicks, times)
                if corrected is not None:
                    record(tracked, t, corrected.masks, [i])
                tracked.prompts.append(to_entry(t, given if corrected is None else corrected.prompt))
    return in_order(tracked, times)


class _Session:
    """One pass of `interactive`: a tracker, and the number of frames on which each object was prompted or corrected."""

    def __init__(
        self,
        sequence: Sequence,
        tracker: Tracker,
        prompter: Prompter,
        patience: Patience,
        tracked: Tracked,
        times: Times,
    ) -> None:
        self._sequence, self._tracker, self._prompter = sequence, tracker, prompter
        self._patience, self._tracked, self._times = patience, tracked, times
        self._targets = {target.id: target for target in sequence.targets}
        self._frames: dict[int, int] = {}  # the number of frames on which each object was prompted

    def step(self, t: int, new: Frames[int]) -> None:
        """Track frame t, on which the objects `new` are prompted first."""
        if not new and not self._tracker.ids:
            return
        frame, truth = Frame(self._sequence.image(t), seq=t), self._sequence.truth(t) or {}
        # A correction of this frame starts from the memories of earlier frames.
        before = self._tracker.fork(self._tracker.ids, t)
        prompts = {i: self._prompter(self._targets[i], t, truth[i]) for i in new}
        for given in prompts.values():
            self._tracker.give(given)
        masks = timed_step(self._tracker, frame, t, self._times)
        record(self._tracked, t, masks)
        for i in masks.ids:
            prompt = prompts.get(i)
            if i in truth:
                clicks = self._clicks(i, prompt, truth[i], masks)
                corrected = _correct(before, frame, i, truth[i], prompt, masks, clicks, self._times)
                if corrected is not None:
                    self._tracker.adopt(corrected.tracker)
                    record(self._tracked, t, corrected.masks, [i])
                    prompt = corrected.prompt
            if prompt is not None:
                self._frames[i] = self._frames.get(i, 0) + 1
                if prompt.mask is not None:
                    self._tracked.given.add((t, i))
                self._tracked.prompts.append(to_entry(t, prompt))

    def _clicks(self, i: int, prompt: Prompt | None, truth_hw: BoolMask, masks: Masks) -> int:
        """How many clicks an object gets on this frame. `prompt` is its first one, None on a later frame."""
        if prompt is not None:
            return max(0, self._patience.clicks - len(prompt.points)) if prompt.points else 0
        bad = _iou(truth_hw, masks.mask(i)) < self._patience.below
        return self._patience.clicks if bad and self._frames[i] < self._patience.frames else 0


@dataclass(frozen=True, slots=True)
class _Corrected:
    prompt: Prompt
    masks: Masks
    tracker: Tracker


def _correct(
    before: Tracker, frame: Frame, i: int, truth_hw: BoolMask, prompt: Prompt | None, masks: Masks, clicks: int,
    times: Times,
) -> _Corrected | None:  # fmt: skip
    """Add clicks to a prompt, each at the largest error of the mask so far; None if there is nothing to add.

    After each click a fork of the tracker `before` this frame tracks it again, with all clicks. So the result depends
    only on the last prompt, which can be stored and given again.
    """
    found = None
    for _ in range(clicks):
        click = next_click(truth_hw, masks.mask(i))
        if click is None:
            break
        prompt = Prompt(i, (click,)) if prompt is None else replace(prompt, points=(*prompt.points, click))
        tracker = before.fork([i], frame.seq)
        tracker.give(prompt)
        masks = timed_step(tracker, frame, frame.seq, times)
        found = _Corrected(prompt, masks, tracker)
    return found


def _iou(truth_hw: BoolMask, mask_hw: BoolMask) -> float:
    """IoU with a truth that is not empty."""
    return float((truth_hw & mask_hw).sum() / (truth_hw | mask_hw).sum())
