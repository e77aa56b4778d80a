"""The `cuda` engine on a GPU that is not there: devices, waits, launches, streams, captures, memory.

Numbers are not looked at here (test_cuda.py does, on a CPU); the stand-in raises where CUDA would, or would race.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from rtseg import Tracker
from rtseg.base.types import Frame
from rtseg.engine.arrays import to_host
from rtseg.engine.base import Readies
from rtseg.engine.cuda import CudaEngine, attention
from rtseg.engine.cuda.device import Turns
from rtseg.engine.memory_estimate import estimate_memory
from rtseg.engine.picture.device_picture import DevicePicture
from rtseg.engine.picture.upload import PinnedBuffer
from rtseg.engine.recipe import MemorySettings, Recipe
from rtseg.engine.reference import TorchEngine
from rtseg.engine.static import graph
from rtseg.engine.static.network import StaticNetwork
from rtseg.sam2 import Recall, Sam2, get_preset
from rtseg.track import POLICIES
from rtseg.track.cut_detector import SAMPLED
from tests.engine.pretend_cuda import Pretended, RuleError, pretend_cuda

SIZE, HEIGHT, WIDTH = 64, 48, 80
PICTURE = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
MASK = np.pad(np.ones((20, 30), bool), ((10, 18), (20, 30)))
# nano, with as few blocks as have every kind of operation
PRESET = replace(get_preset("nano-hiera"), stages=(1, 1, 1, 1), global_blocks=(2,), attention_layers=1)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pretended]:
    monkeypatch.setattr(graph, "WARM_UPS", 1)  # each is half a second here
    monkeypatch.setattr(attention, "REPEATS", 1)
    with pretend_cuda() as pretended:
        yield pretended


def opened(precision: str = "bf16", policy: str = "efp", objects: int = 1, device: str = "cuda:0") -> CudaEngine:
    recipe = Recipe("nano", image_size=SIZE, runtime="cuda", precision=precision, memory=MemorySettings(policy))
    return CudaEngine(Sam2(PRESET, SIZE), replace(recipe, max_objects=objects), "", device)


def clicked(engine: CudaEngine, frames: int = 20) -> Tracker:
    """A tracker with one object, whose memory is full."""
    tracker = Tracker(engine)
    tracker.prompt(1, points=[(9, 9, 1)])
    for _ in range(frames):
        tracker.step(PICTURE)
    return tracker


def recall_of(engine: CudaEngine, memories: int = 5, pointers: int = 16) -> Recall:
    """What an object recalls that was tracked by this engine."""
    features = engine.encode_image(PICTURE)
    logits = torch.zeros(1, 1, SIZE // 4, SIZE // 4, device=engine.device)
    written = [
        engine.remember(features, logits, torch.ones(1, device=engine.device), [False])[0] for _ in range(memories)
    ]
    pointers_pc = torch.zeros(pointers, PRESET.dim, device=engine.device)
    return Recall(written, (6, *range(memories - 1)), pointers_pc, tuple(range(pointers, 0, -1)))


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One entry for each graph that is captured."""
    made: list[str] = []
    init = graph.Captured.__init__

    def counted(self: graph.Captured, *given: Any) -> None:
        made.append("graph")
        init(self, *given)

    monkeypatch.setattr(graph.Captured, "__init__", counted)
    return made


def come_and_go(tracker: Tracker, gpu: Pretended) -> list[int]:
    """Three objects that come and go, corrections of each kind, and ten frames in a row that nobody touches.

    How often the host waited in each step.
    """
    waits = []
    for t in range(25):
        if t in (0, 12):
            tracker.prompt(1, points=[(9, 9, 1)])
        if t == 11:
            tracker.prompt(2, box=(5, 5, 30, 30))
            tracker.prompt(3, mask=MASK)
        if t == 23:
            tracker.remove(2)
            tracker.prompt(1, mask=MASK)
        gpu.waits.clear()
        masks = tracker.step(PICTURE)
        waits.append(len(gpu.waits))
        assert len(masks.ids) == len(tracker.ids)
    return waits


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp32", "fp16"])
def test_a_video_of_three_objects(gpu: Pretended, captures: list[str], precision: str) -> None:
    """Every tensor is on the engine's device, nothing is captured after `ready`, and no step waits more than once."""
    engine = opened(precision, objects=3)
    assert isinstance(engine, Readies)
    beats: list[int] = []
    engine.ready(HEIGHT, WIDTH, lambda: beats.append(len(captures)))
    assert len(captures) == 6 and beats == [2, 4, 6, 6]  # three numbers of objects, each with and without a mask
    to_host(torch.zeros(2**20, device="cuda:0"))  # where answers come down is large enough
    chosen, pinned = dict(engine._static.attend.attention.chosen), gpu.pinned_allocations
    tracker = Tracker(engine)
    assert max(come_and_go(tracker, gpu)) == 1
    assert len(captures) == 6 and engine._static.attend.attention.chosen == chosen
    assert gpu.pinned_allocations == pinned
    tensors = [*engine._static.buffers(), *engine._static.parameters(), *engine._network.parameters()]
    assert {str(t.device) for t in tensors} == {"cuda:0"}
    tracker.step(np.zeros((90, 70, 3), np.uint8))  # a picture of another size stops the video once
    assert len(captures) == 12


@pytest.mark.slow
@pytest.mark.parametrize("policy", [p for p in POLICIES if p != "efp"])
def test_every_policy(gpu: Pretended, policy: str) -> None:
    engine = opened(policy=policy, objects=3)
    engine.ready(HEIGHT, WIDTH)
    assert max(come_and_go(Tracker(engine), gpu)) == 1, gpu.waits


def test_a_tracked_frame_is_an_upload_a_graph_and_two_copies(gpu: Pretended) -> None:
    engine = opened()
    engine.ready(HEIGHT, WIDTH)
    recall, written = recall_of(engine), []
    for _ in range(4):
        gpu.waits.clear()
        launches, replays, pinned = gpu.launches, gpu.replays, gpu.pinned_allocations
        written = engine.track(PICTURE, [recall])[1]
        # The picture with its facts up; the pointers into their buffer; masks, IoU, score and pointer out of it.
        assert (gpu.launches - launches, gpu.replays - replays) == (3, 1)
        assert not gpu.waits and gpu.pinned_allocations == pinned
        assert engine._pool.slot_of(written[0]) is not None


@pytest.mark.slow
def test_what_a_person_prompts_pins_nothing_and_does_not_wait(gpu: Pretended) -> None:
    engine = opened(objects=2)
    engine.ready(HEIGHT, WIDTH)
    tracker = clicked(engine, 3)
    to_host(torch.zeros(2**20, device="cuda:0"))  # where answers come down is large enough
    for prompt in ({"points": [(9, 9, 1)]}, {"box": (5, 5, 30, 30)}, {"mask": MASK}):
        for object_id in (1, 2):
            pinned = gpu.pinned_allocations
            gpu.waits.clear()
            tracker.prompt(object_id, **prompt)
            tracker.step(PICTURE)
            assert len(gpu.waits) <= 1 and gpu.pinned_allocations == pinned, gpu.waits


def test_the_reference_waits_once_a_step_too(gpu: Pretended) -> None:
    engine = TorchEngine(Sam2(PRESET, SIZE), Recipe("nano", image_size=SIZE, precision="bf16"), "", "cuda:1")
    tracker = Tracker(engine)
    for prompt in ({"points": [(9, 9, 1)]}, {}, {"mask": MASK}):
        if prompt:
            tracker.prompt(1 + len(tracker.ids), **prompt)
        gpu.waits.clear()
        tracker.step(PICTURE)
        assert len(gpu.waits) == 1


@pytest.mark.slow
def test_a_warm_up_is_let_go(gpu: Pretended) -> None:
    engine = opened()
    engine.track(np.zeros((SIZE, SIZE, 3), np.uint8), [recall_of(engine)])
    assert list(engine._steps.sizes) == [(HEIGHT, WIDTH), (SIZE, SIZE)]
    engine.ready(90, 70)
    assert list(engine._steps.sizes) == [(90, 70)]
    engine.ready(HEIGHT, WIDTH)
    engine.ready(70, 90)  # sizes that were asked for stay, two of them
    assert list(engine._steps.sizes) == [(HEIGHT, WIDTH), (70, 90)]
    gc.collect()  # what the stand-in keeps of graphs that are gone
    before = gpu.allocated[0].live
    engine.ready(HEIGHT + 2, WIDTH)
    assert list(engine._steps.sizes) == [(70, 90), (HEIGHT + 2, WIDTH)]
    gc.collect()
    assert gpu.allocated[0].live - before < 2 * 90 * 70 * 3


@pytest.mark.slow
def test_an_engine_on_the_second_gpu(gpu: Pretended, captures: list[str]) -> None:
    engine = opened(device="cuda:1")
    before = gpu.allocated[0].peak
    engine.ready(HEIGHT, WIDTH)
    tracker = clicked(engine, 8)
    assert torch.cuda.current_device() == 0 and gpu.allocated[0].peak == before == 0
    assert tracker.ids == (1,) and "cuda:1" in engine.description
    with torch.cuda.device(1):
        tracker.step(PICTURE)
    assert len(captures) == 2


@pytest.mark.parametrize("precision", ["bf16", *(pytest.param(p, marks=pytest.mark.slow) for p in ("fp32", "fp16"))])
def test_the_bytes_that_are_foretold_are_allocated(gpu: Pretended, precision: str) -> None:
    recipe = Recipe("nano-hiera", image_size=320, runtime="cuda", precision=precision, max_objects=4)
    engine = CudaEngine(Sam2(get_preset("nano-hiera"), 320), recipe, "", "cuda:0")
    engine.encode_image(np.zeros((720, 1280, 3), np.uint8))
    told = estimate_memory(recipe, 720, 1280).parts
    foretold = sum(told[name] for name in ("weights", "tables", "memories", "pictures"))
    assert 0.95 * foretold < gpu.allocated[0].live < 1.05 * foretold, told
    assert told["memories"] == engine._pool.keys_slnd.nbytes + engine._pool.values_snm.nbytes


def test_what_is_compiled_is_so_before_it_is_captured(gpu: Pretended, captures: list[str]) -> None:
    """The parts of a step are tried on inputs that lie on the device; after `ready` none is, whatever the picture."""
    engine, compiled = opened(), []

    def compile_to(verb: Callable[..., Any], draw: Callable[[int], Any]) -> Callable[..., Any]:
        compiled.append(len(captures))
        inputs = draw(0)
        assert {str(t.device) for t in inputs} == {"cuda:0"}
        verb(*inputs)
        return partial(verb)

    engine._parts._compile = compile_to
    engine.ready(HEIGHT, WIDTH)
    assert compiled == [0] * 5 and len(captures) == 2 and "4 of 4 parts" in engine.description
    tracker = clicked(engine, 6)
    gpu.waits.clear()
    tracker.step(PICTURE)
    assert len(gpu.waits) == 1 and len(captures) == 2
    tracker.step(np.zeros((90, 70, 3), np.uint8))
    assert len(compiled) == 5


# Streams


@pytest.mark.slow
def test_two_callers_on_streams_of_their_own(gpu: Pretended, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slot that the host gave back, and every buffer, is written again only after those who still read it."""
    engine = opened()
    engine.ready(HEIGHT, WIDTH)
    recall, streams = recall_of(engine), [torch.cuda.Stream() for _ in range(2)]
    for stream in streams:
        stream.wait_stream(torch.cuda.current_stream())

    def by_turns() -> None:
        for stream in streams * 2:
            with torch.cuda.stream(stream):
                engine.track(PICTURE, [recall])

    by_turns()
    monkeypatch.setattr(Turns, "_follow", lambda *_: None)
    with pytest.raises(RuleError):
        by_turns()


def test_what_a_caller_reads_after_its_turn_is_not_written_over(
    gpu: Pretended, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One caller reads a memory after its turn, and lets go of it; the other's second turn comes after that, too."""
    engine = opened()
    engine.ready(HEIGHT, WIDTH)
    recall, (one, other) = recall_of(engine), [torch.cuda.Stream() for _ in range(2)]
    for stream in (one, other):
        stream.wait_stream(torch.cuda.current_stream())

    def by_turns() -> None:
        with torch.cuda.stream(one):
            _, (written,) = engine.track(PICTURE, [recall])
        with torch.cuda.stream(other):
            engine.track(PICTURE, [recall])
        with torch.cuda.stream(one):
            one.wait_stream(other)  # the rules know the pool as one piece of memory
            written.map_chw.sum()
            del written
        with torch.cuda.stream(other):
            engine.track(PICTURE, [recall])

    by_turns()
    by_turns()
    before: list[torch.cuda.Stream] = []

    def follow_the_turn_before(_: Turns, stream: torch.cuda.Stream) -> None:
        for latest in before[-1:]:
            stream.wait_stream(latest)
        before.append(stream)

    monkeypatch.setattr(Turns, "_follow", follow_the_turn_before)
    with pytest.raises(RuleError):
        by_turns()


# Negative controls


def test_tables_are_made_where_the_network_is(gpu: Pretended) -> None:
    static = StaticNetwork(Sam2(PRESET, SIZE).to("cuda:1"))
    assert {str(t.device) for t in (*static.buffers(), *static.parameters())} == {"cuda:1"}


def test_a_table_left_on_the_cpu_is_noticed(gpu: Pretended) -> None:
    engine = opened()
    engine._static.attend.position = torch.zeros(engine._static.attend.position.shape)
    with pytest.raises(RuntimeError, match="cpu"):
        clicked(engine, 2)


def in_the_step(engine: CudaEngine, monkeypatch: pytest.MonkeyPatch, act: Callable[[torch.Tensor], object]) -> None:
    drawn = engine._static.decode.drawn
    monkeypatch.setattr(engine._static.decode, "drawn", lambda *x: (act(x[0]), drawn(*x))[1])


@pytest.mark.parametrize(
    "act",
    [
        pytest.param(lambda x: x.sum().item(), id="item"),
        pytest.param(lambda x: x[x > 0], id="boolean index"),
        pytest.param(lambda x: x.cpu(), id="cpu", marks=pytest.mark.slow),
        pytest.param(lambda x: torch.tensor([1.0, 2.0], device=x.device), id="upload", marks=pytest.mark.slow),
        pytest.param(lambda x: torch.cuda.synchronize(), id="synchronize", marks=pytest.mark.slow),
    ],
)
def test_a_wait_within_the_step_is_noticed(
    gpu: Pretended, monkeypatch: pytest.MonkeyPatch, act: Callable[[torch.Tensor], object]
) -> None:
    engine = opened()
    in_the_step(engine, monkeypatch, act)
    with pytest.raises(RuleError):
        engine.ready(HEIGHT, WIDTH)


def test_pinned_memory_that_is_written_too_early_is_noticed(gpu: Pretended, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = opened()
    engine.ready(HEIGHT, WIDTH)
    recall = recall_of(engine)
    for _ in range(4):
        engine.track(PICTURE, [recall])
    monkeypatch.setattr(PinnedBuffer, "wait", lambda _: None)
    with pytest.raises(RuleError):
        for _ in range(4):
            engine.track(PICTURE, [recall])


def test_turns_are_what_orders_streams(gpu: Pretended) -> None:
    turns = Turns(torch.device("cuda:1"))
    with turns.turn():
        assert torch.cuda.current_device() == 1
    assert torch.cuda.current_device() == 0


def test_a_picture_that_lies_on_the_gpu_is_tracked_with_one_wait(gpu: Pretended) -> None:
    engine = opened()
    tracker = clicked(engine)
    there: Any = DevicePicture(torch.zeros(*PICTURE.shape, dtype=torch.uint8, device=engine.device), SAMPLED)
    for _ in range(2):
        gpu.waits.clear()
        tracker.step(Frame(there, seq=100))
    assert len(gpu.waits) <= 1, gpu.waits
