"""What tensors, generators and modules do otherwise where CUDA is pretended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from .host import PinnedArray
from .mode import Mode
from .order import Order, Span

CpuGenerator = torch.Generator


class Generator(CpuGenerator):
    """A generator on a device; what it draws is not looked at."""

    def __new__(cls, device: Any = "cpu") -> Any:
        place = torch.device(device)
        if place.type == "cpu":
            return CpuGenerator("cpu")
        made = super().__new__(cls, "cpu")
        made.place = place
        return made

    device = property(lambda self: self.place)


def methods(mode: Mode, order: Order) -> dict[str, Any]:
    """The methods of tensors that look at memory itself."""
    numpy, data_ptr = Tensor.numpy, Tensor.data_ptr

    def as_numpy(t: Tensor, *, force: bool = False) -> Any:
        if isinstance(t, FakeTensor):
            if force:
                return as_numpy(t.detach().cpu())
            raise TypeError(f"can't convert {t.device} device type tensor to numpy. Use Tensor.cpu() first.")
        memory = mode.memory(t) if mode.pinned else None
        if memory is None:
            return numpy(t, force=force)

        def touch(array: np.ndarray, writes: bool) -> None:
            low, high = np.lib.array_utils.byte_bounds(array)
            span = Span(memory, low - memory.address, high - memory.address, f"{list(array.shape)} {array.dtype}")
            order.touch(span, writes, "NumPy")

        array = numpy(t).view(PinnedArray)
        array.touch = touch
        return array

    def address(t: Tensor) -> int:
        memory = mode.memory(t)
        if memory is None or memory.pinned:
            return int(data_ptr(t))
        return memory.address + int(t.storage_offset()) * t.element_size()

    def record_stream(t: Tensor, stream: Any) -> None:
        if (memory := mode.memory(t)) is not None:
            memory.shared.add(stream.queue.handle)

    def pin_memory(t: Tensor, device: Any = None) -> Tensor:
        return t if t.is_pinned() else torch.ops.aten._pin_memory.default(t)

    return {"numpy": as_numpy, "data_ptr": address, "record_stream": record_stream, "pin_memory": pin_memory}


def applied(module: torch.nn.Module, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> torch.nn.Module:
    """`Module._apply`, whose way to change a parameter in place does not take fake ones."""
    for child in module.children() if recurse else ():
        child._apply(fn)
    for key, parameter in module._parameters.items():
        if parameter is not None:
            with torch.no_grad():
                new = fn(parameter)
            if isinstance(new, FakeTensor) and new is not parameter:
                module._parameters[key] = torch.nn.Parameter(new, parameter.requires_grad)
            elif new is not parameter:
                parameter.data = new
    for key, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[key] = fn(buffer)
    return module
