"""Graphs are captured one at a time in a process, with nothing destroyed meanwhile, into a pool that torch still has.

On a GPU that is not there; as is the way of arrays to a GPU that is not the current one.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from subprocess import CalledProcessError
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rtseg.base.errors import EngineError
from rtseg.engine.cuda.fuse import fused
from rtseg.engine.cuda.step_shapes import StepShapes
from rtseg.engine.cuda.steps import Kind, Size, Steps, Work
from rtseg.engine.picture.upload import Uploader
from rtseg.engine.recipe import Recipe
from rtseg.engine.static import graph
from rtseg.engine.static.graph import Captured
from rtseg.engine.static.pool import Pool
from rtseg.engine.tensorrt.gpu import CudaGpu
from rtseg.sam2 import get_preset
from tests.engine.pretend_cuda import Pretended, RuleError, pretend_cuda

DEVICE = torch.device("cuda:0")


@pytest.fixture
def gpu() -> Iterator[Pretended]:
    with pretend_cuda() as gpu:
        yield gpu


def by_torch(work: Callable[[], Tensor]) -> None:
    Captured(lambda: [work()], None)


def by_torch_at_once(work: Callable[[], Tensor]) -> None:
    """Without a warm-up."""
    made, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    with graph.capture(made, None, stream):
        work()


def by_tensorrt(work: Callable[[], Tensor]) -> None:
    own = CudaGpu()
    with own.work():
        own.capture(lambda: void(work()))


def void(_: object) -> None:
    pass


@pytest.mark.parametrize("first", [by_torch, by_tensorrt])
@pytest.mark.parametrize("second", [by_torch, by_tensorrt])
@pytest.mark.parametrize("in_turns", [True, False])
def test_two_engines_that_capture_at_once(
    gpu: Pretended, monkeypatch: pytest.MonkeyPatch, first: Any, second: Any, in_turns: bool
) -> None:
    a, begun, over = torch.ones(4, device=DEVICE), threading.Event(), threading.Event()
    if not in_turns:
        monkeypatch.setattr(graph, "_ONE_AT_A_TIME", nullcontext())

    def slow() -> Tensor:
        if torch.cuda.is_current_stream_capturing():
            begun.set()
            over.wait(0.2)  # what the other needs, if it does not wait for this one
        return a + 1

    def other() -> None:
        with gpu.here():
            begun.wait(5)
            try:
                second(lambda: a + 2)
            finally:
                over.set()

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(other)
        first(slow)
        with nullcontext() if in_turns else pytest.raises(RuleError, match="while stream .* is captured"):
            done.result()


@pytest.mark.parametrize("kept_away", [True, False])
def test_garbage_is_left_alone_inside_a_capture(
    gpu: Pretended, monkeypatch: pytest.MonkeyPatch, kept_away: bool
) -> None:
    class Holder:
        def __init__(self, a: Tensor) -> None:
            self.itself, self.graph = self, Captured(lambda: [a + 1], None)

    def work() -> Tensor:
        gc.set_threshold(100, 1, 1)
        made = [[] for _ in range(10_000)]  # enough for Python to look for garbage, where it does
        return a + len(made)

    if not kept_away:
        monkeypatch.setattr(graph, "_nothing_collected", nullcontext)
    a = torch.ones(4, device=DEVICE)
    gc.collect()
    before = gc.get_threshold()
    gc.set_threshold(0)
    try:
        Holder(a)
        with nullcontext() if kept_away else pytest.raises(RuleError, match="another graph was destroyed"):
            by_torch_at_once(work)
    finally:
        gc.set_threshold(*before)
    assert gc.isenabled()


@pytest.mark.parametrize("engine", [by_torch, by_tensorrt])
def test_captures_of_the_program_itself_go_on_working(gpu: Pretended, engine: Any) -> None:
    a, inside = torch.ones(4, device=DEVICE), []
    with torch.inference_mode():
        engine(lambda: inside.append(torch.is_inference_mode_enabled()) or a + 1)
    assert all(inside)
    with torch.cuda.graph(torch.cuda.CUDAGraph()):
        a + 1


def test_a_capture_that_fails_leaves_the_current_stream_as_it_was(
    gpu: Pretended, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(self: Any) -> None:
        raise RuntimeError("operation failed due to a previous error during capture")

    monkeypatch.setattr(torch.cuda.CUDAGraph, "capture_end", end)
    before, a = torch.cuda.current_stream(), torch.ones(4, device=DEVICE)
    with pytest.raises(RuntimeError, match="previous error"):
        by_torch(lambda: a + 1)
    assert torch.cuda.current_stream() == before


def steps_of() -> Steps:
    preset = get_preset("nano")
    plan = StepShapes.for_recipe(preset, Recipe("nano", image_size=64, max_objects=1))
    pool = Pool(preset, 4, 1, plan.kept, torch.float32, DEVICE)
    return Steps(plan, pool, torch.zeros(1, plan.layout.pointers, preset.dim, device=DEVICE), 64)


def work(size: Size, kind: Kind, full: bool) -> list[Tensor]:
    x = size.inputs.picture_hwc.float()
    return [x @ x.transpose(1, 2)]


WORK = Work(work, lambda *given: None)


@pytest.mark.parametrize("own_pool", [True, False])
def test_what_is_held_of_a_step_does_not_keep_others_from_being_captured(gpu: Pretended, own_pool: bool) -> None:
    steps = steps_of()
    kind = Kind(1, steps._shapes.foreseen[0])
    size = steps.size(48, 80)
    held, runner = steps.prepared(size, kind, WORK).masked(), size.runner
    assert runner
    if not own_pool:
        size.steps.clear()
    else:
        steps.ready(64, 64, WORK, lambda: None)
    del size
    with nullcontext() if own_pool else pytest.raises(RuleError, match="graphs are all gone"):
        runner = (own_pool and steps.size(64, 64).runner) or runner
        runner(lambda: work(steps.size(64, 64), kind, False), lambda: None)
    assert held


@pytest.mark.parametrize("own_stream", [True, False])
def test_a_size_outlives_another_s_graphs(gpu: Pretended, monkeypatch: pytest.MonkeyPatch, own_stream: bool) -> None:
    steps = steps_of()
    if not own_stream:
        stream = steps._streams[0]
        steps._streams[1] = type(stream)(queue=stream.queue)  # type: ignore[call-overload]
        monkeypatch.setattr(type(stream), "__eq__", lambda one, other: False)
    kind = Kind(1, steps._shapes.foreseen[0])
    for height in (48, 64, 80):  # two are kept, and the last takes the place of the first
        steps.prepared(steps.size(height, 80), kind, WORK).masked()
    with nullcontext() if own_stream else pytest.raises(RuleError, match="workspaces of cuBLAS"):
        steps.prepared(steps.size(64, 80), kind, WORK).masked()


def test_a_capture_that_fails_takes_those_before_it_along(gpu: Pretended) -> None:
    steps = steps_of()
    kinds = [Kind(1, slots) for slots in (1, 2)]
    size = steps.size(48, 80)
    steps._capture(size, kinds[0], WORK)
    gpu.answers = lambda name, t: name == "equal" or None  # nothing changes with the inputs
    with pytest.raises(EngineError, match="does not answer to its inputs"):
        steps._capture(size, kinds[1], WORK)
    assert not size.steps
    gpu.answers = None
    steps._capture(size, kinds[1], WORK)
    size.steps[kinds[1]].masked()


@pytest.mark.parametrize("device", ["cuda:0", "cuda:1"])
def test_arrays_go_up_to_a_gpu_that_is_not_the_current_one(gpu: Pretended, device: str) -> None:
    upload = Uploader(0, torch.device(device), count=1)
    gpu.slow = True
    for _ in range(3):
        assert upload(np.ones(4, np.float32)).device == torch.device(device)
    assert len(gpu.waits) == 2  # for the one buffer, which is written again


def test_an_event_on_another_gpu_is_noticed(gpu: Pretended, monkeypatch: pytest.MonkeyPatch) -> None:
    current = torch.cuda.current_stream
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: current())
    upload = Uploader(0, torch.device("cuda:1"), count=1)
    gpu.slow = True
    upload(np.ones(4, np.float32))
    with pytest.raises(RuleError, match="the host writes pinned"):
        upload(np.ones(4, np.float32))


@pytest.mark.parametrize("error", [CalledProcessError(1, "gcc"), FileNotFoundError("gcc"), ImportError("no triton")])
def test_what_cannot_be_compiled_when_it_is_first_run_stays_as_it_is(error: Exception) -> None:
    """As with Triton, which compiles a launcher for its first kernel by the machine's own compiler."""

    def backend(graph: Any, given: Any) -> Callable[..., Any]:
        def run(*inputs: Any) -> Any:
            raise error

        return run

    def verb(x: Tensor) -> list[Tensor]:
        return [x + 1]

    assert fused(verb, lambda seed: [torch.ones(2)], backend) is verb  # type: ignore[arg-type]
