"""The order of events on a GPU: streams as queues with vector clocks, memory with its last accesses, and the rules.

Time on a stream is the number of things put on it. A clock says of each stream up to where it is known to be done. The
host has one; each stream has one, of what is done before whatever comes next on it; an event carries a stream's.
Memory remembers who read and wrote which of its bytes, and each new access is held against these.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakSet

if TYPE_CHECKING:
    from .capture import Capture, Graph

HERE = str(Path(__file__).parent)
PRODUCTS = ("addmm", "baddbmm", "bmm", "linear", "mm", "mv")  # operations that cuBLAS does
Clock = dict[int, int]  # handle of a stream to a time on it


class RuleError(AssertionError):
    """A rule of CUDA is broken."""


def where() -> str:
    """The innermost line of rtseg (else of a test) that led here."""
    frame, other = sys._getframe(1), ""
    while frame:
        name = frame.f_code.co_filename
        if "/rtseg/" in name and "/tests/" not in name:
            return f"rtseg/{name.rsplit('/rtseg/', 1)[1]}:{frame.f_lineno}"
        if not other and "/tests/" in name and not name.startswith(HERE):
            other = f"tests/{name.rsplit('/tests/', 1)[1]}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return other


def broken(text: str) -> RuleError:
    return RuleError(f"{text} (at {where()})")


def learn(clock: Clock, other: Clock) -> None:
    """Whoever has `clock` now knows what `other` says too."""
    for handle, time in other.items():
        if time > clock.get(handle, 0):
            clock[handle] = time


@dataclass(eq=False, slots=True)
class Queue:
    """A stream. The default one of each device is legacy: it is in order with blocking streams, with no others."""

    name: str
    device: int
    handle: int  # unique; what code sees is `shown`
    blocking: bool = False
    shown: int = 0
    time: int = 0
    clock: Clock = field(default_factory=dict)
    capture: Capture | None = None
    given_away: list[tuple[str, Clock]] = field(default_factory=list)  # freed memory that others may still use

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Access:
    low: int  # bytes of the memory
    high: int
    queue: Queue
    time: int
    writes: bool
    name: str  # of the operation


@dataclass(slots=True)
class Use:
    """Bytes of a device, or of pinned memory: now, and at most."""

    live: int = 0
    peak: int = 0

    def add(self, count: int) -> None:
        self.live += count
        self.peak = max(self.peak, self.live)


@dataclass(eq=False, slots=True)
class Memory:
    """A storage on a device, or pinned on the host."""

    what: str
    bytes: int
    queue: Queue  # that it was allocated on
    address: int = 0
    pinned: bool = False
    alive: bool = True
    graph: Graph | None = None  # in whose capture it was allocated
    shared: set[int] = field(default_factory=set)  # handles of streams by record_stream
    accesses: list[Access] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes of a memory, as a tensor has them."""

    memory: Memory
    low: int
    high: int
    what: str  # shape and type


@dataclass(frozen=True, slots=True)
class Wait:
    """The host waited: for what, and on which line."""

    what: str
    where: str


class Order:
    """All streams, what the host knows, and the rules about them."""

    def __init__(self, devices: int) -> None:
        self.host: Clock = {}
        self.queues: dict[int, Queue] = {}
        self.waits: list[Wait] = []
        self.slow = False  # whether work that nobody waited for is said to be under way, where code asks
        self.capturing: dict[int, Capture] = {}  # by thread
        self.graphs: WeakSet[Graph] = WeakSet()
        self.defaults = [self.queue(i, legacy=True) for i in range(devices)]

    def queue(self, device: int, legacy: bool = False, blocking: bool = False) -> Queue:
        handle = len(self.queues) + 1
        name = f"the default stream of cuda:{device}" if legacy else f"stream {handle} of cuda:{device}"
        made = Queue(name, device, handle, legacy or blocking, 0 if legacy else 1000 + handle)
        self.queues[handle] = made
        return made

    def capture(self) -> Capture | None:
        """The capture that this thread's calls must not disturb."""
        return self.capturing.get(threading.get_ident())

    def before(self, queue: Queue) -> Clock:
        """What is done before whatever comes next on this stream."""
        learn(queue.clock, self.host)
        if queue.blocking:
            legacy = self.defaults[queue.device]
            for other in self.queues.values() if queue is legacy else (legacy,):
                if other.blocking and other.device == queue.device:
                    learn(queue.clock, other.clock)
        return queue.clock

    def put(self, queue: Queue, name: str, reads: Iterable[Span], writes: Iterable[Span]) -> None:
        """Work on a stream; `RuleError` where it may meet other work on the same bytes."""
        capture = self.capture()
        if capture is not None and queue.capture is not capture:
            raise broken(f"{name} on {queue} inside a capture on {capture.origin}: it is not captured")
        clock = self.before(queue)
        queue.time += 1
        clock[queue.handle] = queue.time
        for spans, writing in ((reads, False), (writes, True)):
            for span in spans:
                self._access(span, Access(span.low, span.high, queue, queue.time, writing, name), clock)
        if queue.capture is not None:
            queue.capture.operations += 1
            queue.capture.graph.products |= name.partition(".")[0] in PRODUCTS

    def _access(self, span: Span, new: Access, clock: Clock) -> None:
        memory, queue = span.memory, new.queue
        accesses = memory.accesses
        if queue.capture is not None:  # it does not happen now
            accesses = queue.capture.accesses.setdefault(memory, [])
        elif memory.graph is not None and not new.writes:
            memory.graph.readable(span, new)
        kept = []
        for old in accesses:
            apart = old.high <= new.low or new.high <= old.low
            if not apart and (old.writes or new.writes) and clock.get(old.queue.handle, 0) < old.time:
                verbs = ("writes" if new.writes else "reads", "wrote" if old.writes else "read")
                raise broken(
                    f"{new.name} on {queue} {verbs[0]} {span.what} that {old.name} {verbs[1]} on {old.queue}, and"
                    " nothing waited between them"
                )
            covered = new.low <= old.low and old.high <= new.high
            if not (covered and (new.writes or (old.queue is queue and not old.writes))):
                kept.append(old)
        kept.append(new)
        accesses[:] = kept

    def touch(self, span: Span, writes: bool, how: str) -> None:
        """The host itself reads or writes pinned memory."""
        for old in span.memory.accesses:
            apart = old.high <= span.low or span.high <= old.low
            if not apart and (old.writes or writes) and self.host.get(old.queue.handle, 0) < old.time:
                verbs = ("writes" if writes else "reads", "to" if old.writes else "from")
                raise broken(
                    f"{how}: the host {verbs[0]} pinned {span.what} while {old.name} {verbs[1]} it on"
                    f" {old.queue} may be under way"
                )

    def allocate(self, queue: Queue, memory: Memory) -> None:
        """Memory from a stream's free list: what was freed there is given away again."""
        if queue.capture is not None:
            memory.graph = queue.capture.graph
            queue.capture.graph.memories.append(memory)
            return
        known = self.before(queue)
        for what, users in queue.given_away:
            for handle, time in users.items():
                if known.get(handle, 0) < time:
                    raise broken(
                        f"{what} was freed to {queue} while {self.queues[handle]} may still use it, and {memory.what}"
                        " takes its place: join the streams, or call record_stream"
                    )
        queue.given_away.clear()

    def free(self, memory: Memory) -> None:
        memory.alive = False
        if memory.pinned or memory.graph is not None:
            return  # torch keeps pinned memory until its copies are over; a pool is the graph's
        known = self.before(memory.queue)
        users: Clock = {}
        for a in memory.accesses:
            handle = a.queue.handle
            if a.queue is not memory.queue and handle not in memory.shared and known.get(handle, 0) < a.time:
                users[handle] = max(a.time, users.get(handle, 0))
        if users:
            memory.queue.given_away.append((memory.what, users))

    def over(self, clock: Clock) -> bool:
        """What a query says; who was told that work is over knows it."""
        if not self.slow:
            learn(self.host, clock)
        return all(time <= self.host.get(handle, 0) for handle, time in clock.items())

    def wait(self, what: str, clock: Clock, queue: Queue | None = None) -> None:
        """The host waits; nothing is noted where it knew already that all of it is over."""
        if (capture := self.capture()) is not None:
            raise broken(f"{what} inside a capture on {capture.origin}: the host cannot wait for what does not run")
        if queue is not None and queue.capture is not None:
            raise broken(f"{what}: {queue} is being captured by another thread")
        if any(time > self.host.get(handle, 0) for handle, time in clock.items()):
            self.waits.append(Wait(what, where()))
        learn(self.host, clock)
