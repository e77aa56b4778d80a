"""A cluster in virtual time, for the archive's own scheduler: no process is started, and no second is waited for.

    cluster = VirtualCluster(cost, deaths=..., seed=1)
    Scheduler(rows, cluster, Limits(workers=100, depth=2), make).run()
    cluster.now()          # how long it would have taken, in seconds

What a job costs is asked of a function; workers die at random times, at a given rate. A job is fetched, waits for its
worker's network, is segmented and uploaded, as on a real worker; storage serves all of them with one bandwidth.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from rtseg.offline.archive.jobs import Died, Ended, Event, Job, Outcome, Ready, State

Phase = Literal["fetch", "wait", "segment", "upload"]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a job takes: seconds of storage where it has it to itself, seconds of the network, and how it ends."""

    fetch_s: float = 0.0
    segment_s: float = 1.0
    upload_s: float = 0.0
    frames: int = 0
    outcome: Outcome | None = None  # None: done
    saved_s: float | None = None  # seconds of work that a checkpoint saves at most to lose; None: all is lost


@dataclass(slots=True, eq=False)
class _Running:
    worker: int
    job: Job
    cost: Cost
    phase: Phase
    left: float  # of a transfer: seconds at the storage's full bandwidth
    began: float = 0.0  # of segmenting


@dataclass(slots=True, eq=False)
class _Worker:
    ready: bool = False
    jobs: list[_Running] = field(default_factory=list)


class VirtualCluster:
    """A cluster whose clock runs only in `wait`.

    Arguments:
        cost: of a job.
        start_s: from the start of a worker until it is ready.
        mean_life_s: the mean time until a worker dies; None: never.
        each: the most of the storage's bandwidth that one transfer gets, as a share.
        fails: the causes of the starts of workers, by number: such a worker never gets ready.
    """

    def __init__(
        self, cost: Callable[[Job], Cost], *, start_s: float = 30.0, mean_life_s: float | None = None,
        each: float = 1.0, seed: int = 0, fails: Callable[[int], str] = lambda worker: "",
    ) -> None:  # fmt: skip
        self._cost, self._start_s, self._life, self._each, self._fails = cost, start_s, mean_life_s, each, fails
        self._random = random.Random(seed)
        self._now = 0.0
        self._workers: dict[int, _Worker] = {}
        self._moving: list[_Running] = []  # transfers, which share the storage
        self._due: list[tuple[float, int, Callable[[], list[Event]]]] = []  # all else that happens, by its time
        self._number = 0
        self.started = 0
        self._saved: dict[int, float] = {}  # seconds of segmenting that are on a disk, by line
        self.busy_s = 0.0  # of all networks
        self.lost_s = 0.0  # of networks, for work that is done again
        self.storage_s = 0.0  # of the storage's whole bandwidth
        self.deaths = 0
        self.most = 0  # jobs at a time, of all workers
        self.submitted: list[tuple[int, int]] = []  # worker and line, in order

    def now(self) -> float:
        return self._now

    def lacking(self) -> str:
        return "waiting for machines"

    def states(self) -> dict[int, State]:
        return {}

    def start(self) -> int:
        worker, self.started = self.started, self.started + 1
        self._workers[worker] = _Worker()
        self._at(self._now + self._start_s, lambda: self._get_ready(worker))
        return worker

    def stop(self, worker: int) -> None:
        self._workers.pop(worker, None)
        self._moving = [running for running in self._moving if running.worker != worker]

    def kill(self, worker: int, after_s: float) -> None:
        """Let a worker die, if it lives then."""
        self._at(self._now + after_s, lambda: self._die(worker))

    def submit(self, worker: int, job: Job) -> None:
        cost = self._cost(job)
        running = _Running(worker, job, cost, "fetch", cost.fetch_s)
        self._workers[worker].jobs.append(running)
        self._moving.append(running)
        self.submitted.append((worker, job.row.line))
        self.most = max(self.most, sum(len(one.jobs) for one in self._workers.values()))

    def wait(self, timeout_s: float) -> list[Event]:
        """Let time pass until something happens. `timeout_s` matters only where nothing is going to."""
        events: list[Event] = []
        while not events:
            rate = min(self._each, 1.0 / max(1, len(self._moving)))  # the share of the storage of each transfer
            moved = min((running.left for running in self._moving), default=float("inf")) / rate
            due = self._due[0][0] - self._now if self._due else float("inf")
            step = max(0.0, min(moved, due))
            if step == float("inf"):
                self._now += timeout_s
                return []
            self._now += step
            self.storage_s += step * rate * len(self._moving)
            for running in self._moving:
                running.left -= step * rate
            while self._due and self._due[0][0] <= self._now + 1e-9:
                events += heapq.heappop(self._due)[2]()
            for running in [running for running in self._moving if running.left <= 1e-9]:
                events += self._moved(running)
        return events

    # What happens.

    def _at(self, when: float, event: Callable[[], list[Event]]) -> None:
        self._number += 1
        heapq.heappush(self._due, (when, self._number, event))

    def _get_ready(self, number: int) -> list[Event]:
        worker = self._workers.get(number)
        if worker is None:
            return []
        cause = self._fails(number)
        if cause:
            del self._workers[number]
            return [Died(number, cause)]
        worker.ready = True
        if self._life is not None:
            self.kill(number, self._random.expovariate(1.0 / self._life))
        return [Ready(number, f"node {number}")]

    def _die(self, number: int) -> list[Event]:
        worker = self._workers.get(number)
        if worker is None:
            return []
        self.deaths += 1
        for running in worker.jobs:
            self._lose(running)
        self.stop(number)
        return [Died(number, "killed")]

    def _lose(self, running: _Running) -> None:
        """Account for the work of a job whose worker dies, and for what of it is on a disk."""
        line, cost = running.job.row.line, running.cost
        before = self._saved.get(line, 0.0)
        done = before
        if running.phase == "segment":
            done += self._now - running.began
            self.busy_s += self._now - running.began
        elif running.phase == "upload":
            done = cost.segment_s
        if cost.saved_s is not None:
            whole = done if running.phase == "upload" else done - done % cost.saved_s
            self._saved[line] = max(before, whole)
        self.lost_s += done - self._saved.get(line, 0.0)

    def _moved(self, running: _Running) -> list[Event]:
        """A transfer ended."""
        self._moving.remove(running)
        worker = self._workers[running.worker]
        if running.phase == "fetch":
            running.phase = "wait"
            self._engage(worker)
            return []
        worker.jobs.remove(running)
        line = running.job.row.line
        return [Ended(running.worker, running.cost.outcome or Outcome(line, "done", frames=running.cost.frames))]

    def _engage(self, worker: _Worker) -> None:
        """Give the network the first job that waits for it."""
        if any(running.phase == "segment" for running in worker.jobs):
            return
        for running in worker.jobs:
            if running.phase == "wait":
                running.phase, running.began = "segment", self._now
                left = running.cost.segment_s - self._saved.get(running.job.row.line, 0.0)
                self._at(self._now + left, partial(self._segmented, worker, running))
                return

    def _segmented(self, worker: _Worker, running: _Running) -> list[Event]:
        if self._workers.get(running.worker) is not worker:
            return []  # it died meanwhile
        self.busy_s += self._now - running.began
        running.phase, running.left = "upload", running.cost.upload_s
        self._moving.append(running)
        self._engage(worker)
        return []
