"""A step over fixed buffers: run as it is, or captured once as a CUDA graph and replayed."""

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
"""Reads its fixed input buffers and answers with tensors; these are valid until the next step of the engine."""

Disturb = Callable[[], None]
"""Puts something else into the input buffers."""

WARM_UPS = 3  # libraries choose kernels, and take their workspaces, in the first runs

_ONE_AT_A_TIME = RLock()


@contextmanager
def capture(graph: torch.cuda.CUDAGraph, pool: Any, stream: torch.cuda.Stream) -> Iterator[None]:
    """Inside, what is put on `stream`, which is the current one, goes into the graph.

    One thread of the process at a time: before a capture torch waits for the whole device and returns memory to it,
    and both are errors, of either thread, while another captures, in whatever mode.
    """
    # The stream is made current here, too: where the end of a capture fails, torch leaves it so. What torch makes for
    # its random numbers at the first capture of a process could in inference mode be used in no other mode, by anyone.
    # thread_local: what other threads ask of CUDA meanwhile is no error of this capture.
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
    """Inside, Python's garbage collector is off: freeing a graph or a Triton kernel would invalidate the capture."""
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

    `pool` is shared by the graphs of an engine: they run one at a time, and their answers are copied out at once, so
    that all may work in the same memory.
    """
    graph = Captured(step, pool, stream)
    prove(graph, disturb)
    return graph


class Captured:
    """A step's work as one CUDA graph: one launch from the host, whatever the number of kernels.

    It does not keep alive what the step reads; that is the caller's. `stream`: where it is captured; None: a new one.
    """

    def __init__(self, step: Step, pool: Any, stream: torch.cuda.Stream | None = None) -> None:
        # torch's own stream for captures is of whichever device was current when it was first used.
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

    The last answer is looked at, which depends on all before it; others may be constants (an absent object's mask).
    All are to be numbers: two answers of NaN are never equal.
    """
    before = graph()[-1].clone()
    disturb()
    answers = graph()
    if not all(bool(torch.isfinite(t).all()) for t in (before, *answers)):
        raise EngineError('a captured CUDA graph gives what is no number; use runtime = "torch", and report it')
    if torch.equal(before, answers[-1]):
        raise EngineError('a captured CUDA graph does not answer to its inputs; use runtime = "torch", and report it')
