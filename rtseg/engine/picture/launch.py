"""Compiling `frame.cu` for the present GPU, and launching its kernels on torch's streams.

NVRTC, which every CUDA build of torch contains, compiles; the driver loads and launches. This needs no nvcc, no headers
and no further package, and a launch goes directly to torch's current stream, so that a capture records it. Without
NVRTC, pycuda does both with nvcc. (`torch.cuda._compile_kernel` is no alternative: it is private, it needs `CUDA_HOME`,
and it passes every whole number as an int and every other number as a double, whatever the kernel takes.)
"""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import torch

from ...base.errors import EngineError

OPTIONS = ("-std=c++17",)  # for NVRTC and nvcc; no fast-math, because it changes rounding and so the results
KINDS: dict[str, Any] = {"P": ctypes.c_void_p, "l": ctypes.c_long, "i": ctypes.c_int, "f": ctypes.c_float}
NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: a stream that the legacy default stream does not wait for
HOW_TO = "pip install nvidia-cuda-nvrtc, or with nvcc and a C++ compiler: pip install 'rtseg[pycuda]'"

Grid = tuple[int, int]
Block = tuple[int, int, int]
Values = Sequence[int | float]


class Launcher(Protocol):
    """The kernels of one source on one GPU."""

    def __call__(self, name: str, grid: Grid, block: Block, values: Values, stream: torch.cuda.Stream | None) -> None:
        """Queue a kernel on `stream` (None: the default stream), without waiting.

        `values` are whole numbers, floats and addresses, in the order of the kernel's arguments.
        """


def launcher(source: str, arguments: Mapping[str, str], device: torch.device) -> Launcher:
    """A launcher of the kernels that `arguments` names, with a letter of `KINDS` for each of their arguments.

    Raises `EngineError` if they cannot be compiled here.
    """
    try:
        nvrtc = Nvrtc(load_nvrtc())
    except OSError as e:
        try:
            return PycudaLauncher(source, arguments, device)
        except ImportError:
            raise EngineError(f"the frame kernels: no NVRTC here ({e}) and no pycuda in its place; {HOW_TO}") from None
    major, minor = torch.cuda.get_device_capability(device)
    image = nvrtc.compile(source, 10 * major + minor)
    return DriverLauncher(load_driver(), device.index or 0, image, arguments)


def load_nvrtc() -> ctypes.CDLL:
    """The NVRTC of the CUDA that torch was built with. Raises `OSError` if it is not found."""
    version = (torch.version.cuda or "13").split(".")[0]
    names = [f"libnvrtc.so.{version}", "libnvrtc.so"]
    if sys.platform == "win32":
        names = [f"nvrtc64_{version}0_0.dll"]
    spec = importlib.util.find_spec("nvidia")  # the packages that CUDA wheels of torch depend on
    folders = [Path(place) for place in (spec and spec.submodule_search_locations) or ()]
    found = [path for folder in folders for path in sorted(folder.glob(f"*/lib/libnvrtc.so.{version}"))]
    for path in found:
        with suppress(OSError):
            return nvrtc_at(path)
    return load(*names, f"/usr/local/cuda/lib64/libnvrtc.so.{version}")


def nvrtc_at(path: Path) -> ctypes.CDLL:
    """Load NVRTC from a file, or raise `OSError`. Its builtins are loaded first: that of CUDA 13 does not find them."""
    for half in path.parent.glob(f"libnvrtc-builtins.{path.name.removeprefix('libnvrtc.')}*"):
        ctypes.CDLL(str(half))
    return ctypes.CDLL(str(path))


def load_driver() -> ctypes.CDLL:
    """The library of the GPU's driver. Raises `EngineError` if there is none."""
    try:
        return load("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError as e:
        raise EngineError(f"the NVIDIA driver cannot be loaded ({e}); see `rtseg doctor`") from e


def load(*names: str) -> ctypes.CDLL:
    """The first of these libraries that loads. If none does, raises the `OSError` of the first."""
    first: OSError | None = None
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError as e:
            first = first or e
    raise first or OSError("no name of a library")


class Nvrtc:
    """The NVRTC compiler, given as its loaded library."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._nvrtc = library
        library.nvrtcGetErrorString.restype = ctypes.c_char_p

    def architectures(self) -> list[int]:
        """The architectures that it supports, as 90 for sm_90."""
        count = ctypes.c_int()
        self._check(self._nvrtc.nvrtcGetNumSupportedArchs(ctypes.byref(count)))
        found = (ctypes.c_int * count.value)()
        self._check(self._nvrtc.nvrtcGetSupportedArchs(found))
        return list(found)

    def compile(self, source: str, architecture: int) -> bytes:
        """Compile for this architecture; for one that it does not support yet to PTX, which the driver compiles.

        Raises `EngineError` with the compiler's first line.
        """
        known = self.architectures()
        exact = architecture in known
        nearest = architecture if exact else max((a for a in known if a <= architecture), default=min(known))
        options = [f"--gpu-architecture={'sm' if exact else 'compute'}_{nearest}", *OPTIONS]
        program = ctypes.c_void_p()
        text = source.encode("utf-8")
        self._check(self._nvrtc.nvrtcCreateProgram(ctypes.byref(program), text, b"frame.cu", 0, None, None))
        try:
            given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
            if self._nvrtc.nvrtcCompileProgram(program, len(options), given):
                lines = self._bytes(program, "ProgramLog").decode(errors="replace").strip("\0\n").splitlines()
                raise EngineError(f"frame.cu: NVRTC cannot compile it for sm_{architecture} ({(lines or ['?'])[0]})")
            return self._bytes(program, "CUBIN" if exact else "PTX")
        finally:
            self._nvrtc.nvrtcDestroyProgram(ctypes.byref(program))

    def _bytes(self, program: ctypes.c_void_p, what: str) -> bytes:
        size = ctypes.c_size_t()
        self._check(getattr(self._nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
        found = ctypes.create_string_buffer(size.value)
        self._check(getattr(self._nvrtc, f"nvrtcGet{what}")(program, found))
        return found.raw

    def _check(self, result: int) -> None:
        if result:
            raise EngineError(f"NVRTC: {self._nvrtc.nvrtcGetErrorString(result).decode()}; see `rtseg doctor`")


class DriverLauncher:
    """Launches through the driver, in the GPU's primary context, which torch has made."""

    def __init__(self, driver: ctypes.CDLL, index: int, image: bytes, arguments: Mapping[str, str]) -> None:
        """`image`: the code from NVRTC. Raises `EngineError` if it cannot be loaded."""
        self._driver, self._kinds = driver, {name: [KINDS[k] for k in kinds] for name, kinds in arguments.items()}
        driver.cuLaunchKernel.argtypes = [
            ctypes.c_void_p, *[ctypes.c_uint] * 7, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p,
        ]  # fmt: skip
        device, module, self._context = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
        self._check(driver.cuInit(0), "cuInit")
        self._check(driver.cuDeviceGet(ctypes.byref(device), index), "cuDeviceGet")
        self._check(driver.cuDevicePrimaryCtxRetain(ctypes.byref(self._context), device), "cuDevicePrimaryCtxRetain")
        self._functions: dict[str, ctypes.c_void_p] = {}
        with self._current():
            self._check(driver.cuModuleLoadData(ctypes.byref(module), image), "cuModuleLoadData")
            for name in arguments:
                function = self._functions[name] = ctypes.c_void_p()
                got = driver.cuModuleGetFunction(ctypes.byref(function), module, name.encode())
                self._check(got, f"cuModuleGetFunction({name})")

    def __call__(self, name: str, grid: Grid, block: Block, values: Values, stream: torch.cuda.Stream | None) -> None:
        kept = [kind(value) for kind, value in zip(self._kinds[name], values, strict=True)]
        places = (ctypes.c_void_p * len(kept))(*(ctypes.addressof(value) for value in kept))
        handle = 0 if stream is None else stream.cuda_stream
        with self._current():
            queued = self._driver.cuLaunchKernel(self._functions[name], *grid, 1, *block, 0, handle, places, None)
        self._check(queued, f"cuLaunchKernel({name})")

    @contextmanager
    def _current(self) -> Iterator[None]:
        """Make the context current, because none is in a thread that has not used the GPU yet."""
        self._check(self._driver.cuCtxPushCurrent_v2(self._context), "cuCtxPushCurrent")
        try:
            yield
        finally:
            self._driver.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))

    def _check(self, result: int, call: str) -> None:
        if result:
            text = ctypes.c_char_p()
            with suppress(AttributeError):
                self._driver.cuGetErrorString(result, ctypes.byref(text))
            message = (text.value or b"unknown").decode()
            raise EngineError(f"the frame kernels: {call}: error {result}, {message}; see `rtseg doctor`")


class PycudaLauncher:
    """Compiles with nvcc and launches with pycuda, in the GPU's primary context.

    pycuda accepts only its own streams. For the default stream it needs none; for any other, its own non-blocking
    stream is ordered with it by events, which a capture records, too.
    """

    def __init__(self, source: str, arguments: Mapping[str, str], device: torch.device) -> None:
        """Raises `ImportError` without pycuda, and `EngineError` if the source cannot be compiled."""
        import pycuda.compiler
        import pycuda.driver

        pycuda.driver.init()
        self._context: Any = pycuda.driver.Device(device.index or 0).retain_primary_context()
        major, minor = torch.cuda.get_device_capability(device)
        with self._current():
            try:
                cubin = pycuda.compiler.compile(
                    source, options=list(OPTIONS), no_extern_c=True, arch=f"sm_{major}{minor}"
                )
                module = pycuda.driver.module_from_buffer(cubin)
                self._functions = {n: module.get_function(n).prepare(kinds) for n, kinds in arguments.items()}
                self._own: Any = pycuda.driver.Stream(NON_BLOCKING)
            except (OSError, pycuda.driver.Error) as e:
                problem = str(e).splitlines()[0]
                raise EngineError(f"frame.cu: nvcc cannot compile it here ({problem}); is nvcc on the PATH?") from e
        self._module = module  # kept here, because its functions do not keep it alive
        self._side = torch.cuda.ExternalStream(self._own.handle, device=device)

    def __call__(self, name: str, grid: Grid, block: Block, values: Values, stream: torch.cuda.Stream | None) -> None:
        with self._current():
            if stream is None or not stream.cuda_stream:
                self._functions[name].prepared_async_call(grid, block, None, *values)
                return
            self._side.wait_stream(stream)
            self._functions[name].prepared_async_call(grid, block, self._own, *values)
            stream.wait_stream(self._side)

    @contextmanager
    def _current(self) -> Iterator[None]:
        self._context.push()
        try:
            yield
        finally:
            self._context.pop()
