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


@dataclass(slots=True)
class _Running:
    job: Job
    cost: Cost
    phase: Phase = "fetch"
    left: float = 0.0  # of this phase: seconds of the network, or of storage at full bandwidth


@dataclass(slots=True)
class _Worker:
    dies: float
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
        self._starting: list[tuple[float, int]] = []
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
        heapq.heappush(self._starting, (self._now + self._start_s, worker))
        self._workers[worker] = _Worker(float("inf"))
        return worker

    def stop(self, worker: int) -> None:
        self._workers.pop(worker, None)

    def submit(self, worker: int, job: Job) -> None:
        cost = self._cost(job)
        running = _Running(job, cost, "fetch", cost.fetch_s)
        self._workers[worker].jobs.append(running)
        self.submitted.append((worker, job.row.line))
        self.most = max(self.most, sum(len(one.jobs) for one in self._workers.values()))

    def wait(self, timeout_s: float) -> list[Event]:
        """Let time pass until something happens. `timeout_s` matters only where nothing is going to."""
        events: list[Event] = []
        while not events:
            step = self._next()
            if step is None:
                self._now += timeout_s
                return []
            self._pass(step)
            events = self._happened()
        return events

    # Time.

    def _moving(self) -> list[_Running]:
        """Jobs that use the storage now."""
        return [
            running for worker in self._workers.values() for running in worker.jobs
            if running.phase in ("fetch", "upload")
        ]  # fmt: skip

    def _networks(self) -> list[_Running]:
        return [running for worker in self._workers.values() for running in worker.jobs if running.phase == "segment"]

    def _rate(self) -> float:
        """The share of the storage's bandwidth that each transfer gets."""
        return min(self._each, 1.0 / max(1, len(self._moving())))

    def _next(self) -> float | None:
        rate = self._rate()
        times = [running.left / rate for running in self._moving()]
        times += [running.left for running in self._networks()]
        times += [worker.dies - self._now for worker in self._workers.values()]
        times += [when - self._now for when, _ in self._starting]
        times = [max(0.0, time) for time in times if time != float("inf")]
        return min(times) if times else None

    def _pass(self, step: float) -> None:
        rate, moving, networks = self._rate(), self._moving(), self._networks()
        self._now += step
        for running in moving:
            running.left -= step * rate
        for running in networks:
            running.left -= step
        self.storage_s += step * rate * len(moving)
        self.busy_s += step * len(networks)

    def _happened(self) -> list[Event]:
        events: list[Event] = []
        while self._starting and self._starting[0][0] <= self._now + 1e-9:
            events += self._started(heapq.heappop(self._starting)[1])
        for number, worker in list(self._workers.items()):
            if worker.dies <= self._now + 1e-9:
                events.append(self._die(number, worker))
                continue
            for running in list(worker.jobs):
                if running.phase != "wait" and running.left <= 1e-9:
                    events += self._finish(number, worker, running)
            self._engage(worker)
        return events

    def _started(self, number: int) -> list[Event]:
        worker = self._workers.get(number)
        if worker is None:
            return []
        cause = self._fails(number)
        if cause:
            del self._workers[number]
            return [Died(number, cause)]
        worker.ready = True
        if self._life is not None:
            worker.dies = self._now + self._random.expovariate(1.0 / self._life)
        return [Ready(number, f"node {number}")]

    def _die(self, number: int, worker: _Worker) -> Event:
        self.deaths += 1
        for running in worker.jobs:
            if running.phase == "segment":
                whole = running.cost.segment_s
                done = whole - running.left
                kept = 0.0 if running.cost.saved_s is None else done - done % running.cost.saved_s
                self.lost_s += done - max(kept, self._saved.get(running.job.row.line, 0.0))
                self._saved[running.job.row.line] = max(kept, self._saved.get(running.job.row.line, 0.0))
            elif running.phase == "upload":
                self.lost_s += running.cost.segment_s if running.cost.saved_s is None else 0.0
                if running.cost.saved_s is not None:
                    self._saved[running.job.row.line] = running.cost.segment_s
        del self._workers[number]
        return Died(number, "killed")

    def _finish(self, number: int, worker: _Worker, running: _Running) -> list[Event]:
        """Go on to the next phase of a job."""
        if running.phase == "fetch":
            running.phase = "wait"
        elif running.phase == "segment":
            running.phase, running.left = "upload", running.cost.upload_s
            if running.left <= 0:
                return self._finish(number, worker, running)
        else:
            worker.jobs.remove(running)
            line = running.job.row.line
            return [Ended(number, running.cost.outcome or Outcome(line, "done", frames=running.cost.frames))]
        return []

    def _engage(self, worker: _Worker) -> None:
        """Give the network the first job that waits for it."""
        if any(running.phase == "segment" for running in worker.jobs):
            return
        for running in worker.jobs:
            if running.phase == "wait":
                running.phase = "segment"
                running.left = running.cost.segment_s - self._saved.get(running.job.row.line, 0.0)
                return
