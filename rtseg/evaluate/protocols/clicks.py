"""Simulated clicks: the next one goes where the error is largest, up to a given number.

`interactive` is SAM 2's online interactive evaluation (arXiv 2408.00714, appendix "Interactive offline and online
evaluation details"): one pass, paused where a mask's IoU with the truth is below 0.75; 3 clicks on each of at most 8
frames, the first one included; each object on its own. `alone` is single-image segmentation.
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
    """How much is done for one object: `clicks` on each of at most `frames` frames, where the IoU is `below`."""

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
    """Follow each object from its first prompt on, and correct what was just drawn where it is bad.

    A first prompt by points is made up to `clicks` clicks; a box or a mask stays as it is. Later, the clicks of a
    corrected frame replace its mask, and affect later frames only. Frames without an annotation of the object, or where
    it is not visible, are never corrected. Only a frame prompted by a mask counts as given: elsewhere the mask after
    the clicks is judged.
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
    """Each scheduled frame as if there were no other, with `clicks` further clicks for each object.

    Nothing counts as given: the answer to the prompt is what is judged.
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
    """One pass of `interactive`: a tracker, and how many frames of each object were prompted or corrected."""

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
        self._frames: dict[int, int] = {}  # on which each object was prompted

    def step(self, t: int, new: Frames[int]) -> None:
        """Take frame t, on which these objects are new."""
        if not new and not self._tracker.ids:
            return
        frame, truth = Frame(self._sequence.image(t), seq=t), self._sequence.truth(t) or {}
        # A correction of this frame starts from the memories before it.
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
        """How many clicks an object gets now; `prompt` is its first one, None on a later frame."""
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
    """Add clicks to a prompt, each where the mask so far is most wrong; None where there is nothing to add.

    After each click the frame is tracked again, with all clicks, by a fork of the tracker `before` it. So the result
    depends on the last prompt alone, which can be stored and given again.
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
