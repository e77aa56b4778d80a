"""Comparison with the newest conditioning frame (`Match`) in every runtime, against the network in torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rtseg
from rtseg.engine import Engine, Recall, cpu
from rtseg.engine.cpu.kernels import Kernels
from rtseg.engine.cpu.match import CpuMatch, alike
from rtseg.engine.cuda import CudaEngine
from rtseg.engine.recipe import MemorySettings, Recipe
from rtseg.engine.reference import TorchEngine
from rtseg.sam2 import Features, Sam2
from rtseg.sam2.match import Match
from tests.engine.conftest import LITE_MATCH, random_network
from tests.engine.test_cpu import pairs
from tests.shared import plain

SIZE = 128
RECIPE = Recipe(image_size=SIZE, precision="fp32", max_objects=3)
HALF = pytest.param("bf16", marks=pytest.mark.slow)
Logits = dict[tuple[int, int], np.ndarray]


def network(size: int = SIZE) -> Sam2:
    return random_network(LITE_MATCH, size)


def without(net: Sam2) -> Sam2:
    """The network whose comparison adds nothing."""
    assert net.match is not None
    for p in net.match.prior[2].parameters():
        p.data.zero_()
    return net


def frames() -> list[rtseg.Frame]:
    return list(rtseg.open_source("synthetic:laparoscopy?seconds=0.48&seed=10049&width=320&height=240"))


def follow(engine: Engine, ids: tuple[int, int] = (1, 2)) -> Logits:
    """Two tools: the second joins late, the first is corrected, and once more on a frame that has passed."""
    tracker, found = plain(rtseg.Tracker(engine, policy="fifo")), {}
    clip = frames()
    truths = [frame.truth_hw == i for frame in clip for i in ids if frame.truth_hw is not None]
    for t, frame in enumerate(clip):
        if t == 0:
            tracker.prompt(1, mask=truths[0])
        if t == 3:
            tracker.prompt(2, mask=truths[2 * t + 1])
        if t == 5:
            y, x = np.argwhere(truths[2 * t]).mean(0)
            tracker.prompt(1, points=[(x, y, 1)])
        if t == 9:
            fork = tracker.fork([1], clip[7].seq)
            fork.prompt(1, mask=truths[2 * 7])
            for late in clip[7:9]:
                fork.step(late)
            tracker.adopt(fork)
        masks = tracker.step(frame)
        found |= {(t, i): np.asarray(masks.logits(i), np.float32) for i in masks.ids}
    return found


def overlap(a: Logits, b: Logits) -> np.ndarray:
    assert a.keys() == b.keys()
    masks = [(a[k] > 0, b[k] > 0) for k in b]
    return np.array([(x & y).sum() / max(1, (x | y).sum()) if (x | y).any() else 1.0 for x, y in masks])


def apart(a: Logits, b: Logits) -> float:
    """The mean relative difference of the logits. Random weights draw edges where rounding decides."""
    return float(np.mean([np.linalg.norm(a[k] - b[k]) / np.linalg.norm(b[k] - b[k].mean()) for k in b]))


@pytest.fixture(scope="module")
def expected() -> Logits:
    return follow(TorchEngine(network(), RECIPE, "", "cpu"))


def is_the_references(engine: Engine, expected: Logits, precision: str = "fp32") -> None:
    """Every mask, and not with other prompts; in half precision the logits, about."""
    found, other = follow(engine), follow(engine, (2, 1))
    if precision == "bf16":
        assert apart(found, expected) < 0.08 < apart(other, expected) / 2
        return
    least = {"fp32": 0.99, "int16": 0.9}[precision]
    ious = overlap(found, expected)
    assert ious.min() > least and ious.mean() > (1 + least) / 2
    assert overlap(other, expected).mean() < 0.9


def test_the_clip_depends_on_it(expected: Logits) -> None:
    plain = follow(TorchEngine(without(network()), RECIPE, "", "cpu"))
    assert overlap(plain, expected).mean() < 0.6


def quick_first(found: list[Any]) -> list[Any]:
    """The pairs of the first instruction set, and the others for the long run."""
    slow = [pytest.param(*p.values, id=p.id, marks=[*p.marks, pytest.mark.slow]) for p in found[2:]]
    return found[:2] + slow


@pytest.mark.parametrize("pair", quick_first(pairs("fp32", "int16")))
def test_a_clip_on_the_kernels(pair: tuple[str, str], expected: Logits) -> None:
    engine = cpu.CpuEngine(network(), replace(RECIPE, precision=pair[1]), "", Kernels(*pair))
    is_the_references(engine, expected, pair[1])


@pytest.mark.parametrize("precision", ["fp32", HALF])
def test_a_clip_in_torch_with_fixed_shapes(precision: str, expected: Logits) -> None:
    engine = cpu.CpuEngine(network(), replace(RECIPE, precision=precision), "", None)
    is_the_references(engine, expected, precision)


@pytest.mark.slow
def test_a_clip_in_torch_in_bf16(expected: Logits) -> None:
    is_the_references(TorchEngine(network(), replace(RECIPE, precision="bf16"), "", "cpu"), expected, "bf16")


@pytest.mark.slow
def test_a_clip_by_onnx_runtime(expected: Logits, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="the exporter needs it")
    pytest.importorskip("onnxruntime", reason="the graphs are run by ONNX Runtime")
    from rtseg.engine.onnx.engine import OnnxEngine
    from rtseg.engine.onnx.export import make_graphs

    make_graphs(network(), tmp_path)
    is_the_references(OnnxEngine(tmp_path, LITE_MATCH, RECIPE, "", "cpu", 1), expected)


@pytest.mark.parametrize("precision", ["fp32", HALF])
def test_a_clip_by_the_cuda_engine(precision: str, expected: Logits) -> None:
    """Its step without a graph, on the CPU."""
    engine = CudaEngine(network(), replace(RECIPE, precision=precision), "", "cpu")
    is_the_references(engine, expected, precision)


@pytest.fixture(scope="module")
def compared() -> tuple[Match, Features, torch.Tensor]:
    """The part at 320 px, a frame, and the cells of another that is like it."""
    torch.manual_seed(0)
    match = Match(LITE_MATCH).eval().requires_grad_(False)
    one, two = (
        Features(
            *(torch.randn(1, c, s, s).to(memory_format=torch.channels_last) for c, s in ((128, 20), (32, 40), (16, 80)))
        )
        for _ in range(2)
    )
    now = Features(one.top + 0.3 * two.top, one.mid + 0.3 * two.mid, one.fine)
    return match, now, match.remember(one, 4 * torch.randn(1, 1, 80, 80))[0]


@pytest.mark.parametrize("pair", pairs())
@pytest.mark.parametrize("scale", [1.0, 30.0, 300.0])
def test_each_kernel(pair: tuple[str, str], scale: float, compared: tuple[Match, Features, torch.Tensor]) -> None:
    """However flat or sharp the softmax is."""
    match, now, cells = compared
    match.log_scale.fill_(np.log(scale))
    ours, unit = CpuMatch(Kernels(*pair), match), match.embed(now)
    allowed = 1e-5 if pair[1] == "fp32" else 1e-3
    embedded = ours.embed(now)
    assert float((embedded.T.view(unit[0].shape) - unit[0]).abs().max()) < allowed
    (both,), exact = ours.compare(embedded, [cells]), match.copy(unit, cells[None])[0]
    assert float((both.view(exact.shape) - exact).abs().max()) < max(1, scale / 30) * allowed
    assert float((both.view(exact.shape).flip(2) - exact).abs().max()) > 100 * allowed
    # Objects of one frame are compared together: exactly what each would have alone.
    masks = [torch.cat((cells[:-1], mask)) for mask in torch.rand(6, 1, *cells.shape[1:])]
    other = torch.cat((cells[:-1].flip(2), cells[-1:]))
    for own, both in zip(masks, ours.compare(embedded, masks), strict=True):
        assert torch.equal(both, ours.compare(embedded, [own])[0])
    given = [*masks[:3], None, other, *masks[3:]]
    assert [rows for rows, _ in alike(given)] == [[0, 1, 2, 5, 6, 7], [4]]
    conditioned = torch.randn(len(given), 128, 20, 20).to(memory_format=torch.channels_last)
    found = ours(conditioned.clone(memory_format=torch.channels_last), now, given)
    assert torch.equal(found[3], conditioned[3])
    for i, one in enumerate(given):
        if one is not None:
            wanted = conditioned[i] + match(now, one[None])[0]
            assert float((found[i] - wanted).norm() / wanted.norm()) < 10 * allowed


def engines() -> list[Any]:
    made = {
        "torch": lambda net: TorchEngine(net, RECIPE, "", "cpu"),
        "cpu": lambda net: cpu.CpuEngine(net, RECIPE, "", None),
        "kernels": lambda net: cpu.CpuEngine(net, RECIPE, "", Kernels(*pairs("fp32")[0].values[0])),
        "cuda": lambda net: CudaEngine(net, RECIPE, "", "cpu"),
    }
    return [pytest.param(one, id=name) for name, one in made.items()]


@pytest.mark.parametrize("make", engines())
def test_objects_with_and_without(make: Any) -> None:
    """Each gets what it would have alone; only prompted objects have cells; and what another runtime wrote is read."""
    net = network()
    engine, reference = make(net), TorchEngine(network(), RECIPE, "", "cpu")
    picture = frames()[0].image_hwc
    features = engine.encode_image(picture)
    logits = torch.full((3, 1, 32, 32), -6.0)
    logits[0, :, :, :12], logits[1, :, :12], logits[2, :, 20:] = 6, 6, 6
    written = engine.remember(features, logits, torch.ones(3), [True, False, True])
    assert [m.cells_cgg is not None for m in written] == [True, False, True]
    recalls: list[Any] = [Recall([m], (6,), torch.ones(1, 128), (1,)) for m in written]
    together = engine.attend(features, [*recalls, None])
    for i, recall in enumerate([*recalls, None]):
        alone = engine.attend(features, [recall])
        torch.testing.assert_close(together[i : i + 1], alone, atol=2e-4, rtol=1e-3)
    theirs = reference.remember(reference.encode_image(picture), logits, torch.ones(3), [True, False, True])
    elsewhere = [Recall([m], (6,), torch.ones(1, 128), (1,)) for m in theirs]
    expected = reference.attend(reference.encode_image(picture), elsewhere)
    for given in (recalls, elsewhere):
        error = (engine.attend(features, given) - expected).norm() / expected.norm()
        assert float(error) < 2e-3
    swapped = engine.attend(features, [recalls[2], recalls[1], recalls[0]])
    assert float((swapped - expected).norm() / expected.norm()) > 0.05
    for i, memory in enumerate(written):
        decoded, new = engine.track(picture, [Recall([memory], (6,), torch.ones(1, 128), (1,))])
        assert new[0].cells_cgg is None and torch.isfinite(decoded.logits_b1hw).all(), i


@pytest.mark.parametrize("matches", [True, False])
def test_a_probe_of_the_verbs_reads_the_cells(matches: bool) -> None:
    """An engine that compares as the reference does, and one that does not: only `attend` is wrong."""
    from rtseg.build.verb_errors import ErrorProbe

    candidate = CudaEngine(network() if matches else without(network()), RECIPE, "", "cpu")
    probe = ErrorProbe(TorchEngine(network(), RECIPE, "", "cpu"), candidate)
    tracker = plain(rtseg.Tracker(probe))
    for frame in frames()[:3]:
        if not tracker.ids and frame.truth_hw is not None:
            tracker.prompt(1, mask=frame.truth_hw == 1)
        tracker.step(frame)
    assert 0 < probe.errors["encode_image"].worst[0] < 2e-3
    assert (probe.errors["attend"].worst[0] < 2e-3) == matches
    assert (probe.errors["track"].worst[0] < 2e-3) == matches


@pytest.mark.slow
def test_a_clip_by_the_tensorrt_engine(expected: Logits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its graphs in ONNX Runtime, with a stand-in for TensorRT and the GPU."""
    pytest.importorskip("onnxscript", reason="the exporter needs it")
    pytest.importorskip("onnxruntime", reason="plans are run by ONNX Runtime here")
    from rtseg.engine.tensorrt import making
    from tests.engine.hollow import pretend

    pretend(monkeypatch)
    recipe = replace(RECIPE, runtime="tensorrt", memory=MemorySettings("fifo"))
    making.make(network(), recipe, tmp_path, lambda _: None, [])
    is_the_references(making.open(network(), recipe, "", tmp_path), expected)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp16", "int8"])
def test_the_graph_for_tensorrt(precision: str) -> None:
    """It has nothing that TensorRT does not document, and compares in fp32."""
    pytest.importorskip("onnxscript", reason="the exporter needs it")
    from rtseg.engine.tensorrt.onnx import Shapes, graph, typed
    from rtseg.engine.tensorrt.quantize import calibrate

    net, picture = network(), frames()[0].image_hwc
    peaks = calibrate(net, 3, 5, precision, [picture] * 2) if precision == "int8" else None
    shapes = Shapes.for_recipe(LITE_MATCH, replace(RECIPE, precision=precision))
    model = graph(typed(net, precision, peaks), shapes, f"attend{shapes.slots[0]}")
    assert {"mid", "cells_bcgg", "matched_b"} <= {value.name for value in model.graph.input}
    convolved = {node.input[1] for node in model.graph.node if node.op_type == "Conv"}
    assert {i.data_type for i in model.graph.initializer if i.name in convolved} == {1}  # fp32


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp32", "fp16"])
def test_a_video_on_a_pretended_gpu(precision: str) -> None:
    """Every tensor is on the engine's device, and no step waits more than once."""
    from tests.engine.pretend_cuda import pretend_cuda

    picture = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    with pretend_cuda() as gpu:
        recipe = Recipe("nano", image_size=64, runtime="cuda", precision=precision, memory=MemorySettings("efp"))
        engine = CudaEngine(Sam2(LITE_MATCH, 64), recipe, "", "cuda:0")
        tracker = plain(rtseg.Tracker(engine))
        tracker.prompt(1, points=[(9, 9, 1)])
        for _ in range(12):
            gpu.waits.clear()
            tracker.step(picture)
        assert len(gpu.waits) == 1
        assert {str(t.device) for t in (*engine._static.parameters(), *engine._static.buffers())} == {"cuda:0"}
