"""The GPU that is not there: every rule is broken once here, and kept once, by code that differs in one line."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.engine.pretend_cuda import Pretended, RuleError, pretend_cuda


@pytest.fixture
def gpu() -> Iterator[Pretended]:
    with pretend_cuda() as gpu:
        yield gpu


def on(device: str = "cuda") -> Tensor:
    return torch.zeros(4, device=device)


def captured(work: Callable[[], Any], **kwargs: Any) -> tuple[torch.cuda.CUDAGraph, Any]:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, **kwargs):
        answer = work()
    return graph, answer


# -------------------------------------------------------------------- tensors
def test_tensors_are_where_they_were_put(gpu: Pretended) -> None:
    assert torch.cuda.is_available() and torch.cuda.device_count() == 2
    assert on().device == torch.device("cuda:0") == torch.zeros(4).to("cuda").device
    with torch.cuda.device(1):
        assert on().device == torch.device("cuda:1") == torch.as_tensor(np.zeros(2), device="cuda").device
    with torch.inference_mode():
        layer = nn.Linear(4, 2).to("cuda:1").to(torch.float16)
        assert layer(on("cuda:1").half())[None, 0].device == layer.weight.device == torch.device("cuda:1")
    assert torch.zeros(3).add_(1).tolist() == [1, 1, 1], "tensors of the host are real"


def test_views_are_of_their_bases_kind(gpu: Pretended) -> None:
    a = on()
    for _ in range(2):  # the second answer is remembered
        with torch.inference_mode():
            assert not a[1:].is_inference() and (a + 1).is_inference()


@pytest.mark.parametrize("other", ["cpu", "cuda:1"])
def test_devices_do_not_mix(gpu: Pretended, other: str) -> None:
    on() + on("cuda:0") + torch.tensor(1.0)
    with pytest.raises(RuntimeError, match="same device"):
        on() + on(other)
    with pytest.raises(RuntimeError, match="invalid device ordinal"):
        on("cuda:2")


def test_it_is_gone_afterwards() -> None:
    with pretend_cuda():
        on()
    assert not torch.cuda.is_available() and torch.Generator("cpu").device.type == "cpu"
    with pytest.raises((RuntimeError, AssertionError)):
        on()
    assert torch.zeros(2)[1:].numpy().tolist() == [0]


def test_addresses_tell_storages_apart(gpu: Pretended) -> None:
    a, b = on(), on()
    assert a[1:].data_ptr() == a.data_ptr() + 4 and abs(a.data_ptr() - b.data_ptr()) >= 16


def test_memory_is_counted_and_ends(gpu: Pretended) -> None:
    with pretend_cuda(memory_bytes=2**20) as small:
        held = torch.empty(2**19, dtype=torch.uint8, device="cuda:1")
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(2**20, dtype=torch.uint8, device="cuda:1")
        assert torch.cuda.mem_get_info(1) == (2**19, 2**20)
        del held
        assert (small.allocated[1].live, small.allocated[1].peak) == (0, 2**19)


def test_a_pool_keeps_the_most_that_was_alive_in_it(gpu: Pretended) -> None:
    def work() -> Tensor:
        for _ in range(3):
            torch.empty(2**20, dtype=torch.uint8, device="cuda").zero_()
        return torch.zeros(2**10, dtype=torch.uint8, device="cuda")

    pool = torch.cuda.graph_pool_handle()
    graphs = [captured(work, pool=pool) for _ in range(2)]
    assert gpu.allocated[0].live == 2**20 + 2**10, "the second graph works where the first one did"
    del graphs
    gc.collect()
    assert gpu.allocated[0].live == 0


def test_launches_are_not_views(gpu: Pretended) -> None:
    a = on()
    before = gpu.launches
    a[1:].view(3).unsqueeze(0), torch.empty_like(a)
    assert gpu.launches == before
    a.add_(1).mul(2)
    assert gpu.launches == before + 2


# -------------------------------------------------------------------- waits of the host
HOST_READS: dict[str, Callable[[Tensor], Any]] = {
    "item": lambda t: t[0].item(),
    "bool": lambda t: bool((t > 0).all()),
    "cpu": lambda t: t.cpu(),
    "list": lambda t: t.tolist(),
    "equal": lambda t: torch.equal(t, t + 1),
    "nonzero": lambda t: t.nonzero(),
    "mask": lambda t: t[t > 0],
    "into host": lambda t: torch.zeros(4).copy_(t),
    "pageable, non_blocking": lambda t: torch.zeros(4).copy_(t, non_blocking=True),
    "upload": lambda t: torch.tensor([1.0, 2.0], device=t.device),
    "list as index": lambda t: t[[0, 1]],
    "number into one element": lambda t: t.__setitem__(0, 4),
    "stream": lambda t: torch.cuda.current_stream().synchronize(),
    "device": lambda t: torch.cuda.synchronize(),
    "event": lambda t: torch.cuda.current_stream().record_event().synchronize(),
}


@pytest.mark.parametrize("name", HOST_READS)
def test_waits_are_noted_and_no_part_of_a_capture(gpu: Pretended, name: str) -> None:
    a = on()
    HOST_READS[name](a)
    assert len(gpu.waits) == 1 and gpu.waits[0].where.startswith("tests/engine/test_pretend_cuda.py:")
    with pytest.raises(RuleError, match="inside a capture"):
        captured(lambda: HOST_READS[name](a))
    captured(lambda: a + 1)  # the next one is not harmed


def test_what_does_not_wait(gpu: Pretended) -> None:
    a, pinned = on(), torch.zeros(4, pin_memory=True)
    a.copy_(pinned, non_blocking=True)
    pinned.copy_(a, non_blocking=True)
    a[1:] = 5
    a[1:] = torch.tensor(3.0)
    a.fill_(2).index_select(0, torch.zeros(2, dtype=torch.long, device="cuda"))
    torch.where(a > 0, 1.0, a)
    assert not gpu.waits
    done = torch.cuda.current_stream().record_event()
    done.synchronize()
    done.synchronize()
    assert len(gpu.waits) == 1, "the second time, the host knows"


@pytest.mark.parametrize("slow", [False, True])
def test_questions_are_answered_by_what_is_known(gpu: Pretended, slow: bool) -> None:
    gpu.slow, pinned, event = slow, torch.zeros(4, pin_memory=True), torch.cuda.Event()
    assert event.query(), "nothing was recorded"
    on().copy_(pinned, non_blocking=True)
    event.record()
    assert event.query() is not slow and torch.cuda.current_stream().query() is not slow
    if not slow:
        pinned.fill_(1)  # who was told that the copy is over may write
    event.synchronize()
    assert event.query() and len(gpu.waits) == slow


def test_the_host_is_told_what_the_test_says(gpu: Pretended) -> None:
    assert on().cpu().tolist() == [0, 0, 0, 0] and not torch.equal(on(), on())
    gpu.answers = lambda operation, t: 7 if operation == "_to_copy" else None
    assert on().cpu().tolist() == [7, 7, 7, 7] and on()[0].item() == 0


# -------------------------------------------------------------------- order between streams
ACCESSES: dict[str, tuple[Callable[[Tensor], Any], Callable[[Tensor], Any]]] = {
    "read after write": (lambda a: a.add_(1), lambda a: a + 1),
    "write after read": (lambda a: a + 1, lambda a: a.add_(1)),
    "write after write": (lambda a: a.zero_(), lambda a: a.zero_()),
}


@pytest.mark.parametrize("name", ACCESSES)
def test_streams_wait_for_each_other(gpu: Pretended, name: str) -> None:
    first, then = ACCESSES[name]
    for waits in (False, True):
        a, side = on(), torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        first(a)
        if waits:
            side.wait_event(torch.cuda.current_stream().record_event())
        with torch.cuda.stream(side):
            if waits:
                then(a)
                continue
            with pytest.raises(RuleError, match=r"on stream \d of cuda:0 .* on the default stream of cuda:0"):
                then(a)


def test_apart_bytes_are_apart(gpu: Pretended) -> None:
    a, side = on(), torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    a[:2].add_(1)
    with torch.cuda.stream(side):
        a[2:].add_(1)
        with pytest.raises(RuleError):
            a[1:].add_(1)


def test_the_host_carries_knowledge(gpu: Pretended) -> None:
    a, side = on(), torch.cuda.Stream()
    torch.cuda.current_stream().synchronize()
    later = on()
    with torch.cuda.stream(side):
        a + 1
        with pytest.raises(RuleError):  # made after the host had waited
            later + 1


def test_order_is_handed_on(gpu: Pretended) -> None:
    a, b, c = on(), torch.cuda.Stream(), torch.cuda.Stream()
    b.wait_stream(torch.cuda.current_stream())
    c.wait_stream(b)
    later = on()
    with torch.cuda.stream(c):
        a + 1
        with pytest.raises(RuleError):  # made after what was handed on
            later + 1


def test_blocking_streams_are_in_order_with_the_default_one(gpu: Pretended) -> None:
    a = on()
    with torch.cuda.stream(gpu.stream(blocking=True)):
        a.add_(1)
    a + 1
    with torch.cuda.stream(gpu.stream(blocking=False)):
        with pytest.raises(RuleError):
            a + 1


def test_work_by_address(gpu: Pretended) -> None:
    a, side = on(), torch.cuda.Stream()
    with pytest.raises(RuleError, match="plan on stream"):
        gpu.enqueue(side.cuda_stream, [a.data_ptr()], [], "plan")
    side.wait_stream(torch.cuda.current_stream())
    gpu.enqueue(side.cuda_stream, [a.data_ptr()], [], "plan")
    address = a.data_ptr()
    torch.cuda.synchronize()
    del a
    with pytest.raises(RuleError, match="no memory that is alive"):
        gpu.enqueue(side.cuda_stream, [address], [], "plan")


# -------------------------------------------------------------------- memory that goes away
@pytest.mark.parametrize("kept", ["", "joined", "recorded", "same stream"])
def test_memory_is_not_given_away_in_flight(gpu: Pretended, kept: str) -> None:
    a, side, main = on(), torch.cuda.Stream(), torch.cuda.current_stream()
    side.wait_stream(main)
    with torch.cuda.stream(main if kept == "same stream" else side):
        a + 1
    if kept == "joined":
        main.wait_stream(side)
    if kept == "recorded":
        a.record_stream(side)
    del a
    if kept:
        on()
        return
    with pytest.raises(RuleError, match="freed to the default stream of cuda:0 while stream"):
        on()


UPLOADED_FROM: dict[str, Callable[[Tensor], Any]] = {
    "numpy": lambda p: p.numpy().__setitem__(0, 1),
    "numpy's copy": lambda p: np.copyto(p[1:].numpy(), 1),
    "numpy's fill": lambda p: p.numpy()[2:].fill(1),
    "numpy's out": lambda p: np.add(1, 1, out=p.numpy()),
    "torch": lambda p: p.add_(1),
}
DOWNLOADED_TO: dict[str, Callable[[Tensor], Any]] = {
    "numpy": lambda p: p.numpy()[0],
    "numpy's sum": lambda p: p.numpy().sum(),
    "numpy's copy": lambda p: p.numpy().copy(),
    "numpy's comparison": lambda p: p.numpy() > 0,
    "torch": lambda p: p.clone(),
    "python": lambda p: p[0].item(),
}


@pytest.mark.parametrize("name", UPLOADED_FROM)
@pytest.mark.parametrize("waits", [False, True])
def test_pinned_memory_is_not_written_under_an_upload(gpu: Pretended, name: str, waits: bool) -> None:
    pinned, a = torch.zeros(4, pin_memory=True), on()
    a.copy_(pinned, non_blocking=True)
    assert pinned.numpy()[1:].sum() == 0, "to read it is no harm"
    if waits:
        torch.cuda.current_stream().record_event().synchronize()
        UPLOADED_FROM[name](pinned)
        return
    with pytest.raises(RuleError, match="the host writes pinned"):
        UPLOADED_FROM[name](pinned)


@pytest.mark.parametrize("name", DOWNLOADED_TO)
@pytest.mark.parametrize("waits", [False, True])
def test_pinned_memory_is_not_read_under_a_download(gpu: Pretended, name: str, waits: bool) -> None:
    pinned, a = torch.zeros(4, pin_memory=True), on()
    pinned.copy_(a, non_blocking=True)
    if waits:
        torch.cuda.current_stream().synchronize()
        DOWNLOADED_TO[name](pinned)
        return
    with pytest.raises(RuleError, match="the host reads pinned"):
        DOWNLOADED_TO[name](pinned)


def test_pinned_allocations_are_counted(gpu: Pretended) -> None:
    held = torch.zeros(4, pin_memory=True), torch.zeros(4).pin_memory(), on().to("cpu", non_blocking=True)
    assert all(t.is_pinned() for t in held) and not torch.zeros(4).is_pinned()
    assert gpu.pinned_allocations == 3
    with pytest.raises(RuleError, match="pinned memory"):
        captured(lambda: torch.zeros(4, pin_memory=True))


# -------------------------------------------------------------------- captures
def test_a_graph_is_one_launch_in_order(gpu: Pretended) -> None:
    a = on()
    graph, answer = captured(lambda: (a + 1) * 2)
    before = gpu.launches, len(gpu.waits)
    graph.replay()
    answer.clone()
    assert (gpu.launches - before[0], gpu.replays, len(gpu.waits)) == (1, 1, before[1])
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        with pytest.raises(RuleError, match="a graph's replay on stream"):
            graph.replay()
        side.wait_stream(torch.cuda.default_stream())
        graph.replay()
    with pytest.raises(RuleError, match="nothing waited"):
        answer.clone()


def forked(join: bool) -> Callable[[], Tensor]:
    a, side = on(), torch.cuda.Stream()

    def work() -> Tensor:
        main = torch.cuda.current_stream()
        side.wait_stream(main)
        with torch.cuda.stream(side):
            answer = a + 1
        if join:
            main.wait_stream(side)
        return answer

    return work


def test_a_capture_joins_what_it_forked(gpu: Pretended) -> None:
    captured(forked(True))
    with pytest.raises(RuleError, match="not joined"):
        captured(forked(False))


def test_a_capture_orders_its_own_streams(gpu: Pretended) -> None:
    with pytest.raises(RuleError, match="nothing waited"):
        captured(lambda: forked(False)() + 1)
    captured(lambda: forked(True)() + 1)


OUTSIDERS: dict[str, Callable[[Tensor, Any], Any]] = {
    "work on the default stream": lambda a, done: within(torch.cuda.default_stream(), lambda: a + 1),
    "work on another stream": lambda a, done: within(torch.cuda.Stream(), lambda: a + 1),
    "a wait for work outside": lambda a, done: torch.cuda.current_stream().wait_event(done),
    "the default stream waits": lambda a, done: torch.cuda.default_stream().wait_stream(torch.cuda.current_stream()),
    "a query": lambda a, done: done.query(),
    "a replay": lambda a, done: torch.cuda.CUDAGraph().replay(),
    "a capture": lambda a, done: captured(lambda: a + 1),
}


def within(stream: torch.cuda.Stream, work: Callable[[], Any]) -> None:
    with torch.cuda.stream(stream):
        work()


@pytest.mark.parametrize("name", OUTSIDERS)
def test_a_capture_is_joined_by_nothing_from_outside(gpu: Pretended, name: str) -> None:
    a, done = on(), torch.cuda.current_stream().record_event()
    with pytest.raises(RuleError, match="capture"):
        captured(lambda: OUTSIDERS[name](a, done))
    OUTSIDERS["a query"](a, done)


def test_a_capture_needs_a_stream_of_its_own(gpu: Pretended) -> None:
    with pytest.raises(RuleError, match="stream of its own"):
        captured(on, stream=torch.cuda.default_stream())


def test_captures_that_name_no_stream_are_on_that_of_the_first(gpu: Pretended) -> None:
    captured(on)
    with torch.cuda.device(1):
        side, a = torch.cuda.Stream(), on()
        captured(lambda: a + 1, stream=side)
        with pytest.raises(RuleError, match="not captured"):
            captured(lambda: a + 1)


def test_a_graph_lives_on_its_inputs(gpu: Pretended) -> None:
    a = on()
    graph, _ = captured(partial(torch.add, a, 1))
    graph.replay()
    del a
    gc.collect()
    with pytest.raises(RuleError, match="was freed"):
        graph.replay()


def test_a_graph_that_never_ran_has_no_answer(gpu: Pretended) -> None:
    graph, answer = captured(lambda: on() + 1)
    with pytest.raises(RuleError, match="never ran"):
        answer.clone()
    graph.replay()
    answer.clone()


def test_graphs_of_one_pool_overwrite_each_other(gpu: Pretended) -> None:
    pool, a = torch.cuda.graph_pool_handle(), on()
    for shared, fails in ((pool, True), (None, False)):
        one, answer = captured(lambda: a + 1, pool=shared)
        other, _ = captured(lambda: a + 2, pool=shared)
        one.replay()
        answer.clone()
        other.replay()
        if fails:
            with pytest.raises(RuleError, match="after another graph ran in its pool"):
                answer.clone()
        one.replay()
        answer.clone()


def test_a_pool_is_given_up_with_its_last_graph(gpu: Pretended) -> None:
    pool, a = torch.cuda.graph_pool_handle(), on()
    one, answer = captured(lambda: a + 1, pool=pool)
    other, _ = captured(lambda: a + 1, pool=pool)
    del one
    another, _ = captured(lambda: a + 1, pool=pool)
    del other, another
    with pytest.raises(RuleError, match="graphs are all gone"):
        captured(lambda: a + 1, pool=pool)
    del answer, _
    gc.collect()
    captured(lambda: a + 1, pool=pool)


WHOLE_DEVICE: dict[str, Callable[[Tensor], Any]] = {
    "synchronize": lambda a: torch.cuda.synchronize(),
    "empty_cache": lambda a: torch.cuda.empty_cache(),
    "a capture": lambda a: captured(lambda: a + 1),
}


@pytest.mark.parametrize("name", WHOLE_DEVICE)
@pytest.mark.parametrize("meanwhile", [False, True])
def test_what_concerns_a_device_disturbs_a_capture_of_any_thread(gpu: Pretended, name: str, meanwhile: bool) -> None:
    a = on()

    def elsewhere(work: Callable[[], Any]) -> None:
        def run() -> None:
            with gpu.here():
                work()

        with ThreadPoolExecutor(1) as pool:
            pool.submit(run).result()

    elsewhere(lambda: WHOLE_DEVICE[name](a))
    if not meanwhile:
        captured(lambda: elsewhere(lambda: torch.zeros(2, device="cuda:1").cpu()) or a + 1)
        return
    with pytest.raises(RuleError, match="is captured"):
        captured(lambda: elsewhere(lambda: WHOLE_DEVICE[name](a)))


@pytest.mark.parametrize("when", ["before", "inside"])
def test_a_graph_is_not_destroyed_inside_a_capture(gpu: Pretended, when: str) -> None:
    a = on()
    graphs = [captured(lambda: a + 1)[0]]
    if when == "before":
        graphs.clear()
    with nullcontext() if when == "before" else pytest.raises(RuleError, match="another graph was destroyed"):
        captured(lambda: graphs.clear() or a + 1)


@pytest.mark.parametrize("first", [True, False])
def test_the_first_capture_makes_torch_s_seeds(gpu: Pretended, first: bool) -> None:
    a = on()
    with torch.inference_mode(first):
        captured(lambda: a + 1)
    with torch.inference_mode():
        captured(lambda: a + 1)
    with pytest.raises(RuleError, match="outside inference mode") if first else nullcontext():
        captured(lambda: a + 1)


@pytest.mark.parametrize("product", [True, False])
@pytest.mark.parametrize("alone", [True, False])
def test_graphs_of_one_stream_share_the_memory_of_cublas(gpu: Pretended, product: bool, alone: bool) -> None:
    a, streams = torch.zeros(4, 4, device="cuda"), [torch.cuda.Stream(), torch.cuda.Stream()]
    kept, _ = captured(lambda: a @ a if product else a + a, stream=streams[0])
    other, _ = captured(lambda: a @ a, stream=streams[int(alone)])
    kept.replay()
    del other
    with pytest.raises(RuleError, match="workspaces of cuBLAS") if product and not alone else nullcontext():
        kept.replay()


def test_an_event_is_of_one_device(gpu: Pretended) -> None:
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(1))
    event.record(torch.cuda.Stream(1))
    with pytest.raises(RuleError, match="an event of cuda:1 recorded on the default stream of cuda:0"):
        event.record()


def test_an_upload_inside_a_graph_holds_pinned_memory(gpu: Pretended) -> None:
    pinned, a = torch.zeros(4, pin_memory=True), on()
    graph, _ = captured(lambda: a.copy_(pinned, non_blocking=True))
    pinned.numpy()[0] = 1
    graph.replay()
    with pytest.raises(RuleError, match="the host writes pinned"):
        pinned.numpy()[0] = 2
    torch.cuda.synchronize()
    pinned.numpy()[0] = 2


def test_an_empty_capture_is_noted(gpu: Pretended) -> None:
    captured(on)
    assert gpu.empty_graphs == 0
    captured(lambda: None)
    assert gpu.empty_graphs == 1
