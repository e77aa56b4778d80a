"""Which device a recipe is run on, and what becomes of one that is not there or does not fit its runtime."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest
import torch

from rtseg.base.errors import ConfigError, EngineError
from rtseg.cli import main
from rtseg.engine import identity as identities
from rtseg.engine import open_engine, runtimes
from rtseg.engine.recipe import Recipe, load_recipe
from rtseg.engine.runtimes import device_of, settle

NAMES = ("NVIDIA H200", "NVIDIA L4")
CAPABILITIES = ((9, 0), (7, 5))


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as torch says what it sees."""

    def index(device: object) -> int:
        return device if isinstance(device, int) else int(str(device).partition(":")[2] or 0)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: NAMES[index(device)])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: CAPABILITIES[index(device)])
    monkeypatch.setattr("rtseg.base.hardware.gpu.driver_version", lambda: "580.1")


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:0", "cuda:1", "cuda:15"])
def test_devices_that_a_recipe_may_name(device: str, tmp_path: Path) -> None:
    path = tmp_path / "nano.toml"
    path.write_text(f'device = "{device}"\n')
    assert load_recipe(path).device == device == load_recipe(device=device).device
    assert load_recipe(path, device="cpu").device == "cpu"


@pytest.mark.parametrize("device", ["mps", "xpu", "cuda:", "cuda:-1", "cuda:01", "cuda:1 ", "GPU", "", "cuda:999", 1])
def test_devices_that_nobody_has(device: object, tmp_path: Path) -> None:
    path = tmp_path / "nano.toml"
    path.write_text(f"device = {device!r}\n")
    with pytest.raises(ConfigError) as caught:
        load_recipe(path)
    said = str(caught.value)
    assert said.startswith(f"{path}: device = ") and '"cuda:N"' in said and "\n" not in said


def test_the_device_of_each_runtime(two_gpus: None) -> None:
    for runtime in ("torch", "cuda", "tensorrt"):
        assert [device_of(runtime, d) for d in ("auto", "cuda", "cuda:1")] == ["cuda:0", "cuda:0", "cuda:1"]
    assert device_of("torch", "cpu") == device_of("cpu") == device_of("cpu", "cpu") == device_of("onnx") == "cpu"
    assert device_of("onnx:cuda", "cuda:1") == "cpu"  # of its arrays; the provider is told which GPU


def test_the_gpu_that_a_program_has_chosen(two_gpus: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert device_of("cuda") == "cuda:1" and device_of("cuda", "cuda:0") == "cuda:0"


@pytest.mark.parametrize(
    ("runtime", "device", "expected"),
    [
        ("cpu", "cuda:1", 'device = "cuda:1": runtime = "cpu" runs on no CUDA device; for one: runtime = "torch"'),
        ("onnx", "cuda", 'device = "cuda": runtime = "onnx" runs on no CUDA device'),
        ("onnx:openvino", "cuda", 'runtime = "onnx:openvino" runs on no CUDA device'),
        ("cuda", "cpu", 'device = "cpu": runtime = "cuda" runs on a GPU only; use runtime = "cpu" or "torch"'),
        ("tensorrt", "cpu", 'device = "cpu": runtime = "tensorrt" runs on a GPU only'),
        ("onnx:cuda", "cpu", 'device = "cpu": runtime = "onnx:cuda" runs on a GPU only'),
        (
            "cuda",
            "cuda:3",
            'device = "cuda:3": there is no such GPU; torch sees cuda:0 (NVIDIA H200), cuda:1 (NVIDIA L4)'
            ' (CUDA_VISIBLE_DEVICES = "4,6" hides all others)',
        ),
        ("auto", "cuda:2", 'device = "cuda:2": there is no such GPU; torch sees cuda:0'),
    ],
)
def test_a_device_that_does_not_go_with_the_runtime(
    runtime: str, device: str, expected: str, two_gpus: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    with pytest.raises(EngineError) as caught:
        open_engine(runtime=runtime, device=device)
    assert str(caught.value).startswith(expected) or expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("runtime", ["torch", "cuda", "tensorrt", "auto"])
def test_a_gpu_where_there_is_none(runtime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EngineError, match=r'device = "cuda:1": torch .* sees no CUDA device; use "cpu", or see'):
        open_engine(runtime=runtime, device="cuda:1")


def test_the_precision_is_that_devices(two_gpus: None) -> None:
    """The first GPU multiplies bf16, the second does not."""
    assert settle(Recipe(runtime="cuda", device="cuda:0")).precision == "bf16"
    assert settle(Recipe(runtime="cuda", device="cuda:1")) == Recipe(runtime="cuda", device="cuda:1", precision="fp32")
    once = settle(Recipe(runtime="torch", device="cuda"))
    assert once.device == "cuda:0" and settle(once) == once


def test_the_cpu_is_obeyed_where_there_is_a_gpu(two_gpus: None) -> None:
    engine = open_engine(image_size=64, device="cpu")
    assert engine.recipe.runtime in ("cpu", "onnx")
    torch_engine = open_engine(image_size=64, runtime="torch", device="cpu")
    assert torch_engine.recipe.device == "cpu" and torch_engine.description.endswith(", cpu")
    assert set(runtimes.ladder(Recipe(device="cuda:1"))) <= {"tensorrt", "cuda", "torch"}
    assert {c.runtime for c in runtimes.candidates(Recipe(device="cpu"))} <= {"cpu", "onnx"}
    assert {(c.runtime, c.device) for c in runtimes.candidates(Recipe(device="cuda:1"))} == {("cuda", "cuda:1")}


def test_a_plan_is_for_the_gpu_that_it_runs_on(two_gpus: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which of two that are alike does not matter; which of two that differ does."""
    seen = [_device(f"cuda:{i}") for i in (0, 1)]
    assert seen[0] == {"gpu": "NVIDIA H200", "capability": "9.0", "driver": "580.1"}
    assert seen[1] == {"gpu": "NVIDIA L4", "capability": "7.5", "driver": "580.1"}
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA L4")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 9))
    assert _device("cuda:0") == _device("cuda:1")


def _device(device: str) -> dict[str, str]:
    recipe = Recipe(runtime="tensorrt", precision="fp16", device=device)
    return dict(identities.identity(recipe, runtimes.get_preset("nano"), "a")["device"])


def test_segment_takes_a_device(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompts = tmp_path / "p.json"
    prompts.write_text('{"1": {"points": [[8, 8, 1]]}}')
    words = ["segment", "synthetic:laparoscopy?seconds=0.1", "--prompts", str(prompts), "--out", str(tmp_path / "o")]
    assert main([*words, "--device", "mps"]) == 2
    assert "device = 'mps'; expected \"auto\"" in capsys.readouterr().err


def test_onnx_runtimes_provider_is_told_which_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    class Session:
        def __init__(self, path: str, options: object, providers: list[object]) -> None:
            asked.append(providers)

        def get_providers(self) -> list[str]:
            return ["CUDAExecutionProvider", "CPUExecutionProvider"]

        def get_inputs(self) -> list[object]:
            return []

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    micro = {"model": "micro", "weights": "package:micro", "image_size": 224}
    engine = open_engine(**micro, runtime="onnx:cuda", device="cuda:1")
    assert asked and all(p == [("CUDAExecutionProvider", {"device_id": 1}), "CPUExecutionProvider"] for p in asked)
    assert "cuda on cuda:1" in engine.description
    asked.clear()
    open_engine(**micro, runtime="onnx:cuda")
    assert asked[0] == ["CUDAExecutionProvider", "CPUExecutionProvider"]


def test_a_feeds_process_is_told_the_device() -> None:
    from rtseg.live.ipc.messages import SegmentConfig
    from rtseg.live.ipc.packing import pack, unpack

    recipe = load_recipe(device="cuda:1")
    assert unpack(pack(SegmentConfig.from_recipe(recipe, "latest", None))).to_recipe() == recipe
