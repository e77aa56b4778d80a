"""CUDA graphs: what a capture takes in, what it forbids, and what a replay does."""

from __future__ import annotations

import threading
from typing import Any

from .order import Access, Memory, Order, Queue, Span, Use, broken, learn


class Pool:
    """Memory that graphs share: each that runs may overwrite what another of them has left there.

    It is as large as the most that was alive in it at once, and stays so as long as there is a graph of it.
    """

    def __init__(self, order: Order) -> None:
        self.memory = Memory("the memory of a graph's pool", 1, order.defaults[0])
        self.last: Graph | None = None
        self.use = Use()
        self.graphs: int | None = None  # None: not used yet

    def let_go(self, graph: Graph) -> None:
        """One of its graphs is gone. torch gives up the last one's pool, once nothing in it is held any more."""
        self.graphs = (self.graphs or 1) - 1
        graph.destroyed()
        if (capture := graph.order.capture()) is not None:
            capture.spoiled = True

    def span(self) -> Span:
        return Span(self.memory, 0, 1, self.memory.what)


class Capture:
    """A capture under way: the streams in it, and who used what."""

    def __init__(self, graph: Graph, origin: Queue) -> None:
        self.graph, self.origin, self.queues = graph, origin, {origin}
        self.accesses: dict[Memory, list[Access]] = {}
        self.operations = 0
        self.spoiled = False  # by what cannot raise where it happens

    def join(self, queue: Queue) -> None:
        """A stream that waits for an event of this capture is captured too."""
        if queue.capture is None:
            if not queue.shown:
                raise broken(f"{queue} waits for an event of a capture on {self.origin}: it cannot be captured")
            queue.capture = self
            self.queues.add(queue)


class Graph:
    """What was captured: `inputs` are the bytes that it uses and did not allocate itself."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.current: Capture | None = None
        self.pool: Pool | None = None
        self.memories: list[Memory] = []
        self.inputs: list[tuple[Span, bool]] = []
        self.operations = self.replays = 0
        self.origin: Queue | None = None
        self.products = self.stale = False  # whether cuBLAS is used; and whether the memory that it works in is gone

    def begin(self, queue: Queue, pool: Pool | None) -> None:
        if not queue.shown:
            raise broken(f"a capture on {queue}: a graph is captured on a stream of its own")
        if self.order.capture() is not None or queue.capture is not None:
            raise broken(f"a capture on {queue}, inside another")
        self.pool, self.origin = pool or self.pool or Pool(self.order), queue
        self.order.graphs.add(self)
        self.current = queue.capture = self.order.capturing[threading.get_ident()] = Capture(self, queue)

    def end(self, queue: Queue) -> None:
        capture = self.current
        if capture is None or queue is not capture.origin:
            raise broken(f"a capture ended on {queue}; it began on {capture and capture.origin}")
        self.abandon()
        if capture.spoiled:
            raise broken(f"another graph was destroyed inside a capture on {queue}: is it garbage, and was collected?")
        for other in capture.queues - {queue}:
            if queue.clock.get(other.handle, 0) < other.time:
                raise broken(f"{other} was forked into a capture on {queue}, and is not joined at its end")
        for memory, accesses in capture.accesses.items():
            if memory.graph is not self:
                for a in accesses:
                    self.inputs.append((Span(memory, a.low, a.high, memory.what), a.writes))
        self.operations = capture.operations

    def abandon(self) -> None:
        """Leave the capture, for better or worse."""
        if self.current is not None:
            for queue in self.current.queues:
                queue.capture = None
            self.order.capturing.pop(threading.get_ident(), None)
        self.current = None

    def destroyed(self) -> None:
        """torch frees the workspaces of cuBLAS on the stream of its capture, whoever else uses them."""
        for other in self.order.graphs:
            if other is not self and other.origin is self.origin:
                other.stale = other.products

    def replay(self, queue: Queue) -> None:
        if self.stale:
            raise broken(
                f"the replay of a graph on {queue}: another that was captured on {self.origin} was destroyed, and the"
                " workspaces of cuBLAS that both use with it"
            )
        if self.pool is None or self.current is not None:
            raise broken("the replay of a graph that is not captured")
        for span, _ in self.inputs:
            if not span.memory.alive:
                raise broken(f"the replay of a graph on {queue}: {span.what}, which it uses, was freed")
        self.memories = [m for m in self.memories if m.alive]
        own = [Span(m, 0, m.bytes, m.what) for m in self.memories]
        reads = [span for span, writes in self.inputs if not writes]
        writes = [span for span, writes in self.inputs if writes]
        self.order.put(queue, "a graph's replay", reads, [*writes, *own, self.pool.span()])
        self.pool.last = self
        self.replays += 1

    def readable(self, span: Span, access: Access) -> None:
        """`RuleError` unless what lies in this graph's memory is its last answer."""
        if not self.replays:
            raise broken(f"{access.name} on {access.queue} reads {span.what} of a graph that never ran")
        if self.pool is not None and self.pool.last is not self:
            raise broken(
                f"{access.name} on {access.queue} reads {span.what} of a graph, after another graph ran in its pool"
            )


def fork(order: Order, queue: Queue, clock: dict[int, int], capture: Any) -> None:
    """A stream waits for an event, with the clock and the capture that it was recorded in."""
    mine = order.capture()
    if capture is not None:
        if capture.graph.current is not capture:
            raise broken(f"{queue} waits for an event that was recorded in a capture, after its end")
        capture.join(queue)
    elif queue.capture is not None:
        raise broken(f"{queue} waits inside a capture for an event from outside of it")
    elif mine is not None:
        raise broken(f"{queue} waits inside a capture on {mine.origin}: that wait is not captured")
    order.before(queue)
    learn(queue.clock, clock)
