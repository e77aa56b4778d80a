"""A stand-in for the module `tensorrt`, and for the GPU: what rtseg calls of both, on the CPU.

A plan is the ONNX graph itself with its profiles and a checksum, and ONNX Runtime runs it. Buffers are known only by
address, as they are to TensorRT: what is not where the engine said it would be is not seen. It refuses what TensorRT
refuses: a network without its flag on version 10, shapes outside the chosen profile, buffers that nobody named, the
default stream, work that is recorded before it ever ran. The first logger that lives hears everything.

With a GPU of pretend_cuda.py nothing is computed: what a plan reads and writes is put on the stream that it was given.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import weakref
from enum import Enum
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch

from tests.engine.fake_gpu import STREAM, FakeGpu

MAGIC = b"FAKEPLAN"
ALIGNED = 256  # bytes, of every address
TIMED = b"TIMINGS of a pretended GPU"


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


class _Voice:
    """The logger of the process: the first that is given while nothing else lives that was given one."""

    def __init__(self) -> None:
        self.logger: ILogger | None = None
        self.holders: weakref.WeakSet[Any] = weakref.WeakSet()

    def hold(self, holder: object, logger: ILogger) -> None:
        if self.logger is None or not len(self.holders):
            self.logger = logger
        self.holders.add(holder)

    def error(self, text: str) -> None:
        assert self.logger is not None
        self.logger.log(Severity.ERROR, text)


class OnnxParser:
    def __init__(self, network: _Network, logger: ILogger) -> None:
        self.network, self.errors = network, list[str]()
        self.logger = logger

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


def fake(version: str = "11.4.0.106", pretended: Any = None) -> ModuleType:
    """The module, of this version. `builds` lists (network, config) of every build; `say` makes the next one fail.

    `pretended` is a GPU of pretend_cuda.py, for which plans are read and run.
    """
    module: Any = ModuleType("tensorrt")
    module.__spec__ = ModuleSpec("tensorrt", None)  # torch asks whether there is such a package
    module.__version__, module.builds, module.say, voice = version, [], "", _Voice()
    module.voice = voice

    class Builder:
        def __init__(self, logger: ILogger) -> None:
            voice.hold(self, logger)

        def create_network(self, flags: int = 0) -> _Network:
            return _Network(flags)

        def create_builder_config(self) -> _Config:
            return _Config()

        def create_optimization_profile(self) -> _Profile:
            return _Profile()

        def build_serialized_network(self, network: _Network, config: _Config) -> bytes | None:
            module.builds.append((network, config))
            profiles = [profile.shapes for profile in config.profiles] or [{}]
            dynamic = {t.name for t in network.inputs if -1 in t.shape}
            typed = network.flags & 2 or not version.startswith("10.")
            bare = any(dynamic - set(shapes) for shapes in profiles)
            wrong = "not strongly typed" if not typed else "a profile is missing" if bare else ""
            if wrong or module.say:
                voice.error(module.say or wrong)
                return None
            head = json.dumps({"version": version, "profiles": profiles}).encode()
            return _sealed(MAGIC + len(head).to_bytes(4, "little") + head + network.model)

    class Runtime:
        def __init__(self, logger: ILogger) -> None:
            voice.hold(self, logger)

        def deserialize_cuda_engine(self, serialized_engine: bytes) -> _Engine | None:
            data, size = serialized_engine[:-32], int.from_bytes(serialized_engine[8:12], "little")
            if not serialized_engine.startswith(MAGIC) or _sealed(data) != serialized_engine:
                voice.error("Serialization assertion failed")
                return None
            head = json.loads(data[12 : 12 + size])
            if head["version"] != version:
                voice.error(f"built by version {head['version']}")
                return None
            device = torch.cuda.current_device() if pretended else 0
            return _Engine(data[12 + size :], head["profiles"], voice, pretended, device)

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

    def __init__(
        self, model: bytes, profiles: list[dict[str, list[list[int]]]], voice: _Voice, pretended: Any, device: int
    ) -> None:
        self.profiles, self.voice, self.pretended, self.device = profiles, voice, pretended, device
        graph = onnx.load_from_string(model).graph
        self.name = graph.name
        self.inputs, self.outputs = [v.name for v in graph.input], [v.name for v in graph.output]
        self.types = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.output)}
        self.shapes = {t.name: t.shape for t in map(_Tensor, (*graph.input, *graph.output))}
        self.model, self.session = model, None

    def run(self, fed: dict[str, np.ndarray]) -> list[Any]:
        """By ONNX Runtime, which is asked at the first run: a plan may be without nodes."""
        self.session = self.session or onnxruntime.InferenceSession(self.model, providers=["CPUExecutionProvider"])
        answers: list[Any] = self.session.run(self.outputs, fed)
        return answers

    num_io_tensors = property(lambda self: len(self.types))
    num_optimization_profiles = property(lambda self: len(self.profiles))

    def get_tensor_name(self, index: int) -> str:
        return [*self.inputs, *self.outputs][index]

    def get_tensor_dtype(self, name: str) -> int:
        return int(self.types[name])

    def get_tensor_mode(self, name: str) -> str:
        return "input" if name in self.inputs else "output"

    def get_tensor_shape(self, name: str) -> list[int]:
        return self.shapes[name]

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[list[int]]:
        return self.profiles[profile_index][name]

    def create_execution_context(self, strategy: str) -> _Context:
        assert strategy == "user"
        return _Context(self)


class _Context:
    def __init__(self, engine: _Engine) -> None:
        self.engine = engine
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.profile = self.scratch = self.scratch_bytes = 0
        self.ran = False

    def set_device_memory(self, memory: int, size: int) -> None:
        self.scratch, self.scratch_bytes = memory, size

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        if stream_handle == 0 or not 0 <= profile_index < self.engine.num_optimization_profiles:
            self.engine.voice.error(f"no profile {profile_index} on stream {stream_handle}")
            return False
        self.profile, self.shapes = profile_index, {}
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        fixed = self.engine.shapes[name]
        least, _, most = self.engine.profiles[self.profile].get(name, (fixed, fixed, fixed))
        self.shapes[name] = shape
        fits = len(shape) == len(least) and all(a <= n <= b for a, n, b in zip(least, shape, most, strict=True))
        if not fits:
            self.engine.voice.error(f"{name}: {shape} is outside of profile {self.profile}: {least} to {most}")
        return fits

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self.addresses[name] = memory
        return memory != 0 and (not self.engine.pretended or memory % ALIGNED == 0)

    def execute_async_v3(self, stream_handle: int) -> bool:
        problem = self.problem(stream_handle)
        if problem:
            self.engine.voice.error(problem)
            return False
        if self.engine.pretended:
            reads = [self.addresses[name] for name in self.engine.inputs]
            writes = [self.addresses[name] for name in self.engine.outputs] + [self.scratch]
            self.engine.pretended.enqueue(stream_handle, reads, writes, f"plan {self.engine.name}")
            self.ran = True
            return True
        gpu = FakeGpu.current
        assert gpu is not None and gpu.working and stream_handle == STREAM
        if gpu.recording is not None:
            gpu.recording.append(dict(self.addresses))  # as they are now: a recording follows no buffer that moves
        else:
            self.launch(dict(self.addresses) if gpu.replaying is None else next(gpu.replaying))
            self.ran = True
        return True

    def problem(self, stream_handle: int) -> str:
        engine = self.engine
        set_up = set(self.addresses) == set(engine.types) and set(self.shapes) == set(engine.inputs)
        if not (set_up and self.scratch and self.scratch_bytes >= engine.device_memory_size_v2) or not stream_handle:
            return "not everything is set"
        if engine.pretended and torch.cuda.current_device() != engine.device:
            return f"device {torch.cuda.current_device()} is current; the engine is on {engine.device}"
        records = FakeGpu.current is not None and FakeGpu.current.recording is not None
        if engine.pretended:
            records = torch.cuda.is_current_stream_capturing()
        return "recorded before it ran" if records and not self.ran else ""

    def launch(self, addresses: dict[str, int]) -> None:
        fed = {}
        for name in self.engine.inputs:
            dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(self.engine.types[name]))
            shape = self.shapes[name]
            raw = ctypes.string_at(addresses[name], int(np.prod(shape)) * dtype.itemsize)
            fed[name] = np.frombuffer(raw, dtype).reshape(shape)
        answers = self.engine.run(fed)
        for name, answer in zip(self.engine.outputs, answers, strict=True):
            whole = np.ascontiguousarray(answer)
            ctypes.memmove(addresses[name], whole.ctypes.data, whole.nbytes)
