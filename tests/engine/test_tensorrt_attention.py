"""Attention in the graphs is what TensorRT documents as fused, and its memory where it is not is known beforehand."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

from rtseg.engine.attention_shapes import AttentionShape, attention_shapes, scores_bytes
from rtseg.engine.static.memory import PaddedRead
from rtseg.engine.tensorrt.attention import TypedAttention, WideRead
from rtseg.engine.tensorrt.onnx import OPSET, typed
from rtseg.engine.tensorrt.operators import NAMES
from rtseg.sam2 import PRESETS, Sam2
from tests.engine.test_onnx import MINI, RECIPE, SIZE, SLOTS, bf16, network, onnx, shapes_of  # noqa: F401

pytestmark = pytest.mark.slow  # the exporter takes its time


@pytest.fixture(scope="module")
def models(bf16: dict[str, Any]) -> dict[str, Any]:  # noqa: F811
    return {name: model for name, model in bf16.items() if name != "remember"}


class Seen:
    """A graph with the types and shapes of its values, and who makes them."""

    def __init__(self, model: Any) -> None:
        self.graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
        values = (*self.graph.value_info, *self.graph.input, *self.graph.output)
        self.types = {v.name: NAMES[v.type.tensor_type.elem_type] for v in values}
        self.types |= {i.name: NAMES[i.data_type] for i in self.graph.initializer}
        self.shapes = {v.name: [d.dim_value or d.dim_param for d in v.type.tensor_type.shape.dim] for v in values}
        self.shapes |= {i.name: list(i.dims) for i in self.graph.initializer}
        self.made = {name: node for node in self.graph.node for name in node.output}
        self.softmaxes = [node for node in self.graph.node if node.op_type == "Softmax"]

    def users(self, name: str) -> list[Any]:
        return [node for node in self.graph.node if name in node.input]

    def behind(self, name: str, *kinds: str) -> Any:
        """The node that made a value, behind nodes of these kinds."""
        node = self.made.get(name)
        while node is not None and node.op_type in kinds:
            node = self.made.get(node.input[0])
        return node

    def faults(self, softmax: Any) -> list[str]:
        """What TensorRT does not document as fused."""
        first, mask = self.made[softmax.input[0]], None
        if first.op_type == "Add":
            first, mask = self.made[first.input[0]], first.input[1]
        last = self.users(softmax.output[0])
        if (
            first.op_type != "MatMul"
            or [n.op_type for n in last] != ["MatMul"]
            or last[0].input[0] != softmax.output[0]
        ):
            return ["not a softmax between two products"]
        q, k, v = *first.input, last[0].input[1]
        types = {self.types[name] for name in (q, k, v, softmax.input[0], softmax.output[0], last[0].output[0])}
        width, values = self.shapes[k][-2], self.shapes[v][-1]
        scaled = self.behind(q, "Cast", "Reshape", "Transpose", "Expand", "Unsqueeze", "Squeeze")
        found = [f"types {sorted(types)}"] if types not in ({"BF16"}, {"FP16"}) else []
        found += [f"keys {width} wide, values {values}"] if width != values else []
        found += [f"{width} wide"] if width % 8 or not 16 <= width <= 256 else []
        found += ["queries are not scaled"] if scaled is None or scaled.op_type != "Mul" else []
        found += ["the mask is of another type"] if mask and self.types[mask] != self.types[q] else []
        return found


def faults(model: Any) -> list[str]:
    seen = Seen(model)
    return [line for softmax in seen.softmaxes for line in seen.faults(softmax)]


def test_every_place_is_fused_as_documented(models: dict[str, Any]) -> None:
    for name, model in models.items():
        assert faults(model) == [], name
        assert Seen(model).softmaxes


class Plain(TypedAttention):
    """What is put in: a softmax in fp32, or queries as they are."""

    def __init__(self, products: torch.dtype, fault: str) -> None:
        super().__init__(products)
        self.fault = fault

    def forward(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        q = q if self.fault == "unscaled" else q.float() * q.shape[-1] ** -0.5
        scores = q.to(self.products) @ k.to(self.products).transpose(-2, -1)
        scores = scores.float() if self.fault == "wide softmax" else scores
        return scores.softmax(dim=-1).to(self.products) @ v.to(self.products)


BF16 = torch.bfloat16


@pytest.mark.parametrize(
    ("attention", "widths", "fault"),
    [
        (TypedAttention(BF16), (64, 64), ""),
        (TypedAttention(torch.float16), (64, 64), ""),
        (TypedAttention(torch.float32), (64, 64), "types ['FP32']"),
        (TypedAttention(BF16), (64, 32), "keys 64 wide, values 32"),
        (TypedAttention(BF16), (8, 8), "8 wide"),
        (TypedAttention(BF16), (264, 264), "264 wide"),
        (Plain(BF16, "wide softmax"), (64, 64), "not a softmax between two products"),
        (Plain(BF16, "unscaled"), (64, 64), "queries are not scaled"),
    ],
)
def test_what_is_not_fused_is_seen(attention: TypedAttention, widths: tuple[int, int], fault: str) -> None:
    shapes = ((1, 2, 5, widths[0]), (1, 2, 7, widths[0]), (1, 2, 7, widths[1]), (1, 1, 1, 7))
    program = torch.onnx.export(
        attention, tuple(torch.zeros(shape) for shape in shapes), dynamo=True, verbose=False, opset_version=OPSET
    )
    assert program is not None
    assert faults(program.model_proto) == ([fault] if fault else [])


def test_the_places_are_those_of_the_graphs(models: dict[str, Any]) -> None:
    """Of one object each: what is the image's is there once whatever the number of objects."""
    known = attention_shapes(MINI, SIZE, SLOTS, RECIPE.memory.most_pointers())
    for name, model in models.items():
        seen = Seen(model)
        found = Counter(tuple(seen.shapes[s.output[0]]) for s in seen.softmaxes)
        expected = Counter(
            (p.batch if p.shared else "objects", p.heads, p.queries, p.keys) for p in known if name.startswith(p.graph)
        )
        # The first layer of attention sees one image, before there are objects.
        if name == "attend3":
            first = (1, 1, 64, 64)
            assert found[first] == 1
            found[("objects", *first[1:])] += found.pop(first)
        assert found == expected, name


def test_the_estimate() -> None:
    tiny = PRESETS["sam2.1-tiny"]
    cells, keys = 64 * 64, 7 * 64 * 64 + 16 * 4
    one = scores_bytes(tiny, 1024, 7, 16, 1, "bf16")
    assert one == 2 * 2 * cells * keys  # scores and probabilities of one layer, in bf16
    assert scores_bytes(tiny, 1024, 7, 16, 8, "bf16") == 8 * one
    assert scores_bytes(tiny, 1024, 7, 16, 1, "fp32") == 2 * one
    assert scores_bytes(tiny, 1024, 7, 16, 8, "bf16", fused=True) == 0
    assert scores_bytes(tiny, 1024, 7, 16, 8, "fp32", fused=True) == scores_bytes(tiny, 1024, 7, 16, 8, "fp32")


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_fusable(preset: str) -> None:
    assert all(place.fusable("bf16") for place in attention_shapes(PRESETS[preset], 1024, 7, 16))
    assert not any(place.fusable("fp32") for place in attention_shapes(PRESETS[preset], 1024, 7, 16))
    assert not AttentionShape("attend", 1, 1, 8, 8, 260, 64).fusable("bf16")


def test_values_that_are_filled_up_answer_the_same(network: Sam2) -> None:  # noqa: F811
    static, ports = typed(network, "bf16"), shapes_of("bf16").ports(SLOTS)
    draw = torch.Generator().manual_seed(0)
    names = ("keys_btlnd", "values_btnm", "slots_bt", "present_bt", "pointers_bpd", "ages_bp", "real_bp")
    given = [torch.randn(ports[n].shape_for(2), generator=draw).abs().to(ports[n].dtype) for n in names]
    q = torch.randn(1, 64, 64, generator=draw)
    wide, narrow = (read(static.attend, *given)(0, q) for read in (WideRead, PaddedRead))
    assert wide.shape == narrow.shape and torch.equal(wide, narrow)
