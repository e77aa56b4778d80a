"""A stand-in for the module `tensorrt`, and for the GPU: what rtseg calls of both, on the CPU.

A plan is the ONNX graph itself with its profile and a checksum, and ONNX Runtime runs it. Buffers are known only by
address, as they are to TensorRT: what is not where the engine said it would be is not seen. It refuses what TensorRT
refuses: a network without its flag on version 10, shapes outside the profile, buffers that nobody named, the default
stream, work that is recorded before it ever ran.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor

MAGIC = b"FAKEPLAN"
STREAM = 7
TIMED = b"TIMINGS of a pretended GPU"


class FakeGpu:
    """The seam `rtseg.engine.tensorrt.gpu.Gpu` on the CPU."""

    name, stream = "cpu", STREAM
    current: FakeGpu | None = None
    records_nothing = False  # as a CUDA graph that was captured on another stream than the work was put on

    def __init__(self) -> None:
        FakeGpu.current = self
        self.recording: list[Callable[[], None]] | None = None
        self.working = False
        self.replays = 0

    def zeros(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.zeros(shape, dtype=dtype)

    pinned = zeros

    @contextmanager
    def work(self) -> Iterator[None]:
        assert not self.working
        self.working = True
        try:
            yield
        finally:
            self.working = False

    def capture(self, enqueue: Callable[[], None]) -> Callable[[], None]:
        self.recording = recording = []
        enqueue()
        self.recording = None
        if not recording:  # torch's own work, which nothing records on a CPU: it is done again
            recording.append(enqueue)

        def replay() -> None:
            assert self.working
            self.replays += 1
            for launch in [] if self.records_nothing else recording:
                launch()

        return replay

    def wait(self) -> None:
        assert self.working and self.recording is None

    def free_bytes(self) -> int:
        return 2**30

    def facts(self) -> dict[str, str]:
        return {"gpu": "a pretended GPU", "compute_capability": "9.0", "driver": "1.0"}


class Severity(Enum):
    INTERNAL_ERROR, ERROR, WARNING, INFO = range(4)


class ILogger:
    INTERNAL_ERROR, ERROR = Severity.INTERNAL_ERROR, Severity.ERROR

    def log(self, severity: Severity, msg: str) -> None:
        raise NotImplementedError


class _Tensor:
    def __init__(self, value: Any) -> None:
        self.name = value.name
        self.shape = [-1 if d.dim_param else d.dim_value for d in value.type.tensor_type.shape.dim]


class _Network:
    def __init__(self, flags: int) -> None:
        self.flags, self.model = flags, b""
        self.inputs: list[_Tensor] = []

    num_inputs = property(lambda self: len(self.inputs))

    def get_input(self, index: int) -> _Tensor:
        return self.inputs[index]


class OnnxParser:
    def __init__(self, network: _Network, logger: ILogger) -> None:
        self.network, self.errors = network, list[str]()

    num_errors = property(lambda self: len(self.errors))

    def parse(self, model: bytes) -> bool:
        proto = onnx.load_from_string(model)
        strange = [n for n in proto.graph.node if n.op_type in ("Det", "TfIdfVectorizer")]
        self.errors = [f"In node {n.name}:\nno importer for {n.op_type}" for n in strange]
        self.network.model, self.network.inputs = model, [_Tensor(v) for v in proto.graph.input]
        return not self.errors

    def get_error(self, index: int) -> _ParserError:
        return _ParserError(self.errors[index])


class _ParserError:
    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return f"{self.text}\n"


class _Profile:
    def __init__(self) -> None:
        self.shapes: dict[str, tuple[list[int], list[int], list[int]]] = {}

    def set_shape(self, input: str, min: tuple[int, ...], opt: tuple[int, ...], max: tuple[int, ...]) -> None:
        self.shapes[input] = (list(min), list(opt), list(max))


class _Timings:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def serialize(self) -> bytes:
        return self.data or TIMED


class _Config:
    def __init__(self) -> None:
        self.profiles: list[_Profile] = []
        self.timings: _Timings | None = None
        self.limits: dict[object, int] = {}
        self.cleared: list[object] = []

    def set_memory_pool_limit(self, pool: object, pool_size: int) -> None:
        self.limits[pool] = pool_size

    def clear_flag(self, flag: object) -> None:
        self.cleared.append(flag)

    def add_optimization_profile(self, profile: _Profile) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> _Timings | None:
        damaged = serialized_timing_cache and not serialized_timing_cache.startswith(b"TIMINGS")
        return None if damaged else _Timings(serialized_timing_cache)

    def set_timing_cache(self, cache: _Timings, ignore_mismatch: bool) -> bool:
        fits = ignore_mismatch or cache.data in (b"", TIMED)
        self.timings = cache if fits else None
        return fits


def _sealed(data: bytes) -> bytes:
    return data + hashlib.sha256(data).digest()


def fake(version: str = "11.4.0.106") -> ModuleType:
    """The module, of this version. `builds` lists (network, config) of every build; `say` makes the next one fail."""
    module: Any = ModuleType("tensorrt")
    module.__spec__ = ModuleSpec("tensorrt", None)  # torch asks whether there is such a package
    module.__version__, module.builds, module.say = version, [], ""

    class Builder:
        def __init__(self, logger: ILogger) -> None:
            self.logger = logger

        def create_network(self, flags: int = 0) -> _Network:
            return _Network(flags)

        def create_builder_config(self) -> _Config:
            return _Config()

        def create_optimization_profile(self) -> _Profile:
            return _Profile()

        def build_serialized_network(self, network: _Network, config: _Config) -> bytes | None:
            module.builds.append((network, config))
            shapes = config.profiles[0].shapes if config.profiles else {}
            dynamic = {t.name for t in network.inputs if -1 in t.shape}
            typed = network.flags & 2 or not version.startswith("10.")
            wrong = "not strongly typed" if not typed else "a profile is missing" if dynamic - set(shapes) else ""
            if wrong or module.say:
                self.logger.log(Severity.ERROR, module.say or wrong)
                return None
            head = json.dumps({"version": version, "shapes": shapes}).encode()
            return _sealed(MAGIC + len(head).to_bytes(4, "little") + head + network.model)

    class Runtime:
        def __init__(self, logger: ILogger) -> None:
            self.logger = logger

        def deserialize_cuda_engine(self, serialized_engine: bytes) -> _Engine | None:
            data, size = serialized_engine[:-32], int.from_bytes(serialized_engine[8:12], "little")
            if not serialized_engine.startswith(MAGIC) or _sealed(data) != serialized_engine:
                self.logger.log(Severity.ERROR, "Serialization assertion failed")
                return None
            head = json.loads(data[12 : 12 + size])
            if head["version"] != version:
                self.logger.log(Severity.ERROR, f"built by version {head['version']}")
                return None
            return _Engine(data[12 + size :], head["shapes"], self.logger)

    module.ILogger, module.Builder, module.OnnxParser, module.Runtime = ILogger, Builder, OnnxParser, Runtime
    module.NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
    module.MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")
    module.BuilderFlag = SimpleNamespace(TF32="tf32")
    module.TensorIOMode = SimpleNamespace(INPUT="input", OUTPUT="output")
    module.ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="user")
    module.DataType = SimpleNamespace(FLOAT=1, HALF=10, BF16=16, INT64=7, BOOL=9)
    return module


class _Engine:
    device_memory_size_v2 = 64

    def __init__(self, model: bytes, shapes: dict[str, list[list[int]]], logger: ILogger) -> None:
        self.shapes, self.logger = shapes, logger
        graph = onnx.load_from_string(model).graph
        self.inputs, self.outputs = [v.name for v in graph.input], [v.name for v in graph.output]
        self.types = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.output)}
        self.fixed = {t.name: t.shape for t in map(_Tensor, graph.input)}
        self.session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])

    num_io_tensors = property(lambda self: len(self.types))

    def get_tensor_name(self, index: int) -> str:
        return [*self.inputs, *self.outputs][index]

    def get_tensor_dtype(self, name: str) -> int:
        return int(self.types[name])

    def get_tensor_mode(self, name: str) -> str:
        return "input" if name in self.inputs else "output"

    def create_execution_context(self, strategy: str) -> _Context:
        assert strategy == "user"
        return _Context(self)


class _Context:
    def __init__(self, engine: _Engine) -> None:
        self.engine = engine
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.has_scratch = self.ran = False

    def set_device_memory(self, memory: int, size: int) -> None:
        self.has_scratch = bool(memory) and size >= self.engine.device_memory_size_v2

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        fixed = self.engine.fixed[name]
        least, _, most = self.engine.shapes.get(name, (fixed, fixed, fixed))
        self.shapes[name] = shape
        return len(shape) == len(least) and all(a <= n <= b for a, n, b in zip(least, shape, most, strict=True))

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self.addresses[name] = memory
        return memory != 0

    def execute_async_v3(self, stream_handle: int) -> bool:
        gpu, complete = FakeGpu.current, set(self.addresses) == set(self.engine.types) and self.has_scratch
        assert gpu is not None and gpu.working
        early = gpu.recording is not None and not self.ran
        if stream_handle != STREAM or not complete or early:
            self.engine.logger.log(Severity.ERROR, "recorded before it ran" if early else "not everything is set")
            return False
        if gpu.recording is None:
            self.launch(dict(self.addresses))
            self.ran = True
        else:
            addresses = dict(self.addresses)  # as they are now: a recording does not follow a buffer that moves
            gpu.recording.append(lambda: self.launch(addresses))
        return True

    def launch(self, addresses: dict[str, int]) -> None:
        fed = {}
        for name in self.engine.inputs:
            dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(self.engine.types[name]))
            shape = self.shapes[name]
            raw = ctypes.string_at(addresses[name], int(np.prod(shape)) * dtype.itemsize)
            fed[name] = np.frombuffer(raw, dtype).reshape(shape)
        answers = self.engine.session.run(self.engine.outputs, fed)
        for name, answer in zip(self.engine.outputs, answers, strict=True):
            whole = np.ascontiguousarray(answer)
            ctypes.memmove(addresses[name], whole.ctypes.data, whole.nbytes)
