"""The TensorRT engine on a GPU that is not there (pretend_cuda.py): devices, streams, waits of the host, pinned memory.

Plans are hollow: they have the inputs and outputs of the real ones, in their types and shapes, and nothing between.
What they compute is held by test_tensorrt.py.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import rtseg
from rtseg.base.errors import EngineError
from rtseg.engine import PromptBatch, Readies, Recall
from rtseg.engine.picture import recorded
from rtseg.engine.picture.device_picture import DevicePicture
from rtseg.engine.picture.upload import DoubleUpload
from rtseg.engine.tensorrt import making
from rtseg.engine.tensorrt.engine import TensorRTEngine
from rtseg.engine.tensorrt.gpu import CudaGpu
from rtseg.engine.tensorrt.onnx import typed
from rtseg.engine.tensorrt.quantize import big_layers, calibrate
from rtseg.sam2 import Sam2
from rtseg.track import answer
from tests.engine.pretend_cuda import Pretended, RuleError, pretend_cuda

onnx = pytest.importorskip("onnx", reason="plans are ONNX graphs here")
pytest.importorskip("onnxruntime", reason="the stand-in imports it")

from tests.engine import fake_tensorrt  # noqa: E402
from tests.engine.hollow import MINI, RECIPE, hollow  # noqa: E402
from tests.shared import plain  # noqa: E402

PICTURE = np.zeros((48, 80, 3), np.uint8)


@pytest.fixture(scope="module")
def network() -> Sam2:
    torch.manual_seed(0)
    return Sam2(MINI, 64).eval()


@pytest.fixture()
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pretended]:
    with pretend_cuda() as gpu:
        monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt.fake(pretended=gpu))
        monkeypatch.setattr(fake_tensorrt.FakeGpu, "current", None)
        monkeypatch.setattr(making, "export", hollow)
        monkeypatch.setattr(
            making, "calibrate", lambda network, *_: dict.fromkeys(big_layers(typed(network, "fp32")), 1.0)
        )
        yield gpu


Open = Callable[..., TensorRTEngine]


@pytest.fixture()
def build(gpu: Pretended, network: Sam2, tmp_path: Path) -> Open:
    """Make and open an engine of the recipe with these changes."""

    def one(ready: bool = True, **changes: Any) -> TensorRTEngine:
        recipe, folder = replace(RECIPE, **changes), tmp_path / f"built{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        making.make(copy.deepcopy(network), recipe, folder, lambda _: None, [PICTURE, PICTURE])
        engine = making.open(copy.deepcopy(network), recipe, "hash", folder)
        assert isinstance(engine, TensorRTEngine)
        if ready:
            engine.ready(*PICTURE.shape[:2])
        gpu.waits.clear()
        return engine

    return one


def recalls_of(engine: TensorRTEngine, objects: int, memories: int = 2) -> list[Recall]:
    """What so many objects remember, written by the engine."""
    features = engine.encode_image(PICTURE)
    shape = (objects, 1, 16, 16)
    logits, scores = torch.zeros(shape, device=engine.device), torch.ones(objects, device=engine.device)
    written = [engine.remember(features, logits, scores, [False] * objects) for _ in range(memories)]
    pointers = torch.zeros(objects, 3, MINI.dim, device=engine.device)
    return [Recall([w[i] for w in written], (6, 0, 1)[:memories], pointers[i], (3, 1, 2)) for i in range(objects)]


def step(engine: TensorRTEngine, recalls: list[Recall]) -> list[Recall]:
    """A tracked frame as a tracker has it: the answer is read, and the newest memory is remembered."""
    decoded, written = engine.track(PICTURE, recalls)
    answer.read_answer(decoded, written, 0, engine.recipe)
    pairs = zip(recalls, written, strict=True)
    return [replace(recall, memories=[recall.memories[0], memory]) for recall, memory in pairs]


# What the host waits for


SLOW = pytest.mark.slow
KINDS = [("fp32", 1), ("bf16", 3)]
KINDS_TOO = [("fp32", 3), ("fp16", 1), ("int8", 1), ("fp8", 3)]


@pytest.mark.parametrize(("precision", "objects"), [*KINDS, *(pytest.param(*kind, marks=SLOW) for kind in KINDS_TOO)])
def test_a_tracked_frame_waits_once_and_where_it_is_read(
    precision: str, objects: int, build: Open, gpu: Pretended
) -> None:
    engine = build(precision=precision, max_objects=objects)
    recalls = step(engine, recalls_of(engine, objects))
    gpu.waits.clear()
    pinned, replays = gpu.pinned_allocations, gpu.replays
    for _ in range(10):
        recalls = step(engine, recalls)
    assert [wait.where.partition(":")[0] for wait in gpu.waits] == ["rtseg/engine/arrays.py"] * 10
    assert gpu.replays == replays + 10 and gpu.pinned_allocations == pinned


def test_answers_of_a_frame_stay_as_they_are(build: Open) -> None:
    engine = build(max_objects=2)
    recalls = recalls_of(engine, 2)
    (first, _), (second, _) = (engine.track(PICTURE, recalls) for _ in range(2))
    for field in fields(first):
        one, other = (getattr(answer, field.name).untyped_storage()._cdata for answer in (first, second))
        assert one != other, field.name


def test_a_caller_that_is_two_frames_ahead_waits_for_the_upload(build: Open, gpu: Pretended) -> None:
    """Nobody reads the answers of a device that is behind: the third picture has to wait for the first one's copy."""
    engine = build(max_objects=1)
    recalls = step(engine, recalls_of(engine, 1))
    gpu.waits.clear()
    gpu.slow = True
    for _ in range(5):
        engine.track(PICTURE, recalls)
    assert {wait.where.partition(":")[0] for wait in gpu.waits} == {"rtseg/engine/picture/upload.py"}


def test_no_verb_waits(build: Open, gpu: Pretended) -> None:
    engine = build()
    recalls = recalls_of(engine, 2)
    features = engine.encode_image(PICTURE)
    gpu.waits.clear()
    pinned = gpu.pinned_allocations
    conditioned = engine.attend(engine.encode_image(PICTURE), [recalls[0], None, recalls[1]])
    decoded = engine.decode(conditioned, features, PromptBatch.none(3))
    engine.remember(features, decoded.logits_b1hw, decoded.score_b, [True, False, False])
    engine.track(PICTURE, recalls)
    assert gpu.waits == [] and gpu.pinned_allocations == pinned
    engine.encode_image(np.zeros((64, 64, 3), np.uint8))
    assert gpu.waits, "the first picture of a size is not for nothing"


def test_a_wait_on_entering_is_counted(build: Open, gpu: Pretended, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, work = build(max_objects=1), CudaGpu.work
    recalls = recalls_of(engine, 1)
    gpu.waits.clear()

    @contextmanager
    def patient(self: CudaGpu) -> Iterator[None]:
        self._stream.synchronize()
        with work(self):
            yield

    monkeypatch.setattr(CudaGpu, "work", patient)
    step(engine, recalls)
    assert len(gpu.waits) == 2


# Everything that happens to a tracker


def follow(engine: Any, policy: str | None = None, sizes: tuple[tuple[int, int], ...] = ((48, 80),)) -> None:
    """Objects that come, are corrected, and go; each picture is of the next size."""
    tracker = plain(rtseg.Tracker(engine, policy))
    for t in range(11):
        picture_hwc = np.zeros((*sizes[t % len(sizes)], 3), np.uint8)
        mask_hw = np.zeros(picture_hwc.shape[:2], bool)
        mask_hw[10:30, 10:30] = True
        if t in (0, 5, 6):
            tracker.prompt(1, mask=mask_hw)
        if t == 2:
            tracker.prompt(2, box=(5, 5, 30, 30))
        if t == 7:
            tracker.prompt(3, points=[(16, 12, 1)])
        if t == 9:
            tracker.remove(2)
        tracker.step(picture_hwc)


@SLOW
@pytest.mark.parametrize("policy", ["fifo", "efp"])  # all of them: tests/track/test_waits.py
def test_every_policy_on_the_second_gpu(policy: str, build: Open) -> None:
    """While the first is current: nothing is put where torch would put it by itself."""
    engine = build(device="cuda:1", memory=replace(RECIPE.memory, policy=policy))
    assert engine.device == torch.device("cuda:1")
    follow(engine, policy)
    assert torch.cuda.current_device() == 0


@SLOW
def test_nothing_is_put_on_another_gpu(build: Open, gpu: Pretended) -> None:
    before = gpu.allocated[0].live
    engine = build(device="cuda:1")
    follow(engine)
    assert gpu.allocated[0].live == before and gpu.allocated[1].live > 0


@SLOW
def test_pictures_of_other_sizes(build: Open, gpu: Pretended) -> None:
    engine, replays = build(max_objects=3), gpu.replays
    follow(engine, sizes=((48, 80), (64, 64)))
    assert gpu.replays > replays  # of frames on which nobody prompts


@SLOW
def test_calibration_on_the_gpu(gpu: Pretended, network: Sam2) -> None:
    network = copy.deepcopy(network).bake()
    peaks = calibrate(network, 2, 3, "fp8", [PICTURE] * 2, "cuda:1")
    assert peaks and gpu.allocated[1].peak > 0 == gpu.allocated[0].peak
    assert not {p.device.type for p in network.parameters()} - {"cpu"}, "the caller's network is left where it was"


# Recorded before the feed


class Recordings:
    """How often something is recorded."""

    def __init__(self, engine: TensorRTEngine) -> None:
        self.made, self._capture = 0, engine._gpu.capture
        engine._gpu.capture = self.capture  # type: ignore[method-assign]

    def capture(self, enqueue: Callable[[], None]) -> Callable[[], None]:
        self.made += 1
        return self._capture(enqueue)


def test_ready_records_all_and_nothing_is_recorded_later(build: Open) -> None:
    engine = build(ready=False, max_objects=2)
    assert isinstance(engine, Readies)
    recordings, beats = Recordings(engine), []
    engine.ready(48, 80, lambda: beats.append(recordings.made))
    kinds = 2 * len(engine._shapes.slots)
    assert recordings.made == 1 + kinds and len(beats) == kinds  # the picture's, and each frame's
    assert beats == sorted(set(beats)), "between any two"
    for objects, memories in ((1, 1), (2, 2), (2, 3), (1, 3)):
        engine.track(PICTURE, recalls_of(engine, objects, memories))
    engine.ready(48, 80)
    assert recordings.made == 1 + kinds


def test_without_ready_all_is_recorded_at_the_first_tracked_frame(build: Open) -> None:
    engine = build(ready=False, max_objects=2)
    one, two = recalls_of(engine, 1), recalls_of(engine, 2)
    recordings = Recordings(engine)
    engine.track(PICTURE, one)
    assert recordings.made == 2 * len(engine._shapes.slots)
    engine.track(PICTURE, two)
    assert recordings.made == 2 * len(engine._shapes.slots)


def test_what_is_let_go_may_not_be_running(build: Open, gpu: Pretended) -> None:
    """A size that makes room for another has its last recording waited for, and only such a one."""
    engine, waits = build(max_objects=1), []
    recalls = recalls_of(engine, 1)
    for side in (40, 56, 64):
        gpu.waits.clear()
        engine.track(np.zeros((side, side, 3), np.uint8), recalls)
        waits.append(len(gpu.waits))
    assert list(engine._pictures._sizes) == [(56, 56), (64, 64)] and recorded.SIZES == 2
    assert waits[1] == waits[2] == waits[0] + 1


def test_a_prompt_pins_nothing_and_waits_for_nothing(build: Open, gpu: Pretended) -> None:
    engine = build(max_objects=1)
    features, pinned = engine.encode_image(PICTURE), gpu.pinned_allocations
    gpu.waits.clear()
    for prompts in (
        PromptBatch(np.zeros((1, 1, 2), np.float32), np.ones((1, 1), np.int64)),
        PromptBatch(
            np.zeros((1, 0, 2), np.float32), np.ones((1, 0), np.int64), None, np.ones((1, 1, 64, 64), np.float32)
        ),
    ):
        decoded = engine.decode(engine.attend(features, [None]), features, prompts)
        engine.remember(features, decoded.logits_b1hw, decoded.score_b, [True])
    assert gpu.pinned_allocations == pinned and gpu.waits == []


def by_turns(engine: TensorRTEngine) -> None:
    """One thread reads a memory on its stream and drops it; another takes its place, on another stream."""
    shape, one, other = (1, 1, 16, 16), torch.cuda.Stream(), torch.cuda.Stream()

    def remembered() -> Tensor:
        features = engine.encode_image(PICTURE)
        logits, score = torch.zeros(shape, device="cuda"), torch.ones(1, device="cuda")
        map_chw: Tensor = engine.remember(features, logits, score, [False])[0].map_chw
        return map_chw

    with torch.cuda.stream(one):
        remembered().sum()
    for _ in range(1 + engine._pool.free):
        with torch.cuda.stream(other):
            remembered()


def test_threads_on_streams_of_their_own(build: Open) -> None:
    engine = build(ready=False, max_objects=1)
    by_turns(engine)
    assert len(engine._gpu._callers) > 1  # type: ignore[attr-defined]


# Faults of each kind, put in


def test_a_stream_that_waits_for_the_latest_caller_alone(build: Open) -> None:
    engine = build(ready=False, max_objects=1)

    class Latest(dict[int, Any]):
        def __setitem__(self, key: int, value: Any) -> None:
            self.clear()
            super().__setitem__(key, value)

    engine._gpu._callers = Latest()  # type: ignore[attr-defined]
    with pytest.raises(RuleError):
        by_turns(engine)


def test_a_stream_that_does_not_wait_for_the_caller_s(
    build: Open, gpu: Pretended, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = build(max_objects=1)

    @contextmanager
    def early(self: CudaGpu) -> Iterator[None]:
        outside = torch.cuda.current_stream()
        with torch.cuda.stream(self._stream):
            yield
        outside.wait_stream(self._stream)

    features, given = engine.encode_image(PICTURE), torch.ones(1, 1, 16, 16, device="cuda")
    engine.remember(features, given + 1, torch.ones(1, device="cuda"), [False])
    monkeypatch.setattr(CudaGpu, "work", early)
    with pytest.raises(RuleError):
        engine.remember(features, given + 1, torch.ones(1, device="cuda"), [False])


def test_a_caller_that_does_not_wait_for_the_stream(
    build: Open, gpu: Pretended, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = build(max_objects=1)

    @contextmanager
    def hasty(self: CudaGpu) -> Iterator[None]:
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            yield

    monkeypatch.setattr(CudaGpu, "work", hasty)
    with pytest.raises(RuleError):
        engine.encode_image(PICTURE).top.sum()


def test_pinned_memory_that_is_written_too_early(build: Open, gpu: Pretended, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = build(max_objects=1)
    recalls = recalls_of(engine, 1)

    @contextmanager
    def blind(self: DoubleUpload, count: int | None = None) -> Iterator[Tensor]:
        host_u8, _ = self._hosts[0]
        yield host_u8
        self.device_u8.copy_(host_u8, non_blocking=True)

    for _ in range(4):
        engine.track(PICTURE, recalls)
    monkeypatch.setattr(DoubleUpload, "filling", blind)
    with pytest.raises(RuleError):
        for _ in range(2):
            engine.track(PICTURE, recalls)


def test_a_wait_in_a_recording(build: Open, gpu: Pretended, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = build(ready=False, max_objects=1)
    context = type(next(iter(engine._plans.values())).context(engine._buffers.for_objects(1, 2), engine._scratch))
    enqueue = context.enqueue

    def patient(self: Any) -> None:
        enqueue(self)
        engine._gpu.wait()

    monkeypatch.setattr(context, "enqueue", patient)
    with pytest.raises(RuleError, match="inside a capture"):
        engine.ready(48, 80)


def test_plans_on_the_default_stream(build: Open, gpu: Pretended) -> None:
    engine = build(ready=False, max_objects=1)
    engine._gpu.stream = 0
    with pytest.raises(EngineError, match="encode: .*on stream 0|encode.plan: no profile"):
        engine.encode_image(PICTURE)


def test_plans_on_another_device(build: Open, gpu: Pretended, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = build(max_objects=1)

    @contextmanager
    def anywhere(self: CudaGpu) -> Iterator[None]:
        with torch.cuda.device(1):
            yield

    monkeypatch.setattr(CudaGpu, "work", anywhere)
    with pytest.raises((EngineError, RuleError)):
        engine.encode_image(PICTURE)


def test_a_buffer_that_is_gone(build: Open, gpu: Pretended) -> None:
    """Plans know memory by address: a buffer that is made anew is another, and the old one must live."""
    engine = build(max_objects=1)
    recalls = recalls_of(engine, 1)
    engine._scratch = torch.zeros(64, dtype=torch.uint8, device="cuda")
    for context in engine._contexts.values():
        context._tensors.pop()
    with pytest.raises(RuleError):
        engine.track(PICTURE, recalls)


def test_facts_that_are_not_aligned(build: Open, gpu: Pretended, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT takes addresses at multiples of 256 bytes alone."""
    engine = build(ready=False, max_objects=1)
    facts = engine._buffers.facts
    facts._at = {name: at + 8 for name, at in facts._at.items()}
    engine._contexts.clear()
    engine._buffers._cuts.clear()
    with pytest.raises(EngineError, match=r"remember.plan: certain_b cannot be 1: "):
        engine.attend(engine.encode_image(PICTURE), recalls_of(engine, 1))


def test_the_facts_are_of_this_frame_and_of_each_object(build: Open) -> None:
    """What the host says, object by object; what it said of the frame before is gone."""
    engine = build(max_objects=2)
    facts, slots = engine._buffers.facts, engine._shapes.slots[-1]
    bytes_u8, pointers_pc = torch.zeros(facts.bytes, dtype=torch.uint8), torch.zeros(0, MINI.dim)
    memories: list[Any] = [None] * 3
    before = [Recall(memories, (6, 1, 2), pointers_pc, (4, 5, 6)), Recall(memories, (6, 1, 2), pointers_pc, (4, 5, 6))]
    now = [Recall(memories[:1], (6,), pointers_pc, (7,)), Recall(memories[:2], (6, 3), pointers_pc, (8, 9))]
    facts.write(bytes_u8, before, slots, [(7, 8, 9), (4, 5, 6)], (2, 3))
    facts.write(bytes_u8, now, slots, [(9,), (4, 5)], (6, 7))
    cut = facts.cut(bytes_u8, 2, slots)
    rest = [0] * (slots - 2)
    assert cut["places_bt"].tolist() == [[9, 0, *rest], [4, 5, *rest]] and cut["own_b"].tolist() == [6, 7]
    assert cut["slots_bt"].tolist() == [[6, 0, *rest], [6, 3, *rest]]
    assert cut["present_bt"].sum(1).tolist() == [1, 2] == cut["real_bp"].sum(1).tolist()
    assert cut["ages_bp"][:, :3].tolist() == [[7, 0, 0], [8, 9, 0]]


def test_a_picture_that_lies_on_the_gpu_does_not_come_up(
    build: Open, gpu: Pretended, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = build()
    recalls = recalls_of(engine, 1)
    picture: Any = DevicePicture(torch.zeros(*PICTURE.shape, dtype=torch.uint8, device=engine.device))
    sent: list[int | None] = []
    filling = DoubleUpload.filling

    def noted(self: DoubleUpload, count: int | None = None) -> Any:
        sent.append(count)
        return filling(self, count)

    monkeypatch.setattr(DoubleUpload, "filling", noted)
    gpu.waits.clear()
    for given in (picture, PICTURE):
        for _ in range(2):
            engine.track(given, recalls)
        engine.encode_image(given)
    head = engine._buffers.facts.bytes
    assert sent == [head] * 3 + [None] * 3 and not gpu.waits
