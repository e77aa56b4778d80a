"""Convolutional trunks in every runtime, against the network in torch: each map, and clips tracked with memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rtseg
from rtseg.engine import Engine, cpu
from rtseg.engine.attention_shapes import attention_shapes
from rtseg.engine.cpu import isa as isas
from rtseg.engine.cpu.kernels import Kernels
from rtseg.engine.cuda import CudaEngine
from rtseg.engine.recipe import MemorySettings, Recipe
from rtseg.engine.reference import TorchEngine
from rtseg.engine.static.network import StaticNetwork
from rtseg.engine.tensorrt.quantize import big_layers
from rtseg.sam2 import Preset, Sam2
from tests.engine.conftest import LITE, LITE_3, REPVIT, random_network
from tests.engine.pretend_cuda import pretend_cuda
from tests.engine.test_cpu import LIMITS, error, pairs
from tests.shared import plain

SIZE = 128
RECIPE = Recipe(image_size=SIZE, precision="fp32", max_objects=3)
TRUNKS = [
    pytest.param(LITE, id="lite"),
    pytest.param(REPVIT, id="repvit"),
    pytest.param(LITE_3, id="lite-3", marks=pytest.mark.slow),
]
PICTURE = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
Logits = dict[tuple[int, int], np.ndarray]


def network(preset: Preset, size: int = SIZE) -> Sam2:
    return random_network(preset, size)


def frames() -> list[rtseg.Frame]:
    return list(rtseg.open_source("synthetic:laparoscopy?seconds=0.48&seed=10049&width=320&height=240"))


def follow(engine: Engine, mirrored: bool = False) -> Logits:
    """The mask logits of two tools on frames that nobody prompts; the second joins late, the first is corrected.

    Random weights make little of memories: what heads do with them is tested with trained weights, elsewhere.
    """
    tracker, found = plain(rtseg.Tracker(engine)), {}
    for t, frame in enumerate(frames()):
        assert frame.truth_hw is not None
        if t in (0, 7):
            tracker.prompt(1, mask=frame.truth_hw == 1)
        if t == 4:
            tracker.prompt(2, mask=frame.truth_hw == 2)
        masks = tracker.step(np.flip(frame.image_hwc, 1) if mirrored else frame)
        if t not in (0, 4, 7):
            found |= {(t, i): own for i, own in zip(masks.ids, masks.mask_logits_bhw, strict=True)}
    return found


def apart(a: Logits, b: Logits) -> float:
    """The largest relative difference of a mask. Random weights draw masks with a large mean, which says nothing."""
    assert a.keys() == b.keys()
    return max(float(np.linalg.norm(centred(a[k]) - centred(b[k])) / np.linalg.norm(centred(b[k]))) for k in b)


def centred(logits_hw: np.ndarray) -> np.ndarray:
    return logits_hw - logits_hw.mean()


@pytest.fixture(scope="module", params=TRUNKS)
def preset(request: pytest.FixtureRequest) -> Preset:
    return request.param


@pytest.fixture(scope="module")
def expected(preset: Preset) -> Logits:
    return follow(TorchEngine(network(preset), RECIPE, "", "cpu"))


def is_the_references(engine: Engine, expected: Logits, most: float) -> None:
    assert apart(follow(engine), expected) < most
    assert apart(follow(engine, mirrored=True), expected) > max(0.1, 3 * most)


@pytest.mark.parametrize("pair", pairs())
def test_each_map_on_the_kernels(pair: tuple[str, str], preset: Preset) -> None:
    engine = cpu.CpuEngine(network(preset), replace(RECIPE, precision=pair[1]), "", Kernels(*pair))
    reference = TorchEngine(network(preset), RECIPE, "", "cpu")
    image = engine.prepare(PICTURE)
    with torch.inference_mode():
        ours, theirs = engine._verbs.encode(image), reference._network.encode_image(image)
    for found, name in zip(ours, ("top", "mid", "fine"), strict=True):
        assert error(found, getattr(theirs, name)) < 2 * LIMITS[pair[1]], name
        assert error(found.flip(3), getattr(theirs, name)) > 0.1, name


@pytest.mark.parametrize("pair", pairs("fp32", "int16"))
def test_a_clip_on_the_kernels(pair: tuple[str, str], preset: Preset, expected: Logits) -> None:
    engine = cpu.CpuEngine(network(preset), replace(RECIPE, precision=pair[1]), "", Kernels(*pair))
    is_the_references(engine, expected, 1e-3 if pair[1] == "fp32" else 0.02)


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.slow)])
def test_a_clip_in_torch_with_fixed_shapes(precision: str, preset: Preset, expected: Logits) -> None:
    engine = cpu.CpuEngine(network(preset), replace(RECIPE, precision=precision), "", None)
    is_the_references(engine, expected, 1e-3 if precision == "fp32" else 0.05)


@pytest.mark.slow
def test_a_clip_by_onnx_runtime(preset: Preset, expected: Logits, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="the exporter needs it")
    pytest.importorskip("onnxruntime", reason="the graphs are run by ONNX Runtime")
    from rtseg.engine.onnx.engine import OnnxEngine
    from rtseg.engine.onnx.export import make_graphs

    make_graphs(network(preset), tmp_path)
    engine = OnnxEngine(tmp_path, preset, RECIPE, "", "cpu", 1)
    is_the_references(engine, expected, 1e-3)


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.slow)])
def test_a_clip_by_the_cuda_engine(precision: str, preset: Preset, expected: Logits) -> None:
    """Its step without a graph, on the CPU."""
    engine = CudaEngine(network(preset), replace(RECIPE, precision=precision), "", "cpu")
    convolutions = [m for m in engine._static.encoder.modules() if isinstance(m, torch.nn.Conv2d)]
    assert all(conv.weight.is_contiguous(memory_format=torch.channels_last) for conv in convolutions)
    is_the_references(engine, expected, 1e-3 if precision == "fp32" else 0.05)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp32", "fp16"])
def test_a_video_on_a_pretended_gpu(precision: str, preset: Preset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tensor is on the engine's device, and no step waits more than once."""
    with pretend_cuda() as gpu:
        recipe = Recipe("nano", image_size=64, runtime="cuda", precision=precision, memory=MemorySettings("efp"))
        engine = CudaEngine(Sam2(preset, 64), recipe, "", "cuda:0")
        tracker = plain(rtseg.Tracker(engine))
        tracker.prompt(1, points=[(9, 9, 1)])
        for _ in range(12):
            gpu.waits.clear()
            tracker.step(PICTURE)
        assert len(gpu.waits) == 1
        assert {str(t.device) for t in (*engine._static.parameters(), *engine._static.buffers())} == {"cuda:0"}


@pytest.mark.slow
def test_the_encoder_can_be_compiled_whole(preset: Preset) -> None:
    from rtseg.engine.cuda.fuse import fused

    static, image = StaticNetwork(network(preset)).join(), torch.rand(1, 3, SIZE, SIZE)
    with torch.inference_mode():
        compiled = fused(static.encoder, lambda seed: [image], backend="eager")
        assert compiled is not static.encoder


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16", "int8", "fp8"])
def test_the_graph_for_tensorrt(precision: str, preset: Preset) -> None:
    """It has nothing that TensorRT does not document, and in fp32 and fp16 it is the network."""
    pytest.importorskip("onnxscript", reason="the exporter needs it")
    onnxruntime: Any = pytest.importorskip("onnxruntime", reason="the graphs are run by ONNX Runtime")
    from rtseg.engine.tensorrt.onnx import Shapes, graph, typed
    from rtseg.engine.tensorrt.quantize import calibrate

    net = network(preset)
    peaks = calibrate(net, 3, 5, precision, [PICTURE] * 2) if precision in ("int8", "fp8") else None
    shapes = Shapes.for_recipe(preset, replace(RECIPE, precision=precision))
    model = graph(typed(net, precision, peaks), shapes, "encode")  # raises an error for what is not documented
    kinds = {node.op_type for node in model.graph.node}
    assert (
        {"Conv", "Gelu" if preset is REPVIT else "Clip"} <= kinds and "Transpose" not in kinds and "MatMul" not in kinds
    )
    if precision in ("fp32", "fp16"):
        image = torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        found = session.run(None, {"image_1chw": image.numpy()})
        with torch.inference_mode():
            features = net.encode_image(image)
        for ours, theirs in zip(found, (features.top, features.mid, features.fine), strict=True):
            assert error(torch.from_numpy(ours), theirs) < (1e-5 if precision == "fp32" else 3e-3)
            assert error(torch.from_numpy(ours).flip(3), theirs) > 0.1


def test_what_is_quantised_is_the_heads(preset: Preset) -> None:
    names = big_layers(StaticNetwork(network(preset))).keys()
    assert names and all(name.startswith("attend.") for name in names)


def test_no_attention_in_the_trunk(preset: Preset) -> None:
    assert {shape.graph for shape in attention_shapes(preset, 512, 7, 16)} == {"attend", "decode"}


def test_the_kernels_take_every_trunk(preset: Preset) -> None:
    """Channels that are no multiples of 16 are filled up."""
    assert preset is REPVIT or any(dim % 16 for dim in preset.stage_dims)
    assert isas.unfit(preset) is None
    assert "dim / 8 = 8" in str(isas.unfit(replace(preset, dim=64, decoder_heads=2)))
