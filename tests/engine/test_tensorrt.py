"""The TensorRT engine with a stand-in for TensorRT and the GPU (fake_tensorrt.py): what is built, run and refused.

What this cannot show is that TensorRT itself reads the graphs and is fast; see test_onnx.py for what is known of them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import rtseg
from rtseg.base.errors import EngineError
from rtseg.engine import Engine, PromptBatch, Recall, to_input
from rtseg.engine.picture.device_picture import DevicePicture
from rtseg.engine.reference import TorchEngine
from rtseg.engine.tensorrt import making as tensorrt
from rtseg.sam2 import Remembered, Sam2
from tests.engine import fake_tensorrt as stand_in
from tests.engine.fake_gpu import FakeGpu
from tests.engine.hollow import MINI, RECIPE, pretend
from tests.shared import plain

pytest.importorskip("onnxruntime", reason="plans are run by ONNX Runtime here")
pytest.importorskip("onnxscript", reason="the exporter needs it")
pytestmark = pytest.mark.slow  # the exporter takes its time


def script(path: Path) -> ModuleType:
    """A file that is no part of a package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


check = script(Path(__file__).parents[2] / "bench" / "onnx_check.py")

CLIP = "synthetic:laparoscopy?seconds=0.5&seed=3&width=320&height=240"
FRAMES = [(f.image_hwc, f.truth_hw) for f in rtseg.open_source(CLIP)]


def mini(size: int = 64) -> Sam2:
    """A small network with random weights that always sees an object."""
    network: Sam2 = check.random_network(MINI, size)
    return network


@pytest.fixture()
def trt(monkeypatch: pytest.MonkeyPatch) -> Any:
    return pretend(monkeypatch)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any], ModuleType]]:
    """(folder, facts, module) of one build, which every test runs."""
    with pytest.MonkeyPatch.context() as patch:
        module = pretend(patch)
        folder = tmp_path_factory.mktemp("built") / "mini"
        folder.mkdir()
        facts = tensorrt.make(mini(), RECIPE, folder, lambda _: None, [])
        yield folder, facts, module


@pytest.fixture()
def engine(built: tuple[Path, Any, Any], trt: Any) -> Engine:
    return tensorrt.open(mini(), RECIPE, "hash", built[0])


@pytest.fixture()
def reference() -> Engine:
    return TorchEngine(mini(), replace(RECIPE, runtime="torch"), "hash", "cpu")


# What is run


def follow(engine: Engine, first: int = 1) -> list[rtseg.Masks]:
    """Everything that happens to a tracker: two tools, a correction, a late third, one that leaves."""
    tracker, answers = plain(rtseg.Tracker(engine)), []
    for t, (image_hwc, truth_hw) in enumerate(FRAMES):
        assert truth_hw is not None
        if t == 0:
            tracker.prompt(1, mask=truth_hw == first)
        if t == 2:
            tracker.prompt(2, mask=truth_hw == 2)
        if t in (5, 6):
            tracker.prompt(1, mask=truth_hw == first)  # conditioning memories: the larger `attend`
        if t == 7:
            tracker.prompt(3, points=[(160, 120, 1)])
        if t == 9:
            tracker.remove(2)
        answers.append(tracker.step(image_hwc))
    return answers


def worst_iou(one: list[rtseg.Masks], other: list[rtseg.Masks]) -> float:
    worst = 1.0
    for a, b in zip(one, other, strict=True):
        assert a.ids == b.ids
        for i in a.ids:
            union = (a.mask(i) | b.mask(i)).sum()
            worst = min(worst, float((a.mask(i) & b.mask(i)).sum() / union) if union else 1.0)
    return worst


def test_a_tracked_clip_is_the_reference_s(engine: Engine, reference: Engine) -> None:
    found, expected = follow(engine), follow(reference)
    assert all(0.01 < m.mask(1).mean() < 0.99 for m in expected)
    assert worst_iou(found, expected) > 0.999
    for a, b in zip(found, expected, strict=True):
        assert np.allclose(a.scores, b.scores, atol=1e-3) and np.allclose(a.ious, b.ious, atol=1e-3)
        assert np.abs(a.mask_logits_bhw - b.mask_logits_bhw).max() < 1e-3 * np.abs(b.mask_logits_bhw).max()
    assert worst_iou(follow(engine, 2), expected) < 0.5
    gpu = FakeGpu.current
    assert gpu.replays >= 6  # frames went through the recording, not verb by verb


def recall_of(engine: Engine, objects: int, seed: int = 0) -> list[Recall]:
    """Memories that the engine wrote of noise: two of each object."""
    g = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 255, (64, 64, 3), generator=g, dtype=torch.uint8).numpy()
    features = engine.encode_image(image)
    written = [
        engine.remember(
            features, 9 * torch.randn(objects, 1, 16, 16, generator=g), torch.ones(objects), [False] * objects
        )
        for _ in range(2)
    ]
    pointers = torch.randn(objects, 3, engine.preset.dim, generator=g)
    return [Recall([w[i] for w in written], (6, 0), pointers[i], (3, 1, 2)) for i in range(objects)]


def test_each_verb_is_the_reference_s(engine: Engine, reference: Engine) -> None:
    image, _ = FRAMES[0]
    recalls = recall_of(engine, 2)
    found, expected = engine.encode_image(image), reference.encode_image(image)
    close = {"rtol": 1e-3, "atol": 1e-3}
    for name in ("top", "mid", "fine"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), **close)
    mixed = [recalls[0], None, recalls[1]]
    conditioned = engine.attend(found, mixed)
    torch.testing.assert_close(conditioned, reference.attend(expected, mixed), **close)
    torch.testing.assert_close(engine.attend(found, [None]), reference.attend(expected, [None]), **close)
    for prompts in (PromptBatch.none(3), PromptBatch(torch.full((3, 1, 2), 30.0), torch.ones(3, 1, dtype=torch.int64))):
        a, b = engine.decode(conditioned, found, prompts), reference.decode(conditioned, expected, prompts)
        for name in ("logits_b1hw", "iou_b", "score_b", "pointer_bc"):
            torch.testing.assert_close(getattr(a, name), getattr(b, name), **close)
    logits, score = torch.randn(3, 1, 16, 16), torch.tensor([2.0, -1.0, 1.0])
    prompted = [True, False, False]
    pairs = zip(
        engine.remember(found, logits, score, prompted),
        reference.remember(expected, logits, score, prompted),
        strict=True,
    )
    for mine, theirs in pairs:
        torch.testing.assert_close(mine.map_chw, theirs.map_chw, **close)
        assert mine.keys_lnd is not None and theirs.keys_lnd is None
        assert mine.map_chw.flatten(1).T.is_contiguous()


def test_memories_without_keys_are_read_by_torch(engine: Engine, reference: Engine) -> None:
    g = torch.Generator().manual_seed(4)
    recall = Recall.from_maps(torch.randn(2, 32, 4, 4, generator=g), (6, 0), torch.randn(2, 64, generator=g), (5, 1))
    found, _ = engine.track(FRAMES[0][0], [recall])
    expected, _ = reference.track(FRAMES[0][0], [recall])
    torch.testing.assert_close(found.logits_b1hw, expected.logits_b1hw, rtol=1e-3, atol=1e-3)


def test_nothing_is_kept_between_calls(engine: Engine) -> None:
    recalls = recall_of(engine, 2)
    one, two = FRAMES[0][0], FRAMES[-1][0]

    def values(image: np.ndarray, seen: list[Recall]) -> list[torch.Tensor]:
        d, written = engine.track(image, seen)
        return [d.logits_b1hw, d.iou_b, d.score_b, d.pointer_bc, *(w.map_chw for w in written)]

    first = values(one, recalls)
    copies = [t.clone() for t in first]
    other = values(two, recalls[:1])
    engine.remember(engine.encode_image(two), torch.randn(2, 1, 16, 16), torch.ones(2), [True, True])
    again = values(one, recalls)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(first, copies, strict=True))  # answers are not written over
    assert not torch.equal(first[0][:1], other[0])


def test_a_memory_that_is_no_number_does_not_haunt_the_buffers(engine: Engine) -> None:
    """A masked slot hides any number, but 0 times NaN is NaN: what a bank has let go of must be gone."""
    good = recall_of(engine, 1)[0]
    before, _ = engine.track(FRAMES[0][0], [Recall(good.memories[:1], (6,), good.pointers_pc[:1], (3,))])
    broken = replace(good.memories[1], map_chw=torch.full_like(good.memories[1].map_chw, torch.nan))
    nan_pointers = torch.full_like(good.pointers_pc, torch.nan)
    poisoned, _ = engine.track(FRAMES[0][0], [Recall([good.memories[0], broken], (6, 0), nan_pointers, (3, 1, 2))])
    after, _ = engine.track(FRAMES[0][0], [Recall(good.memories[:1], (6,), good.pointers_pc[:1], (3,))])
    assert not torch.isfinite(poisoned.score_b).all() and torch.isfinite(before.score_b).all()
    assert torch.equal(before.logits_b1hw, after.logits_b1hw)


def test_pointers_are_forgotten_whichever_attend_wrote_them(engine: Engine) -> None:
    """The two `attend` have memories of their own, and share the pointers: what one left, the other must clear."""
    good = recall_of(engine, 1)[0]
    short = Recall(good.memories[:1], (6,), good.pointers_pc[:1], (3,))  # the attend with 2 slots
    before, _ = engine.track(FRAMES[0][0], [short])
    nan_pointers = torch.full_like(good.pointers_pc, torch.nan)
    longer = Recall([*good.memories, good.memories[0]], (6, 0, 1), nan_pointers, (3, 1, 2))  # the one with 5
    engine.track(FRAMES[0][0], [longer])
    after, _ = engine.track(FRAMES[0][0], [short])
    assert torch.equal(before.logits_b1hw, after.logits_b1hw)


def test_two_threads_take_turns(engine: Engine) -> None:
    """Two trackers on one engine, each in a thread of its own, see what each sees alone."""
    alone = [follow(engine, first) for first in (1, 2)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda first: follow(engine, first), (1, 2)))
    assert [worst_iou(found, expected) for found, expected in zip(together, alone, strict=True)] == [1.0, 1.0]


def test_pictures_of_any_size_come_up_as_bytes(engine: Any) -> None:
    """As `to_input` makes them, to one grey level; a few sizes are kept ready."""
    draw = np.random.default_rng(0)
    for height, width in ((64, 64), (90, 120), (40, 50), (64, 65), (240, 320), (90, 120)):
        image = draw.integers(0, 255, (height, width, 3), dtype=np.uint8)[:, ::-1]  # not contiguous
        engine.encode_image(image)
        found = engine._buffers.for_objects(1)["image_1chw"]
        encoded = found.clone()
        found.zero_()
        assert torch.equal(engine.prepare(image), encoded)
        for there, same in ((image, True), (image[::-1], False)):  # on the device already
            picture: Any = DevicePicture(torch.tensor(np.ascontiguousarray(there)))
            assert torch.equal(engine.prepare(picture), encoded) == same
        engine.prepare(image)
        assert float((found - to_input(np.ascontiguousarray(image), 64)).abs().max()) < 1.1 / (255 * 0.224)
    assert list(engine._pictures._sizes) == [(240, 320), (90, 120)]


def test_an_object_has_the_mask_it_would_have_alone(engine: Engine) -> None:
    recalls = recall_of(engine, 3)
    together, _ = engine.track(FRAMES[3][0], recalls)
    for i, recall in enumerate(recalls):
        alone, _ = engine.track(FRAMES[3][0], [recall])
        torch.testing.assert_close(together.logits_b1hw[i : i + 1], alone.logits_b1hw, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(together.logits_b1hw[0], together.logits_b1hw[1], atol=1e-2)


def test_an_empty_recording_is_noticed(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeGpu, "records_nothing", True)
    with pytest.raises(
        EngineError, match=r"does not answer to the picture \(top, conditioned_bdhw, score_b, tokens_bnm"
    ):
        engine.track(FRAMES[0][0], recall_of(engine, 1))


def test_plans_that_give_no_numbers_are_noticed(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer of NaN is unlike every other, and would pass for one that follows the picture."""
    recalls, launch = recall_of(engine, 1), stand_in._Context.launch
    score = engine._buffers.for_objects(1)["score_b"]

    def broken(context: Any, addresses: dict[str, int]) -> None:
        launch(context, addresses)
        score.fill_(torch.nan)

    monkeypatch.setattr(stand_in._Context, "launch", broken)
    with pytest.raises(EngineError, match=r"the plans return NaN or infinity \(score_b.*\); use another precision"):
        engine.track(FRAMES[0][0], recalls)


def test_more_than_was_built_for(engine: Engine) -> None:
    recalls = recall_of(engine, 1)
    with pytest.raises(EngineError, match="4 objects, and the plans are built for up to 3; raise max_objects"):
        engine.track(FRAMES[0][0], recalls * 4)
    many = replace(recalls[0], memories=recalls[0].memories * 3, slots=(6, 5, 4, 3, 2, 1))
    with pytest.raises(EngineError, match="remembers 6 frames and 3 pointers, and the plans have room for 5 and 19"):
        engine.track(FRAMES[0][0], [many])


# Where memories lie


def elsewhere(recall: Recall) -> Recall:
    """The same memories, as values of somebody else's."""
    return replace(recall, memories=[Remembered(m.map_chw.clone(), m.keys_lnd.clone()) for m in recall.memories])


def test_memories_lie_where_plans_read_them_and_make_room_again(engine: Any) -> None:
    free = engine._pool.free
    recalls = recall_of(engine, 2)
    assert engine._pool.free == free - 4
    _, written = engine.track(FRAMES[0][0], recalls)
    assert engine._pool.free == free - 6 and len({engine._pool.slot_of(w) for w in written}) == 2
    del recalls, written
    assert engine._pool.free == free


def test_memories_from_elsewhere_are_taken_in(engine: Any) -> None:
    recalls = recall_of(engine, 2)
    expected, _ = engine.track(FRAMES[0][0], recalls)
    guests, free = [elsewhere(recall) for recall in recalls], engine._pool.free
    for _ in range(2):
        found, _ = engine.track(FRAMES[0][0], guests)
        assert torch.equal(found.logits_b1hw, expected.logits_b1hw)
    assert engine._pool.free == free - 4
    swapped, _ = engine.track(FRAMES[0][0], guests[::-1])
    assert not torch.equal(swapped.logits_b1hw, expected.logits_b1hw)


def test_where_no_place_is_free_the_answers_are_the_same(engine: Any) -> None:
    recalls = recall_of(engine, 2)
    expected, _ = engine.track(FRAMES[0][0], recalls)
    held, guests = [], [elsewhere(recall) for recall in recalls]
    while engine._pool.free:
        held.append(recall_of(engine, 1))
    for given in (recalls, guests):
        found, written = engine.track(FRAMES[0][0], given)
        torch.testing.assert_close(found.logits_b1hw, expected.logits_b1hw, rtol=1e-5, atol=1e-5)
        before = [w.map_chw.clone() for w in written]
        engine.track(FRAMES[-1][0], given[::-1])  # what had no place of its own is a copy
        assert all(torch.equal(w.map_chw, b) for w, b in zip(written, before, strict=True))
