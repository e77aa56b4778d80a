"""The TensorRT engine with a stand-in for TensorRT and the GPU (fake_tensorrt.py): what is built, run and refused.

What this cannot show is that TensorRT itself reads the graphs and is fast; see test_onnx.py for what is known of them.
"""

from __future__ import annotations

import builtins
import importlib.util
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import rtseg
from rtseg.config import MemoryPlan, Recipe
from rtseg.engine import Engine, Prompts, Recall, runtimes, to_input
from rtseg.engine.reference import TorchEngine
from rtseg.engine.tensorrt import making as tensorrt
from rtseg.engine.tensorrt.gpu import CudaGpu
from rtseg.engine.tensorrt.library import bindings, complaints
from rtseg.engine.tensorrt.onnx import Shapes
from rtseg.engine.tensorrt.plans import Plan, spans
from rtseg.errors import EngineError
from rtseg.sam2 import Preset, Sam2
from tests.engine.fake_gpu import FakeGpu

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


stand_in = script(Path(__file__).with_name("fake_tensorrt.py"))
check = script(Path(__file__).parents[2] / "bench" / "onnx_check.py")

# Two kinds of `attend`: 2 slots in the long run, 5 where a person keeps correcting.
RECIPE = Recipe(image_size=64, runtime="tensorrt", precision="fp32", max_objects=3, memory=MemoryPlan(spatial=2))
CLIP = "synthetic:laparoscopy?seconds=0.5&seed=3&width=320&height=240"
FRAMES = [(f.image_hwc, f.truth_hw) for f in rtseg.open_source(CLIP)]


MINI = Preset(
    "mini", 16, 1, (1, 1, 1, 1), (2,), (8, 4, 14, 7), 7,
    dim=64, memory_dim=32, attention_layers=1, attention_ffn=64, decoder_ffn=64, decoder_heads=2,
)  # fmt: skip


def mini(size: int = 64) -> Sam2:
    """A small network with random weights that always sees an object."""
    network: Sam2 = check.random_network(MINI, size)
    return network


def pretend(monkeypatch: Any, version: str = "11.4.0.106") -> Any:
    """TensorRT of this version and a GPU; the module, as the package will import it."""
    module = stand_in.fake(version)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    monkeypatch.setattr(tensorrt, "CudaGpu", FakeGpu)
    monkeypatch.setattr(tensorrt, "device_of", lambda runtime, device: device)
    return module


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


# What is built


def test_what_a_build_writes(built: tuple[Path, dict[str, Any], Any]) -> None:
    folder, facts, _ = built
    graphs = ["attend2", "attend5", "decode", "encode", "remember"]
    assert sorted(p.name for p in folder.iterdir()) == [f"{name}.plan" for name in graphs]
    assert [p.name for p in folder.parent.iterdir() if p != folder] == ["tensorrt-timings"]
    assert sorted(facts["onnx"]) == graphs and len(set(facts["onnx"].values())) == len(graphs)
    assert facts["tensorrt"] == "11.4.0.106" and facts["gpu"] == "a pretended GPU"
    assert (facts["compute_capability"], facts["driver"], facts["precision"]) == ("9.0", "1.0", "fp32")
    assert facts["flags"] == {
        "strongly_typed": True, "tf32": False, "slots": [2, 5], "pointers": 19, "profiles": [[1, 1], [2, 3]],
    }  # fmt: skip


def test_networks_are_strongly_typed_and_profiles_span_the_objects(built: tuple[Path, Any, Any]) -> None:
    for network, config in built[2].builds:
        assert network.flags == 1 << 1
        assert config.cleared == ["tf32"] and config.limits == {"workspace": 2**30 * 3 // 4}
    profiles = [[p.shapes for p in config.profiles] for _, config in built[2].builds if config.profiles]
    assert len(profiles) == len(built[2].builds) - 1  # the encoder knows no objects
    for alone, several in profiles:
        assert alone.keys() == several.keys()
        for name, (least, best, most) in alone.items():
            assert least == best == most and least[0] == 1
            low, optimum, high = several[name]
            assert low[1:] == least[1:] and (low[0], optimum[0], high[0]) in ((2, 3, 3), (1, 1, 1))
    assert all(any(high[0] == 3 for _, _, high in several.values()) for _, several in profiles)


@pytest.fixture()
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs that are no networks, where only the building is looked at."""
    import onnx

    value = onnx.helper.make_tensor_value_info("top", onnx.TensorProto.FLOAT, ["objects", 2])
    node = onnx.helper.make_node("Relu", ["top"], ["mid"])
    graph = onnx.helper.make_graph([node], "g", [value], [onnx.helper.make_empty_tensor_value_info("mid")])
    model = onnx.helper.make_model(graph)

    def export(static: object, shapes: Shapes, folder: Path, note: object) -> dict[str, Path]:
        (folder / "decode.onnx").write_bytes(model.SerializeToString())
        return {"decode": folder / "decode.onnx"}

    monkeypatch.setattr(tensorrt, "export", export)


Make = Callable[[], Path]


@pytest.fixture()
def make(quick: None, tmp_path: Path) -> Make:
    """Build into a folder of its own, beside the one before; the plan."""
    network = mini()

    def one() -> Path:
        folder = tmp_path / f"build{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        tensorrt.make(network, RECIPE, folder, lambda _: None, [])
        return folder / "decode.plan"

    return one


@pytest.mark.parametrize("version", ["10.1.0", "10.13.2.6", "11.4.0.106"])
def test_versions_10_and_11(version: str, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, version)
    assert make().stat().st_size


def test_the_timing_cache_is_read_again_and_what_does_not_fit_is_left(make: Make, trt: Any, tmp_path: Path) -> None:
    timings, seen = tmp_path / "tensorrt-timings", []
    for stored in (None, stand_in.TIMED, b"damaged", b"TIMINGS of another GPU"):
        if stored is not None:
            timings.write_bytes(stored)
        make()
        seen.append(trt.builds[-1][1].timings.data)
        assert timings.read_bytes() == stand_in.TIMED
    assert seen == [b"", stand_in.TIMED, b"", b""]
    assert not [p.name for p in tmp_path.iterdir() if p.name.startswith("tensorrt-timings.")]


def test_all_parser_errors_in_one_line(make: Make, trt: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import onnx

    nodes = [onnx.helper.make_node(kind, ["x"], [kind], name=kind) for kind in ("Det", "TfIdfVectorizer")]
    graph = onnx.helper.make_graph(nodes, "g", [], [])
    path = tmp_path / "encode.onnx"
    path.write_bytes(onnx.helper.make_model(graph).SerializeToString())
    with pytest.raises(EngineError, match="11.4.0.106 does not read encode.onnx: .* Det; .* TfIdfVectorizer; ") as e:
        tensorrt.build(path, 1, tmp_path / "t", FakeGpu())
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("Internal Error:\n no tactic", "could not build decode: Internal Error: no tactic; use another precision"),
        ("OutOfMemory: requested 9 GiB", "out of GPU memory, 1.0 GiB are free; lower image_size or max_objects"),
    ],
)
def test_a_build_that_fails(said: str, answer: str, make: Make, trt: Any) -> None:
    trt.say = said
    with pytest.raises(EngineError, match=answer) as e:
        make()
    assert "\n" not in str(e.value)


def test_a_precision_that_the_gpu_lacks(trt: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = {"gpu": "an old GPU", "compute_capability": "7.5", "driver": "1"}
    monkeypatch.setattr(FakeGpu, "facts", lambda self: old)
    with pytest.raises(EngineError, match=r'"fp8" needs compute capability 8.9, an old GPU has 7.5; use "fp16"'):
        tensorrt.make(mini(), replace(RECIPE, precision="fp8"), tmp_path, lambda _: None, [])


def test_eight_bits_need_pictures(trt: Any, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match='"int8" is calibrated on at least 2 frames, 0 given'):
        tensorrt.make(mini(), replace(RECIPE, precision="int8"), tmp_path, lambda _: None, [])


# What is run


def follow(engine: Engine, first: int = 1) -> list[rtseg.Masks]:
    """Everything that happens to a tracker: two tools, a correction, a late third, one that leaves."""
    tracker, answers = rtseg.Tracker(engine), []
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
    for prompts in (Prompts.none(3), Prompts(torch.full((3, 1, 2), 30.0), torch.ones(3, 1, dtype=torch.int64))):
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
    recall = Recall.of(torch.randn(2, 32, 4, 4, generator=g), (6, 0), torch.randn(2, 64, generator=g), (5, 1))
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
        found = engine._buffers.of(1)["image_1chw"]
        encoded = found.clone()
        found.zero_()
        assert torch.equal(engine.prepare(image), encoded)
        assert float((found - to_input(np.ascontiguousarray(image), 64)).abs().max()) < 1.1 / (255 * 0.224)
    assert list(engine._pictures._ways) == [(240, 320), (90, 120)]


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
    score = engine._buffers.of(1)["score_b"]

    def broken(context: Any, addresses: dict[str, int]) -> None:
        launch(context, addresses)
        score.fill_(torch.nan)

    monkeypatch.setattr(stand_in._Context, "launch", broken)
    with pytest.raises(EngineError, match=r"the plans give what is no number \(score_b.*\); use another precision"):
        engine.track(FRAMES[0][0], recalls)


def test_more_than_was_built_for(engine: Engine) -> None:
    recalls = recall_of(engine, 1)
    with pytest.raises(EngineError, match="4 objects, and the plans are built for up to 3; raise max_objects"):
        engine.track(FRAMES[0][0], recalls * 4)
    many = replace(recalls[0], memories=recalls[0].memories * 3, slots=(6, 5, 4, 3, 2, 1))
    with pytest.raises(EngineError, match="remembers 6 frames and 3 pointers, and the plans have room for 5 and 19"):
        engine.track(FRAMES[0][0], [many])


# One logger for the process; kernels by the number of objects


def test_one_logger_hears_everything(built: tuple[Path, Any, Any], trt: Any, engine: Engine, tmp_path: Path) -> None:
    """TensorRT keeps the first logger that lives; the reason why a later plan fails is said to that one."""
    first = trt.voice.logger
    folder = copied(built[0], tmp_path)
    damage(folder / "decode.plan", "edited")
    for _ in range(2):
        with pytest.raises(EngineError, match="decode.plan: .* cannot load it .*: Serialization assertion failed; run"):
            tensorrt.open(mini(), RECIPE, "", folder)
    assert trt.voice.logger is first
    with complaints() as said:
        assert said.logger is first and not said.lines


def test_a_logger_of_its_own_hears_nothing(engine: Engine, trt: Any, tmp_path: Path) -> None:
    """The control: what every plan had before."""
    heard: list[str] = []

    class Own(trt.ILogger):  # type: ignore[name-defined,misc]
        def log(self, severity: object, msg: str) -> None:
            heard.append(msg)

    assert trt.Runtime(Own()).deserialize_cuda_engine(b"no plan at all") is None
    assert heard == []


def test_each_thread_hears_its_own_and_others_are_heard_by_all(trt: Any) -> None:
    barrier = threading.Barrier(2)

    def listen(word: str) -> list[str]:
        with complaints() as said:
            barrier.wait(5)
            said.logger.log(trt.ILogger.ERROR, word)
            barrier.wait(5)
            if word == "one":
                speaker = threading.Thread(target=said.logger.log, args=(trt.ILogger.ERROR, "of\n a worker"))
                speaker.start()
                speaker.join()
            said.logger.log(stand_in.Severity.INFO, "chatter")
            barrier.wait(5)
            return list(said.lines)

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(listen, ("one", "two"))) == [["one", "of a worker"], ["two", "of a worker"]]


def test_one_object_has_kernels_of_its_own(engine: Any) -> None:
    engine.track(FRAMES[0][0], recall_of(engine, 3))
    found = {key: context._context.profile for key, context in engine._contexts.items()}
    assert {objects: profile for (_, objects), profile in found.items()} == {0: 0, 1: 0, 2: 1, 3: 1}


def test_a_wrong_profile_is_refused(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plan, "_profile_of", lambda self, used: 0)
    with pytest.raises(EngineError, match=r"cannot be 3 x .*: .* is outside of profile 0"):
        recall_of(engine, 3)


def test_kernels_are_chosen_for_one_and_for_what_the_recipe_expects() -> None:
    assert spans(1) == [(1, 1)] and spans(2) == [(1, 1), (2, 2)] and spans(8) == [(1, 1), (2, 8)]


# What is refused


def copied(built: Path, folder: Path) -> Path:
    for path in built.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    edited = {"truncated": data[: len(data) // 2], "edited": data[:-40] + b"?" + data[-39:], "empty": b""}
    path.unlink() if how == "missing" else path.write_bytes(edited[how])


@pytest.mark.parametrize("how", ["truncated", "edited", "empty", "missing"])
def test_a_damaged_plan(how: str, built: tuple[Path, Any, Any], trt: Any, tmp_path: Path) -> None:
    folder = copied(built[0], tmp_path)
    damage(folder / "decode.plan", how)
    match = "decode.plan: .*(cannot load it|cannot be read).*run rtseg build again"
    with pytest.raises(EngineError, match=match):
        tensorrt.open(mini(), RECIPE, "", folder)


def test_a_plan_of_another_version(built: tuple[Path, Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "10.9.0")
    with pytest.raises(EngineError, match=r"TensorRT 10.9.0 cannot load it .*: built by version 11.4.0.106; run rtseg"):
        tensorrt.open(mini(), RECIPE, "", built[0])


def test_plans_of_another_size(built: tuple[Path, Any, Any], trt: Any) -> None:
    engine = tensorrt.open(mini(128), replace(RECIPE, image_size=128), "", built[0])
    with pytest.raises(EngineError, match="image_1chw cannot be 1 x 3 x 128 x 128"):
        engine.encode_image(FRAMES[0][0])


def test_plans_of_another_precision(built: tuple[Path, Any, Any], trt: Any) -> None:
    engine = tensorrt.open(mini(), replace(RECIPE, precision="bf16"), "", built[0])
    with pytest.raises(EngineError, match="written_blnd is not what this version of rtseg expects"):
        engine.remember(engine.encode_image(FRAMES[0][0]), torch.zeros(1, 1, 16, 16), torch.ones(1), [False])


def test_nothing_built(trt: Any) -> None:
    with pytest.raises(EngineError, match=r"nothing is built for this recipe; run: rtseg build engines/x.toml"):
        tensorrt.open(mini(), replace(RECIPE, path=Path("engines/x.toml")), "", None)


def importing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """`import tensorrt` fails like this."""
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    real = builtins.__import__

    def fails(name: str, *rest: Any, **named: Any) -> Any:
        level = named.get("level", rest[3] if len(rest) > 3 else 0)
        if name == "tensorrt" and level == 0:
            raise error
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", fails)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            ModuleNotFoundError("No module named 'tensorrt'", name="tensorrt"),
            "not installed: pip install 'rtseg.tensorrt.'",
        ),
        (ImportError("libnvinfer.so.11: cannot open shared object file"), "libraries are not .libnvinfer.so.11.*_libs"),
        (ModuleNotFoundError("No module named 'tensorrt_bindings'", name="tensorrt_bindings"), "its libraries are not"),
    ],
)
def test_without_tensorrt(error: ImportError, line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    importing(monkeypatch, error)
    for act in (
        bindings,
        lambda: tensorrt.open(mini(), RECIPE, "", tmp_path),
        lambda: tensorrt.make(mini(), RECIPE, tmp_path, lambda _: None, []),
    ):
        with pytest.raises(EngineError, match=line):
            act()


def test_a_tensorrt_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "8.6.1")
    with pytest.raises(EngineError, match="TensorRT 8.6.1 is too old: 10.1 or newer is needed"):
        bindings()


@pytest.mark.parametrize(
    "error", [ModuleNotFoundError("", name="tensorrt"), ImportError("libnvinfer.so.11"), OSError("libnvinfer.so.11")]
)
def test_auto_does_not_choose_what_cannot_be_loaded(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    try:
        runtimes.tensorrt_loads.cache_clear()
        with monkeypatch.context() as patch:
            importing(patch, error)
            assert runtimes.best_runtime(Recipe()) == "cuda"
        runtimes.tensorrt_loads.cache_clear()
        pretend(monkeypatch)
        assert runtimes.best_runtime(Recipe()) == "tensorrt"
    finally:
        runtimes.tensorrt_loads.cache_clear()


def test_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EngineError, match='"tensorrt": torch .* sees no CUDA device; use "cpu", or see: rtseg doctor'):
        CudaGpu()


def test_a_gpu_that_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = object.__new__(CudaGpu)
    gpu.name = "cuda:0"
    monkeypatch.setattr(CudaGpu, "free_bytes", lambda self: 2**29)

    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(torch, "zeros", full)
    with pytest.raises(EngineError, match=r"buffer of 4 x 5 torch.float32: out of GPU memory, 0.5 GiB are free; lower"):
        gpu.zeros((4, 5), torch.float32)
