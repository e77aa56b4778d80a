"""Networks, pictures and engines that the parts share. It needs torch, numpy, OpenCV, msgspec and psutil."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

import rtseg
from bench.contenders import Box, randomize
from rtseg.base.types import ImageU8
from rtseg.engine import Engine
from rtseg.engine.base import Readies
from rtseg.engine.cuda import CudaEngine
from rtseg.engine.cuda import open as open_cuda
from rtseg.engine.recipe import SHIPPED, MemorySettings, Recipe
from rtseg.engine.reference import TorchEngine
from rtseg.sam2 import Sam2, get_preset

SEED = 3  # of random weights: with this one the object stays small, and moves
SHOWN = 24  # pictures, shown there and back again
# Types as safetensors names them, that shipped weights have.
STORED = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}


@dataclass(frozen=True, slots=True)
class Case:
    """A network at an image size on a device: random weights, or with `shipped` those of the package.

    `fuse`: the engine's encoder is compiled, as it is where a user opens it; that takes a minute the first time.
    """

    preset: str
    size: int
    device: str
    fuse: bool = True
    shipped: bool = False

    @property
    def name(self) -> str:
        return f"{self.preset}:{self.size}"

    def recipe(self, runtime: str, precision: str, policy: str = "fifo", objects: int = 1) -> Recipe:
        plan = MemorySettings(policy)
        weights = "random"  # names no file: what is opened here is never built
        return Recipe(self.preset, weights, self.size, runtime, precision, max_objects=objects, memory=plan)

    def network(self) -> Sam2:
        """A new one each time, with the same weights: engines change theirs."""
        network = Sam2(get_preset(self.preset), self.size).eval()
        if self.shipped:
            network.load_state_dict({name: t.float() for name, t in shipped(self.preset).items()})
        else:
            randomize(network, SEED)
        return network

    def engine(self, precision: str, policy: str = "fifo", objects: int = 1) -> Engine:
        """The `cuda` engine; on a CPU, the same one without graphs."""
        recipe = self.recipe("cuda", precision, policy, objects)
        if self.device == "cpu" or not self.fuse:
            return CudaEngine(self.network(), recipe, "", self.device)
        return open_cuda(self.network(), recipe, "", None)

    def reference(self, policy: str = "fifo", objects: int = 1, device: str = "cpu") -> TorchEngine:
        """fp32, as the network is written."""
        return TorchEngine(self.network(), self.recipe("torch", "fp32", policy, objects), "", device)


def case_of(text: str, device: str, fuse: bool = True, shipped: bool = False) -> Case:
    """PRESET:SIZE as a case."""
    preset, _, size = text.rpartition(":")
    return Case(preset, int(size), device, fuse, shipped)


@lru_cache(maxsize=4)
def shipped(preset: str) -> dict[str, Tensor]:
    """The tensors of the package's weights. `safetensors` need not be installed: its format is a table and numbers."""
    path = Path(SHIPPED) / f"{preset}.safetensors"
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    table = json.loads(data[8:start])
    found = {}
    for name, entry in table.items():
        if name != "__metadata__":
            first, last = entry["data_offsets"]
            flat = torch.frombuffer(bytearray(data[start + first : start + last]), dtype=STORED[entry["dtype"]])
            found[name] = flat.view(entry["shape"])
    return found


def get_ready(engine: Engine, height: int, width: int) -> None:
    """Whatever the engine does before the first frame of a size, if it offers to."""
    if isinstance(engine, Readies):
        engine.ready(height, width, lambda: None)


@lru_cache(maxsize=4)
def endoscope(height: int, width: int, frames: int = SHOWN) -> tuple[list[ImageU8], Box]:
    """Pictures of the synthetic endoscope, and the box of a tool on the first."""
    uri = f"synthetic:laparoscopy?seed=10000&width={width}&height={height}&seconds={frames / 25}"
    seen = list(rtseg.open_source(uri))
    truth_hw = seen[0].truth_hw
    assert truth_hw is not None
    x, y, w, h = cv2.boundingRect((truth_hw == 1).astype(np.uint8))
    return [frame.image_hwc for frame in seen], (x, y, x + w, y + h)


def there_and_back(pictures: list[ImageU8], count: int) -> list[ImageU8]:
    """As many pictures as are asked for, without a jump."""
    order = [*range(len(pictures)), *range(len(pictures) - 2, 0, -1)]
    return [pictures[order[t % len(order)]] for t in range(count)]


def boxes(height: int, width: int, objects: int) -> list[Box]:
    """Boxes spread over a picture, none of them like another."""
    columns = max(1, round(objects**0.5))
    rows, found = -(-objects // columns), []
    for i in range(objects):
        x, y = (i % columns + 0.5) * width / columns, (i // columns + 0.5) * height / rows
        w, h = 0.3 * width / columns * (1 + 0.1 * i / objects), 0.3 * height / rows
        found.append((x - w, y - h, x + w, y + h))
    return found


def noise(rng: np.random.Generator, height: int, width: int) -> ImageU8:
    """A fresh picture, smooth at random scales, that no network has seen and no cache holds."""
    total = np.zeros((height, width, 3), np.float32)
    for side in (2, 5, 11, 32):
        coarse = rng.normal(0, 40, (side, side, 3)).astype(np.float32)
        total += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).reshape(height, width, 3)
    return np.clip(total + rng.normal(128, 8, total.shape), 0, 255).astype(np.uint8)


def poison(device: str) -> None:
    """Leave NaN in the memory that the allocator gives out next, so that an answer that nobody wrote shows."""
    blocks = [
        torch.full((n,), float("nan"), device=device) for n in (2**10, 2**14, 2**18, 2**20, 2**22) for _ in range(4)
    ]
    del blocks


def wait(device: str) -> None:
    """Until the device has done all it was told."""
    if device != "cpu":
        torch.cuda.synchronize()


@contextmanager
def let_go() -> Iterator[None]:
    """Afterwards nothing is held of what was opened inside and is no longer named."""
    yield
    gc.collect()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
