"""One pass over a source: prompts, masks, and where they go; and how it ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ..base.ending import Ending
from ..base.errors import OutputError, PromptError, RtsegError, SourceError
from ..base.state import State
from ..base.timing import Stages
from ..base.types import Frame
from ..grab import Source
from .background import Prefetch, WriteBehind
from .check import PromptsByFrame, beyond_end, on_frame, shifted
from .directions import Directed
from .request import Progress, Say
from .results import Filter, Mark, Results
from .segments import SEGMENT
from .settings import Resumes, Steps


class Run:
    """One pass over a source, and how it ended. `cause` is the error that ended it early, if any."""

    def __init__(
        self, source: Source, steps: Steps, prompts: PromptsByFrame, results: Results,
        stages: Stages, progress: Progress, say: Say, filters: Sequence[Filter] = (),
    ) -> None:  # fmt: skip
        self.source, self.results, self.ending = source, results, Ending()
        self.cause: BaseException | None = None
        self.cuts: list[int] = []  # the first frames of new scenes
        self.steps, self._prompts, self._stages, self._progress = steps, prompts, stages, progress
        self.warnings: list[str] = []  # about prompts
        self._say, self._warned_of_shift, self.filters = say, False, filters

    def attempt(self, begin: Callable[[], None]) -> None:
        """Segment the source to its end, or to an error, which is recorded; raised if no frame is complete yet."""
        try:
            begin()
            self._follow()
        except (Exception, KeyboardInterrupt) as e:
            if not self.results.count:
                self.results.abort()
                raise
            self._note(e)

    def _follow(self) -> None:
        count, total, read = self.results.count, self.source.account.count, self._read()
        for one in self.filters:
            read = one.ahead(read)
        ahead = self.steps.frames_ahead if isinstance(self.steps, Directed) else 0
        # They exit in this order: first reading stops, then the finished frames are written.
        with WriteBehind(self.results.add) as writing, Prefetch(read, self.source.close) as frames:
            for frame in frames:
                with self._stages.time("segment"), on_frame(frame.seq):
                    self._prompt(frame)
                    masks = self.steps.step(frame)
                for line in masks.warnings:
                    self.warn(f"frame {frame.seq}: {line}")
                self.cuts += [frame.seq] if masks.cut else []
                writing.add((frame, masks))
                count += 1
                if self.results.manifest and count % SEGMENT == 0:
                    writing.add(Mark(self._state()))
                if self.source.account.count != total:  # the source has found its true count meanwhile
                    total = self.source.account.count
                    self._check_end(total)
                self._progress(ahead + count, None if total is None else ahead + total)
        if not count:
            raise SourceError(f"{self.source.uri}: holds no frame; expected at least one")
        self._check_end(count)
        if self.source.account.ended:
            self.ending.wrong(f"{self.source.uri}: ended early: {self.source.account.ended}")

    def _state(self) -> State:
        """All that the frames to come depend on."""
        assert isinstance(self.steps, Resumes)
        told = {"cuts": list(self.cuts), "warnings": list(self.warnings), "shift": self._warned_of_shift}
        stages = State({}, dict(self._stages.cells("grab", "segment")))
        return State.joined({"steps": self.steps.state(), "told": State(told), "stages": stages})

    def go_on(self, state: State) -> None:
        """Begin after the segments that an earlier run has done; `state` is the one after them."""
        assert isinstance(self.steps, Resumes)
        state = self.results.restore(state)
        self.steps.restore(state.under("steps"))
        self._stages.add_cells(state.under("stages").arrays)
        told = state.under("told").plain
        self.cuts, self.warnings, self._warned_of_shift = told["cuts"], told["warnings"], told["shift"]
        self.source.begin = self.results.count

    def _prompt(self, frame: Frame) -> None:
        """Give the tracker the prompts of this frame."""
        given = self._prompts.get(frame.seq, ())
        for prompt in given:
            self.steps.give(prompt)
        line = shifted(frame, self.source.account) if given else ""
        if line and not self._warned_of_shift:
            self._warned_of_shift = True
            self.warn(line)

    def warn(self, line: str) -> None:
        """Show a line to the user, and record it for `run.json`."""
        if line not in self.warnings:  # an earlier run may have told it
            self.warnings.append(line)
        self._say(line)

    def _read(self) -> Iterator[Frame]:
        for frame in self.source:
            self._stages.add("grab", self.source.grab_ms)
            yield frame

    def _check_end(self, count: int | None) -> None:
        beyond = beyond_end(self._prompts, count, self.source.uri)
        if beyond and not any(fault.startswith("prompt on frame ") for fault in self.ending.faults):
            self.ending.wrong(beyond)

    def may_go_on_after(self, error: BaseException | None) -> bool:
        """Whether it ended early, not by a fault of the source, and a later run can go on from what it has done."""
        manifest = self.results.manifest
        done = manifest and (manifest.segments or (isinstance(self.steps, Directed) and self.steps.has_begun))
        return bool(done) and error is not None and not isinstance(error, (SourceError, PromptError))

    def finish(self) -> list[str]:
        """End the last segment, and close the files. Returns a line for each that could not be finished."""
        try:
            self.results.add(Mark(None))
        except OutputError as e:
            return [str(e), *self.results.close()]
        return self.results.close()

    def _note(self, error: BaseException) -> None:
        self.cause = error
        if isinstance(error, KeyboardInterrupt):
            self.ending.interrupt()
        elif isinstance(error, RtsegError):
            self.ending.wrong(str(error))
        else:
            self.ending.wrong(f"{type(error).__name__}: {error} (a bug, or this machine; RTSEG_DEBUG=1 shows where)")
