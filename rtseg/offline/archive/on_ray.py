"""Workers of an archive as actors of a Ray cluster: one started for this run, or an existing one.

Ray places actors on machines that have what they need, starts their processes, and notices when a process or a machine
is gone. The process of this run is the cluster's driver.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from types import TracebackType
from typing import Any, Self

from ... import __version__
from ...base.errors import ConfigError
from ...base.hardware.cpu import cpu_cores
from .jobs import Died, Ended, Event, Job, Outcome, Ready, State
from .worker import Setup, Worker

STORE_BYTES = 80 << 20  # of a local cluster's object store: prompts pass through it, pictures do not
REACH_S = 10.0  # how long a cluster's address may take to answer
STARTS = 3  # attempts to start a local cluster
ASK_S = 2.0  # how often workers are asked how far they are


@dataclass(frozen=True, slots=True)
class Share:
    """What each worker gets of its machine, and how many of them the cluster has room for."""

    cpus: int
    gpus: float
    room: int


def import_ray() -> Any:
    """The module `ray`. Raises `ConfigError` if it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    try:
        return import_module("ray")
    except ImportError as e:
        raise ConfigError(
            f"rtseg archive needs Ray, which is not installed ({e}): pip install 'rtseg[ray]'; "
            "rtseg segment VIDEO... --out DIR needs none"
        ) from e


def connect(address: str | None) -> Any:
    """Join the cluster at `address`, or start one of this machine. Returns the module. Raises `ConfigError`."""
    ray = import_ray()
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if address is None:
            _start_local(ray, quiet)
        else:
            _check_reachable(address)
            ray.init(address=address, **quiet)
    except Exception as e:  # Ray's are of many kinds
        what = "a local Ray cluster cannot be started" if address is None else f"--ray {address}: cannot be joined"
        remedy = "look into /tmp/ray" if address is None else "expected a cluster, as after: ray start --head"
        raise ConfigError(f"{what} ({type(e).__name__}: {' '.join(str(e).split())[:300]}); {remedy}") from e
    return ray


def _check_reachable(address: str) -> None:
    """Raise `OSError` if nobody listens at HOST:PORT or ray://HOST:PORT; Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_S).close()


def _start_local(ray: Any, quiet: dict[str, Any]) -> None:
    """Start a cluster on this machine. Ray gives its own processes 30 s, which a busy machine may exceed."""
    own = {"num_cpus": cpu_cores(), "object_store_memory": STORE_BYTES, "include_dashboard": False}
    for attempt in range(STARTS):
        try:
            ray.init(address="local", **own, **quiet)
        except Exception:
            ray.shutdown()
            if attempt == STARTS - 1:
                raise
        else:
            return


def share_of(nodes: Sequence[dict[str, float]], gpus_per_worker: float | None, workers: int | None) -> Share:
    """What each worker gets.

    Arguments:
        nodes: the resources of each machine: "CPU" and "GPU".
        gpus_per_worker: above 0 to 1, or 0 for workers on CPUs; None: one GPU, where there are any.
        workers: how many; None: one for each device, that is for each share of a GPU, or each machine without.

    Raises `ConfigError` if the cluster cannot have such workers.
    """
    gpus = gpus_per_worker if gpus_per_worker is not None else float(any(node.get("GPU") for node in nodes))
    if gpus:
        fit = [(node, int(node.get("GPU", 0) / gpus + 1e-6)) for node in nodes]
        fit = [(node, count) for node, count in fit if count]
        if not fit:
            raise ConfigError(f"--gpus-per-worker {gpus:g}: the cluster has no GPU; expected 0, or machines with GPUs")
        cpus = max(1, min(int(node.get("CPU", 1)) // count for node, count in fit))
        return Share(cpus, gpus, min(workers or 10**6, sum(count for _, count in fit)))
    cores = [int(node.get("CPU", 0)) for node in nodes if node.get("CPU", 0) >= 1]
    if not cores:
        raise ConfigError("the cluster has no CPU to work on; expected one, as after: ray start --num-cpus 8")
    if workers is None:
        return Share(min(cores), 0.0, len(cores))
    cpus = max(1, sum(cores) // workers)
    while cpus > 1 and sum(count // cpus for count in cores) < workers:
        cpus -= 1
    return Share(cpus, 0.0, min(workers, sum(count // cpus for count in cores)))


class RayCluster:
    """Workers on a Ray cluster. A context manager, which ends them, and a cluster of its own.

    Arguments:
        address: of an existing cluster; None starts one on this machine.
        setup: what each worker is started with; its number of threads follows from `workers`.
        gpus_per_worker, workers: see `share_of`.
        depth: how many jobs a worker has at a time.
    """

    def __init__(
        self, address: str | None, setup: Setup, gpus_per_worker: float | None, workers: int | None, depth: int
    ) -> None:
        self._ray = connect(address)
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        try:
            self.share = share_of(nodes, gpus_per_worker, workers)
        except ConfigError:
            self._ray.shutdown()
            raise
        # One core is for reading and writing: `spare_core` says why.
        self._setup = Setup(setup.recipe, setup.scratch, max(1, self.share.cpus - 1), setup.limit)
        self._actor = self._ray.remote(Worker).options(
            num_cpus=self.share.cpus, num_gpus=self.share.gpus, max_restarts=0, max_concurrency=depth + 2
        )
        self._workers: dict[int, Any] = {}
        self._refs: dict[Any, tuple[int, int | None]] = {}  # of what is awaited: the worker, and the line of its job
        self._asked: dict[Any, int] = {}
        self._states: dict[int, dict[int, State]] = {}
        self._asked_s = 0.0
        self._started = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for worker in list(self._workers):
            self.stop(worker)
        self._ray.shutdown()

    def start(self) -> int:
        """Start a worker."""
        worker, self._started = self._started, self._started + 1
        actor = self._workers[worker] = self._actor.remote(self._setup)
        self._refs[actor.open.remote()] = (worker, None)
        return worker

    def submit(self, worker: int, job: Job) -> None:
        """Give a worker a job."""
        self._refs[self._workers[worker].run.remote(job)] = (worker, job.row.line)

    def stop(self, worker: int) -> None:
        """End a worker at once."""
        actor = self._workers.pop(worker, None)
        self._refs = {ref: about for ref, about in self._refs.items() if about[0] != worker}
        self._states.pop(worker, None)
        if actor is not None:
            with suppress(Exception):  # it is gone already
                self._ray.kill(actor, no_restart=True)

    def now(self) -> float:
        """Seconds of this machine's clock."""
        return time.monotonic()

    def lacking(self) -> str:
        """What a worker needs, and what the cluster has."""
        free = self._ray.available_resources()
        needs = f"{self.share.cpus} CPUs and {self.share.gpus:g} GPUs"
        return (
            f"waiting for machines: a worker needs {needs}; free are {free.get('CPU', 0):g} and {free.get('GPU', 0):g}"
        )

    def states(self) -> dict[int, State]:
        """How far jobs are."""
        return {line: state for states in self._states.values() for line, state in states.items()}

    def wait(self, timeout_s: float) -> list[Event]:
        """The next events."""
        self._ask()
        if not self._refs:
            time.sleep(timeout_s)
            return []
        some, _ = self._ray.wait(list(self._refs), timeout=timeout_s)
        if not some:
            return []
        ended, _ = self._ray.wait(list(self._refs), num_returns=len(self._refs), timeout=0)
        return [event for ref in ended if (event := self._event(ref)) is not None]

    def _event(self, ref: Any) -> Event | None:
        if ref not in self._refs:  # its worker died: that was told with another of its jobs
            return None
        worker, line = self._refs.pop(ref)
        try:
            answer = self._ray.get(ref)
        except self._ray.exceptions.RayTaskError as e:
            cause = _last_line(e)
            if line is not None:
                return Ended(worker, Outcome(line, "failed", cause, again=True, fresh=True))
        except self._ray.exceptions.RayError as e:
            cause = _death(e)
        else:
            if line is not None:
                self._states.get(worker, {}).pop(line, None)
                return Ended(worker, answer)
            if answer["version"] != __version__:
                answer["error"] = f"rtseg {answer['version']} is installed there; expected {__version__}, as here"
            if not answer["error"]:
                return Ready(worker, answer["node"])
            cause = f"{answer['node']}: {answer['error']}"
        self.stop(worker)
        return Died(worker, cause)

    def _ask(self) -> None:
        """Ask workers how far they are, and read the answers that came; nobody waits for one."""
        if self._asked:
            came, _ = self._ray.wait(list(self._asked), num_returns=len(self._asked), timeout=0)
            for ref in came:
                worker = self._asked.pop(ref)
                with suppress(self._ray.exceptions.RayError):  # of a dead worker: its jobs say so
                    states = self._ray.get(ref)
                    if worker in self._workers:
                        self._states[worker] = states
        if time.monotonic() - self._asked_s > ASK_S:
            self._asked_s = time.monotonic()
            waiting = set(self._asked.values())
            busy = {worker for worker, line in self._refs.values() if line is not None} - waiting
            self._asked |= {self._workers[worker].states.remote(): worker for worker in busy}


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _death(error: BaseException) -> str:
    """Why a worker is gone, in one line, out of Ray's many."""
    text = " ".join(str(error).split())
    for mark in ("Worker exit detail: ", "The actor is dead because "):
        if mark in text:
            text = text.partition(mark)[2]
            break
    return text[:300] or type(error).__name__
