"""`--direction backward` and `both`: who gives the masks of each frame when a pass goes backward first.

The backward pass goes first, and its masks are kept on the disk. Then the recording is read forward, as ever: for
`backward`, each frame gets the kept masks; for `both`, a tracker goes along, and each object gets the better mask.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..base.errors import ConfigError, PromptError, SourceError
from ..base.state import State
from ..base.timing import Stages
from ..base.types import Frame, Masks, Prompt
from ..engine import Engine
from ..grab import Source
from ..grab.opening import STDIN
from ..grab.paths import kind_of
from ..grab.random_access import Frames, open_frames
from ..track import Tracker
from .check import PromptsByFrame, beyond_end
from .direction_masks import StoredMask, as_masks, stored_masks
from .direction_merge import Prompted, sureness, sureness_of, takes_backward
from .direction_pass import BackwardPass, DamagedError, backward_prompts
from .direction_records import Records
from .settings import Reading, Steps, Tracking

WORK = Path(".backward", "masks.sqlite")  # in the folder of the result, until that is done
OF_FILES = ("deinterlace", "damaged", "decoder")  # how video files are read; the rest is about pictures
SAME_CUT = 3  # frames: two passes see one cut within so many of one another, for a flash may hide it


def new_tracker(engine: Engine, tracking: Tracking) -> Tracker:
    """A tracker that heeds cuts as it is told to."""
    tracker = Tracker(engine)
    tracker.cuts, tracker.across_cuts = not tracking.slices, tracking.across_cuts
    return tracker


def steps_for(
    tracking: Tracking, engine: Engine, uris: Sequence[str], reading: Reading, prompts: PromptsByFrame, stages: Stages
) -> Steps:
    """Who gives the masks: a tracker, or a `Directed`, whose `prepare` and `close` have to be called."""
    if tracking.direction == "forward":
        return new_tracker(engine, tracking)
    frames = _open_backward(uris[0], reading, tracking.direction)
    try:
        return Directed(engine, tracking, frames, prompts, stages)
    except BaseException:
        frames.close()
        raise


def check_readable(tracking: Tracking, uris: Sequence[str], reading: Reading) -> None:
    """Raise `ConfigError` for what is never read backward, before anything is opened."""
    who = f"--direction {tracking.direction}"
    if tracking.direction == "forward":
        return
    if len(uris) > 1:
        raise ConfigError(f"{who}: {len(uris)} joined files; make one of them: ffmpeg -f concat ... -c copy new.mkv")
    if uris[0] == STDIN or kind_of(uris[0]) == "pipe":
        raise ConfigError(f"{who}: {uris[0]} is read once, in order; expected a file or a folder")
    if reading.deinterlace not in (None, "off"):
        raise ConfigError(f"{who}: --deinterlace {reading.deinterlace} needs frames in order; expected off")
    if reading.decoder != "cpu":
        raise ConfigError(f"{who}: --decoder {reading.decoder} reads forward only; expected cpu")


def _open_backward(uri: str, reading: Reading, direction: str) -> Frames:
    """The recording, for reading backward. Raises `SourceError` if it cannot be read so."""
    try:
        how = {key: value for key, value in asdict(reading).items() if key not in OF_FILES}
        return open_frames(uri, **how)
    except SourceError as e:
        raise SourceError(f"--direction {direction}: {e}") from e


class Directed:
    """Gives the masks of each frame, in order: from a backward pass and, for `both`, a tracker. See `Steps`.

    `prepare` makes the backward pass, and is called once, before the first step. `warnings`: lines for the user.
    """

    def __init__(
        self, engine: Engine, tracking: Tracking, frames: Frames, prompts: PromptsByFrame, stages: Stages
    ) -> None:
        """`frames`: read for the backward pass alone.

        Raises `PromptError` if nothing can be tracked backward, or a prompt is on a frame that does not exist.
        """
        beyond = beyond_end(prompts, frames.count, frames.uri)
        if beyond:
            raise PromptError(beyond)
        self.engine, self._tracking, self._frames, self._stages = engine, tracking, frames, stages
        self._prompts, self.warnings = backward_prompts(prompts)
        if not self._prompts:
            raise PromptError(f"{self.warnings[0]}; there is none; add a point on it, or track forward")
        self._since, self._until = Prompted.of(prompts), Prompted.of(self._prompts)
        self._labels = _labels(prompts)
        self._tracker = new_tracker(engine, tracking)  # without objects for `backward`: it finds cuts
        self._kept: Records | None = None
        self._numbers: Sequence[int] | None = None  # by the source's number, that of `frames`; None: the same
        self._cuts: list[int] = []
        self._taken: dict[int, Counter[str]] = {}

    @property
    def frames_ahead(self) -> int:
        """How many frames the backward pass has."""
        return max(self._prompts) + 1

    @property
    def has_begun(self) -> bool:
        """Whether there is anything of the backward pass that a later run can go on with."""
        return self._kept is not None

    @property
    def _records(self) -> Records:
        assert self._kept is not None, "prepare comes first"
        return self._kept

    def prepare(self, folder: Path, reopen: Callable[[], Source], on_step: Callable[[int], None]) -> None:
        """Make the backward pass, or go on with that of an earlier run. Raises what the engine, source and disk do.

        Arguments:
            folder: of the result; there its masks are kept until `close`.
            reopen: opens the source once more. This is done where a frame is damaged, for a source leaves that one out
                and counts on: its frames are counted, and the pass begins again.
            on_step: called with the number of frames done.
        """
        self._kept = Records(folder / WORK)
        if self._records.state("damaged") is None:
            try:
                self._pass(self._prompts, on_step, strict=True)
                return
            except DamagedError as e:
                self._records.clear()
                self._records.commit([], {"damaged": str(e).encode()})
        self._numbers = numbers = self._numbering(reopen)
        self._pass({numbers[n]: given for n, given in self._prompts.items()}, on_step, strict=False)

    def _numbering(self, reopen: Callable[[], Source]) -> Sequence[int]:
        """The number that each frame of the source has in `frames`; it is found by its time."""
        numbers, ended = array("q"), None
        with reopen() as source:
            try:
                for frame in source:
                    number = self._frames.number_at(frame.seconds)
                    if number is None:
                        where = f"{source.uri}: has a frame at {frame.seconds:.3f} s"
                        raise PromptError(f"{where}, which its index lacks; put it into MKV, or track forward")
                    numbers.append(number)
            except SourceError as e:
                ended = e
        beyond = beyond_end(self._prompts, len(numbers), self._frames.uri)
        if beyond:
            raise ended or PromptError(beyond)
        return numbers

    def _pass(self, prompts: dict[int, list[Prompt]], on_step: Callable[[int], None], *, strict: bool) -> None:
        tracker = new_tracker(self.engine, self._tracking)
        backward = BackwardPass(self._frames, tracker, prompts, self._records, self._stages, on_step, strict)
        backward.run()
        self._cuts = backward.progress.cuts
        if self._tracking.direction == "backward":  # else the other pass says the same of the same prompts
            self.warnings += backward.progress.warnings

    def give(self, prompt: Prompt) -> None:
        """A prompt on the next frame."""
        if self._tracking.direction == "both":
            self._tracker.give(prompt)

    def step(self, frame: Frame) -> Masks:
        """The masks of the next frame. Raises what `Tracker.step` does."""
        kept, masks = self._masks_on(frame), self._tracker.step(frame)
        taken = {i: mask for i, mask in kept.items() if i not in masks.ids or self._takes(frame, masks, i, mask)}
        ahead = [i for i in masks.ids if i not in taken]
        for way, ids in (("forward", ahead), ("backward", list(taken))):
            for i in ids:
                self._taken.setdefault(i, Counter())[way] += 1
        if not taken:
            return masks
        labels = {**self._labels, **dict(zip(masks.ids, masks.labels, strict=True))}
        taken |= stored_masks(masks, ahead)
        merged = as_masks(frame, [(i, labels[i], taken[i]) for i in sorted(taken)], cut=masks.cut)
        return replace(merged, warnings=masks.warnings, done_ns=masks.done_ns)

    def state(self) -> State:
        """All that later masks depend on, except the backward pass, for `restore`."""
        return State.joined({"tracker": self._tracker.state(), "taken": State({"of": self.account()["masks_of"]})})

    def restore(self, state: State) -> None:
        """Go on from another one's state, before `prepare` or after. Raises what `Tracker.restore` does."""
        self._tracker.restore(state.under("tracker"))
        self._taken = {int(i): Counter(counts) for i, counts in state.plain["taken"]["of"].items()}

    def _masks_on(self, frame: Frame) -> dict[int, StoredMask]:
        """The masks that the backward pass has for a frame."""
        numbers = self._numbers
        number = frame.seq if numbers is None else numbers[frame.seq] if frame.seq < len(numbers) else None
        if number is None or number >= self._frames.count:
            return {}
        kept = self._records.masks(number)
        if kept and abs(self._frames.seconds(number) - frame.seconds) > 0.5 / self._frames.fps:
            times = f"{self._frames.seconds(number):.3f} s read backward, {frame.seconds:.3f} s read forward"
            raise SourceError(f"{self._frames.uri}: frame {frame.seq} is at {times}; put it into MKV, or track forward")
        return kept

    def _takes(self, frame: Frame, masks: Masks, object_id: int, mask: StoredMask) -> bool:
        since, until = self._since.since(object_id, frame.seq), self._until.until(object_id, frame.seq)
        if since is None or until is None:
            return since is None
        drawn = bool((masks.fine_logits(object_id) > 0).any())
        lost = object_id in masks.lost
        forward = sureness(masks.score(object_id), masks.iou(object_id), drawn=drawn, lost=lost)
        return takes_backward(forward, sureness_of(mask), since, until)

    def all_cuts(self, cuts: Sequence[int]) -> list[int]:
        """The first frames of new scenes: those that were found forward, and what the backward pass found besides."""
        numbers = self._numbers
        found = self._cuts if numbers is None else [n for n, at in enumerate(numbers) if at in set(self._cuts)]
        return sorted({*cuts, *(cut for cut in found if all(abs(cut - other) > SAME_CUT for other in cuts))})

    def account(self) -> dict[str, Any]:
        """For `run.json`: on how many frames the mask of each object is of which pass."""
        return {"masks_of": {str(i): dict(sorted(self._taken[i].items())) for i in sorted(self._taken)}}

    def close(self, *, for_later: bool = False) -> None:
        """Close everything, and remove what was kept; unless a later run is to go on with it."""
        self._frames.close()
        if self._kept is not None:
            self._kept.close()
            if not for_later:
                self._kept.remove()


def _labels(prompts: PromptsByFrame) -> dict[int, str]:
    """The first label that is given for each object, as a tracker names it without one."""
    labels: dict[int, str] = {}
    for _, given in sorted(prompts.items()):
        for prompt in given:
            if prompt.label:
                labels.setdefault(prompt.id, prompt.label)
    return {prompt.id: labels.get(prompt.id, f"object {prompt.id}") for given in prompts.values() for prompt in given}
