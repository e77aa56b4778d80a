"""A step over fixed buffers: run directly, or captured once as a CUDA graph and replayed."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import RLock
from typing import Any

import torch
from torch import Tensor

from ...base.errors import EngineError

Step = Callable[[], Sequence[Tensor]]
"""Reads its fixed input buffers and returns tensors, which are valid until the next step of the engine."""

Disturb = Callable[[], None]
"""Changes the contents of the input buffers."""

WARM_UPS = 3  # in the first runs, libraries choose kernels and allocate workspaces

_ONE_AT_A_TIME = RLock()


@contextmanager
def capture(graph: torch.cuda.CUDAGraph, pool: Any, stream: torch.cuda.Stream) -> Iterator[None]:
    """Inside the context, `stream` is the current stream, and work queued on it is captured into the graph.

    One thread of the process captures at a time. Before a capture torch waits for the device and frees memory; while
    another thread captures, in any mode, both are errors in either thread.
    """
    # The stream is also made current here: if the end of a capture fails, torch does not restore the previous one.
    # Inference mode is off around the capture: the random state that torch creates at the first capture of a process
    # would otherwise work only in inference mode, for every thread.
    # thread_local: CUDA calls of other threads do not fail this capture.
    inside = torch.is_inference_mode_enabled()
    with (
        _ONE_AT_A_TIME,
        _nothing_collected(),
        torch.cuda.stream(stream),
        torch.inference_mode(False),
        torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"),
        torch.inference_mode(inside),
    ):
        yield


@contextmanager
def _nothing_collected() -> Iterator[None]:
    """Switch off Python's garbage collector: freeing a graph or a Triton kernel would invalidate the capture."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def plain(step: Step, disturb: Disturb) -> Step:
    """The step itself: a CPU has nothing to capture."""
    return step


def captured(step: Step, disturb: Disturb, pool: Any = None, stream: torch.cuda.Stream | None = None) -> Step:
    """The step as one CUDA graph, checked to depend on its inputs; `EngineError` if it does not.

    The graphs of an engine share `pool`: they run one at a time, and their results are copied out at once, so all can
    use the same memory.
    """
    graph = Captured(step, pool, stream)
    prove(graph, disturb)
    return graph


class Captured:
    """A step's work as one CUDA graph: one launch from the host, whatever the number of kernels.

    The caller keeps alive what the step reads. `stream`: where the step is captured (None: a new stream).
    """

    def __init__(self, step: Step, pool: Any, stream: torch.cuda.Stream | None = None) -> None:
        # torch's default capture stream belongs to the device that was current at its first use.
        side = stream or torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                step()
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with capture(self._graph, pool, side):
            self._answers = step()

    def __call__(self) -> Sequence[Tensor]:
        self._graph.replay()
        return self._answers


def prove(graph: Step, disturb: Disturb) -> None:
    """`EngineError` unless the graph's outputs depend on its inputs: an empty graph is captured without an error.

    The last output is compared, because it depends on all others; those may be constant (an absent object's mask). All
    outputs must be finite: two NaN are never equal, and would pass as different.
    """
    before = graph()[-1].clone()
    disturb()
    answers = graph()
    if not all(bool(torch.isfinite(t).all()) for t in (before, *answers)):
        raise EngineError('a captured CUDA graph returns NaN or infinity; use runtime = "torch", and report it')
    if torch.equal(before, answers[-1]):
        raise EngineError('a captured CUDA graph does not answer to its inputs; use runtime = "torch", and report it')
