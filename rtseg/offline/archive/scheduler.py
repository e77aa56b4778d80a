"""Hands videos to workers, one after the other, and keeps account of each.

A worker has at most `depth` jobs: one is segmented, and with clouds the next is fetched meanwhile. What a worker had
when it died is given to others. An attempt that failed because of the machine is repeated, later and at most `retries`
times; one that failed because of the input is not. The largest videos come first, so that no long one is left last.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ...base.errors import RtsegError
from .jobs import Cluster, Died, Ended, Event, Job, Outcome, Ready
from .manifest import Row

LONGEST_DELAY_S = 60.0
TICK_S = 1.0  # how often progress is looked at
PATIENCE_S = 30.0  # without any worker, until the user is told what is lacking
STARTS = 4  # attempts to start a worker that never gets ready


@dataclass(frozen=True, slots=True)
class Limits:
    """How many workers there are, jobs of one at a time, and repeated attempts of a video."""

    workers: int = 1
    depth: int = 1
    retries: int = 3


@dataclass(slots=True)
class Video:
    """A row and what happened to it. `outcome` is None until it is final; `causes` are those of failed attempts."""

    row: Row
    outcome: Outcome | None = None
    causes: list[str] = field(default_factory=list)
    attempts: int = 0
    node: str = ""
    due: float = 0.0  # not before
    alone: bool = False  # its last worker died: perhaps of it, so it takes no other video with it


@dataclass(slots=True)
class _Slot:
    """A place for a worker: whoever dies is replaced. `failures` counts starts that failed in a row."""

    worker: int | None = None
    node: str = ""
    ready: bool = False
    jobs: dict[int, Video] = field(default_factory=dict)
    failures: int = 0
    due: float = 0.0
    cause: str = ""


class Scheduler:
    """One pass over the rows of an archive.

    Arguments:
        rows: what is to be done.
        cluster: where it is done.
        limits: workers, jobs and attempts.
        make: turns a row into a job; what it raises is the row's failure.
        note: called with each video after each attempt, and when it is final.
        watch: called about once a second.
        say: called with lines for the user.
    """

    def __init__(
        self, rows: Sequence[Row], cluster: Cluster, limits: Limits, make: Callable[[Row], Job],
        note: Callable[[Video], None] = lambda video: None,
        watch: Callable[[Scheduler], None] = lambda scheduler: None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:  # fmt: skip
        self._cluster, self._limits, self._make = cluster, limits, make
        self._note, self._watch, self._say = note, watch, say
        self.videos = {row.line: Video(row) for row in rows}
        largest_first = sorted(self.videos.values(), key=lambda video: -(video.row.bytes or 0))
        self._fresh = deque(largest_first)
        self._again: list[Video] = []
        self._left = len(rows)
        self._slots = [_Slot() for _ in range(min(limits.workers, len(rows)))]
        self._began = cluster.now()
        self._told = False

    @property
    def working(self) -> int:
        """The number of workers that have a job."""
        return sum(bool(slot.jobs) for slot in self._slots)

    def run(self) -> list[Video]:
        """Work until every video has its outcome; returns the videos in the order of the manifest."""
        while self._left:
            self._start()
            self._hand_out()
            if not self._left:
                break
            for event in self._cluster.wait(TICK_S):
                self._handle(event)
            self._give_up()
            self._watch(self)
        return [self.videos[line] for line in sorted(self.videos)]

    # Workers.

    def _start(self) -> None:
        now = self._cluster.now()
        wanted = self._left - sum(slot.worker is not None for slot in self._slots)
        for slot in self._slots:
            if slot.worker is None and slot.failures < STARTS and slot.due <= now and wanted > 0:
                slot.worker = self._cluster.start()
                wanted -= 1

    def _handle(self, event: Event) -> None:
        slot = next((slot for slot in self._slots if slot.worker == event.worker), None)
        if slot is None:
            return
        if isinstance(event, Ready):
            slot.ready, slot.node, slot.failures = True, event.node, 0
        elif isinstance(event, Died):
            self._bury(slot, event.cause)
        else:
            self._ended(slot, event)

    def _bury(self, slot: _Slot, cause: str) -> None:
        """Note the death of a worker; its jobs are to be done again."""
        together = len(slot.jobs) > 1
        if not slot.ready:
            slot.failures += 1
            slot.due = self._cluster.now() + min(LONGEST_DELAY_S, 2.0**slot.failures)
            slot.cause = cause
        jobs = list(slot.jobs.values())
        slot.worker, slot.ready, slot.jobs = None, False, {}
        for video in jobs:
            video.alone = True
            self._attempted(video, Outcome(video.row.line, "failed", f"its worker died: {cause}", again=True), together)

    def _give_up(self) -> None:
        """Without any worker, and without hope of one, what is left has failed."""
        lost = [slot for slot in self._slots if slot.failures >= STARTS]
        if len(lost) == len(self._slots):
            for video in [*self._again, *self._fresh]:
                self._final(video, Outcome(video.row.line, "failed", f"no worker could start: {lost[-1].cause}"))
            self._again, self._fresh = [], deque()
        waited = self._cluster.now() - self._began > PATIENCE_S
        if waited and not self._told and not any(slot.ready or slot.failures for slot in self._slots):
            self._told = True
            lacking = self._cluster.lacking()
            if lacking:
                self._say(lacking)

    # Videos.

    def _hand_out(self) -> None:
        """Give jobs to workers: idle ones first. Fetching ahead ends where it would leave another worker idle."""
        for depth in range(self._limits.depth):
            for slot in self._slots:
                if depth and len(self._fresh) < len(self._slots):
                    return
                alone = any(video.alone for video in slot.jobs.values())
                while slot.ready and slot.worker is not None and len(slot.jobs) == depth and not alone:
                    video = self._next(idle=not slot.jobs)
                    if video is None:
                        break
                    self._submit(slot, slot.worker, video)

    def _next(self, idle: bool) -> Video | None:
        now = self._cluster.now()
        for video in self._again:
            if video.due <= now and (idle or not video.alone):
                self._again.remove(video)
                return video
        return self._fresh.popleft() if self._fresh else None

    def _submit(self, slot: _Slot, worker: int, video: Video) -> None:
        try:
            job = self._make(video.row)
        except (RtsegError, OSError) as e:
            self._final(video, Outcome(video.row.line, "failed", " ".join(str(e).split())))
            return
        video.node = slot.node
        slot.jobs[video.row.line] = video
        self._cluster.submit(worker, job)

    def _ended(self, slot: _Slot, event: Ended) -> None:
        outcome = event.outcome
        video = slot.jobs.pop(outcome.line)
        for line in outcome.lines:
            self._say(line)
        self._attempted(video, outcome)
        if outcome.fresh and slot.worker is not None:
            self._cluster.stop(slot.worker)
            for other in slot.jobs.values():  # it was fetched ahead; it did not fail
                self._fresh.appendleft(other)
            slot.worker, slot.ready, slot.jobs = None, False, {}

    def _attempted(self, video: Video, outcome: Outcome, together: bool = False) -> None:
        """Note an attempt. One that died together with another job counts for neither: one of the two was not at fault,
        and both are tried alone next.
        """
        if outcome.state != "failed":
            video.attempts += 1
            self._final(video, outcome)
            return
        video.causes.append(outcome.cause)
        video.attempts += not together
        if not outcome.again or video.attempts > self._limits.retries:
            self._final(video, outcome)
            return
        video.due = self._cluster.now() + min(LONGEST_DELAY_S, 2.0 ** len(video.causes))
        self._again.append(video)
        self._note(video)

    def _final(self, video: Video, outcome: Outcome) -> None:
        video.outcome = outcome
        self._left -= 1
        self._note(video)
