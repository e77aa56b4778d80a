"""How plans are made, loaded, chosen and refused, with a stand-in for TensorRT (fake_tensorrt.py) and hollow plans.

What plans compute is held by test_tensorrt.py.
"""

from __future__ import annotations

import builtins
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

from rtseg.base.errors import EngineError
from rtseg.engine import Engine, runtimes
from rtseg.engine.attention_shapes import scores_bytes
from rtseg.engine.memory_estimate import estimate_memory
from rtseg.engine.recipe import Recipe
from rtseg.engine.tensorrt import making as tensorrt
from rtseg.engine.tensorrt.gpu import CudaGpu
from rtseg.engine.tensorrt.library import bindings, complaints
from rtseg.engine.tensorrt.onnx import Shapes
from rtseg.engine.tensorrt.plans import Plan, build, spans
from rtseg.sam2 import PRESETS, Sam2
from tests.engine.fake_gpu import FakeGpu

pytest.importorskip("onnxruntime", reason="the stand-in imports it")
pytest.importorskip("onnx", reason="plans are ONNX graphs here")

from tests.engine import fake_tensorrt as stand_in
from tests.engine.hollow import MINI, RECIPE, hollow, pretend

PICTURE = np.zeros((48, 80, 3), np.uint8)


def mini(size: int = 64) -> Sam2:
    return Sam2(MINI, size).eval()


@pytest.fixture()
def trt(monkeypatch: pytest.MonkeyPatch) -> Any:
    return pretend(monkeypatch)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any], ModuleType]]:
    """(folder, facts, module) of one build, which every test runs."""
    with pytest.MonkeyPatch.context() as patch:
        module = pretend(patch)
        patch.setattr(tensorrt, "export", hollow)
        folder = tmp_path_factory.mktemp("built") / "mini"
        folder.mkdir()
        facts = tensorrt.make(mini(), RECIPE, folder, lambda _: None, [])
        yield folder, facts, module


@pytest.fixture()
def engine(built: tuple[Path, Any, Any], trt: Any) -> Engine:
    return tensorrt.open(mini(), RECIPE, "hash", built[0])


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
        build(path, 1, tmp_path / "t", FakeGpu())
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
        assert said.trt_logger is first and not said.lines


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
            said.trt_logger.log(trt.ILogger.ERROR, word)
            barrier.wait(5)
            if word == "one":
                speaker = threading.Thread(target=said.trt_logger.log, args=(trt.ILogger.ERROR, "of\n a worker"))
                speaker.start()
                speaker.join()
            said.trt_logger.log(stand_in.Severity.INFO, "chatter")
            barrier.wait(5)
            return list(said.lines)

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(listen, ("one", "two"))) == [["one", "of a worker"], ["two", "of a worker"]]


def test_one_object_has_kernels_of_its_own(engine: Any) -> None:
    kinds = [(graph, objects) for graph in ("attend5", "decode", "remember") for objects in (1, 2, 3)]
    found = {kind: engine._context(*kind, 5)._context.profile for kind in kinds}
    assert found == {(graph, objects): int(objects > 1) for graph, objects in kinds}
    assert engine._context("encode", 1, 0)._context.profile == 0


def test_a_wrong_profile_is_refused(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plan, "_profile_of", lambda self, used: 0)
    with pytest.raises(EngineError, match=r"cannot be 3 x .*: .* is outside of profile 0"):
        engine._context("remember", 3, 2)


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
        engine.encode_image(PICTURE)


def test_plans_of_another_precision(built: tuple[Path, Any, Any], trt: Any) -> None:
    engine: Any = tensorrt.open(mini(), replace(RECIPE, precision="bf16"), "", built[0])
    with pytest.raises(EngineError, match="written_blnd is not what this version of rtseg expects"):
        engine._context("remember", 1, 2)


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


@pytest.mark.parametrize("preset", ["nano", "sam2.1-tiny", "sam2.1-large"])
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_the_memory_plan_counts_the_scores_of_the_graphs(preset: str, precision: str) -> None:
    recipe = Recipe(model=preset, image_size=1024, max_objects=4, runtime="tensorrt", precision=precision)
    shapes = Shapes.for_recipe(PRESETS[preset], recipe)
    expected = scores_bytes(PRESETS[preset], 1024, shapes.slots[-1], shapes.pointers, 4, precision)
    assert estimate_memory(recipe).parts["scores, if not fused"] == expected
