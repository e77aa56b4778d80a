"""The ONNX graphs: they give the network's answers, in the types that were asked for, with what TensorRT documents.

`python -m bench.onnx_check` does the same at full size.
"""

from __future__ import annotations

import importlib.util
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rtseg.base.errors import EngineError
from rtseg.engine.recipe import MemorySettings, Recipe
from rtseg.engine.tensorrt import operators
from rtseg.engine.tensorrt.onnx import PRODUCTS, VERBS, Shapes, export, graph, typed
from rtseg.engine.tensorrt.operators import NAMES, OPERATORS, faults
from rtseg.engine.tensorrt.quantize import big_layers, calibrate
from rtseg.sam2 import Preset, Sam2
from tests.shared import Shared

onnx = pytest.importorskip("onnx", reason="there are no graphs without it")
pytest.importorskip("onnxscript", reason="the exporter needs it")
pytest.importorskip("onnxruntime", reason="the graphs are run by ONNX Runtime")
pytestmark = pytest.mark.slow  # the exporter takes its time

ROOT = Path(__file__).parents[2]
DOCUMENTED = ROOT.parent / "shared" / "facts" / "tensorrt-onnx-operators.txt"
# At 128 px the windows of the third stage do not fit, as at full size.
MINI = Preset(
    "mini", 16, 1, (1, 1, 2, 1), (3,), (8, 4, 14, 7), 7,
    dim=64, memory_dim=32, attention_layers=2, attention_ffn=64, decoder_ffn=64, decoder_heads=2,
)  # fmt: skip
SIZE, SLOTS = 128, 3
RECIPE = Recipe(image_size=SIZE, precision="fp32", max_objects=4, memory=MemorySettings("efp-window", spatial=SLOTS))


def script(path: Path) -> ModuleType:
    """A file that is no part of a package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


check = script(ROOT / "bench" / "onnx_check.py")
Values = dict[str, Tensor]


def shapes_of(precision: str) -> Shapes:
    """Few slots, so that the graphs are small."""
    return replace(Shapes.for_recipe(MINI, replace(RECIPE, precision=precision)), slots=(SLOTS,))


@pytest.fixture(scope="module")
def network() -> Sam2:
    made: Sam2 = check.random_network(MINI, SIZE)
    return made


@pytest.fixture(scope="module")
def paths(network: Sam2, shared: Shared) -> dict[str, Path]:
    """The graphs in fp32."""
    shapes = shapes_of("fp32")
    folder = shared.folder("onnx-fp32", lambda folder: export(typed(network, "fp32"), shapes, folder))
    return {name: folder / f"{name}.onnx" for name in shapes.graphs}


@pytest.fixture(scope="module")
def bf16(network: Sam2, shared: Shared) -> dict[str, Any]:
    """The graphs in bf16, as models."""
    shapes = shapes_of("bf16")
    folder = shared.folder("onnx-bf16", lambda folder: export(typed(network, "bf16"), shapes, folder))
    return {name: onnx.load(folder / f"{name}.onnx") for name in shapes.graphs}


@pytest.fixture(scope="module")
def peaks(network: Sam2) -> dict[str, float]:
    return calibrate(network, SLOTS, 5, "int8", pictures(3))


def pictures(count: int, seed: int = 0) -> list[np.ndarray]:
    draw = np.random.default_rng(seed)
    return [draw.integers(0, 255, (90, 120, 3), dtype=np.uint8) for _ in range(count)]


def values_of(network: Sam2, verb: str, objects: int = 2, noise: int = 2) -> Values:
    """What the verb is given and what the reference says of it; `noise` fills the absent slots."""
    values, recalls = check.reference(network, objects, SLOTS)
    keys_of = typed(network, "fp32").attend.keys_of
    if verb == "attend":
        values |= check.padded(keys_of, shapes_of("fp32"), SLOTS, recalls, noise)
    if verb == "remember":
        with torch.inference_mode():
            values["written_blnd"] = keys_of(values["tokens_bnm"])
    return dict(values)


def worst(found: Values, expected: Values) -> float:
    return max(check.difference(found[name], expected[name]) for name in found)


# The same answers


@pytest.mark.parametrize("objects", [1, 4])
def test_every_verb_gives_the_network_s_answer(objects: int, network: Sam2, paths: dict[str, Path]) -> None:
    found = list(check.compare(network, shapes_of("fp32"), paths, objects))
    assert {output for _, output, _ in found} == {name for _, outputs in VERBS.values() for name in outputs}
    assert max(off for _, _, off in found) < 1e-4


@pytest.mark.parametrize("verb", list(VERBS))
def test_a_wrong_weight_is_noticed(verb: str, network: Sam2, paths: dict[str, Path], tmp_path: Path) -> None:
    model = onnx.load(next(path for name, path in paths.items() if name.startswith(verb)))
    largest = max(model.graph.initializer, key=lambda i: len(i.raw_data) if i.data_type == 1 else 0)
    weight = onnx.numpy_helper.to_array(largest).copy()
    weight *= 1.1
    largest.raw_data = weight.tobytes()
    onnx.save(model, tmp_path / "wrong.onnx")
    values = values_of(network, verb)
    assert worst(check.run(tmp_path / "wrong.onnx", verb, values), values) > check.LIMIT


def shifted(values: Values) -> None:
    values["slots_bt"] = (values["slots_bt"] + 1) % MINI.num_maskmem


def swapped(values: Values) -> None:
    values["keys_btlnd"] = values["keys_btlnd"].flip(1)


def revealed(values: Values) -> None:
    values["present_bt"] = torch.ones_like(values["present_bt"])


def revealed_pointers(values: Values) -> None:
    values["real_bp"] = torch.ones_like(values["real_bp"])


def older(values: Values) -> None:
    values["ages_bp"] = values["ages_bp"] + 30


@pytest.mark.parametrize("wrong", [shifted, swapped, revealed, revealed_pointers, older])
def test_a_wrong_memory_is_noticed(wrong: Callable[[Values], None], network: Sam2, paths: dict[str, Path]) -> None:
    values = values_of(network, "attend")
    wrong(values)
    assert worst(check.run(paths["attend3"], "attend", values), values) > check.LIMIT


def test_what_is_in_absent_slots_changes_nothing(network: Sam2, paths: dict[str, Path]) -> None:
    one, two = (values_of(network, "attend", noise=seed) for seed in (2, 3))
    assert not torch.equal(one["keys_btlnd"], two["keys_btlnd"]) and not one["present_bt"].all()
    assert not torch.equal(one["pointers_bpd"], two["pointers_bpd"]) and not one["real_bp"].all()
    first, second = (check.run(paths["attend3"], "attend", v)["conditioned_bdhw"] for v in (one, two))
    assert torch.equal(first, second)


def test_only_the_number_of_objects_is_open(paths: dict[str, Path]) -> None:
    for name, path in paths.items():
        loaded = onnx.load(path).graph
        open_axes = {d.dim_param for v in (*loaded.input, *loaded.output) for d in v.type.tensor_type.shape.dim}
        assert open_axes == ({""} if name == "encode" else {"", "objects"}), name


def test_the_same_network_gives_the_same_file(network: Sam2, paths: dict[str, Path]) -> None:
    again = graph(typed(network, "fp32"), shapes_of("fp32"), "attend3").SerializeToString(deterministic=True)
    assert again == paths["attend3"].read_bytes()
    for path in paths.values():
        data = path.read_bytes()
        assert not re.search(rb"site-packages|\.py\b|File \"|" + re.escape(str(ROOT).encode()), data)


def test_the_network_is_left_as_it_was(network: Sam2) -> None:
    before = {name: t.clone() for name, t in network.state_dict().items()}
    typed(network, "bf16")
    assert all(t.dtype == before[n].dtype and torch.equal(t, before[n]) for n, t in network.state_dict().items())


# The types in the graph


def types_of(model: Any) -> dict[str, str]:
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    values = (*model.graph.value_info, *model.graph.input, *model.graph.output)
    kinds = {v.name: v.type.tensor_type.elem_type for v in values}
    return {
        name: NAMES[kind] for name, kind in (kinds | {i.name: i.data_type for i in model.graph.initializer}).items()
    }


def inputs_of(model: Any, *kinds: str) -> Counter[str]:
    """How often nodes of these kinds take which type."""
    types = types_of(model)
    return Counter(types[n.input[0]] for n in model.graph.node if n.op_type in kinds)


def test_products_and_attention_are_bf16_and_all_that_is_delicate_is_fp32(bf16: dict[str, Any]) -> None:
    for name, model in bf16.items():
        assert inputs_of(model, "LayerNormalization").keys() <= {"FP32"}, name
        assert inputs_of(model, "Softmax").keys() <= {"BF16"}, name
        assert inputs_of(model, "Sin", "Cos", "Sigmoid", "ArgMax", "Resize").keys() <= {"FP32"}, name
        assert inputs_of(model, "Conv").keys() <= {"BF16"}, name
    for name in ("encode", "attend3", "remember"):
        assert inputs_of(bf16[name], "MatMul", "Gemm").keys() == {"BF16"}, name
    # The heads, and the product of the mask with its mixing weights.
    assert inputs_of(bf16["decode"], "MatMul", "Gemm")["BF16"] > inputs_of(bf16["decode"], "MatMul", "Gemm")["FP32"] > 0


def test_the_stream_between_layers_is_fp32(bf16: dict[str, Any]) -> None:
    """An addition of two activations is one of the stream; with a constant it is a bias, of its product's type."""
    for name in ("encode", "attend3"):
        model, types = bf16[name], types_of(bf16[name])
        constants = {i.name for i in model.graph.initializer}
        scores = {n.input[0] for n in model.graph.node if n.op_type == "Softmax"}  # to which a mask is added
        others = [n for n in model.graph.node if n.op_type == "Add" and n.output[0] not in scores]
        sums = [n for n in others if not constants & set(n.input)]
        kinds = Counter(types[n.output[0]] for n in sums)
        # Of the encoder's, the neck's sum of two strides is no stream; of attention's, the slots' rows are none.
        assert kinds["FP32"] >= 2 * len(MINI.stages) and kinds["BF16"] <= 1, (name, kinds)


def widened(model: Any) -> Any:
    """The same graph with fp32 for every bf16, which ONNX Runtime's CPU provider does not have."""
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    bf, f32 = onnx.TensorProto.BFLOAT16, onnx.TensorProto.FLOAT
    for initializer in wide.graph.initializer:
        if initializer.data_type == bf:
            array = onnx.numpy_helper.to_array(initializer).astype(np.float32)
            initializer.CopyFrom(onnx.numpy_helper.from_array(array, initializer.name))
    for value in (*wide.graph.input, *wide.graph.output, *wide.graph.value_info):
        if value.type.tensor_type.elem_type == bf:
            value.type.tensor_type.elem_type = f32
    for node in wide.graph.node:
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == bf:
                attribute.i = f32
    return wide


@pytest.mark.parametrize("verb", list(VERBS))
def test_the_bf16_graph_is_the_network_but_for_rounded_weights(
    verb: str, network: Sam2, bf16: dict[str, Any], tmp_path: Path
) -> None:
    name = next(name for name in bf16 if name.startswith(verb))
    onnx.save(widened(bf16[name]), tmp_path / "wide.onnx")
    values = values_of(network, verb)
    assert 1e-5 < worst(check.run(tmp_path / "wide.onnx", verb, values), values) < 3e-2


def test_fp16(network: Sam2, tmp_path: Path) -> None:
    model = graph(typed(network, "fp16"), shapes_of("fp16"), "attend3")
    assert inputs_of(model, "MatMul", "Gemm", "Softmax").keys() == {"FP16"}
    assert inputs_of(model, "LayerNormalization").keys() == {"FP32"}
    onnx.save(model, tmp_path / "half.onnx")
    values = values_of(network, "attend")
    fed = values | {"keys_btlnd": values["keys_btlnd"].half()}
    assert 1e-5 < worst(check.run(tmp_path / "half.onnx", "attend", fed), values) < 1e-2


# Eight bits


@pytest.mark.parametrize(("precision", "name"), [("int8", "encode"), ("int8", "attend3"), ("fp8", "attend3")])
def test_eight_bits(precision: str, name: str, network: Sam2, peaks: dict[str, float], tmp_path: Path) -> None:
    static, shapes = typed(network, precision, peaks), shapes_of(precision)
    layers = [layer for layer in big_layers(typed(network, "fp32")) if layer.startswith(name[:6])]
    model = graph(static, shapes, name)
    kinds = Counter(n.op_type for n in model.graph.node)
    assert kinds["QuantizeLinear"] == kinds["DequantizeLinear"] == 2 * len(layers) > 0
    quantum = {"int8": "INT8", "fp8": "FP8"}[precision]
    assert inputs_of(model, "DequantizeLinear").keys() == {quantum}
    made_by = {output: n for n in model.graph.node for output in n.output}
    products = [n for n in model.graph.node if n.op_type == "MatMul" and dequantized(made_by, n)]
    assert len(products) == len(layers) and types_of(model)[products[0].output[0]] == "BF16"
    # Constants, as TensorRT wants them. Activations have one for the tensor; so have weights in fp8, the only way that
    # it fuses there; in int8 they have one for each output channel.
    found = scales(model)
    assert len(found[False]) == len(found[True]) == len(layers)
    assert set(found[False]) == {()} and (set(found[True]) == {()}) == (precision == "fp8")
    assert all(len(shape) == (precision == "int8") for shape in found[True])
    onnx.save(widened(model), tmp_path / "wide.onnx")
    verb = shapes.graphs[name][0]
    values = values_of(network, verb)
    assert 1e-3 < worst(check.run(tmp_path / "wide.onnx", verb, values), values) < 0.2


def scales(model: Any) -> dict[bool, list[tuple[int, ...]]]:
    """The shape of the scale of each quantisation, by whether a weight is quantised."""
    constants = {i.name: tuple(i.dims) for i in model.graph.initializer}
    found: dict[bool, list[tuple[int, ...]]] = {False: [], True: []}
    for quantize in (n for n in model.graph.node if n.op_type == "QuantizeLinear"):
        found[quantize.input[0] in constants].append(constants[quantize.input[1]])
    return found


def test_scales_by_channel_in_fp8_are_seen(network: Sam2, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtseg.engine.tensorrt.quantize.BY_CHANNEL", ("int8", "fp8"))
    layers = big_layers(typed(network, "bf16"))
    name = next(name for name in layers if name.startswith("attend"))
    quantized = typed(network, "fp8", dict.fromkeys(layers, 1.0)).get_submodule(name).eval()
    given = torch.zeros(4, layers[name].in_features)
    program = torch.onnx.export(quantized, (given,), dynamo=True, verbose=False, opset_version=20)
    assert program is not None
    assert scales(program.model_proto) == {False: [()], True: [(layers[name].out_features,)]}


def dequantized(made_by: dict[str, Any], node: Any) -> bool:
    """Whether both factors come straight from DequantizeLinear, as TensorRT must see it to fuse them."""
    return all(i in made_by and made_by[i].op_type == "DequantizeLinear" for i in node.input)


def test_calibration_sees_the_memory(network: Sam2, peaks: dict[str, float]) -> None:
    assert peaks.keys() == big_layers(typed(network, "fp32")).keys()
    assert min(peaks.values()) > 0
    assert peaks == calibrate(network, SLOTS, 5, "int8", pictures(3))
    longer = calibrate(network, SLOTS, 5, "int8", [*pictures(3), *pictures(2, seed=1)])
    assert all(longer[name] >= peak for name, peak in peaks.items()) and longer != peaks
    forgetful = calibrate(network, 1, 1, "int8", pictures(3))
    read = [name for name in peaks if name.startswith("attend")]
    assert all(forgetful[n] == peaks[n] for n in peaks if n not in read)
    assert any(forgetful[name] != peaks[name] for name in read)


def test_fp8_keeps_the_rare_and_large(network: Sam2, peaks: dict[str, float]) -> None:
    whole = calibrate(network, SLOTS, 5, "fp8", pictures(3))
    assert all(whole[name] >= peak for name, peak in peaks.items()) and whole != peaks


def test_calibration_without_pictures(network: Sam2) -> None:
    with pytest.raises(EngineError, match='"fp8" is calibrated on at least 2 frames, 1 given; name a clip'):
        calibrate(network, SLOTS, 5, "fp8", pictures(1))


# What TensorRT documents


def model_of(*nodes: Any, opset: int = 20, **inputs: tuple[int, list[int]]) -> Any:
    """A graph of these nodes; inputs are (element type, shape)."""
    given = [onnx.helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()]
    built = onnx.helper.make_graph(list(nodes), "g", given, [])
    return onnx.helper.make_model(built, opset_imports=[onnx.helper.make_opsetid("", opset)])


node = onnx.helper.make_node
F32, F64, I64 = onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.INT64
MAP = (F32, [1, 2, 8, 8])


@pytest.mark.parametrize(
    ("model", "fault"),
    [
        (model_of(node("Det", ["x"], ["y"]), x=(F32, [2, 2])), "Det : no such operator"),
        (model_of(node("Relu", ["x"], ["y"]), x=(F64, [2, 2])), "Relu : x is ONNX type 11, not BF16 FP16 FP32"),
        (model_of(node("MatMul", ["x", "x"], ["y"]), x=(I64, [2, 2])), "MatMul : x is INT64, not BF16 FP16 FP32"),
        (
            model_of(node("LayerNormalization", ["x", "w"], ["y", "m"]), x=(F32, [2, 2]), w=(F32, [2])),
            "only its first output is supported",
        ),
        (model_of(node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], dilations=[2, 2]), x=MAP), "only undilated"),
        (model_of(node("MaxPool", ["x"], ["y", "i"], kernel_shape=[2, 2]), x=MAP), "only its first output"),
        (model_of(node("Resize", ["x", "", "s"], ["y"], antialias=1), x=MAP, s=(F32, [4])), "antialiasing"),
        (model_of(node("Resize", ["x", "", "s"], ["y"], mode="cubic"), x=MAP, s=(F32, [4])), "neither nearest nor"),
        (
            model_of(
                node("Resize", ["x", "", "s"], ["y"], coordinate_transformation_mode="tf_crop_and_resize"),
                x=MAP, s=(F32, [4]),
            ),
            "coordinates are none of",
        ),
        (
            model_of(node("Slice", ["x", "a", "b", "c"], ["y"]), x=MAP, a=(I64, [1]), b=(I64, [1]), c=(I64, [1])),
            "axes is not a constant",
        ),
        (model_of(node("Unsqueeze", ["x", "a"], ["y"]), x=MAP, a=(I64, [1])), "axes is not a constant"),
        (
            model_of(node("QuantizeLinear", ["x", "s", "z"], ["y"]), x=MAP, s=(F32, []), z=(3, [])),
            "its zero point is not 0",
        ),
    ],
)  # fmt: skip
def test_what_tensorrt_does_not_take_is_seen(model: Any, fault: str) -> None:
    found = faults(model)
    assert any(re.search(fault, line) for line in found)


def test_the_rules_pass_what_is_well() -> None:
    assert faults(model_of(node("Relu", ["x"], ["y"]), node("Softmax", ["y"], ["z"]), x=MAP)) == []


def test_a_graph_that_tensorrt_would_refuse_is_not_written(network: Sam2, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operators, "OPERATORS", {k: v for k, v in OPERATORS.items() if k != "Resize"})
    with pytest.raises(
        EngineError, match="remember: not a graph for TensorRT: Resize .*: no such operator; this is a bug"
    ):
        graph(typed(network, "fp32"), shapes_of("fp32"), "remember")


@pytest.mark.skipif(not DOCUMENTED.is_file(), reason="onnx-tensorrt's operator list is not beside this clone")
def test_the_table_is_onnx_tensorrt_s() -> None:
    text = DOCUMENTED.read_text().replace("INF64", "INT64")  # the document's own misspelling
    lines = [line.split(";") for line in text.splitlines() if not line.startswith("#")]
    listed = {name.strip(): ({t.strip() for t in types.split(",")}, limits) for name, types, limits in lines}
    for name, types in OPERATORS.items():
        assert types <= listed[name][0], name
    limited = {name for name in OPERATORS if listed[name][1].strip()}
    assert limited == operators.LIMITS.keys()


def test_every_precision_has_a_type() -> None:
    from rtseg.engine.runtimes import PRECISIONS

    assert set(PRODUCTS) == set(PRECISIONS["tensorrt"])
