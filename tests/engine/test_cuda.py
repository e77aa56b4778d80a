"""The `cuda` engine: all of it but the capture runs here, on CPU tensors, and gives the masks of the reference."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import rtseg
from rtseg import Tracker
from rtseg.base.errors import EngineError
from rtseg.engine import Recall, Remembered, to_input
from rtseg.engine.base import Verbs
from rtseg.engine.cuda import CudaEngine, parts
from rtseg.engine.cuda import engine as cuda
from rtseg.engine.cuda.buffers import Facts, Inputs
from rtseg.engine.cuda.fuse import fused
from rtseg.engine.cuda.parts import compiling
from rtseg.engine.cuda.steps import Kind, Prepared
from rtseg.engine.recipe import MemorySettings, Recipe
from rtseg.engine.reference import TorchEngine
from rtseg.engine.static.graph import Step
from rtseg.engine.static.memory import PaddedRead
from rtseg.engine.static.pool import BLANK
from rtseg.sam2 import Sam2, get_preset, load_weights
from tests.shared import plain

SIZE = 128
UNWATCHED = {"guard_filter_fn": torch.compiler.skip_all_guards_unsafe}


def network(size: int = SIZE) -> Sam2:
    """The shipped network: what it says of a picture means something, so that masks can be compared."""
    net = Sam2(get_preset("nano"), size)
    load_weights(net, rtseg.engine.recipe.SHIPPED / "nano.safetensors")
    return net


def recipe(policy: str = "efp", precision: str = "fp32", size: int = SIZE) -> Recipe:
    return Recipe("nano", image_size=size, runtime="cuda", precision=precision, memory=MemorySettings(policy))


@pytest.fixture(scope="module")
def frames() -> list[rtseg.Frame]:
    return list(rtseg.open_source("synthetic:laparoscopy?seconds=0.88&seed=10006&width=320&height=240"))


@pytest.fixture(scope="module")
def engine() -> CudaEngine:
    return CudaEngine(network(), recipe(), "", "cpu")


@pytest.fixture(scope="module")
def reference() -> TorchEngine:
    return TorchEngine(network(), recipe(), "", "cpu")


Masks = dict[tuple[int, int], np.ndarray]  # (object, frame) to mask
Act = Callable[[Tracker, int, rtseg.Frame], None]


def show(ids: dict[int, int]) -> Act:
    """Give objects by their true masks, each on the frame that stands for it."""

    def act(tracker: Tracker, t: int, frame: rtseg.Frame) -> None:
        assert frame.truth_hw is not None
        for i in (i for i, first in ids.items() if first == t):
            tracker.prompt(i, mask=frame.truth_hw == i)

    return act


def come_and_go(tracker: Tracker, t: int, frame: rtseg.Frame) -> None:
    """Three objects; one joins late, one leaves, and one is corrected by a click, a box and a mask."""
    show({1: 0, 2: 0})(tracker, t, frame)
    if t == 4:
        tracker.prompt(3, box=(200, 150, 300, 230))
    if t == 9:
        tracker.remove(2)
    if t == 7:
        tracker.prompt(1, points=[(160, 120, 0)])
    if t == 11:
        tracker.prompt(1, box=(80, 60, 200, 200))
    if t == 13:
        show({1: 13})(tracker, t, frame)


def follow(engine: TorchEngine, frames: list[rtseg.Frame], act: Act, policy: str | None = None) -> Masks:
    tracker, found = plain(Tracker(engine, policy)), {}
    for t, frame in enumerate(frames):
        act(tracker, t, frame)
        masks = tracker.step(frame)
        found |= {(i, t): masks.mask(i) for i in masks.ids}
    return found


def agreement(a: Masks, b: Masks) -> float:
    """The lowest IoU of all objects on all frames; two empty masks agree."""
    assert a.keys() == b.keys()
    return min(float((a[k] & b[k]).sum() / max((a[k] | b[k]).sum(), 1)) if (a[k] | b[k]).any() else 1.0 for k in b)


@pytest.mark.parametrize("policy", ["efp", *(pytest.param(p, marks=pytest.mark.slow) for p in ("fifo", "efp-window"))])
@pytest.mark.parametrize("act", [show({1: 0}), come_and_go], ids=["one", "three"])
def test_masks_are_those_of_the_reference(frames: list[rtseg.Frame], policy: str, act: Act) -> None:
    ours = CudaEngine(network(), recipe(policy), "", "cpu")
    expected = follow(TorchEngine(network(), recipe(policy), "", "cpu"), frames, act)
    assert agreement(follow(ours, frames, act), expected) > 0.999
    assert sum(mask.any() for mask in expected.values()) > 0.8 * len(expected)


@pytest.mark.slow
def test_another_policy_than_the_recipes(engine: CudaEngine, reference: TorchEngine, frames: list[rtseg.Frame]) -> None:
    """A tracker's policy may look at more memories than the recipe's plan: there is a bucket for them."""
    assert engine.recipe.memory.policy == "efp"
    expected = follow(reference, frames, come_and_go, "fifo")
    assert agreement(follow(engine, frames, come_and_go, "fifo"), expected) > 0.999


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision(precision: str, reference: TorchEngine) -> None:
    frames = 3 if precision == "fp16" else 6  # fp16 is slow on a CPU
    # A clip on which rounding settles no tie, in whatever order a CPU adds.
    clip = list(rtseg.open_source(f"synthetic:laparoscopy?seconds={frames / 25}&seed=10048&width=320&height=240"))
    half, exact = CudaEngine(network(), recipe("efp", precision), "", "cpu"), reference
    expected = follow(exact, clip, show({1: 0, 2: 2}))
    assert agreement(follow(half, clip, show({1: 0, 2: 2})), expected) > 0.98
    assert half._static.attend.keys.weight.dtype == half._products != torch.float32


def wrong_rows(facts: Facts) -> Facts:
    return replace(facts, rows_bt=6 - facts.rows_bt)


def no_mask(facts: Facts) -> Facts:
    return replace(facts, present_bt=facts.present_bt | True, real_bp=facts.real_bp | True)


def next_slot(facts: Facts) -> Facts:
    return replace(facts, slots_bt=facts.slots_bt.roll(1, dims=1))


def other_slots(facts: Facts) -> Facts:
    return replace(facts, own_b=facts.own_b - 1)


@pytest.mark.parametrize("fault", [wrong_rows, no_mask, next_slot, other_slots])
def test_a_fault_is_noticed(
    engine: CudaEngine,
    frames: list[rtseg.Frame],
    fault: Callable[[Facts], Facts],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The negative control: memories that are mixed up, and padding that is attended to, show in the answers."""
    good, right = answers(engine, frames), Inputs.facts
    monkeypatch.setattr(Inputs, "facts", lambda *given: fault(right(*given)))
    bad = answers(engine, frames)
    assert max(float((a - b).norm() / b.norm()) for a, b in zip(bad, good, strict=True)) > 5e-4  # equal ones: 1e-4


def recall_of(memories: int, pointers: int, seed: int = 0) -> Recall:
    g = torch.Generator().manual_seed(seed)
    maps = torch.randn(memories, 64, SIZE // 16, SIZE // 16, generator=g)
    slots = (6, *range(memories - 1))
    return Recall.from_maps(maps, slots, torch.randn(pointers, 128, generator=g), tuple(range(pointers, 0, -1)))


def answers(engine: TorchEngine, frames: list[rtseg.Frame], recalls: list[Recall] | None = None) -> list[Tensor]:
    decoded, written = engine.track(frames[1].image_hwc, recalls or [recall_of(3, 2), recall_of(2, 5, 1)])
    maps = [w.map_chw for w in written]
    return [decoded.logits_b1hw, decoded.iou_b, decoded.score_b, decoded.pointer_bc, *maps]


@pytest.mark.parametrize(
    ("memories", "pointers"), [((1,), (1,)), ((5,), (16,)), ((3, 2), (2, 5)), ((5, 5), (16, 16)), ((8, 1), (19, 1))]
)
def test_a_tracked_frame_is_the_four_verbs(
    engine: CudaEngine, reference: TorchEngine, frames: list[rtseg.Frame], memories: tuple[int, ...], pointers: Any
) -> None:
    """From memories that another engine wrote (without keys), for few slots, full ones, and more than are usual."""
    recalls = [recall_of(t, p, seed) for seed, (t, p) in enumerate(zip(memories, pointers, strict=True))]
    for found, expected in zip(answers(engine, frames, recalls), answers(reference, frames, recalls), strict=True):
        assert found.shape == expected.shape and found.dtype == torch.float32
        assert float((found - expected).norm() / expected.norm()) < 1e-4


def prepared_for(engine: CudaEngine, objects: int, slots: int) -> Prepared:
    (found,) = (size.steps[Kind(objects, slots)] for size in engine._steps.sizes.values())
    return found


@torch.inference_mode()
def test_full_slots_need_no_mask(
    engine: CudaEngine, frames: list[rtseg.Frame], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the long run the graph without a mask is the one that runs, and says the same."""
    steady = [recall_of(5, 16)]
    assert engine._shapes.full_bank == (5, 16)
    full = answers(engine, frames, steady)
    prepared = prepared_for(engine, 1, 5)
    biases: list[Tensor | None] = []
    read = PaddedRead.__call__

    def watched(self: PaddedRead, layer: int, q_bnd: Tensor) -> Tensor:
        biases.append(self.bias)
        return read(self, layer, q_bnd)

    monkeypatch.setattr(PaddedRead, "__call__", watched)
    answers(engine, frames, steady)
    assert biases == [None] * engine.preset.attention_layers
    masked = prepared.masked()  # of what the buffers hold
    assert len(biases) == 2 * engine.preset.attention_layers and biases[-1] is not None
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(full[:4], masked[:4], strict=True))


@pytest.mark.parametrize("garbage", [1e4, -3.0])
@torch.inference_mode()
def test_what_lies_in_an_empty_slot_does_not_matter(
    engine: CudaEngine, frames: list[rtseg.Frame], garbage: float
) -> None:
    recalls = [recall_of(2, 3), recall_of(4, 1, 1)]
    before = [t.clone() for t in answers(engine, frames, recalls)]
    pool = engine._pool
    held = {pool.slot_of(m) for recall in recalls for m in recall.memories}
    for slot in {*range(len(pool.keys_slnd))} - held - {BLANK}:
        pool.keys_slnd[slot] = garbage
        pool.values_snm[slot] = garbage
    engine._pointers_bpd[0, 3:] = garbage
    assert all(torch.equal(a, b) for a, b in zip(answers(engine, frames, recalls), before, strict=True))
    slot = pool.slot_of(recalls[0].memories[1])
    assert slot is not None
    pool.keys_slnd[slot] = garbage  # the control: this one is held
    assert not all(torch.equal(a, b) for a, b in zip(answers(engine, frames, recalls), before, strict=True))


def test_an_object_leaves_nothing_behind(engine: CudaEngine, frames: list[rtseg.Frame]) -> None:
    """What was in a buffer may be infinite, and infinity times 0 is not a number: what falls empty reads as zeros."""
    expected = answers(engine, frames, [recall_of(2, 3)])
    broken = recall_of(5, 9)
    broken.memories[4].map_chw.fill_(float("inf"))
    broken.pointers_pc[8] = float("nan")
    answers(engine, frames, [broken])
    assert all(torch.equal(a, b) for a, b in zip(answers(engine, frames, [recall_of(2, 3)]), expected, strict=True))


def test_answers_are_the_callers(engine: CudaEngine, frames: list[rtseg.Frame]) -> None:
    """Nothing that is given out is written over later, as long as it is held."""
    recalls = [recall_of(5, 16), recall_of(5, 16, 1)]
    decoded, written = engine.track(frames[1].image_hwc, recalls)
    tensors = [decoded.logits_b1hw, decoded.pointer_bc, *(t for w in written for t in (w.map_chw, w.keys_lnd))]
    kept = [t.clone() for t in tensors]
    for seed in range(2, 12):
        engine.track(frames[9].image_hwc, [recall_of(5, 16, seed), recall_of(5, 16, seed + 1)])
    assert all(torch.equal(a, b) for a, b in zip(tensors, kept, strict=True))
    for w in written:
        assert w.map_chw.flatten(1).T.is_contiguous() and w.keys_lnd.is_contiguous()


def test_a_picture_is_prepared_on_the_device(engine: CudaEngine, frames: list[rtseg.Frame]) -> None:
    picture = frames[0].image_hwc[:, ::-1]  # not contiguous
    found, expected = engine.prepare(picture), to_input(np.ascontiguousarray(picture), SIZE)
    assert not torch.equal(found, expected) and (found - expected).abs().max() < 1.1 / (255 * 0.224)
    assert torch.equal(engine.encode_image(picture).top, engine._encode(found)[0].float())


def test_prompted_frames_bring_keys_too(engine: CudaEngine, frames: list[rtseg.Frame]) -> None:
    features = engine.encode_image(frames[0].image_hwc)
    logits = torch.randn(2, 1, SIZE // 4, SIZE // 4, generator=torch.Generator().manual_seed(0))
    for w in engine.remember(features, logits, torch.ones(2), [True, False]):
        assert w.keys_lnd is not None and w.keys_lnd.shape == (2, 64, 128)
        assert torch.equal(w.keys_lnd, engine._keys_of(Remembered(w.map_chw)))


def blank(size: int, memories: int = 1, objects: int = 1) -> tuple[np.ndarray, list[Recall]]:
    """A picture, and objects that remember nothing of note at 64 px."""
    recall = Recall.from_maps(torch.zeros(memories, 64, 4, 4), (6,) * memories, torch.zeros(1, 128), (1,))
    return np.zeros((size, size, 3), np.uint8), [recall] * objects


def test_what_the_recipe_foresees_is_captured_on_the_first_tracked_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another object, a correction or a loss then stops no video; a picture of another size does once."""
    plan = replace(recipe(size=64), max_objects=3, memory=MemorySettings("efp", spatial=2))
    engine = CudaEngine(network(64), plan, "", "cpu")
    made: list[Step] = []

    def counted(step: Step, disturb: object) -> Step:
        made.append(step)
        return step

    monkeypatch.setattr(engine._steps, "runner", counted)
    engine.track(*blank(60))
    assert len(made) == 3 * (2 + 1)  # two sizes of memory, and one that needs no mask
    assert list(engine._steps.sizes[60, 60].steps) == [Kind(n, t) for n in (3, 2, 1) for t in (5, 2)]
    for objects in (3, 1, 2):
        for memories in (1, 2, 5):
            engine.track(*blank(60, memories, objects))
    assert len(made) == 9
    engine.track(*blank(60, 1, 4))  # more than the recipe says: by the verbs
    assert len(made) == 9
    engine.track(*blank(70))
    assert len(made) == 2 * 9


def test_prepared_steps_are_bounded() -> None:
    engine = CudaEngine(network(64), replace(recipe(size=64), max_objects=1), "", "cpu")
    for size in (60, 70, 80, 70):
        engine.track(*blank(size))
    assert list(engine._steps.sizes) == [(80, 80), (70, 70)]


def test_all_is_captured_when_it_is_made_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a beat between any two captures; what was only tried before, as by a warm-up, is let go."""
    engine = CudaEngine(network(64), replace(recipe(size=64), max_objects=3), "", "cpu")
    engine.track(*blank(64))
    made: list[Step] = []
    monkeypatch.setattr(engine._steps, "runner", lambda step, disturb: (made.append(step), step)[1])
    beats: list[int] = []
    engine.ready(60, 80, lambda: beats.append(len(made)))
    assert beats == [2, 4, 6, 6] and list(engine._steps.sizes) == [(60, 80)]
    tracker = plain(Tracker(engine))
    for t in range(8):
        if t < 3:
            tracker.prompt(1 + t, box=(5, 5, 30, 30))
        tracker.step(np.zeros((60, 80, 3), np.uint8))
    assert len(made) == 6
    for size in ((70, 70), (60, 80)):  # sizes that were asked for are kept, two of them
        engine.ready(*size)
    assert list(engine._steps.sizes) == [(70, 70), (60, 80)] and len(made) == 12


@pytest.mark.parametrize("left", [0, 5], ids=["full", "nearly full"])
def test_a_full_pool_changes_no_mask(engine: CudaEngine, frames: list[rtseg.Frame], left: int) -> None:
    """Where no slot is free memories are copied, and a frame goes through the verbs."""
    expected = follow(engine, frames[:12], come_and_go)
    taken = engine._pool.fresh(engine._pool.free - left)
    assert engine._pool.free == left
    found = follow(engine, frames[:12], come_and_go)
    del taken
    assert agreement(found, expected) > 0.999 and engine._pool.free > 20


def test_two_trackers_and_a_fork(engine: CudaEngine, frames: list[rtseg.Frame]) -> None:
    """On one engine each sees what it sees alone, and all slots are given back."""
    acts = (show({1: 0}), show({2: 0}))
    alone = [follow(engine, frames[:10], act) for act in acts]
    free, trackers = engine._pool.free, [Tracker(engine) for _ in acts]
    for t, frame in enumerate(frames[:10]):
        for tracker, act, expected in zip(trackers, acts, alone, strict=True):
            act(tracker, t, frame)
            masks = tracker.step(frame)
            assert all(np.array_equal(masks.mask(i), expected[i, t]) for i in masks.ids)
    fork = trackers[0].fork([1], frames[7].seq)
    assert agreement({(1, 7): fork.step(frames[7]).mask(1)}, {(1, 7): alone[0][1, 7]}) > 0.9  # it remembers less
    trackers[0].adopt(fork)
    del trackers, tracker, fork
    assert engine._pool.free == free


def test_the_verbs_are_the_step_s_own(frames: list[rtseg.Frame]) -> None:
    """What is judged and measured verb by verb is what runs, to the last rounding; the reference rounds elsewhere."""
    ours = CudaEngine(network(), recipe(precision="bf16"), "", "cpu")
    recalls = [recall_of(3, 2), recall_of(5, 16, 1)]

    def values(made: tuple[Any, list[Remembered]]) -> list[Tensor]:
        d, written = made
        return [d.logits_b1hw, d.iou_b, d.score_b, d.pointer_bc, *(w.map_chw for w in written)]

    step = values(ours.track(frames[1].image_hwc, recalls))
    verbs = values(Verbs.track(ours, frames[1].image_hwc, recalls))
    other = values(TorchEngine(network(), recipe(precision="bf16"), "", "cpu").track(frames[1].image_hwc, recalls))
    assert all(v.dtype == torch.float32 for v in verbs)
    off, far = (
        [float((a - b).norm() / a.norm()) for a, b in zip(step, found, strict=True)] for found in (verbs, other)
    )
    logits, iou, score, *others = off
    assert max(logits, *others) < 1e-6 < 1e-3 < max(far)
    assert max(iou, score) < 2**-7  # numbers of bf16, which torch's CPU may sum in another order


def test_objects_with_and_without_memory(engine: CudaEngine, reference: TorchEngine, frames: list[rtseg.Frame]) -> None:
    features = reference.encode_image(frames[1].image_hwc)
    for recalls in ([recall_of(3, 2), None, recall_of(2, 5, 1)], [None]):
        found, expected = engine.attend(features, recalls), reference.attend(features, recalls)
        assert float((found - expected).norm() / expected.norm()) < 1e-4


@pytest.mark.slow
def test_two_threads_take_turns(engine: CudaEngine, frames: list[rtseg.Frame]) -> None:
    """Two trackers on one engine, each in a thread of its own, see what each sees alone."""
    acts = (show({1: 0}), show({2: 0}))
    alone = [follow(engine, frames, act) for act in acts]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda act: follow(engine, frames, act), acts))
    assert [agreement(found, expected) for found, expected in zip(together, alone, strict=True)] == [1.0, 1.0]


@pytest.mark.slow
def test_the_encoder_can_be_compiled_whole(engine: CudaEngine) -> None:
    """Dynamo finds one graph, without a break; inductor itself runs where the GPU is."""
    image = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    encoder = engine._static.encoder
    with torch.inference_mode():
        compiled = fused(encoder, lambda seed: [image], backend="eager")
        assert compiled is not encoder
        assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(compiled(image), encoder(image), strict=True))
        # A feed leaves a core to the picture; that must not make torch compile again.
        threads = torch.get_num_threads()
        try:
            torch.set_num_threads(threads + 1)
            with torch.compiler.set_stance("fail_on_recompile"):
                compiled(image)
        finally:
            torch.set_num_threads(threads)


def refuses(*_: Any) -> Tensor:
    raise RuntimeError("the compiler is not there")


def test_a_compiler_that_fails_or_errs_is_not_used(engine: CudaEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    image, encoder = torch.rand(1, 3, SIZE, SIZE), engine._static.encoder

    def compile_to(factor: float) -> Callable[..., Any]:
        return lambda verb, **_: lambda x: tuple(t * factor for t in verb(x))

    with torch.inference_mode():
        monkeypatch.setattr(torch, "compile", compile_to(1.1))
        assert fused(encoder, lambda seed: [image]) is encoder
        monkeypatch.setattr(torch, "compile", compile_to(float("nan")))
        assert fused(encoder, lambda seed: [image]) is encoder
        monkeypatch.setattr(torch, "compile", compile_to(1.0))
        assert fused(encoder, lambda seed: [image]) is not encoder
        monkeypatch.setattr(torch, "compile", lambda verb, **_: refuses)
        assert fused(encoder, lambda seed: [image]) is encoder


def test_a_near_tie_does_not_cost_a_compiled_verb(monkeypatch: pytest.MonkeyPatch) -> None:
    """Roundings may choose another mask on some inputs, but not on all."""
    monkeypatch.setattr(torch, "compile", lambda verb, **_: lambda x: [verb(x)[0] * (1 + (x[0] < 2))])
    inputs = [torch.full((3,), float(seed)) for seed in range(1, 4)]
    plain = lambda x: [x]  # noqa: E731
    assert fused(plain, lambda seed: [inputs[seed]]) is not plain
    assert fused(plain, lambda seed: [inputs[0]]) is plain


SMALL = 64
ORGANS = ((40, 0, 79, 40), (2, 30, 50, 59))  # boxes of two organs, which are large enough for that size


def compiled_engine(backend: str, objects: int) -> CudaEngine:
    """One whose step is compiled as on a GPU, but for the encoder."""
    made = CudaEngine(network(SMALL), replace(recipe(size=SMALL), max_objects=objects), "", "cpu")
    made._parts._compile = compiling(backend)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.skipif(
    shutil.which("g++") is None, reason="no C++ compiler"))])  # fmt: skip
def test_the_step_can_be_compiled_whole(frames: list[rtseg.Frame], backend: str) -> None:
    """Each part is one graph, for each kind of step its own, and gives the plain step's answers."""
    objects = 2 if backend == "eager" else 1
    ours, beats = compiled_engine(backend, objects), []
    ours.ready(60, 80, lambda: beats.append(len(ours._parts._compiled)))
    # Of one number of objects: attention with a mask and without, decode, remember.
    count = 4 * objects
    assert len(ours._parts._compiled) == count and f"{count} of {count} parts" in ours.description
    assert sorted(set(beats)) == list(range(count + 1))  # a sign of life before each
    pictures = [np.ascontiguousarray(frame.image_hwc[::4, ::4]) for frame in frames]
    plain = CudaEngine(network(SMALL), recipe(size=SMALL), "", "cpu")
    with torch.compiler.set_stance("fail_on_recompile"):
        masks = [tracked(engine, pictures, objects) for engine in (ours, plain)]
    assert np.mean(masks[0] == masks[1]) > 0.999 and 0.1 < np.mean(masks[0]) < 0.9


def tracked(engine: CudaEngine, pictures: list[np.ndarray], objects: int) -> np.ndarray:
    """The masks of objects that appear one after another."""
    tracker, found = plain(Tracker(engine)), []
    for t, picture in enumerate(pictures):
        if t < objects:
            tracker.prompt(1 + t, box=ORGANS[t])
        masks = tracker.step(picture)
        found += [masks.mask(i) for i in masks.ids]
    return np.stack(found)


def test_what_is_compiled_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """For each kind of step, not for each picture's size; nothing without being asked; not for many objects."""
    compiled: list[int] = []

    def compile_to(verb: Callable[..., Any], **_: Any) -> Callable[..., Any]:
        compiled.append(len(compiled))
        return partial(verb)

    monkeypatch.setattr(torch, "compile", compile_to)
    monkeypatch.setattr(parts, "MOST_OBJECTS", 1)
    ours = compiled_engine("inductor", 2)
    ours.track(np.zeros((30, 40, 3), np.uint8), [small_recall()])
    assert not compiled and ours.description.endswith("plain step")
    ours.ready(60, 80)
    assert len(compiled) == 4 + 1  # and the picture's resizing
    ours.ready(60, 80)
    assert len(compiled) == 5
    ours.ready(70, 80)
    assert len(compiled) == 6
    ours.track(np.zeros((50, 40, 3), np.uint8), [small_recall()])
    ours.track(np.zeros((60, 80, 3), np.uint8), [small_recall(), small_recall()])
    assert len(compiled) == 6


def small_recall() -> Recall:
    return Recall([Remembered(torch.zeros(64, 4, 4))], (6,), torch.zeros(1, 128), (1,))


def test_what_is_compiled_apart_is_not_mixed_up() -> None:
    """Without guards, torch would take what it compiled first for all that has the same code."""

    def times(factor: int) -> Callable[[Tensor], list[Tensor]]:
        return lambda x: [x * factor]

    with torch.inference_mode():
        made = [fused(times(n), lambda seed, n=n: [torch.ones(n)], backend="eager") for n in (2, 3)]  # type: ignore[misc]
        assert [verb(torch.ones(n))[0].tolist() for n, verb in zip((2, 3), made, strict=True)] == [[2] * 2, [3] * 3]
        mixed = [torch.compile(times(n), backend="eager", options=UNWATCHED) for n in (2, 3)]
        assert [verb(torch.ones(n))[0].tolist() for n, verb in zip((2, 3), mixed, strict=True)] != [[2] * 2, [3] * 3]


# Errors


def test_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EngineError, match='sees no CUDA device; see `rtseg doctor`, or use runtime = "cpu" or "auto"'):
        cuda.open(network(64), recipe(), "", None)


def test_a_gpu_that_torch_cannot_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Old GPU")

    def ones(*_: Any, **__: Any) -> Tensor:
        raise RuntimeError("CUDA error: no kernel image is available\nmore")

    monkeypatch.setattr(torch, "ones", ones)
    with pytest.raises(
        EngineError, match=r"Old GPU: torch .* cannot run on it \(CUDA error: no kernel image is available\)"
    ):
        cuda.check_device("fp32", "cuda:0")


def test_out_of_memory(frames: list[rtseg.Frame], monkeypatch: pytest.MonkeyPatch) -> None:
    small = CudaEngine(network(64), replace(recipe(size=64), max_objects=9), "", "cpu")

    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    expected = "out of GPU memory with image_size = 64, max_objects = 9; lower one of them in the recipe"
    monkeypatch.setattr(small, "_step", full)
    with pytest.raises(EngineError, match=expected):
        small.track(frames[0].image_hwc, [Recall([Remembered(torch.zeros(64, 4, 4))], (6,), torch.zeros(1, 128), (1,))])
    assert not small._steps.sizes  # what was captured gives its memory back
    monkeypatch.setattr(small, "_encode", full)
    with pytest.raises(EngineError, match=expected):
        small.encode_image(frames[0].image_hwc)


# On a GPU


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU: nothing can be captured")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_captured_graphs_give_the_masks_of_the_reference(frames: list[rtseg.Frame], precision: str) -> None:
    ours = cuda.open(network(256), recipe("efp", precision, 256), "", None)
    expected = follow(TorchEngine(network(256), recipe("efp", "fp32", 256), "", "cuda"), frames, come_and_go)
    assert agreement(follow(ours, frames, come_and_go), expected) > (0.999 if precision == "fp32" else 0.98)
    assert "captured" in ours.description
