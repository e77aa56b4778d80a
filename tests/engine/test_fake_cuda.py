"""The `cuda` engine on a GPU that is not there: tensors that know their device and their shape, and hold no numbers.

They raise where two devices meet, and where a number is asked for that only the device has, for which a real one would
have the host wait. What they cannot do on a build of torch without CUDA, or answer, is stood in for here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode

import rtseg
from rtseg import Tracker
from rtseg.config import MemoryPlan, Recipe
from rtseg.engine.cuda import CudaEngine
from rtseg.engine.cuda import engine as cuda
from rtseg.engine.cuda.attention import BACKENDS, CudaAttention
from rtseg.engine.cuda.graph import Disturb, Step
from rtseg.engine.static import Rotation, StaticNetwork
from rtseg.sam2 import Sam2, get_preset
from rtseg.track import POLICIES

SIZE = 64
aten = torch.ops.aten


class Indexing(TorchFunctionMode):
    """Subscripts by operators: Python's own ask for a device guard, which a build without CUDA has not."""

    def __init__(self, mode: FakeTensorMode) -> None:
        super().__init__()
        self.mode = mode

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and torch.device(kwargs.get("device", "cpu")).type == "cuda":
            device = kwargs.pop("device")
            made = args[0] if isinstance(args[0], Tensor) else func(*args, **kwargs)
            args, kwargs, func = (made, device), {}, Tensor.to
        if func is Tensor.to:
            moved = args[0]
            if not isinstance(moved, FakeTensor):
                moved = self.mode.from_tensor(moved.detach(), static_shapes=True)
            moved.constant = None  # else the number that it is would be moved for real
            args = (moved, *args[1:])
        on_gpu = args and isinstance(args[0], FakeTensor) and args[0].is_cuda
        if on_gpu and func is Tensor.__getitem__:
            x, at = viewed(*args)
            return aten.index(x, at) if at else x
        if on_gpu and func is Tensor.__setitem__:
            x, at = viewed(*args[:2])
            value = args[2] if isinstance(args[2], Tensor) else torch.full((), args[2], device=x.device)
            return aten.index_put_(x, at, value) if at else aten.copy_(x, value)
        if on_gpu and func is Tensor.contiguous:
            return args[0] if args[0].is_contiguous() else args[0].clone(memory_format=torch.contiguous_format)
        if on_gpu and func is Tensor.copy_:
            return aten.copy_(*args, **kwargs)
        return func(*args, **kwargs)


def viewed(x: Tensor, index: Any) -> tuple[Tensor, list[Tensor | None]]:
    """What slices, numbers and None leave, and the tensors that are to choose of it."""
    items = list(index) if isinstance(index, tuple) else [index]
    if any(item is Ellipsis for item in items):
        dots = next(i for i, item in enumerate(items) if item is Ellipsis)
        items[dots : dots + 1] = [slice(None)] * (x.ndim - sum(item is not None for item in items) + 1)
    at: list[Tensor | None] = []
    for item in items:
        if item is None:
            x = x.unsqueeze(len(at))
        elif isinstance(item, int | np.integer):
            x = x.select(len(at), int(item))
            continue
        elif isinstance(item, slice):
            x = aten.slice(x, len(at), item.start, item.stop, item.step or 1)
        item = torch.zeros(len(item), dtype=torch.long, device=x.device) if isinstance(item, list) else item
        at.append(item if isinstance(item, Tensor) else None)
    return x, at if any(t is not None for t in at) else []


def replaced(self: nn.Module, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """`Module._apply`: a fake parameter cannot become another in place, so each gives way to a new one."""
    for module in self.modules():
        for name, p in module._parameters.items():
            if p is not None:
                module._parameters[name] = nn.Parameter(fn(p), p.requires_grad)
        for name, b in module._buffers.items():
            if b is not None:
                module._buffers[name] = fn(b)
    return self


class Event:
    def record(self) -> None: ...

    def synchronize(self) -> None: ...


def twice(step: Step, disturb: Disturb, pool: Any = None) -> Step:
    """As a capture does: it runs before anybody asks for an answer."""
    step()
    disturb()
    step()
    return step


@contextmanager
def fake_cuda(patch: pytest.MonkeyPatch) -> Iterator[None]:
    patch.setattr(nn.Module, "_apply", replaced)
    patch.setattr(torch.cuda, "Event", Event)
    patch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    patch.setattr(cuda, "captured", twice)
    patch.setattr(CudaAttention, "choice", lambda *_: BACKENDS[0])
    numpy, zeros, generator = Tensor.numpy, torch.zeros, torch.Generator

    def numbers(self: Tensor, **_: Any) -> Any:
        kind = {torch.uint8: np.uint8, torch.int32: np.int32}.get(self.dtype, np.float32)
        return np.zeros(self.shape, kind) if isinstance(self, FakeTensor) else numpy(self)

    patch.setattr(Tensor, "numpy", numbers)
    patch.setattr(torch, "zeros", lambda *shape, pin_memory=False, **kind: zeros(*shape, **kind))
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, Indexing(mode):
        patch.setattr(torch, "Generator", lambda *_: generator())
        yield


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    net = Sam2(get_preset("nano"), SIZE)
    monkeypatch.setattr(rtseg.engine, "load_network", lambda *_: net)
    with fake_cuda(monkeypatch):
        yield


def opened(precision: str = "fp32", policy: str = "efp", objects: int = 3) -> CudaEngine:
    recipe = Recipe("nano", image_size=SIZE, runtime="cuda", precision=precision, memory=MemoryPlan(policy))
    network = rtseg.engine.load_network(get_preset("nano"), SIZE, None)  # type: ignore[arg-type]
    return CudaEngine(network, replace(recipe, max_objects=objects), "", "cuda:0")


def places(values: Sequence[Any]) -> set[str]:
    return {str(t.device) for t in values}


def follow(tracker: Tracker) -> None:
    """Three objects that come and go, corrections of each kind, ten frames that nobody touches, another size."""
    picture_hwc, mask_hw = np.zeros((48, 80, 3), np.uint8), np.zeros((48, 80), bool)
    mask_hw[10:30, 20:50] = True
    for t in range(24):
        if t in (0, 12):
            tracker.prompt(1, points=[(9, 9, 1)])
        if t == 11:
            tracker.prompt(2, box=(5, 5, 30, 30))
            tracker.prompt(3, mask=mask_hw)
        if t == 13:
            tracker.remove(2)
        if t == 15:
            tracker.prompt(1, mask=mask_hw)
        masks = tracker.step(picture_hwc if t < 20 else np.zeros((90, 70, 3), np.uint8))
        assert len(masks.ids) == len(tracker.ids)


@pytest.mark.parametrize("precision", ["fp32", *(pytest.param(p, marks=pytest.mark.slow) for p in ("bf16", "fp16"))])
def test_a_video_never_mixes_devices(gpu: None, precision: str) -> None:
    engine = opened(precision)
    follow(Tracker(engine))
    assert places([*engine._static.buffers(), *engine._network.parameters()]) == {"cuda:0"}


@pytest.mark.slow
@pytest.mark.parametrize("policy", [p for p in POLICIES if p != "efp"])
def test_every_policy(gpu: None, policy: str) -> None:
    follow(Tracker(opened(policy=policy)))


# Negative controls


def test_tables_of_the_cpu_are_noticed(gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the engine was made before: its tables on the CPU, its weights on the device already."""
    network = rtseg.engine.load_network(get_preset("nano"), SIZE, None)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="cpu and cuda:0"):
        StaticNetwork(network.to("cuda:0"))


def test_one_table_on_the_cpu_is_noticed(gpu: None) -> None:
    engine = opened()
    rotate = engine._static.attend.rotate
    assert isinstance(rotate, Rotation)
    rotate.cos = torch.zeros(rotate.cos.shape, device="cpu")
    with pytest.raises(RuntimeError, match="cpu"):
        follow(Tracker(engine))


def test_a_wait_within_the_step_is_noticed(gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = opened()
    forward = engine._static.decode.forward
    monkeypatch.setattr(engine._static.decode, "forward", lambda *x: (x[0].sum().item(), forward(*x))[1])
    with pytest.raises(torch._subclasses.fake_tensor.DataDependentOutputException):
        follow(Tracker(engine))
