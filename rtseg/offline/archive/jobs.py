"""What passes between the scheduler and a cluster: jobs, their outcomes, and events of workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from ...base.prompt import Prompt
from .manifest import Row

Stage = Literal["fetch", "wait", "segment", "upload"]


@dataclass(frozen=True, slots=True)
class Job:
    """A video for a worker. `out` is the result's full path or uri, `key` tells one configuration from another."""

    row: Row
    prompts: Mapping[int, Sequence[Prompt]]
    out: str
    key: str
    force: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended on a worker.

    Attributes:
        line: the line of the row in the manifest.
        state: "done", "skipped" (it was done before) or "failed".
        cause: one line, why it failed.
        again: another attempt may succeed: the machine failed, not the input.
        fresh: the worker's process may be harmed, and has to be replaced.
        frames: how many were segmented.
        seconds: how long each stage took.
        lines: what the user is told: of damage, of scene cuts.
    """

    line: int
    state: Literal["done", "skipped", "failed"]
    cause: str = ""
    again: bool = False
    fresh: bool = False
    frames: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ready:
    """A worker has opened its engine. `node` is its machine."""

    worker: int
    node: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A job of a worker ended."""

    worker: int
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Died:
    """A worker is gone, with all its jobs; or it could not open its engine."""

    worker: int
    cause: str


Event = Ready | Ended | Died
State = tuple[Stage, int, int | None]  # of a job: its stage, frames done, and of how many if that is known


class Cluster(Protocol):
    """Where workers run. Workers are numbered from 0 in the order in which they were started."""

    def start(self) -> int:
        """Start a worker; `Ready` or `Died` follows when it is known."""

    def submit(self, worker: int, job: Job) -> None:
        """Give a worker a job; `Ended`, or `Died` of the worker, follows."""

    def wait(self, timeout_s: float) -> list[Event]:
        """The events since the last call; waits for the first one, at most `timeout_s`."""

    def states(self) -> dict[int, State]:
        """How far jobs are, by line, as of the last seconds."""

    def stop(self, worker: int) -> None:
        """End a worker at once. No event of it follows."""

    def now(self) -> float:
        """Seconds on the cluster's clock."""

    def lacking(self) -> str:
        """Why workers may have to wait for machines; "" if nothing is known."""
