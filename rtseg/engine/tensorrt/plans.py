"""TensorRT plans: compiling an ONNX graph to a plan, and putting a plan on a stream.

Only this module and library.py call `tensorrt`, and only what is in the API of both 10.1 and 11.4; a test compares the
calls in the source with the list of 11.4. Call everything here inside the GPU's `work`, because TensorRT builds, loads
and runs on the current device.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...base.errors import EngineError
from ..gpu import Gpu
from .library import bindings, complaints, line

if TYPE_CHECKING:
    import tensorrt as trt

ALIGNED = 256  # bytes; TensorRT requires this alignment of every address


def build(onnx: Path, most: int, timings: Path, gpu: Gpu) -> bytes:
    """Compile a graph for 1 to `most` objects, and return the plan. Raises `EngineError` if TensorRT fails.

    `timings` is the file of TensorRT's timing cache: it is read if it fits this GPU, and updated.
    """
    trt = bindings()
    with complaints() as log:
        builder = trt.Builder(log.trt_logger)
        # Without this flag TensorRT 10 chooses precisions itself; 11 never does, and ignores the flag.
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, log.trt_logger)
        if not parser.parse(onnx.read_bytes()):
            found = [line(str(parser.get_error(i))) for i in range(parser.num_errors)] or list(log.lines)
            raise EngineError(
                f"TensorRT {trt.__version__} does not read {onnx.name}: {'; '.join(found)}; use another version"
            )
        config = builder.create_builder_config()
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, gpu.free_bytes() * 3 // 4)
        config.clear_flag(trt.BuilderFlag.TF32)  # on by default, but fp32 in the graph has to stay fp32
        if _dynamic(network):
            for least, largest in spans(most):
                config.add_optimization_profile(_profile(builder, network, least, largest))
        kept = _attach_timings(config, timings)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise log.error(f"TensorRT could not build {onnx.stem}", 'use another precision or runtime = "cuda"', gpu)
        _write(timings, bytes(kept.serialize()))
        return bytes(plan)


def spans(most: int) -> list[tuple[int, int]]:
    """The optimization profiles, as (least, most) objects: one for a single object, one for all other numbers.

    TensorRT chooses kernels at a profile's optimum, and uses them for all its sizes. One object is the common case, and
    its fixed size allows kernels that take no other size. For more objects the optimum is `max_objects`, where a frame
    takes longest.
    """
    return [(1, 1), (2, most)] if most > 1 else [(1, 1)]


def _dynamic(network: trt.INetworkDefinition) -> bool:
    return any(-1 in tuple(network.get_input(i).shape) for i in range(network.num_inputs))


def _profile(
    builder: trt.Builder, network: trt.INetworkDefinition, least: int, largest: int
) -> trt.IOptimizationProfile:
    """The profile for `least` to `largest` objects, with the optimum at `largest`."""
    profile = builder.create_optimization_profile()
    for i in range(network.num_inputs):
        tensor = network.get_input(i)
        low, high = (tuple(n if d == -1 else d for d in tensor.shape) for n in (least, largest))
        profile.set_shape(tensor.name, low, high, high)
    return profile


def _attach_timings(config: trt.IBuilderConfig, path: Path) -> trt.ITimingCache:
    """Attach and return the timing cache that the build fills; an empty one if the file is missing or does not fit."""
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
        """Load a plan. Raises `EngineError` if the file is no plan for this TensorRT and this GPU."""
        trt = bindings()
        self.path, self._gpu = path, gpu
        try:
            data = path.read_bytes()
        except OSError as e:
            raise EngineError(f"{path}: cannot be read ({e.strerror}); run rtseg build again") from e
        with complaints() as log:
            self._runtime = trt.Runtime(log.trt_logger)
            self._engine = self._runtime.deserialize_cuda_engine(data)
            if self._engine is None:
                what = f"{path}: TensorRT {trt.__version__} cannot load it (truncated, or of another version or GPU)"
                raise log.error(what, "run rtseg build again", gpu)

    @property
    def scratch_bytes(self) -> int:
        """The bytes of memory for values inside the graph, enough for any number of objects."""
        return int(self._engine.device_memory_size_v2)

    def context(self, tensors: Mapping[str, Tensor], scratch: Tensor) -> Context:
        """The plan with these tensors as inputs and outputs, at their present shapes and addresses.

        Contexts that run one after the other may share `scratch`. The kernels are those of the profile for these
        shapes.
        """
        trt, engine = bindings(), self._engine
        with complaints() as log:
            context = engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
            if context is None:
                raise log.error(f"{self.path}: no execution context", "run rtseg build again", self._gpu)
            context.set_device_memory(scratch.data_ptr(), scratch.numel())
            used = self._used(tensors)
            profile = self._profile_of(used)
            if not context.set_optimization_profile_async(profile, self._gpu.stream):
                raise log.error(f"{self.path}: no profile {profile}", "run rtseg build again", self._gpu)
            for name, tensor in used.items():
                is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
                fits = context.set_input_shape(name, tuple(tensor.shape)) if is_input else True
                if not fits or not context.set_tensor_address(name, tensor.data_ptr()):
                    what = f"{self.path}: {name} cannot be {_shape(tensor)}"
                    raise log.error(what, "run rtseg build again", self._gpu)
        return Context(self.path, context, [*used.values(), scratch], self._gpu)

    def _used(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors that the plan uses. Raises `EngineError` if one is missing or has another dtype."""
        engine, used = self._engine, {}
        for i in range(engine.num_io_tensors):
            name = engine.get_tensor_name(i)
            tensor = tensors.get(name)
            if tensor is None or engine.get_tensor_dtype(name) != _types()[tensor.dtype]:
                raise EngineError(
                    f"{self.path}: {name} is not what this version of rtseg expects; run rtseg build again"
                )
            used[name] = tensor
        return used

    def _profile_of(self, used: Mapping[str, Tensor]) -> int:
        """The number of the profile for these shapes. Raises `EngineError` if there is none."""
        trt, engine, wrong = bindings(), self._engine, ""
        inputs = [name for name in used if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        open_ones = [name for name in inputs if -1 in tuple(engine.get_tensor_shape(name))]
        for profile in range(engine.num_optimization_profiles):
            outside = [name for name in open_ones if not self._within(name, used[name], profile)]
            if not outside:
                return profile
            wrong = wrong or f"{outside[0]} cannot be {_shape(used[outside[0]])}"
        raise EngineError(f"{self.path}: {wrong}: the plan was built for other shapes; run rtseg build again")

    def _within(self, name: str, tensor: Tensor, profile: int) -> bool:
        least, _, most = (tuple(shape) for shape in self._engine.get_tensor_profile_shape(name, profile))
        shape = tuple(tensor.shape)
        return len(shape) == len(least) and all(a <= n <= b for a, n, b in zip(least, shape, most, strict=True))


class Context:
    """A plan that is ready to run; it keeps its tensors alive."""

    _context: trt.IExecutionContext

    def __init__(self, path: Path, context: trt.IExecutionContext, tensors: list[Tensor], gpu: Gpu) -> None:
        self._path, self._tensors, self._gpu = path, tensors, gpu
        self._context = context

    def enqueue(self) -> None:
        """Put the graph on the GPU's stream."""
        with complaints() as log:
            if not self._context.execute_async_v3(self._gpu.stream):
                raise log.error(f"{self._path.stem}: TensorRT could not run it", 'use runtime = "cuda"', self._gpu)


def _types() -> dict[torch.dtype, Any]:
    trt = bindings()
    return {
        torch.float32: trt.DataType.FLOAT,
        torch.float16: trt.DataType.HALF,
        torch.bfloat16: trt.DataType.BF16,
        torch.int64: trt.DataType.INT64,
        torch.bool: trt.DataType.BOOL,
    }


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape))


def _write(path: Path, data: bytes) -> None:
    """Write the file in one step, because another build may write the same file."""
    part = path.with_name(f"{path.name}.{os.getpid()}")
    part.write_bytes(data)
    part.replace(path)
