"""The operators of rtseg's graphs, with the types and limits that TensorRT's ONNX parser documents.

From the operator table of onnx-tensorrt for TensorRT 10.0 (opset 9 to 20); later versions only add to it. A graph that
passes this check is documented as supported by 10 and 11.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

FLOATS = frozenset({"FP32", "FP16", "BF16"})
NUMBERS = FLOATS | {"INT32", "INT64"}
ALL = NUMBERS | {"BOOL"}
QUANTA = frozenset({"INT8", "FP8"})
KNOWN = ALL | QUANTA | {"UINT8"}  # all types of values in TensorRT

OPERATORS: dict[str, frozenset[str]] = {
    "Add": NUMBERS,
    "ArgMax": NUMBERS,
    "Cast": ALL | {"UINT8"},
    "Clip": FLOATS,
    "Concat": ALL,
    "ConstantOfShape": ALL,
    "Conv": FLOATS,
    "Cos": FLOATS,
    "DequantizeLinear": QUANTA,
    "Div": NUMBERS,
    "Expand": ALL,
    "Gather": ALL,
    "GatherElements": ALL,
    "GatherND": ALL,
    "Gelu": FLOATS,
    "Gemm": FLOATS,
    "Greater": NUMBERS,
    "LayerNormalization": FLOATS,
    "LessOrEqual": NUMBERS,
    "MatMul": FLOATS,
    "MaxPool": FLOATS,
    "Mul": NUMBERS,
    "Pad": NUMBERS,
    "QuantizeLinear": FLOATS,
    "ReduceL2": NUMBERS,
    "ReduceMax": NUMBERS,
    "ReduceMean": NUMBERS,
    "ReduceSum": NUMBERS,
    "Relu": NUMBERS,
    "Reshape": ALL,
    "Resize": FLOATS,
    "Shape": ALL,
    "Sigmoid": FLOATS,
    "Sin": FLOATS,
    "Slice": ALL,
    "Softmax": FLOATS,
    "Split": ALL,
    "Squeeze": ALL,
    "Sub": NUMBERS,
    "Transpose": ALL,
    "Unsqueeze": ALL,
    "Where": ALL,
}
NAMES = {
    1: "FP32", 2: "UINT8", 3: "INT8", 6: "INT32", 7: "INT64", 9: "BOOL", 10: "FP16", 16: "BF16", 17: "FP8",
}  # fmt: skip  # of TensorProto.DataType


@dataclass(frozen=True, slots=True)
class _Node:
    """A node, with the types of the graph's values and its constants."""

    node: Any
    types: Mapping[str, str]
    constants: Mapping[str, Any]

    def attribute(self, name: str, default: Any) -> Any:
        import onnx

        found = [onnx.helper.get_attribute_value(a) for a in self.node.attribute if a.name == name]
        return (found[0].decode() if isinstance(found[0], bytes) else found[0]) if found else default

    def given(self, index: int) -> str:
        """The name of an input, "" if it is left out."""
        return self.node.input[index] if index < len(self.node.input) else ""

    def is_constant(self, index: int) -> bool:
        return not self.given(index) or self.given(index) in self.constants


def _one_output(n: _Node) -> str | None:
    return "only its first output is supported" if len([o for o in n.node.output if o]) > 1 else None


def _max_pool(n: _Node) -> str | None:
    dilated = set(n.attribute("dilations", [1])) - {1}
    flat = len(n.attribute("kernel_shape", ())) not in (2, 3)
    return _one_output(n) or ("only undilated 2D and 3D pooling is supported" if dilated or flat else None)


def _resize(n: _Node) -> str | None:
    where = ("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners")
    if n.attribute("coordinate_transformation_mode", "half_pixel") not in where:
        return f"coordinates are none of {', '.join(where)}"
    if n.attribute("mode", "nearest") not in ("nearest", "linear"):
        return "its mode is neither nearest nor linear"
    if n.attribute("antialias", 0):
        return "antialiasing is not supported"
    return None if n.attribute("keep_aspect_ratio_policy", "stretch") == "stretch" else "only stretching is supported"


def _zero_point(n: _Node) -> str | None:
    zero = n.constants.get(n.given(2))
    return None if not n.given(2) or (zero is not None and not zero.any()) else "its zero point is not 0"


def _constant(index: int, name: str) -> Callable[[_Node], str | None]:
    return lambda n: None if n.is_constant(index) else f"{name} is not a constant"


LIMITS: dict[str, Callable[[_Node], str | None]] = {
    "DequantizeLinear": _zero_point,
    "LayerNormalization": _one_output,
    "MaxPool": _max_pool,
    "Pad": _constant(3, "axes"),
    "QuantizeLinear": _zero_point,
    "ReduceL2": _constant(1, "axes"),
    "ReduceMax": _constant(1, "axes"),
    "ReduceMean": _constant(1, "axes"),
    "ReduceSum": _constant(1, "axes"),
    "Resize": _resize,
    "Slice": _constant(3, "axes"),
    "Squeeze": _constant(1, "axes"),
    "Unsqueeze": _constant(1, "axes"),
}


def faults(model: Any) -> list[str]:
    """What a `ModelProto` contains that TensorRT does not document as supported, one line each."""
    import onnx

    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    graph = model.graph
    types = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.input, *graph.output)}
    types |= {i.name: i.data_type for i in graph.initializer}
    named = {name: NAMES.get(kind, f"ONNX type {kind}") for name, kind in types.items()}
    constants = {i.name: onnx.numpy_helper.to_array(i) for i in graph.initializer if len(i.dims) < 2}
    return [line for node in graph.node for line in _of_node(_Node(node, named, constants), model)]


def _of_node(n: _Node, model: Any) -> Iterator[str]:
    import onnx

    kind, where = n.node.op_type, f"{n.node.op_type} {n.node.name}"
    if n.node.domain or kind not in OPERATORS:
        yield f"{where}: no such operator"
        return
    versions = {opset.domain: opset.version for opset in model.opset_import}
    schema = onnx.defs.get_schema(kind, versions[""], "")
    # The documented types are those of the first input, and of all values that must have the same type; for Where and
    # Cast also those of condition and result. Any other value may have any type that TensorRT has.
    documented = {"Where": {"B", "T"}, "Cast": {"T1", "T2"}}.get(kind, {schema.inputs[0].type_str})
    for names, formals in ((n.node.input, schema.inputs), (n.node.output, schema.outputs)):
        for i, name in enumerate(names):
            formal = formals[min(i, len(formals) - 1)].type_str
            allowed = OPERATORS[kind] if formal in documented else KNOWN
            if name and n.types.get(name) not in allowed:
                yield f"{where}: {name} is {n.types.get(name, 'of no known type')}, not {' '.join(sorted(allowed))}"
    limit = LIMITS[kind](n) if kind in LIMITS else None
    if limit:
        yield f"{where}: {limit}"
