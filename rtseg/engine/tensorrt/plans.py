"""TensorRT: an ONNX graph to a plan, and a plan to something that can be put on a stream.

All that is called of `tensorrt` is called in this file, and all of it is in the API of both 10.1 and 11.4; a test reads
the calls out of the source and holds them to the list of 11.4.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...errors import EngineError
from .gpu import Gpu, out_of_memory

if TYPE_CHECKING:
    import tensorrt as trt

OLDEST = (10, 1)  # the first with strong typing, BF16, INT64, and scratch memory of a known size
FULL = ("out of memory", "outofmemory", "failed_allocation", "mem_alloc", "insufficient memory")


def bindings() -> Any:
    """The module `tensorrt`; `EngineError` where it is missing, has no libraries, or is too old."""
    try:
        import tensorrt
    except (ImportError, OSError) as e:
        if isinstance(e, ModuleNotFoundError) and e.name == "tensorrt":
            raise EngineError(
                "TensorRT is not installed: pip install 'rtseg[tensorrt]', or use runtime = \"cuda\""
            ) from e
        raise EngineError(
            f"TensorRT's Python bindings are installed, its libraries are not ({_line(str(e))}): install the package"
            " tensorrt_cu12_libs or tensorrt_cu13_libs of the same version from NVIDIA's index, or put the folder of"
            " libnvinfer.so on LD_LIBRARY_PATH"
        ) from e
    version = tuple(int(part) for part in tensorrt.__version__.split(".")[:2])
    if version < OLDEST:
        raise EngineError(
            f"TensorRT {tensorrt.__version__} is too old: 10.1 or newer is needed; pip install -U tensorrt"
        )
    return tensorrt


class _Complaints:
    """The last errors that TensorRT logged; it says why there, and returns only that it failed."""

    def __init__(self) -> None:
        trt = bindings()
        self.lines: deque[str] = deque(maxlen=8)
        lines, bad = self.lines, (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR)

        class Log(trt.ILogger):  # type: ignore[name-defined]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, msg: str) -> None:
                if severity in bad:
                    lines.append(_line(msg))

        self.log = Log()

    def error(self, what: str, way_out: str, gpu: Gpu) -> EngineError:
        """What went wrong, in one line."""
        said = "; ".join(self.lines) or "TensorRT gave no reason"
        if any(word in said.lower() for word in FULL):
            return out_of_memory(f"{what} ({said})", gpu.free_bytes())
        return EngineError(f"{what}: {said}; {way_out}")


def build(onnx: Path, most: int, timings: Path, gpu: Gpu) -> bytes:
    """Compile a graph for 1 to `most` objects.

    `timings` is TensorRT's record of how fast its kernels are here: read if it fits, and brought up to date.
    """
    trt, complaints = bindings(), _Complaints()
    builder = trt.Builder(complaints.log)
    # 10 mixes precisions as it likes without this flag; 11 never does, and ignores it.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, complaints.log)
    if not parser.parse(onnx.read_bytes()):
        found = [_line(str(parser.get_error(i))) for i in range(parser.num_errors)] or list(complaints.lines)
        raise EngineError(
            f"TensorRT {trt.__version__} does not read {onnx.name}: {'; '.join(found)}; use another version"
        )
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, gpu.free_bytes() * 3 // 4)
    config.clear_flag(trt.BuilderFlag.TF32)  # on by default; what is fp32 in the graph is meant
    if _dynamic(network):
        config.add_optimization_profile(_profile(builder, network, most))
    kept = _attach_timings(config, timings)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise complaints.error(
            f"TensorRT could not build {onnx.stem}", 'use another precision or runtime = "cuda"', gpu
        )
    _write(timings, bytes(kept.serialize()))
    return bytes(plan)


def _dynamic(network: trt.INetworkDefinition) -> bool:
    return any(-1 in tuple(network.get_input(i).shape) for i in range(network.num_inputs))


def _profile(builder: trt.Builder, network: trt.INetworkDefinition, most: int) -> trt.IOptimizationProfile:
    """Any number of objects from 1 to `most`; fastest at 1."""
    profile = builder.create_optimization_profile()
    for i in range(network.num_inputs):
        tensor = network.get_input(i)
        least, largest = (tuple(n if d == -1 else d for d in tensor.shape) for n in (1, most))
        profile.set_shape(tensor.name, least, least, largest)
    return profile


def _attach_timings(config: trt.IBuilderConfig, path: Path) -> trt.ITimingCache:
    """The timing cache that the build fills; an empty one where the file is none, or another GPU's."""
    stored = path.read_bytes() if path.is_file() else b""
    cache = config.create_timing_cache(stored)
    if cache is None or not config.set_timing_cache(cache, False):
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    return cache


class Plan:
    """A compiled graph on this GPU."""

    _runtime: trt.Runtime
    _engine: trt.ICudaEngine

    def __init__(self, path: Path, gpu: Gpu) -> None:
        """Raises `EngineError` if the file is no plan of this TensorRT on this GPU."""
        trt, self._complaints = bindings(), _Complaints()
        self.path, self._gpu = path, gpu
        try:
            data = path.read_bytes()
        except OSError as e:
            raise EngineError(f"{path}: cannot be read ({e.strerror}); run rtseg build again") from e
        self._runtime = trt.Runtime(self._complaints.log)
        self._engine = self._runtime.deserialize_cuda_engine(data)
        if self._engine is None:
            what = f"{path}: TensorRT {trt.__version__} cannot load it (truncated, or of another version or GPU)"
            raise self._complaints.error(what, "run rtseg build again", gpu)

    @property
    def scratch_bytes(self) -> int:
        """Memory for what flows inside the graph, at any number of objects."""
        return int(self._engine.device_memory_size_v2)

    def context(self, tensors: Mapping[str, Tensor], scratch: Tensor) -> Context:
        """The plan with its inputs and outputs at these tensors, whose shapes and places stay as they are.

        Contexts that run one after the other may share `scratch`.
        """
        trt, engine = bindings(), self._engine
        context = engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if context is None:
            raise self._complaints.error(f"{self.path}: no execution context", "run rtseg build again", self._gpu)
        context.set_device_memory(scratch.data_ptr(), scratch.numel())
        used = []
        for i in range(engine.num_io_tensors):
            name = engine.get_tensor_name(i)
            tensor = tensors.get(name)
            if tensor is None or engine.get_tensor_dtype(name) != _types()[tensor.dtype]:
                raise EngineError(
                    f"{self.path}: {name} is not what this version of rtseg expects; run rtseg build again"
                )
            is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
            fits = context.set_input_shape(name, tuple(tensor.shape)) if is_input else True
            if not fits or not context.set_tensor_address(name, tensor.data_ptr()):
                what = f"{self.path}: {name} cannot be {' x '.join(map(str, tensor.shape))}"
                raise self._complaints.error(what, "run rtseg build again", self._gpu)
            used.append(tensor)
        return Context(self.path, context, [*used, scratch], self._complaints, self._gpu)


class Context:
    """A plan that is ready to run; it keeps its tensors alive."""

    _context: trt.IExecutionContext

    def __init__(
        self, path: Path, context: trt.IExecutionContext, tensors: list[Tensor], complaints: _Complaints, gpu: Gpu
    ) -> None:
        self._path, self._tensors, self._complaints, self._gpu = path, tensors, complaints, gpu
        self._context = context

    def enqueue(self) -> None:
        """Put the graph on the GPU's stream."""
        if not self._context.execute_async_v3(self._gpu.stream):
            raise self._complaints.error(
                f"{self._path.stem}: TensorRT could not run it", 'use runtime = "cuda"', self._gpu
            )


def _types() -> dict[torch.dtype, Any]:
    trt = bindings()
    return {
        torch.float32: trt.DataType.FLOAT,
        torch.float16: trt.DataType.HALF,
        torch.bfloat16: trt.DataType.BF16,
        torch.int64: trt.DataType.INT64,
        torch.bool: trt.DataType.BOOL,
    }


def _line(text: str) -> str:
    return " ".join(text.split())


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all: another build may write the same file."""
    part = path.with_name(f"{path.name}.{os.getpid()}")
    part.write_bytes(data)
    part.replace(path)
