"""What an operation answers to inputs like some that it has had: torch's own way to find out is the slow part."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily

Made = tuple[
    torch.Size, tuple[int, ...], torch.dtype, torch.device, int | None
]  # where in the first argument's storage


class StrangeError(Exception):
    """An argument that no key is made of."""


def tensors_in(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from tensors_in(each)


def named(t: Tensor) -> str:
    return f"{list(t.shape)} {str(t.dtype)[6:]}"


def key_of(value: Any) -> Any:
    if isinstance(value, Tensor):
        if not isinstance(value, FakeTensor) or value.fake_device.type != "cuda":
            raise StrangeError
        return value.shape, value.stride(), value.storage_offset(), value.dtype, value.fake_device
    if isinstance(value, (list, tuple)):
        return tuple(map(key_of, value))
    return type(value), value  # 1, 1.0 and True are equal, and make other types


class Shapes:
    """Answers by operation and inputs: of what makes new tensors, or views of its first argument, or writes to that."""

    def __init__(self, fake: FakeTensorMode) -> None:
        self.fake = fake
        self.known: dict[Any, list[Made] | Made | None] = {}

    def key(self, func: Any, args: Any, kwargs: Any) -> Any:
        try:
            return func, key_of(args), key_of(tuple(kwargs.items()))
        except StrangeError:
            return None

    def made(self, func: Any, args: Any, kwargs: Any) -> Any:
        """The answer, or None if it is not known."""
        key = self.key(func, args, kwargs)
        if key is None or key not in self.known:
            return None
        found = self.known[key]
        if found is None:
            return args[0]
        with unset_fake_temporarily():
            return [self.fresh(m, args) for m in found] if isinstance(found, list) else self.fresh(found, args)

    def fresh(self, made: Made, args: Any) -> FakeTensor:
        shape, strides, dtype, device, offset = made
        if offset is None:
            meta = torch.empty_strided(shape, strides, dtype=dtype, device="meta")
            return FakeTensor(self.fake, meta, device)
        storage = args[0].untyped_storage()
        with torch.inference_mode(args[0].is_inference()):  # as its base, whatever the mode
            meta = torch.empty(0, dtype=dtype, device="meta").set_(storage, offset, shape, strides)
            return FakeTensor(self.fake, meta, device)

    def keep(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        """Take note of an answer, where it can be given again."""
        key = self.key(func, args, kwargs)
        if key is None:
            return
        if args and result is args[0]:
            self.known[key] = None
            return
        parts = result if isinstance(result, (list, tuple)) else [result]
        if func._schema.is_mutable or not all(
            isinstance(t, FakeTensor) and t.fake_device.type == "cuda" for t in parts
        ):
            return
        sources = [t.untyped_storage()._cdata for t in tensors_in((args, *kwargs.values()))]
        facts: list[Made] = []
        for t in parts:
            mine, at = t.untyped_storage()._cdata, None
            if mine in sources:
                if not isinstance(args[0], Tensor) or mine != sources[0]:
                    return
                at = int(t.storage_offset())
            facts.append((t.shape, t.stride(), t.dtype, t.fake_device, at))
        self.known[key] = facts if isinstance(result, (list, tuple)) else facts[0]
