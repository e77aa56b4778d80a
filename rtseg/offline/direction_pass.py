"""The backward pass over a recording: from the last prompted frame to the first frame, its masks kept on the disk.

Pictures are read from key frame to key frame and walked backward, in a thread ahead of the network; masks are coded and
written in another one behind it. So a pass has a bounded number of pictures and masks in memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field

from ..base.errors import SourceError
from ..base.files import discard
from ..base.state import State, read_state, write_state
from ..base.timing import Stages
from ..base.types import Frame, Masks, Prompt
from ..grab.random_access import Frames
from ..track import Tracker
from .background import Prefetch, WriteBehind
from .check import PromptsByFrame, on_frame
from .direction_masks import stored_masks
from .direction_records import Records, Row
from .direction_walk import Walk, read

CHECKPOINT_EVERY = 250  # frames; what a kill loses at most


class DamagedError(SourceError):
    """A frame cannot be read, so that the frames after it have other numbers than they seemed to."""


def starts_object(prompt: Prompt) -> bool:
    """Whether a prompt says where its object is; a click on the background alone does not."""
    return prompt.mask is not None or prompt.box is not None or any(kind for _, _, kind in prompt.points)


def backward_prompts(prompts: PromptsByFrame) -> tuple[dict[int, list[Prompt]], list[str]]:
    """The prompts that a backward pass gives, by frame, and a line about each that it leaves out.

    A correction may be a click on the background, which is no beginning for a pass from the other side.
    """
    known: set[int] = set()
    given: dict[int, list[Prompt]] = {}
    lines = []
    for frame in sorted(prompts, reverse=True):
        for prompt in prompts[frame]:
            if prompt.id not in known and not starts_object(prompt):
                lines.append(
                    f"frame {frame}: object {prompt.id} has only background points there; going backward, it is "
                    f"followed from an earlier prompt"
                )
                continue
            known.add(prompt.id)
            given.setdefault(frame, []).append(prompt)
    return given, lines


@dataclass(slots=True, eq=False)
class Progress:
    """How far a pass has come; kept with its masks.

    Attributes:
        next: the number of the next frame; -1: the pass is done.
        after: the number of the latest frame, which comes after it in the recording; -1: none yet.
        cuts: the first frames of scenes, as the recording is played.
        warnings: lines of the tracker, with frames.
        left_out: frames that cannot be read.
        checkpoint: the name of the file with the state of the tracker; "": it has not begun, or is done.
    """

    next: int
    after: int = -1
    cuts: list[int] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    left_out: int = 0
    checkpoint: str = ""


@dataclass(slots=True, eq=False)
class BackwardPass:
    """One pass. An earlier run's that was interrupted goes on from its latest checkpoint.

    `prompts` are by the numbers of `frames`. `strict`: a frame that cannot be read raises `DamagedError`, for its
    numbers are not known to be those of the prompts; else it is left out.
    """

    frames: Frames
    tracker: Tracker
    prompts: Mapping[int, Sequence[Prompt]]
    records: Records
    stages: Stages
    on_step: Callable[[int], None] = lambda done: None
    strict: bool = True
    progress: Progress = field(init=False)
    _rows: list[Row] = field(default_factory=list)
    _file: str = ""  # the latest checkpoint; of the thread that writes

    def __post_init__(self) -> None:
        kept = self.records.state("pass")
        self.progress = Progress(max(self.prompts)) if kept is None else Progress(**json.loads(kept))
        self._file = self.progress.checkpoint
        if self._file:
            self.tracker.restore(read_state(self.records.folder / self._file))

    def run(self) -> None:
        """Go from the last prompted frame to the first frame; at once, if an earlier run has done that.

        Raises what the engine and the disk do, and `DamagedError`. What was kept until then stays.
        """
        first, progress = max(self.prompts), self.progress
        if progress.next < 0:
            return
        with (
            closing(self.frames.again(backward=True)) as frames,
            WriteBehind(self._write) as writing,
            Prefetch(read(frames, Walk("backward", progress.next, 0), self._left_out)) as pictures,
        ):
            for frame in pictures:
                with self.stages.time("segment"), on_frame(frame.seq):
                    masks = self._step(frame)
                writing.add(masks)
                self.on_step(first - progress.next)
                if (first - progress.next) % CHECKPOINT_EVERY == 0:
                    writing.add(self._state())
            progress.next = -1
            writing.add(self._state())

    def _step(self, frame: Frame) -> Masks:
        for prompt in self.prompts.get(frame.seq, ()):
            self.tracker.give(prompt)
        masks, progress = self.tracker.step(frame), self.progress
        progress.cuts += [progress.after] if masks.cut else []
        progress.warnings += [f"frame {frame.seq}: {line}" for line in masks.warnings]
        progress.left_out += progress.next - frame.seq
        progress.next, progress.after = frame.seq - 1, frame.seq
        return masks

    def _left_out(self, number: int, why: str) -> None:
        if self.strict:
            raise DamagedError(why)

    def _state(self) -> State:
        return State.joined({"tracker": self.tracker.state(), "pass": State(asdict(self.progress))})

    def _write(self, made: Masks | State) -> None:
        """Keep masks, and with a state all until then; in the thread behind the network."""
        with self.stages.time("write"):
            if isinstance(made, State):
                self._keep(made)
            else:
                self._rows += [(made.seq, i, mask) for i, mask in stored_masks(made, made.ids).items()]

    def _keep(self, state: State) -> None:
        plain, before = state.plain["pass"], self._file
        self._file = plain["checkpoint"] = f"{plain['next']:08d}.npz" if plain["next"] >= 0 else ""
        if self._file:
            write_state(self.records.folder / self._file, state.under("tracker"))
        self.records.commit(self._rows, {"pass": json.dumps(plain).encode()})
        self._rows = []
        if before:
            discard(self.records.folder / before)
