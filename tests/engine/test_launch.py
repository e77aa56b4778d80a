"""How frame.cu reaches a GPU: NVRTC, the driver's calls and pycuda's, each by stand-ins that know the rules.

Where NVRTC is (`pip install nvidia-cuda-nvrtc`), it compiles for every architecture; nothing runs that code here.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from rtseg.base.errors import EngineError
from rtseg.engine.picture import launch
from rtseg.engine.picture.frame_kernels import ARCHITECTURES, ARGUMENTS, SOURCE, FrameKernels
from rtseg.engine.picture.launch import DriverLauncher, Nvrtc, PycudaLauncher
from tests.engine.host_gpu import IMAGE, compiled_driver, host_kernels

TEXT = SOURCE.read_text()


def letters_of(text: str) -> dict[str, str]:
    """The kernels' own argument types, as letters."""
    letters = {"long": "l", "int": "i", "float": "f"}
    return {
        name: "".join("P" if "*" in a else letters[a.split()[0]] for a in arguments.split(","))
        for name, arguments in re.findall(r"__global__ void (\w+)\(([^)]*)\)", text)
    }


def test_arguments_are_those_of_the_kernels() -> None:
    """They are packed by letters, and nothing sees the kernels' own types."""
    assert letters_of(TEXT) == ARGUMENTS
    changed = TEXT.replace(
        "int order, int height, int width, void *planes", "long order, int height, int width, void *planes"
    )
    assert changed != TEXT and letters_of(changed) != ARGUMENTS


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    library = compiled_driver(tmp_path_factory.mktemp("driver"))
    library.host_stream.restype = ctypes.c_void_p
    return library


def ramp(kernels: FrameKernels) -> torch.Tensor:
    """What a kernel makes of a picture, all of whose arguments matter."""
    picture = torch.arange(40 * 50 * 3, dtype=torch.int64).remainder(251).to(torch.uint8).view(40, 50, 3)
    return kernels.picture_to_input(picture, torch.full((1, 3, 16, 16), 7.0), "bgr")


def green(kernels: FrameKernels) -> torch.Tensor:
    """The middle of a picture whose colours hang on the floats."""
    luma, chroma = torch.full((4, 4), 120, dtype=torch.uint8), torch.full((2, 2, 2), 60, dtype=torch.uint8)
    return kernels.nv12_to_picture(luma, chroma, torch.zeros(4, 4, 3, dtype=torch.uint8))[1, 1]


def test_the_driver_gets_each_argument_as_the_kernel_takes_it(
    driver: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = green(host_kernels(driver))
    monkeypatch.setitem(launch.KINDS, "f", ctypes.c_double)  # as torch's own launcher passes them
    assert right.tolist() == [0, 172, 0] and not torch.equal(green(host_kernels(driver)), right)


def test_a_launch_goes_onto_the_stream_that_it_is_given(driver: ctypes.CDLL) -> None:
    launcher = DriverLauncher(driver, 0, IMAGE, ARGUMENTS)
    bits, logits = np.zeros((4, 4), np.uint32), np.ones((1, 4, 4), np.float32)
    values = [logits.ctypes.data, 1, 4, 4, bits.ctypes.data, 4, 4]
    for handle in (0, 0x7F0012345678):  # a handle is a pointer: 64 bits
        stream: Any = SimpleNamespace(cuda_stream=handle)
        launcher("cover", (1, 1), (32, 8, 1), values, stream)
        assert (driver.host_stream() or 0) == handle and bits.all()
    with pytest.raises(ValueError, match="zip"):
        launcher("cover", (1, 1), (32, 8, 1), values[:-1], None)


def test_any_thread_may_launch_and_none_is_left_with_a_context(driver: ctypes.CDLL) -> None:
    kernels, found = host_kernels(driver), []
    thread = threading.Thread(target=lambda: found.append((ramp(kernels), driver.host_depth())))
    thread.start()
    thread.join()
    assert torch.equal(found[0][0], ramp(kernels)) and found[0][1] == 0 and driver.host_depth() == 0


def test_a_launch_without_a_context_is_refused(driver: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = host_kernels(driver)
    monkeypatch.setattr(DriverLauncher, "_current", lambda self: launch.suppress())
    with pytest.raises(EngineError, match=r"cuLaunchKernel\(picture_to_input\): error 201"):
        ramp(kernels)


def test_what_the_driver_refuses_is_said(driver: ctypes.CDLL) -> None:
    with pytest.raises(EngineError, match="cuModuleLoadData: error 200, refused"):
        DriverLauncher(driver, 0, b"PTX of another", ARGUMENTS)
    with pytest.raises(EngineError, match=r"cuModuleGetFunction\(blur\): error 500, named symbol not found"):
        DriverLauncher(driver, 0, IMAGE, {"blur": "P"})
    with pytest.raises(EngineError, match=r"cuLaunchKernel\(cover\): error 1,"):
        DriverLauncher(driver, 0, IMAGE, ARGUMENTS)("cover", (0, 1), (32, 8, 1), [0, 1, 4, 4, 0, 4, 4], None)


def found_nvrtc() -> Nvrtc:
    path = os.environ.get("RTSEG_NVRTC", "")
    try:
        return Nvrtc(launch.nvrtc_at(Path(path)) if path else launch.load_nvrtc())
    except OSError:
        pytest.skip("no NVRTC; pip install nvidia-cuda-nvrtc")


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, 999])
def test_nvrtc_compiles_it_for(architecture: int) -> None:
    nvrtc = found_nvrtc()
    image = nvrtc.compile(TEXT, architecture)
    exact = architecture in nvrtc.architectures()
    assert image.startswith(b"\x7fELF" if exact else b"//")  # PTX for what it does not know yet
    assert all(name.encode() in image for name in ARGUMENTS)


def test_nvrtc_says_what_it_cannot_compile() -> None:
    with pytest.raises(EngineError, match=r"frame.cu: NVRTC cannot compile it for sm_90 \(frame.cu\(\d+\): .*rintff"):
        found_nvrtc().compile(TEXT.replace("rintf", "rintff"), 90)


class FakeNvrtc:
    """Compiles what has no "error" in it, for the architectures 80 and 90."""

    def __init__(self, ptx: bytes = b"ptx") -> None:
        self.options: list[bytes] = []
        self.alive = 0
        self.text = b""
        self._answers = {"CUBIN": b"cubin", "PTX": ptx, "ProgramLog": b"frame.cu(1): error: no\nmore\n\0"}

    def __getattr__(self, name: str) -> Any:
        return {
            "nvrtcGetErrorString": lambda result: b"refused",
            "nvrtcGetNumSupportedArchs": lambda count: put(count, 2),
            "nvrtcGetSupportedArchs": lambda found: found.__setitem__(slice(None), [80, 90]),
            "nvrtcCreateProgram": self._create,
            "nvrtcDestroyProgram": self._destroy,
            "nvrtcCompileProgram": self._compile,
        }.get(name) or self._answer(name.removeprefix("nvrtcGet"))

    def _create(self, program: Any, text: bytes, *_: Any) -> None:
        self.text, self.alive = text, self.alive + 1

    def _destroy(self, program: Any) -> None:
        self.alive -= 1

    def _compile(self, program: Any, count: int, options: Any) -> int:
        self.options = list(options[:count])
        return 6 if b"error" in self.text else 0

    def _answer(self, name: str) -> Any:
        answer = self._answers[name.removesuffix("Size")]
        if name.endswith("Size"):
            return lambda program, size: put(size, len(answer))
        return lambda program, buffer: setattr(buffer, "raw", answer)


def put(reference: Any, value: int) -> None:
    """What a C function does with a pointer to a number."""
    reference._obj.value = value


@pytest.mark.parametrize(
    ("architecture", "option", "image"),
    [(90, b"sm_90", b"cubin"), (86, b"compute_80", b"ptx"), (121, b"compute_90", b"ptx"), (75, b"compute_80", b"ptx")],
)
def test_an_architecture_that_nvrtc_does_not_know_gets_ptx(architecture: int, option: bytes, image: bytes) -> None:
    fake: Any = FakeNvrtc()
    assert Nvrtc(fake).compile("text", architecture) == image
    assert fake.options == [b"--gpu-architecture=" + option, b"-std=c++17"] and not fake.alive
    with pytest.raises(EngineError, match=r"cannot compile it for sm_90 \(frame.cu\(1\): error: no\)"):
        Nvrtc(fake).compile("an error", 90)
    assert not fake.alive


class FakePycuda:
    """pycuda, and torch's streams around it: what happens, in order, and the contexts that are current."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.depth = 0
        driver: Any = ModuleType("pycuda.driver")
        driver.Error = type("Error", (Exception,), {})
        driver.init = lambda: None
        driver.Device = lambda index: SimpleNamespace(retain_primary_context=lambda: self)
        driver.Stream = lambda flags=0: SimpleNamespace(handle=77, flags=self.note("stream", flags))
        driver.module_from_buffer = lambda image: self
        compiler: Any = ModuleType("pycuda.compiler")
        compiler.compile = self.compile
        package: Any = ModuleType("pycuda")
        package.driver, package.compiler = driver, compiler
        self.driver, self.modules = driver, {"pycuda": package, "pycuda.driver": driver, "pycuda.compiler": compiler}

    def note(self, *event: Any) -> Any:
        if not self.depth:
            raise self.driver.Error("no current context")
        self.events.append(event)
        return event[-1]

    def push(self) -> None:
        self.depth += 1

    def pop(self) -> None:
        self.depth -= 1

    def compile(self, source: str, options: list[str], no_extern_c: bool, arch: str) -> bytes:
        self.note("compile", arch)
        if "error" in source:
            raise self.driver.Error("nvcc failed\nmore")
        return b"cubin"

    def get_function(self, name: str) -> Any:
        def prepare(kinds: str) -> Any:
            def call(grid: Any, block: Any, stream: Any, *values: Any) -> None:
                assert len(values) == len(kinds)
                self.note("launch", name, 0 if stream is None else stream.handle)

            return SimpleNamespace(prepared_async_call=call)

        return SimpleNamespace(prepare=prepare)


@pytest.fixture
def pycuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakePycuda]:
    fake = FakePycuda()
    for name, module in fake.modules.items():
        monkeypatch.setitem(sys.modules, name, module)

    def external(handle: int, device: Any) -> Any:
        return SimpleNamespace(handle=handle, wait_stream=lambda other: fake.note("own waits", other.cuda_stream))

    monkeypatch.setattr(torch.cuda, "ExternalStream", external)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 7))
    yield fake
    assert fake.depth == 0


VALUES = [1, 1, 4, 4, 1, 4, 4]


def test_pycudas_stream_does_not_block_and_joins_the_current_one(pycuda: FakePycuda) -> None:
    kernels = PycudaLauncher(TEXT, ARGUMENTS, torch.device("cuda", 0))
    assert pycuda.events == [("compile", "sm_87"), ("stream", launch.NON_BLOCKING)]
    del pycuda.events[:]
    current: Any = SimpleNamespace(cuda_stream=5, wait_stream=lambda side: pycuda.note("current waits", side.handle))
    kernels("cover", (1, 1), (32, 8, 1), VALUES, current)
    assert pycuda.events == [("own waits", 5), ("launch", "cover", 77), ("current waits", 77)]
    del pycuda.events[:]
    default: Any = SimpleNamespace(cuda_stream=0)
    for stream in (None, default):
        kernels("cover", (1, 1), (32, 8, 1), VALUES, stream)
    assert pycuda.events == [("launch", "cover", 0)] * 2


def test_pycuda_without_nvcc_says_so(pycuda: FakePycuda) -> None:
    with pytest.raises(EngineError, match=r"nvcc cannot compile it here \(nvcc failed\); is nvcc on the PATH\?"):
        PycudaLauncher("error", ARGUMENTS, torch.device("cuda", 0))


def no_nvrtc() -> ctypes.CDLL:
    raise OSError("libnvrtc.so.13: cannot open shared object file")


def test_pycuda_is_for_where_no_nvrtc_is(pycuda: FakePycuda, monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cuda", 0)
    monkeypatch.setattr(launch, "load_nvrtc", no_nvrtc)
    assert isinstance(launch.launcher(TEXT, ARGUMENTS, device), PycudaLauncher)
    monkeypatch.setitem(sys.modules, "pycuda", None)
    with pytest.raises(EngineError, match=r"no NVRTC here .* pip install nvidia-cuda-nvrtc, or with nvcc .* pip inst"):
        launch.launcher(TEXT, ARGUMENTS, device)


def test_nvrtc_goes_first_and_needs_no_pycuda(driver: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycuda", None)
    fake = FakeNvrtc(ptx=IMAGE)
    monkeypatch.setattr(launch, "load_nvrtc", lambda: fake)
    monkeypatch.setattr(launch, "load_driver", lambda: driver)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (12, 1))
    kernels = FrameKernels("cpu", launch.launcher(TEXT, ARGUMENTS, torch.device("cuda", 0)))
    assert torch.equal(ramp(kernels), ramp(host_kernels(driver)))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_error_says_so() -> None:
    with pytest.raises(EngineError, match="the frame kernels need an NVIDIA GPU, and torch sees none"):
        FrameKernels()
    with pytest.raises(EngineError, match="the NVIDIA driver cannot be loaded"):
        launch.load_driver()
