"""A small network, its recipe, and plans without nodes: for tests that look at how plans are made, held and ordered."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import onnx
import torch

from rtseg.engine.recipe import MemorySettings, Recipe
from rtseg.engine.tensorrt import making
from rtseg.engine.tensorrt.onnx import Shapes
from rtseg.sam2 import Preset
from tests.engine.fake_gpu import FakeGpu
from tests.engine.fake_tensorrt import fake

MINI = Preset(
    "mini", 16, 1, (1, 1, 1, 1), (2,), (8, 4, 14, 7), 7,
    dim=64, memory_dim=32, attention_layers=1, attention_ffn=64, decoder_ffn=64, decoder_heads=2,
)  # fmt: skip
# Two kinds of `attend`: 2 slots in the long run, 5 where a person keeps correcting.
RECIPE = Recipe(image_size=64, runtime="tensorrt", precision="fp32", max_objects=3, memory=MemorySettings(spatial=2))
TYPES = {torch.float32: 1, torch.float16: 10, torch.bfloat16: 16, torch.int64: 7, torch.bool: 9}


def pretend(monkeypatch: Any, version: str = "11.4.0.106") -> Any:
    """TensorRT of this version and a GPU; the module, as the package will import it."""
    module = fake(version)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    monkeypatch.setattr(making, "CudaGpu", FakeGpu)
    return module


def hollow(static: object, shapes: Shapes, folder: Path, note: object) -> dict[str, Path]:
    """In place of `export`: graphs without nodes."""
    paths = {}
    for name, (verb, slots) in shapes.graphs.items():
        inputs, outputs = ([_value(shapes, port, slots) for port in side] for side in shapes.ends(verb))
        paths[name] = folder / f"{name}.onnx"
        paths[name].write_bytes(
            onnx.helper.make_model(onnx.helper.make_graph([], name, inputs, outputs)).SerializeToString()
        )
    return paths


def _value(shapes: Shapes, name: str, slots: int) -> Any:
    port = shapes.ports(slots)[name]
    shape = port.shape if port.shared else ("objects", *port.shape)
    return onnx.helper.make_tensor_value_info(name, TYPES[port.dtype], shape)
