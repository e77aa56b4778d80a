"""What the doctor says of each runtime: what is missing, with the command for it, and no more than was tried."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from rtseg.base.hardware import gpu as hardware
from rtseg.build import doctor
from rtseg.build.doctor import finding, gpu, memory, runtimes
from rtseg.build.doctor.finding import Finding
from rtseg.cli import main
from rtseg.engine.recipe import load_recipe

ROOT = Path(__file__).parents[2]
NOT_EXECUTED = "not executed by the doctor"


def of(name: str) -> Finding:
    return next(f for f in runtimes.each_runtime() if f.name == f"runtime {name}")


class Machine:
    """A machine to be examined: each thing that the doctor asks about can be had, or taken away."""

    def __init__(self, patch: pytest.MonkeyPatch, folder: Path) -> None:
        self.patch, self.folder = patch, folder
        self.absent: set[str] = {"tensorrt", "triton", "pycuda"}
        for module in (gpu, runtimes, doctor, finding):
            if hasattr(module, "has"):
                patch.setattr(module, "has", lambda name: name not in self.absent)
        for name in ("TEGRA", "KERNEL", "DRIVER"):
            patch.setattr(hardware, name, folder / name)
        patch.setattr(gpu, "DOCKER", folder / "DOCKER")
        patch.setattr(gpu, "NVIDIA_DEVICES", (folder / "nvidiactl",))
        patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        self.driver(None)
        self.nvrtc(True)

    def driver(self, cuda: tuple[int, int] | None, version: str = "") -> None:
        """The newest CUDA that it runs; None: there is none."""
        self.patch.setattr(gpu, "driver_cuda", lambda: cuda)
        if version:
            (self.folder / "DRIVER").write_text(f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {version}  Tue\n")

    def torch(self, cuda: str | None, version: str = "2.13.0") -> None:
        self.patch.setattr(torch.version, "cuda", cuda)
        self.patch.setattr(torch, "__version__", version)

    def sees(self, *names: str, capability: tuple[int, int] = (9, 0), works: str = "") -> None:
        """GPUs that torch sees; `works`: what it says when one is to add a number."""
        cuda = torch.cuda
        self.patch.setattr(cuda, "is_available", lambda: bool(names))
        self.patch.setattr(cuda, "device_count", lambda: len(names))
        self.patch.setattr(cuda, "get_device_name", lambda device: names[int(device)])
        self.patch.setattr(cuda, "get_device_capability", lambda device=0: capability)
        self.patch.setattr(cuda, "get_arch_list", lambda: ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "compute_120"])
        self.patch.setattr(cuda, "mem_get_info", lambda device=0: (70 * 2**30, 80 * 2**30))
        self.patch.setattr(cuda, "memory_reserved", lambda device=0: 0)
        self.patch.setattr(cuda, "memory_allocated", lambda device=0: 0)
        self.patch.setattr(cuda, "get_device_properties", lambda device=0: SimpleNamespace(is_integrated=0))
        plain = torch.ones

        def ones(*size: int, device: str = "cpu") -> Any:
            if device.startswith("cuda") and works:
                raise RuntimeError(works)
            return plain(*size)

        self.patch.setattr(torch, "ones", ones)

    def tensorrt(self, number: str | None, error: Exception | None = None) -> None:
        from rtseg.base.errors import EngineError
        from rtseg.engine.tensorrt import library

        self.absent.discard("tensorrt")
        module = ModuleType("tensorrt")
        module.__version__, module.Builder = number or "", object  # type: ignore[attr-defined]
        self.patch.setitem(sys.modules, "tensorrt", module)
        if error is not None:

            def raises() -> None:
                raise EngineError(str(error))

            self.patch.setattr(library, "bindings", raises)

    def nvrtc(self, there: bool) -> None:
        self.patch.setattr(runtimes, "_nvrtc", lambda: there)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    return Machine(monkeypatch, tmp_path)


def whole(here: Machine) -> None:
    """A workstation that lacks nothing."""
    here.driver((13, 0), "580.65.06")
    here.torch("13.0")
    here.sees("NVIDIA H200", "NVIDIA H200")
    here.tensorrt("11.4.0")
    here.absent.clear()
    here.patch.setattr("rtseg.engine.cpu.isa.why_not", lambda: None)
    here.patch.setattr("rtseg.engine.cpu.isa.available_isas", lambda: ["avx2"])


def test_a_machine_that_has_all(here: Machine) -> None:
    whole(here)
    assert gpu.gpu_problem() == ("", "")
    found = {f.name.removeprefix("runtime "): f for f in runtimes.each_runtime()}
    assert list(found) == ["torch", "cpu", "onnx", "cuda", "tensorrt"]
    assert all(f.ok and not f.remedy for f in found.values()), found
    assert "works on the CPU and on cuda:0, cuda:1" in found["torch"].text
    assert NOT_EXECUTED in found["cuda"].text and NOT_EXECUTED in found["tensorrt"].text
    assert "without" not in found["cuda"].text + found["tensorrt"].text
    assert "TensorRT 11.4.0 loads" in found["tensorrt"].text


Change = Callable[[Machine], object]
CU126, CU130 = (f"pip install --force-reinstall torch --index-url {gpu.INDEX}/cu{n}" for n in (126, 130))
CASES: list[tuple[str, Change, str, str, str]] = [
    # what is wrong, the runtime that is asked about, what is said, and the command
    ("no torch", lambda m: m.absent.add("torch"), "cuda", "torch is not installed", "pip install 'rtseg[torch]'"),
    ("cpu build", lambda m: (m.torch(None, "2.13.0+cpu"), m.sees()), "cuda", "2.13.0+cpu is a CPU build", CU130),
    (
        "cpu build, old driver",
        lambda m: (m.torch(None), m.sees(), m.driver((12, 4))),
        "tensorrt",
        "is a CPU build",
        CU126,
    ),
    (
        "older driver still",
        lambda m: (m.torch(None), m.sees(), m.driver((11, 4))),
        "cuda",
        "is a CPU build",
        "update the driver to 525 or newer, then: rtseg doctor",
    ),
    (
        "driver too old",
        lambda m: (m.sees(), m.driver((12, 8), "570.86.15")),
        "cuda",
        "the driver 570.86.15 runs CUDA 12.8 at most, torch is built for 13.0",
        f"update the driver to 580 or newer, or: {CU126}",
    ),
    ("no driver", lambda m: (m.sees(), m.driver(None)), "cuda", "no NVIDIA driver is loaded", "for an NVIDIA GPU: "),
    (
        "a container",
        lambda m: (m.sees(), m.driver(None), (m.folder / "DOCKER").touch()),
        "cuda",
        "no NVIDIA driver is loaded",
        "docker run --gpus all",
    ),
    (
        "hidden",
        lambda m: (m.sees(), m.patch.setenv("CUDA_VISIBLE_DEVICES", "")),
        "cuda",
        'CUDA_VISIBLE_DEVICES = "" hides every GPU',
        "unset CUDA_VISIBLE_DEVICES",
    ),
    (
        "seen by nobody",
        lambda m: (
            m.sees(),
            m.patch.setattr(torch.cuda, "init", lambda: raises("Unexpected error from cudaGetDevice")),
        ),
        "cuda",
        "a driver is there, and torch 2.13.0 sees no GPU (Unexpected error from cudaGetDevice)",
        "check it: nvidia-smi",
    ),
    (
        "too old for torch",
        lambda m: m.sees("Tesla V100", capability=(7, 0)),
        "cuda",
        "Tesla V100 is sm_70, torch 2.13.0 has code for sm_75, sm_80",
        CU126,
    ),
    (
        "broken",
        lambda m: m.sees("NVIDIA L4", works="CUDA error: uncorrectable ECC error encountered\nmore"),
        "cuda",
        "cuda:0 (NVIDIA L4) does not add a number (CUDA error: uncorrectable ECC error encountered)",
        "check it: nvidia-smi; restart the machine",
    ),
    (
        "full",
        lambda m: m.sees("NVIDIA L4", works="CUDA out of memory."),
        "cuda",
        "does not add a number (CUDA out of memory.)",
        "close what else uses it",
    ),
    ("no triton", lambda m: m.absent.add("triton"), "cuda", "without triton", "pip install triton"),
    (
        "no nvrtc",
        lambda m: (m.nvrtc(False), m.absent.add("pycuda")),
        "cuda",
        "without NVRTC, so frames are converted by torch",
        "pip install nvidia-cuda-nvrtc",
    ),
    (
        "no nvrtc of 12",
        lambda m: (m.nvrtc(False), m.absent.add("pycuda"), m.torch("12.8")),
        "tensorrt",
        "without NVRTC",
        "pip install nvidia-cuda-nvrtc-cu12",
    ),
    (
        "no tensorrt",
        lambda m: m.absent.add("tensorrt"),
        "tensorrt",
        "TensorRT is not installed",
        "pip install tensorrt-cu13 --extra-index-url https://pypi.nvidia.com",
    ),
    (
        "no libraries",
        lambda m: m.tensorrt("11.4", ImportError("TensorRT's Python bindings are installed, its libraries are not")),
        "tensorrt",
        "its libraries are not",
        "pip install tensorrt-cu13",
    ),
    (
        "old tensorrt",
        lambda m: m.tensorrt("8.6.1"),
        "tensorrt",
        "TensorRT 8.6.1 is too old",
        "pip install tensorrt-cu13",
    ),
    (
        "no exporter",
        lambda m: m.absent.update(("onnx", "onnxscript")),
        "tensorrt",
        "onnx and onnxscript not installed",
        "pip install onnx onnxscript",
    ),
    ("no onnxruntime", lambda m: m.absent.add("onnxruntime"), "onnx", "is not installed", "pip install onnxruntime"),
    ("no onnx", lambda m: m.absent.add("onnx"), "onnx", "to make others onnx is missing", "pip install 'rtseg[torch]'"),
]


def test_kernels_that_are_not_there(here: Machine) -> None:
    whole(here)
    assert of("cpu").ok and of("cpu").text == "our kernels load: avx2"
    here.patch.setattr("rtseg.engine.cpu.isa.why_not", lambda: "they were not built")
    assert of("cpu").ok is None and of("cpu").text == "in torch, without our kernels: they were not built"


def raises(text: str) -> None:
    raise RuntimeError(text)


@pytest.mark.parametrize(("break_it", "runtime", "said", "way_out"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_what_is_missing_and_how_to_have_it(
    break_it: Change, runtime: str, said: str, way_out: str, here: Machine
) -> None:
    whole(here)
    assert said not in of(runtime).text  # the control
    break_it(here)
    found = of(runtime)
    assert said in found.text and way_out in found.remedy, found
    assert "\n" not in found.text + found.remedy
    if found.ok:
        assert runtime == "onnx" or NOT_EXECUTED in found.text


JETSON = [
    ("R36 (release), REVISION: 4.7, GCID: 1", 6, "pip install --force-reinstall torch --index-url https://pypi.jetson"),
    ("R38 (release), REVISION: 2.2, GCID: 1", 7, CU130),
    ("R39 (release), REVISION: 2.0, GCID: 1", 7, CU130),
    ("R35 (release), REVISION: 4.1, GCID: 1", 5, "flash JetPack 7, which has Python 3.12"),
]


@pytest.mark.parametrize(("release", "pack", "way_out"), JETSON)
def test_a_jetson(release: str, pack: int, way_out: str, here: Machine) -> None:
    whole(here)
    (here.folder / "TEGRA").write_text(f"# {release}, BOARD: generic, EABI: aarch64\n")
    assert hardware.platform_kind() == "jetson" and hardware.jetpack() == pack
    here.absent.add("tensorrt")
    own = "apt install tensorrt python3-libnvinfer" if pack >= 7 else "flash JetPack 7: TensorRT of an older one"
    assert own in of("tensorrt").remedy and "pypi.nvidia" not in of("tensorrt").remedy
    here.torch(None, "2.13.0+cpu")
    here.sees()
    assert way_out in of("cuda").remedy


def test_wsl(here: Machine) -> None:
    whole(here)
    (here.folder / "KERNEL").write_text("Linux version 5.15.167.4-microsoft-standard-WSL2 (root@f9c8)\n")
    here.sees()
    here.driver(None)
    assert hardware.platform_kind() == "wsl"
    assert "install NVIDIA's driver in Windows" in of("cuda").remedy


@pytest.mark.parametrize(
    ("capability", "architectures", "fits"),
    [
        ((9, 0), ["sm_80", "sm_90"], True),
        ((8, 9), ["sm_80", "sm_90"], True),  # within a major, upwards
        ((8, 0), ["sm_86"], False),
        ((7, 0), ["sm_75", "sm_80"], False),
        ((10, 0), ["sm_90"], False),
        ((10, 0), ["sm_90", "compute_90"], True),  # PTX, for whatever comes later
        ((12, 1), ["sm_120"], True),
        ((9, 0), ["sm_90a"], True),
        ((9, 1), ["sm_90a"], False),
        ((10, 3), ["sm_100f"], True),
        ((9, 0), [], True),
    ],
)
def test_code_for_a_gpu(capability: tuple[int, int], architectures: list[str], fits: bool) -> None:
    assert gpu.covered(capability, architectures) is fits


def test_nothing_raises(here: Machine) -> None:
    """Whatever a library does, the doctor says what it can."""
    whole(here)
    for name in ("is_available", "device_count", "get_device_capability"):
        here.patch.setattr(torch.cuda, name, lambda *_: raises("libcuda is of another version\nmore"))
    here.patch.setattr(runtimes, "version", lambda *_: raises("no"))
    here.patch.setattr(doctor, "_step_ms", lambda recipe: raises("a bug"))
    findings = doctor.examine()
    said = {f.name: f for f in findings}
    assert "cannot ask for GPUs (libcuda is of another version)" in said["runtime cuda"].text
    assert said["runtime onnx"].text == "cannot be examined: RuntimeError: no"
    assert said["runtime auto"].ok is False and "RuntimeError: a bug" in said["runtime auto"].text
    assert all("\n" not in f.text + f.remedy for f in findings)


def test_the_default_engine_is_named_as_it_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what did not open instead, which `open_engine` puts in the description."""
    monkeypatch.setattr(doctor, "_step_ms", lambda recipe: (5.0, "cpu: kernels (instead of cuda, which does not open)"))
    auto, live = doctor._live()
    assert auto.ok and auto.text == "opens nano as cpu: kernels (instead of cuda, which does not open)"
    assert live.ok and "nano 5 ms" in live.text


def test_the_driver_is_asked_for_its_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    def library(version: int, result: int = 0) -> SimpleNamespace:
        def ask(at: Any) -> int:
            at._obj.value = version
            return result

        return SimpleNamespace(cuDriverGetVersion=ask)

    monkeypatch.setattr(hardware.ctypes, "CDLL", lambda name: library(13010))
    assert hardware.driver_cuda() == (13, 1)
    monkeypatch.setattr(hardware.ctypes, "CDLL", lambda name: library(0, 999))
    assert hardware.driver_cuda() is None
    monkeypatch.setattr(hardware.ctypes, "CDLL", lambda name: ctypes.CDLL("libnothing.so.1"))


def test_nvdec(monkeypatch: pytest.MonkeyPatch, here: Machine) -> None:
    found = {"av.codec.hwaccel": SimpleNamespace(hwdevices_available=lambda: ["cuda", "qsv"])}
    monkeypatch.setattr(runtimes.importlib, "import_module", lambda name: found[name])
    monkeypatch.setattr(runtimes.ctypes, "CDLL", lambda name: object())
    assert runtimes.nvdec().ok and "not executed" in runtimes.nvdec().text
    found["av.codec.hwaccel"] = SimpleNamespace(hwdevices_available=lambda: ["qsv"])
    assert runtimes.nvdec().ok is None and runtimes.nvdec().remedy == "pip install -U av"


def test_the_recipes_whose_memory_is_planned_are_the_shipped_ones() -> None:
    shipped = [load_recipe(path) for path in (ROOT / "engines").glob("*.toml")]
    alike = {(r.model, r.image_size, r.max_objects, r.memory) for r in shipped}
    assert {(r.model, r.image_size, r.max_objects, r.memory) for r in memory.SHIPPED} == alike


def test_a_gpu_without_the_room_is_named(here: Machine) -> None:
    whole(here)
    assert all(f.ok and "too little memory" not in f.text for f in memory.shipped())
    here.patch.setattr(torch.cuda, "mem_get_info", lambda device=0: (500 * 2**20, 2**33))
    small, *_, large = memory.shipped()
    assert small.ok and large.ok is None and "; cuda:0 has too little memory for " in large.text


def test_the_plan_of_every_preset(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--memory"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines if line.startswith(("sam2", "nano", "micro"))]
    assert len(rows) == 11 * len(memory.SIZES) * len(memory.OBJECTS)
    assert all(int(cell) > 0 for row in rows for cell in row[1:])
    assert any("estimates" in line for line in lines)
    assert main(["doctor", "--memory", "nana"]) == 2
    assert "--memory nana: no such preset; did you mean 'nano'?" in capsys.readouterr().err
    assert replace(memory.SHIPPED[0], runtime="cuda").model == "micro"
