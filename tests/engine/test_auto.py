"""`runtime = "auto"`: whatever keeps an engine from being opened, the next best is taken, and it is said."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from rtseg.base.errors import ConfigError, EngineError, WeightsError
from rtseg.engine import open_engine, opening, runtimes
from rtseg.engine.recipe import Recipe

ROOT = Path(__file__).parents[2]
ALL = ["tensorrt", "cuda", "torch", "cpu", "onnx"]
SMALL = Recipe(image_size=64)

FAULTS: list[tuple[Exception, str]] = [
    (EngineError("not built yet; run: rtseg build x.toml"), "not built yet; run: rtseg build x.toml"),
    (RuntimeError("Expected all tensors to be on the same device\nmore"), "RuntimeError: Expected all tensors to be"),
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), "lower image_size or max_objects"),
    (MemoryError(), "MemoryError; lower image_size or max_objects, or close what else uses the memory"),
    (ImportError("libcudart.so.13: cannot open shared object file"), "ImportError: libcudart.so.13"),
    (OSError(2, "No such file or directory"), "see: rtseg doctor"),
    (AttributeError("module 'tensorrt' has no attribute 'Builder'"), "AttributeError: module 'tensorrt' has"),
    (AssertionError("Torch not compiled with CUDA enabled"), "AssertionError: Torch not compiled with CUDA"),
    (RuntimeError("CUDA error: no kernel image is available for execution on the device"), "no kernel image"),
    (TypeError("incompatible function arguments"), "TypeError: incompatible"),
]


class Opened:
    """What an engine is to who opens it."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe, self.description = recipe, f"{recipe.runtime} on {recipe.device}"


@pytest.fixture(autouse=True)
def all_are_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "_warned", set())
    monkeypatch.setattr(opening, "ladder", lambda recipe: ALL)


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Have runtimes fail to open: the names in the order in which they are tried come back."""

    def use(faults: dict[str, BaseException]) -> list[str]:
        tried: list[str] = []

        def opened(recipe: Recipe, *_: object) -> Any:
            tried.append(recipe.runtime)
            if recipe.runtime in faults:
                raise faults[recipe.runtime]
            return Opened(recipe)

        monkeypatch.setattr(opening, "_open", opened)
        monkeypatch.setattr(opening, "gc", SimpleNamespace(collect=lambda: 0))  # which takes a while, beside torch
        return tried

    return use


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize(("fault", "said"), FAULTS, ids=[type(e).__name__ + s[:12] for e, s in FAULTS])
def test_whatever_fails_the_next_is_taken_and_it_is_said(
    place: int, fault: Exception, said: str, fails: Callable[..., list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    tried = fails(dict.fromkeys(ALL[: place + 1], fault))
    engine = opening.open_best(SMALL)
    assert tried == ALL[: place + 2] and engine.recipe.runtime == ALL[place + 1]
    warned = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warned) == place + 1 and all("\n" not in line for line in warned)
    for name, line in zip(ALL, warned, strict=False):
        assert f"{name} does not open: " in line and said in line and line.endswith("; trying the next best")
        assert f"instead of {name}, which does not open: " in engine.description
    assert said in engine.description and "\n" not in engine.description


def test_what_opens_at_once_warns_of_nothing(fails: Callable[..., list[str]], caplog: pytest.LogCaptureFixture) -> None:
    tried = fails({})
    assert opening.open_best(SMALL).description == "tensorrt on auto" and tried == ["tensorrt"]
    assert not caplog.records


def test_it_is_said_once_in_a_process(fails: Callable[..., list[str]], caplog: pytest.LogCaptureFixture) -> None:
    fails({"tensorrt": EngineError("no")})
    said = {opening.open_best(SMALL).description for _ in range(3)}
    assert len(caplog.records) == 1 and len(said) == 1 and "instead of tensorrt" in said.pop()


def test_torch_is_on_the_gpu(fails: Callable[..., list[str]]) -> None:
    """Where cuda's graphs cannot be: on a CPU its own runtimes are faster."""
    fails({name: RuntimeError("no") for name in ALL[:2]})
    assert opening.open_best(SMALL).recipe.device == "cuda"
    assert opening.open_best(replace(SMALL, device="cuda:1")).recipe.device == "cuda:1"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), ConfigError("bad"), WeightsError("bad")])
def test_what_no_other_runtime_would_help(error: BaseException, fails: Callable[..., list[str]]) -> None:
    tried = fails({"tensorrt": EngineError("no"), "cuda": error})
    with pytest.raises(type(error)):
        opening.open_best(SMALL)
    assert tried == ["tensorrt", "cuda"]


def test_where_nothing_opens_each_is_named(fails: Callable[..., list[str]]) -> None:
    fails({name: RuntimeError(f"{name} is broken") for name in ALL})
    with pytest.raises(EngineError) as caught:
        opening.open_best(SMALL)
    text = str(caught.value)
    assert 'runtime = "auto": nothing opens on this machine: ' in text and "\n" not in text
    assert all(f"{name}: RuntimeError: {name} is broken" in text for name in ALL)


def test_an_explicit_runtime_is_not_left(fails: Callable[..., list[str]]) -> None:
    tried = fails({"cuda": RuntimeError("no kernel image\nmore")})
    with pytest.raises(EngineError) as caught:
        open_engine(SMALL, runtime="cuda")
    assert tried == ["cuda"]
    said = 'recipe: runtime = "cuda" does not open: RuntimeError: no kernel image; see: rtseg doctor'
    assert str(caught.value) == said and isinstance(caught.value.__cause__, RuntimeError)


def test_a_gpu_that_is_lost_is_not_asked_again(
    fails: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """After an illegal address every call of CUDA fails, in this process."""
    asserted = RuntimeError("CUDA error: device-side assert triggered\nCUDA kernel errors might be reported later")
    lost = False

    def synchronize(device: object = None) -> None:
        if lost:
            raise asserted

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    tried = fails({"tensorrt": asserted})
    assert opening.open_best(SMALL).recipe.runtime == "cuda"  # a fault that is gone is no reason to leave the GPU
    tried.clear()
    lost = True
    engine = opening.open_best(SMALL)
    assert tried == ["tensorrt", "cpu"] and engine.recipe.runtime == "cpu"
    lost_text = "the GPU is lost to this process (CUDA error: device-side assert triggered); end it, and start it again"
    assert engine.description.count(lost_text) == 2


@pytest.mark.slow
def test_the_memory_of_what_failed_is_free_before_the_next_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    class Big:
        living = 0

        def __init__(self) -> None:
            Big.living += 1
            self.itself = self  # as an engine and its graphs hold each other

        def __del__(self) -> None:
            Big.living -= 1

    def opened(recipe: Recipe, *_: object) -> Any:
        assert Big.living == 0
        big = Big()
        if recipe.runtime != "onnx":
            raise RuntimeError(f"no room beside {big.living}")
        return Opened(recipe)

    monkeypatch.setattr(opening, "_open", opened)
    assert opening.open_best(SMALL).recipe.runtime == "onnx"


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    path = tmp_path / "nano-cpu.toml"
    shutil.copy(ROOT / "engines" / "nano-cpu.toml", path)
    return path


def test_a_real_engine_that_fails_half_way(
    recipe_file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The kernels' own open raises; ONNX Runtime follows the frame."""
    monkeypatch.setattr(opening, "ladder", runtimes.ladder)
    monkeypatch.setattr(runtimes, "kernel_precisions", lambda model: ("int16",))
    real = opening.runtime_module

    def broken(runtime: str) -> ModuleType | SimpleNamespace:
        return SimpleNamespace(open=lambda *_: [].pop()) if runtime == "cpu" else real(runtime)

    monkeypatch.setattr(opening, "runtime_module", broken)
    engine = open_engine(recipe_file, runtime="auto", precision="auto", image_size=320)
    assert engine.recipe.runtime == "onnx"
    assert "instead of cpu, which does not open: IndexError: pop from empty list; see: rtseg doctor" in (
        engine.description
    )
    assert len(caplog.records) == 1
    assert engine.encode_image(np.zeros((8, 8, 3), np.uint8)).top.shape[0] == 1


def test_tensorrt_without_a_plan_is_cuda_and_says_how_to_have_one(
    recipe_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rtseg.engine.tensorrt.library.bindings", lambda: None)
    monkeypatch.setattr(runtimes, "device_of", lambda runtime, device="auto": "cpu" if runtime == "torch" else "cuda:0")
    monkeypatch.setattr(runtimes, "best_precision", lambda runtime, device: "bf16")
    real = opening.runtime_module
    monkeypatch.setattr(
        opening,
        "runtime_module",
        lambda runtime: (
            SimpleNamespace(open=lambda n, recipe, *_: Opened(recipe)) if runtime == "cuda" else real(runtime)
        ),
    )
    engine = open_engine(recipe_file, runtime="auto", precision="auto", image_size=64)
    assert engine.recipe.runtime == "cuda" and engine.recipe.precision == "bf16"
    assert "not proved here: " in engine.description
    assert "instead of tensorrt, which does not open: " in engine.description
    assert engine.description.count(f"run: rtseg build {recipe_file}") == 2


def test_bindings_without_libraries_are_named_before_the_missing_plan(
    recipe_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bindings() -> None:
        raise EngineError("TensorRT's Python bindings are installed, its libraries are not")

    monkeypatch.setattr("rtseg.engine.tensorrt.library.bindings", bindings)
    monkeypatch.setattr(runtimes, "device_of", lambda runtime, device="auto": "cpu" if runtime == "cpu" else "cuda:0")
    monkeypatch.setattr(runtimes, "best_precision", lambda runtime, device: "fp32")
    monkeypatch.setattr(opening, "ladder", lambda recipe: ["tensorrt", "cpu"])
    engine = open_engine(recipe_file, runtime="auto", precision="auto", image_size=64)
    assert "instead of tensorrt, which does not open: TensorRT's Python bindings are" in engine.description


def test_a_driver_that_torch_does_not_see_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(opening, "ladder", runtimes.ladder)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "driver" not in open_engine(image_size=64).description or runtimes.NVIDIA_DEVICES[0].exists()
    monkeypatch.setattr(runtimes, "NVIDIA_DEVICES", (tmp_path,))
    assert "there is a driver for an NVIDIA GPU, and torch" in open_engine(image_size=64).description


def test_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "sees_gpu", lambda: True)
    monkeypatch.setattr(runtimes, "_has", lambda name: True)
    monkeypatch.setattr(runtimes, "kernel_precisions", lambda model: ("bf16", "int16", "int8"))
    assert runtimes.ladder(Recipe()) == ALL
    assert runtimes.ladder(Recipe(precision="fp16")) == ["tensorrt", "cuda", "torch"]
    assert runtimes.ladder(Recipe(precision="int8")) == ["tensorrt", "cpu"]
    assert runtimes.ladder(Recipe(device="cpu")) == ["cpu", "onnx"]
    monkeypatch.setattr(runtimes, "kernel_precisions", lambda model: ())
    assert runtimes.ladder(Recipe())[3:] == ["onnx", "cpu"]
    monkeypatch.setattr(runtimes, "sees_gpu", lambda: False)
    assert runtimes.ladder(Recipe()) == ["onnx", "cpu"]
    assert runtimes.ladder(Recipe(precision="fp8")) == ["onnx"] or runtimes.ladder(Recipe(precision="fp8")) == ["cpu"]
    monkeypatch.setattr(runtimes, "has_torch", lambda: False)
    assert runtimes.ladder(Recipe()) == ["onnx"]
