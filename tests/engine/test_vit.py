"""The plain ViT trunk in every runtime, against the network in torch: each map, and clips tracked with memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import rtseg
from rtseg.engine import cpu
from rtseg.engine.attention_shapes import attention_shapes
from rtseg.engine.cpu import isa as isas
from rtseg.engine.cpu.kernels import Kernels
from rtseg.engine.cuda import CudaEngine
from rtseg.engine.recipe import MemorySettings, Recipe
from rtseg.engine.reference import TorchEngine
from rtseg.engine.static.network import StaticNetwork
from rtseg.engine.tensorrt.quantize import big_layers
from rtseg.sam2 import PRESETS, Sam2
from tests.engine.pretend_cuda import pretend_cuda
from tests.engine.test_cpu import LIMITS, error, pairs
from tests.engine.test_trunks import PICTURE, RECIPE, SIZE, Logits, follow, is_the_references, network
from tests.shared import plain

VIT = replace(  # with a small rest
    PRESETS["efficienttam-tiny"], dim=128, attention_layers=2, attention_ffn=256, decoder_ffn=256, decoder_heads=4
)


@pytest.fixture(scope="module")
def expected() -> Logits:
    return follow(TorchEngine(network(VIT), RECIPE, "", "cpu"))


@torch.inference_mode()
def maps_of(net: Sam2) -> tuple[torch.Tensor, ...]:
    image = torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    features = net.encode_image(image)
    return image, features.top, features.mid, features.fine


@torch.inference_mode()
@pytest.mark.parametrize("pair", pairs())
def test_each_map_on_the_kernels(pair: tuple[str, str]) -> None:
    engine = cpu.CpuEngine(network(VIT), replace(RECIPE, precision=pair[1]), "", Kernels(*pair))
    image = engine.prepare(PICTURE)
    top, mid, fine = engine._verbs.encode(image)
    theirs = TorchEngine(network(VIT), RECIPE, "", "cpu")._network.encode_image(image)
    assert error(top, theirs.top) < 2 * LIMITS[pair[1]]
    assert error(top.flip(3), theirs.top) > 0.1
    assert mid.shape == theirs.mid.shape and fine.shape == theirs.fine.shape and not mid.any() and not fine.any()


@pytest.mark.slow
@pytest.mark.parametrize("pair", pairs("fp32", "int16"))
def test_a_clip_on_the_kernels(pair: tuple[str, str], expected: Logits) -> None:
    engine = cpu.CpuEngine(network(VIT), replace(RECIPE, precision=pair[1]), "", Kernels(*pair))
    is_the_references(engine, expected, 1e-3 if pair[1] == "fp32" else 0.04)


@pytest.mark.slow
def test_a_clip_in_torch_with_fixed_shapes(expected: Logits) -> None:
    is_the_references(cpu.CpuEngine(network(VIT), RECIPE, "", None), expected, 1e-3)


@pytest.mark.slow
def test_a_clip_by_onnx_runtime(expected: Logits, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="the exporter needs it")
    pytest.importorskip("onnxruntime", reason="the graphs are run by ONNX Runtime")
    from rtseg.engine.onnx.engine import OnnxEngine
    from rtseg.engine.onnx.export import make_graphs

    make_graphs(network(VIT), tmp_path)
    is_the_references(OnnxEngine(tmp_path, VIT, RECIPE, "", "cpu", 1), expected, 1e-3)


@pytest.mark.slow
def test_a_clip_by_the_cuda_engine(expected: Logits) -> None:
    """Its step without a graph, on the CPU."""
    is_the_references(CudaEngine(network(VIT), RECIPE, "", "cpu"), expected, 1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp32", "fp16"])
def test_a_video_on_a_pretended_gpu(precision: str) -> None:
    """Every tensor is on the engine's device, and no step waits more than once."""
    with pretend_cuda() as gpu:
        recipe = Recipe("nano", image_size=64, runtime="cuda", precision=precision, memory=MemorySettings("efp"))
        engine = CudaEngine(Sam2(VIT, 64), recipe, "", "cuda:0")
        tracker = plain(rtseg.Tracker(engine))
        tracker.prompt(1, points=[(9, 9, 1)])
        for _ in range(12):
            gpu.waits.clear()
            tracker.step(PICTURE)
        assert len(gpu.waits) == 1
        assert {str(t.device) for t in (*engine._static.parameters(), *engine._static.buffers())} == {"cuda:0"}


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16", "int8", "fp8"])
def test_the_graph_for_tensorrt(precision: str) -> None:
    """It has nothing that TensorRT does not document, and in fp32 and fp16 it is the network."""
    pytest.importorskip("onnxscript", reason="the exporter needs it")
    onnxruntime: Any = pytest.importorskip("onnxruntime", reason="the graphs are run by ONNX Runtime")
    from rtseg.engine.tensorrt.onnx import Shapes, graph, typed
    from rtseg.engine.tensorrt.quantize import calibrate

    net = network(VIT)
    peaks = calibrate(net, 3, 5, precision, [PICTURE] * 2) if precision in ("int8", "fp8") else None
    shapes = Shapes.for_recipe(VIT, replace(RECIPE, precision=precision))
    model = graph(typed(net, precision, peaks), shapes, "encode")  # raises an error for what is not documented
    if precision in ("fp32", "fp16"):
        image, *theirs = maps_of(net)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        top, mid, fine = map(torch.from_numpy, session.run(None, {"image_1chw": image.numpy()}))
        assert error(top, theirs[0]) < (1e-5 if precision == "fp32" else 3e-3)
        assert error(top.flip(3), theirs[0]) > 0.1
        assert mid.shape == theirs[1].shape and fine.shape == theirs[2].shape and not mid.any() and not fine.any()


def test_what_is_quantised_are_its_blocks_too() -> None:
    names = big_layers(StaticNetwork(network(VIT))).keys()
    assert sum(name.startswith("encoder.blocks.") for name in names) == 12 * 4


def test_the_attention_of_the_trunk() -> None:
    """At 512 px 32 x 32 cells are 3 x 3 windows of 14; four blocks of twelve attend to all."""
    found = [(shape.batch, shape.heads, shape.keys, shape.width) for shape in attention_shapes(VIT, 512, 7, 16)[:12]]
    assert found == [(1, 3, 1024, 64) if i in (2, 5, 8, 11) else (9, 3, 196, 64) for i in range(12)]


def test_the_kernels_take_both_sizes() -> None:
    assert all(isas.unfit(PRESETS[f"efficienttam-{size}"]) is None for size in ("tiny", "small"))
