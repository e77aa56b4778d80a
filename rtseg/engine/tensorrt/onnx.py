"""The four verbs of a tracked step as ONNX graphs: one file each, with every dtype written in the graph.

TensorRT 11 follows the dtypes of the graph (10 does with a flag), so precision is decided here: products and attention
are in the recipe's precision; activations between layers, norms, rotation and the heads that choose among masks are in
fp32. The number of objects b is the only dynamic axis; slots and pointers are padded to a fixed number and masked.

A tensor has the same name as an output and as an input, so that a graph's output is the next one's input.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...base.errors import EngineError
from ...sam2 import Preset, Sam2
from ..onnx.graphs import quiet_exporter
from ..recipe import Recipe
from ..static.match import with_match
from ..static.network import StaticNetwork
from .attention import TypedAttention, WideRead
from .operators import faults
from .quantize import quantized

OPSET = 20  # the newest that TensorRT 10.0 documents
PRODUCTS = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "int8": torch.bfloat16,  # of layers that are not quantised; fp16 would overflow in networks trained in fp32
    "fp8": torch.bfloat16,
}
MEMORY = ("keys_btlnd", "values_btnm", "slots_bt", "present_bt", "pointers_bpd", "ages_bp", "real_bp")
VERBS = {
    "encode": (("image_1chw",), ("top", "mid", "fine")),
    "attend": (("top", *MEMORY), ("conditioned_bdhw",)),
    "decode": (("conditioned_bdhw", "mid", "fine"), ("logits_b1hw", "iou_b", "score_b", "pointer_bd")),
    "remember": (("top", "logits_b1hw", "score_b", "certain_b"), ("tokens_bnm", "written_blnd")),
}
MATCH = ("mid", "cells_bcgg", "matched_b")  # what `attend` takes first, in a network that has this part


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output: its dtype, and its shape, which is that of one object unless `shared`."""

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    shared: bool = False

    def shape_for(self, objects: int) -> tuple[int, ...]:
        """The shape for this many objects."""
        return self.shape if self.shared else (objects, *self.shape)


@dataclass(frozen=True, slots=True)
class Shapes:
    """Everything that the shapes of the graphs depend on.

    `slots` are the numbers of memory slots, each with an `attend` of its own: how many memories an object prompted once
    has in the long run, and the most that one can ever have, if that is more.
    """

    preset: Preset
    image_size: int
    slots: tuple[int, ...]
    pointers: int
    max_objects: int
    keys: torch.dtype

    @staticmethod
    def for_recipe(preset: Preset, recipe: Recipe) -> Shapes:
        """The shapes for a recipe."""
        memory, window = recipe.memory, preset.num_maskmem
        slots = sorted({memory.full_bank(window), memory.most_slots(window)})
        products = PRODUCTS[recipe.precision]
        return Shapes(preset, recipe.image_size, tuple(slots), memory.most_pointers(), recipe.max_objects, products)

    @property
    def graphs(self) -> dict[str, tuple[str, int]]:
        """The verb of each graph, and its number of slots (0: it has none), by the graph's name."""
        attends = {f"attend{t}": ("attend", t) for t in self.slots}
        return {"encode": ("encode", 0), **attends, "decode": ("decode", 0), "remember": ("remember", 0)}

    def ends(self, verb: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The inputs and outputs of a verb, by name."""
        inputs, outputs = VERBS[verb]
        return (MATCH + inputs if verb == "attend" and self.preset.match_dim else inputs), outputs

    def ports(self, slots: int) -> dict[str, Port]:
        """All inputs and outputs of graphs with this many slots, by name. g = S / 16, n tokens of a memory."""
        p, s, g, t = self.preset, self.image_size, self.image_size // 16, slots
        layers, n, d, m = p.attention_layers, p.memory_tokens(g), p.dim, p.memory_dim
        cells = {"cells_bcgg": Port((p.match_dim + 1, 2 * g, 2 * g)), "matched_b": Port(())}
        return (cells if p.match_dim else {}) | {
            "image_1chw": Port((1, 3, s, s), shared=True),
            "top": Port((1, d, g, g), shared=True),
            "mid": Port((1, d // 4, 2 * g, 2 * g), shared=True),
            "fine": Port((1, d // 8, 4 * g, 4 * g), shared=True),
            "keys_btlnd": Port((t, layers, n, d), self.keys),
            "values_btnm": Port((t, n, m)),
            "slots_bt": Port((t,), torch.int64),
            "present_bt": Port((t,), torch.bool),
            "pointers_bpd": Port((self.pointers, d)),
            "ages_bp": Port((self.pointers,)),
            "real_bp": Port((self.pointers,), torch.bool),
            "conditioned_bdhw": Port((d, g, g)),
            "logits_b1hw": Port((1, 4 * g, 4 * g)),
            "iou_b": Port(()),
            "score_b": Port(()),
            "pointer_bd": Port((d,)),
            "certain_b": Port((), torch.bool),
            "tokens_bnm": Port((n, m)),
            "written_blnd": Port((layers, n, d), self.keys),
        }


def typed(network: Sam2, precision: str, peaks: Mapping[str, float] | None = None) -> StaticNetwork:
    """The static network in the dtypes of a precision. `peaks`: what `quantize.calibrate` returns, for int8 and fp8."""
    products = PRODUCTS[precision]
    # A copy, because moving and converting would change the caller's network.
    static = StaticNetwork(copy.deepcopy(network).cpu().float(), TypedAttention(products))
    static.precise(products, torch.float32)
    for head in (static.decode.iou, static.decode.score, static.decode.pointer, static.decode.mixing):
        head.float()  # these heads choose among masks, and cost almost nothing
    return static if peaks is None else quantized(static, peaks, precision)


class _Attend(nn.Module):
    def __init__(self, static: StaticNetwork) -> None:
        super().__init__()
        self.attend = static.attend

    def forward(
        self, top: Tensor, keys_btlnd: Tensor, values_btnm: Tensor, slots_bt: Tensor, present_bt: Tensor,
        pointers_bpd: Tensor, ages_bp: Tensor, real_bp: Tensor,
    ) -> Tensor:  # fmt: skip
        read = WideRead(self.attend, keys_btlnd, values_btnm, slots_bt, present_bt, pointers_bpd, ages_bp, real_bp)
        out: Tensor = self.attend(top, read).float()
        return out


class _AttendMatched(_Attend):
    """`attend` of a network with `Match`."""

    def __init__(self, static: StaticNetwork) -> None:
        super().__init__(static)
        self.match = static.match

    def forward(  # type: ignore[override]
        self, mid: Tensor, cells_bcgg: Tensor, matched_b: Tensor, top: Tensor, keys_btlnd: Tensor, values_btnm: Tensor,
        slots_bt: Tensor, present_bt: Tensor, pointers_bpd: Tensor, ages_bp: Tensor, real_bp: Tensor,
    ) -> Tensor:  # fmt: skip
        assert self.match is not None
        memory = (keys_btlnd, values_btnm, slots_bt, present_bt, pointers_bpd, ages_bp, real_bp)
        return with_match(self.match, super().forward(top, *memory), top, mid, cells_bcgg, matched_b)


class _Remember(nn.Module):
    """`remember`, with the keys of the tokens in the dtype that `attend` reads."""

    def __init__(self, static: StaticNetwork, keys: torch.dtype) -> None:
        super().__init__()
        self.attend, self.remember, self.keys = static.attend, static.remember, keys

    def forward(self, top: Tensor, logits_b1hw: Tensor, score_b: Tensor, certain_b: Tensor) -> tuple[Tensor, Tensor]:
        tokens_bnm: Tensor = self.remember(top, logits_b1hw, score_b, certain_b)
        return tokens_bnm, self.attend.keys_of(tokens_bnm).to(self.keys)


class _Float(nn.Module):
    """A verb with fp32 outputs, whatever the dtype of its last product."""

    def __init__(self, verb: nn.Module) -> None:
        super().__init__()
        self.verb = verb

    def forward(self, first: Tensor, mid: Tensor | None = None, fine: Tensor | None = None) -> tuple[Tensor, ...]:
        answers = self.verb(first) if mid is None else self.verb(first, mid, fine)
        return tuple(answer.float() for answer in answers)


def export(
    static: StaticNetwork, shapes: Shapes, folder: Path, note: Callable[[str], None] = lambda _: None
) -> dict[str, Path]:
    """Write each graph as `folder`/NAME.onnx, and return the paths by name. Raises `EngineError`, as `graph` does.

    The same network and shapes give the same bytes.
    """
    paths = {}
    for name in shapes.graphs:
        note(f"exporting {name}")
        paths[name] = folder / f"{name}.onnx"
        paths[name].write_bytes(graph(static, shapes, name).SerializeToString(deterministic=True))
    return paths


def graph(static: StaticNetwork, shapes: Shapes, name: str) -> Any:
    """One graph as a `ModelProto`, without traces of the machine that it was made on.

    Raises `EngineError` if the exporter is missing, or if the graph has something that TensorRT does not document.
    """
    _need_exporter()
    verb, slots = shapes.graphs[name]
    inputs, outputs = shapes.ends(verb)
    ports = shapes.ports(slots)
    # Traced with two objects, because the exporter makes an axis of length one a constant.
    examples = tuple(torch.zeros(ports[name].shape_for(2), dtype=ports[name].dtype) for name in inputs)
    objects = torch.export.Dim("objects", min=1, max=max(2, shapes.max_objects))
    axes = tuple({} if ports[name].shared else {0: objects} for name in inputs)
    with quiet_exporter(), torch.no_grad():
        program = torch.onnx.export(
            _module(static, shapes, verb), examples, dynamo=True, verbose=False, opset_version=OPSET,
            dynamic_shapes=axes, input_names=list(inputs), output_names=list(outputs),
        )  # fmt: skip
    assert program is not None  # it is None only if a file is named
    model = program.model_proto  # the property makes a new one at each access
    _strip(model)
    found = [*_constant_axes(model, ports), *faults(model)]
    if found:
        raise EngineError(f"{name}: not a graph for TensorRT: {'; '.join(found)}; this is a bug of rtseg, report it")
    return model


def _module(static: StaticNetwork, shapes: Shapes, verb: str) -> nn.Module:
    if verb == "attend":
        return _AttendMatched(static) if static.match else _Attend(static)
    if verb == "remember":
        return _Remember(static, shapes.keys)
    return _Float(static.encoder if verb == "encode" else static.decode)


def _constant_axes(model: Any, ports: Mapping[str, Port]) -> list[str]:
    """Inputs whose number of objects is fixed: the exporter fixes it silently if the code uses it as a number."""
    firsts = {value.name: value.type.tensor_type.shape.dim[0].dim_param for value in model.graph.input}
    return [
        f"{name} has a fixed number of objects" for name, axis in firsts.items() if not (axis or ports[name].shared)
    ]


def _strip(model: Any) -> None:
    """Remove stack traces, paths and versions, so that the same graph gives the same file."""
    model.ClearField("producer_version")
    for holder in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        holder.ClearField("metadata_props")
        holder.ClearField("doc_string")
    for value in (*model.graph.input, *model.graph.output):
        value.ClearField("metadata_props")


def _need_exporter() -> None:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as e:
        raise EngineError(f"{e.name} is not installed, and TensorRT reads ONNX: pip install 'rtseg[tensorrt]'") from e
