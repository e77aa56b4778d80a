"""What `torch.cuda` offers, for a GPU that is not there: streams, events, graphs, devices, and what asks about them."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from .capture import Graph, Pool, fork
from .mode import Mode
from .order import Order, Queue, broken
from .tensors import Generator, applied, methods


class Runtime:
    """Makes the classes and functions that stand in for those of `torch.cuda`; they close over one `Mode`."""

    def __init__(self, mode: Mode, order: Order, capability: tuple[int, int]) -> None:
        self.mode, self.order, self.capability = mode, order, capability
        self.pools = weakref.WeakValueDictionary[tuple[int, int], Pool]()  # graphs keep them
        self.handles = 0
        self.capturing: Any = None  # the stream for captures that name none
        self.by_handle: dict[int, Queue] = {}
        self.empty_graphs = self.replays = 0
        self.inference: bool | None = None  # the mode of the first capture

    def index(self, device: Any = None) -> int:
        if device is None:
            return self.mode.device
        if isinstance(device, int):
            index = device
        else:
            place = torch.device(device)
            if place.type != "cuda":
                raise ValueError(f"Expected a cuda device, but got: {place}")
            index = self.mode.device if place.index is None else place.index
        if index not in self.mode.use:
            raise RuntimeError(f"CUDA error: invalid device ordinal (cuda:{index})")
        return index

    def stream(self, device: int, blocking: bool) -> Any:
        queue = self.order.queue(device, blocking=blocking)
        self.by_handle[queue.shown] = queue
        return torch.cuda.Stream(queue=queue)

    def unsettled(self, what: str) -> None:
        """`RuleError` if this would break a capture of this thread."""
        if (capture := self.order.capture()) is not None:
            raise broken(f"{what} inside a capture on {capture.origin}")

    def whole_device(self, what: str, index: int | None = None) -> None:
        """`RuleError` if any thread captures on this device (None: on any): CUDA refuses this, and torch asserts it."""
        self.unsettled(what)
        for capture in self.order.capturing.values():
            if index in (None, capture.origin.device):
                raise broken(f"{what} while {capture.origin} is captured")

    # ---------------------------------------------------------------- the classes
    def classes(self) -> dict[str, Any]:
        runtime, mode, order = self, self.mode, self.order

        class Stream:
            def __init__(self, device: Any = None, priority: int = 0, queue: Queue | None = None) -> None:
                self.queue = queue or order.queue(runtime.index(device))
                if queue is None:
                    runtime.by_handle[self.queue.shown] = self.queue
                self.device, self.priority = torch.device("cuda", self.queue.device), priority
                self.device_index, self.cuda_stream = self.queue.device, self.queue.shown
                self.stream_id = self.cuda_stream

            def wait_stream(self, stream: Stream) -> None:
                self.wait_event(stream.record_event())

            def wait_event(self, event: Event) -> None:
                event.wait(self)

            def record_event(self, event: Event | None = None) -> Event:
                event = event or Event()
                event.record(self)
                return event

            def synchronize(self) -> None:
                runtime.mode.transfers.blocked(f"{self.queue} synchronized", self.queue)

            def query(self) -> bool:
                runtime.unsettled(f"a query of {self.queue}")
                return order.over(self.queue.clock | {self.queue.handle: self.queue.time})

            def __enter__(self) -> Stream:
                self._contexts = [*getattr(self, "_contexts", []), on_stream(self)]
                self._contexts[-1].__enter__()
                return self

            def __exit__(self, *why: object) -> None:
                self._contexts.pop().__exit__(None, None, None)

            def __eq__(self, other: object) -> bool:
                return isinstance(other, Stream) and other.queue is self.queue

            def __hash__(self) -> int:
                return hash(self.queue.handle)

        class ExternalStream(Stream):
            """A stream that somebody else made: unless it is known, one that is in order with the default stream."""

            def __init__(self, stream_ptr: int, device: Any = None) -> None:
                if stream_ptr not in runtime.by_handle:
                    made = order.queue(runtime.index(device), blocking=True)
                    made.shown = stream_ptr
                    runtime.by_handle[stream_ptr] = made
                super().__init__(queue=runtime.by_handle[stream_ptr])

        class Event:
            def __init__(self, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False) -> None:
                self.clock: dict[int, int] | None = None
                self.capture: Any = None
                self.index: int | None = None  # of the device that it is first recorded on

            def record(self, stream: Stream | None = None) -> None:
                queue = stream.queue if stream else mode.queue()
                mine = order.capture()
                self.index = queue.device if self.index is None else self.index
                if self.index != queue.device:
                    raise broken(f"an event of cuda:{self.index} recorded on {queue}")
                if mine is not None and queue.capture is None:
                    raise broken(f"an event recorded on {queue} inside a capture on {mine.origin}: it is not captured")
                self.clock = order.before(queue) | {queue.handle: queue.time}
                self.capture = queue.capture

            def wait(self, stream: Stream | None = None) -> None:
                if self.clock is not None:
                    fork(order, stream.queue if stream else mode.queue(), self.clock, self.capture)

            def synchronize(self) -> None:
                runtime.unsettled("a wait of the host for an event")
                if self.capture is not None:
                    raise broken("the host waits for an event that was recorded in a capture")
                order.wait("an event synchronized", self.clock or {})

            def query(self) -> bool:
                runtime.unsettled("a query of an event")
                return order.over(self.clock or {})

            def elapsed_time(self, other: Event) -> float:
                runtime.unsettled("the time between events")
                return 1.0

        class CUDAGraph:
            def __init__(self, keep_graph: bool = False) -> None:
                self.graph = Graph(order)

            def capture_begin(self, pool: Any = None, capture_error_mode: str = "global") -> None:
                inference = torch.is_inference_mode_enabled()
                if runtime.inference and not inference:
                    raise broken("a capture outside inference mode, where a process's first was inside: torch's seeds")
                runtime.inference = inference if runtime.inference is None else runtime.inference
                handle = pool or pool_handle()
                shared = runtime.pools.setdefault(handle, Pool(order))
                if shared.graphs == 0:
                    raise broken("a capture into a pool whose graphs are all gone, while something in it is still held")
                self.graph.begin(mode.queue(), shared)
                shared.graphs = (shared.graphs or 0) + 1
                weakref.finalize(self, shared.let_go, self.graph).atexit = False

            def capture_end(self) -> None:
                self.graph.end(mode.queue())
                runtime.empty_graphs += not self.graph.operations

            def replay(self) -> None:
                runtime.unsettled("a graph's replay")
                self.graph.replay(mode.queue())
                runtime.replays += 1

            def pool(self) -> tuple[int, int]:
                assert self.graph.pool is not None
                return next(handle for handle, pool in runtime.pools.items() if pool is self.graph.pool)

            def reset(self) -> None:
                self.graph = Graph(order)

        def pool_handle() -> tuple[int, int]:
            runtime.handles += 1
            return (0, runtime.handles)

        @contextmanager
        def on_stream(stream: Stream | None) -> Iterator[None]:
            if stream is None:
                yield
                return
            streams, device, index = mode.streams(), mode.device, stream.queue.device
            before, streams[index], mode.device = streams[index], stream.queue, index
            try:
                yield
            finally:
                streams[index], mode.device = before, device

        @contextmanager
        def on_device(device: Any) -> Iterator[None]:
            before = mode.device
            mode.device = runtime.index(device) if device is not None and device != -1 else before
            try:
                yield
            finally:
                mode.device = before

        left: list[ExitStack] = []

        @contextmanager
        def graph(
            cuda_graph: CUDAGraph, pool: Any = None, stream: Stream | None = None, capture_error_mode: str = "global"
        ) -> Iterator[None]:
            synchronize()
            torch.cuda.empty_cache()
            if stream is None:  # torch keeps one, of the device that was current when it was first needed
                runtime.capturing = stream = runtime.capturing or Stream()
            left.append(ExitStack())
            left[-1].enter_context(on_stream(stream))
            cuda_graph.capture_begin(pool, capture_error_mode)
            try:
                yield
            except BaseException:
                cuda_graph.graph.abandon()
                left.pop().close()
                raise
            try:
                cuda_graph.capture_end()
            finally:
                cuda_graph.graph.abandon()
            left.pop().close()  # not where the end of a capture fails: torch leaves the stream as it is then

        def synchronize(device: Any = None) -> None:
            index, clock = runtime.index(device), dict[int, int]()
            runtime.whole_device("a wait for all of it", index)
            for queue in order.queues.values():
                if queue.device == index:
                    clock[queue.handle] = queue.time
            order.wait(f"cuda:{index} synchronized", clock)

        def set_device(device: Any) -> None:
            mode.device = runtime.index(device)

        def set_stream(stream: Stream) -> None:
            mode.streams()[stream.queue.device] = stream.queue

        return {
            "Stream": Stream, "ExternalStream": ExternalStream, "Event": Event, "CUDAGraph": CUDAGraph, "graph": graph,
            "graph_pool_handle": pool_handle, "stream": on_stream, "device": on_device, "synchronize": synchronize,
            "set_device": set_device, "set_stream": set_stream,
            "current_stream": lambda device=None: Stream(queue=mode.queue(runtime.index(device))),
            "default_stream": lambda device=None: Stream(queue=order.defaults[runtime.index(device)]),
        }  # fmt: skip

    def questions(self) -> dict[str, Any]:
        """What is only asked: names, sizes, memory."""
        mode, index, total = self.mode, self.index, self.mode.memory_bytes
        major, minor = self.capability
        facts = SimpleNamespace(
            name="a pretended GPU", major=major, minor=minor, total_memory=total, multi_processor_count=132,
            warp_size=32, L2_cache_size=50 * 2**20,
        )  # fmt: skip

        def reset_peak(device: Any = None) -> None:
            use = mode.use[index(device)]
            use.peak = use.live

        return {
            "is_available": lambda: True, "is_initialized": lambda: True, "init": lambda: None,
            "device_count": lambda: len(mode.use), "current_device": lambda: mode.device,
            "get_device_name": lambda device=None: facts.name, "get_device_properties": lambda device=None: facts,
            "get_device_capability": lambda device=None: self.capability,
            "is_bf16_supported": lambda including_emulation=True: including_emulation or major >= 8,
            "is_current_stream_capturing": lambda: mode.queue().capture is not None,
            "mem_get_info": lambda device=None: (total - mode.use[index(device)].live, total),
            "memory_allocated": lambda device=None: mode.use[index(device)].live,
            "memory_reserved": lambda device=None: mode.use[index(device)].live,
            "max_memory_allocated": lambda device=None: mode.use[index(device)].peak,
            "max_memory_reserved": lambda device=None: mode.use[index(device)].peak,
            "reset_peak_memory_stats": reset_peak, "empty_cache": lambda: self.whole_device("empty_cache()"),
        }  # fmt: skip

    @contextmanager
    def patched(self) -> Iterator[dict[str, Any]]:
        """Inside, torch has this runtime for its own."""
        classes, mode, order = self.classes(), self.mode, self.order
        with ExitStack() as stack:
            for name, value in (classes | self.questions()).items():
                stack.enter_context(mock.patch.object(torch.cuda, name, value))
            for name, value in methods(mode, order).items():
                stack.enter_context(mock.patch.object(Tensor, name, value))
            stack.enter_context(mock.patch.object(FakeTensor, "tolist", lambda t: t.cpu().tolist()))
            stack.enter_context(mock.patch.object(torch, "Generator", Generator))
            stack.enter_context(mock.patch.object(torch.nn.Module, "_apply", applied))
            yield classes
