"""EdgeTAM's memories, a perceiver's latents, in every runtime: clips tracked with them against the reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rtseg
from rtseg.engine import Engine, Features, Remembered, cpu
from rtseg.engine.arrays import cosine_similarity
from rtseg.engine.attention_shapes import attention_shapes
from rtseg.engine.cpu import isa
from rtseg.engine.cpu.kernels import Kernels
from rtseg.engine.cuda import CudaEngine
from rtseg.engine.recipe import MemorySettings, Recipe
from rtseg.engine.reference import TorchEngine
from rtseg.sam2 import PRESETS, Sam2
from rtseg.track import Memory, get_policy
from rtseg.track.reidentify import SceneMatcher, coarse
from tests.engine.conftest import EDGE, random_network
from tests.engine.pretend_cuda import pretend_cuda
from tests.engine.test_cpu import pairs
from tests.engine.test_trunks import Logits, follow, is_the_references
from tests.shared import plain

SIZE, SIDE = 128, EDGE.perceiver
RECIPE = Recipe("edge", image_size=SIZE, precision="fp32", max_objects=3, memory=MemorySettings("efp", spatial=3))


def network(size: int = SIZE) -> Sam2:
    return random_network(EDGE, size, seed=2)  # whose masks are not nearly flat, as with some others


@pytest.fixture(scope="module")
def reference() -> TorchEngine:
    return TorchEngine(network(), RECIPE, "", "cpu")


@pytest.fixture(scope="module")
def expected(reference: TorchEngine) -> Logits:
    return follow(reference)


def test_the_kernels_take_the_published_network() -> None:
    assert isa.unfit(PRESETS["edgetam"]) is None and isa.unfit(EDGE) is None


@pytest.mark.parametrize("pair", pairs("fp32", "int16"))
def test_a_clip_on_the_kernels(pair: tuple[str, str], expected: Logits) -> None:
    engine = cpu.CpuEngine(network(), replace(RECIPE, precision=pair[1]), "", Kernels(*pair))
    is_the_references(engine, expected, 1e-3 if pair[1] == "fp32" else 0.02)


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.slow)])
@pytest.mark.parametrize("make", [cpu.CpuEngine, CudaEngine])
def test_a_clip_with_fixed_shapes(make: Callable[..., Engine], precision: str, expected: Logits) -> None:
    """In torch, and as the CUDA engine's step without a graph."""
    engine = make(network(), replace(RECIPE, precision=precision), "", None if make is cpu.CpuEngine else "cpu")
    is_the_references(engine, expected, 1e-3 if precision == "fp32" else 0.05)


@pytest.mark.slow
def test_a_clip_by_onnx_runtime(expected: Logits, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="the exporter needs it")
    pytest.importorskip("onnxruntime", reason="the graphs are run by ONNX Runtime")
    from rtseg.engine.onnx.engine import OnnxEngine
    from rtseg.engine.onnx.export import make_graphs

    make_graphs(network(), tmp_path)
    is_the_references(OnnxEngine(tmp_path, EDGE, RECIPE, "", "cpu", 1), expected, 1e-3)


@pytest.mark.slow
def test_a_clip_by_tensorrts_graphs(expected: Logits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole engine, with its graphs run by ONNX Runtime. An operator that is not documented is an error."""
    pytest.importorskip("onnxscript", reason="the exporter needs it")
    pytest.importorskip("onnxruntime", reason="plans are run by ONNX Runtime here")
    from rtseg.engine.tensorrt import making
    from tests.engine.hollow import pretend

    pretend(monkeypatch)
    recipe, folder = replace(RECIPE, runtime="tensorrt"), tmp_path / "edge"
    folder.mkdir()
    making.make(network(), recipe, folder, lambda _: None, [])
    is_the_references(making.open(network(), recipe, "", folder), expected, 1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_tensorrts_attention_is_of_a_kind_that_it_fuses(precision: str) -> None:
    from rtseg.engine.tensorrt.onnx import Shapes, graph, typed
    from tests.engine.test_tensorrt_attention import Seen, faults

    shapes = Shapes.for_recipe(EDGE, replace(RECIPE, precision=precision))
    model = graph(typed(network(), precision), shapes, "remember")
    # The global latents in two layers; those of windows have a softmax between sums, which is no product of matrices.
    found = [faults_of for softmax in Seen(model).softmaxes if not (faults_of := Seen(model).faults(softmax))]
    assert len(found) == 4 and len(faults(model)) == 2


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_a_video_on_a_pretended_gpu(precision: str) -> None:
    """Every tensor is on the engine's device, and no step waits more than once."""
    with pretend_cuda() as gpu:
        recipe = replace(RECIPE, image_size=64, runtime="cuda", precision=precision)
        engine = CudaEngine(Sam2(EDGE, 64), recipe, "", "cuda:0")
        tracker = plain(rtseg.Tracker(engine))
        tracker.prompt(1, points=[(9, 9, 1)])
        for _ in range(12):
            gpu.waits.clear()
            tracker.step(np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8))
        assert len(gpu.waits) == 1
        assert {str(t.device) for t in (*engine._static.parameters(), *engine._static.buffers())} == {"cuda:0"}


def test_attention_reads_as_many_tokens_whatever_the_size() -> None:
    """512 a memory: eight times fewer keys than SAM 2's at 1024 px."""
    for size in (512, 1024):
        shapes = attention_shapes(PRESETS["edgetam"], size, 7, 16)
        assert {s.keys for s in shapes if s.graph == "attend"} == {(size // 16) ** 2, 7 * 512 + 16 * 4}
        assert [(s.queries, s.keys) for s in shapes if s.graph == "remember"] == [
            (256, (size // 16) ** 2), (256, 256)
        ] * 2  # fmt: skip
    assert max(s.keys for s in attention_shapes(PRESETS["sam2.1-tiny"], 1024, 7, 16)) == 7 * 4096 + 16 * 4


# Policies: what similarity means


def memories(reference: TorchEngine, seeds: list[int]) -> list[Memory]:
    """Memories of these features, each with the same mask."""
    logits = torch.full((1, 1, SIZE // 4, SIZE // 4), -5.0)
    logits[..., 8:20, 8:20] = 5.0
    made = []
    for step, seed in enumerate(seeds):
        top = 3 * torch.randn(1, EDGE.dim, SIZE // 16, SIZE // 16, generator=torch.Generator().manual_seed(seed))
        (written,) = reference.remember(Features(top, top, top), logits, torch.ones(1), [False])
        made.append(Memory(step, written, torch.zeros(EDGE.dim), step == 0))
    return made


def test_similarity_compares_each_latent_with_itself(reference: TorchEngine) -> None:
    """A latent is one question about the picture: the same one of two memories answers the same question."""
    one, same, other = (m.map_chw for m in memories(reference, [1, 1, 2]))
    assert one.shape == (EDGE.memory_dim, 2 * SIDE, SIDE)
    u, v = (m.flatten(1).numpy().astype(float) for m in (one, other))  # [M, latents]
    by_hand = np.mean(
        [u[:, i] @ v[:, i] / (np.linalg.norm(u[:, i]) * np.linalg.norm(v[:, i])) for i in range(u.shape[1])]
    )
    found = cosine_similarity(torch.stack([same, other]), one)
    assert found[0] == pytest.approx(1, abs=1e-5) and found[1] == pytest.approx(by_hand, abs=1e-5) and found[1] < 0.99
    shuffled = one[:, torch.randperm(2 * SIDE, generator=torch.Generator().manual_seed(0))]
    assert cosine_similarity(shuffled[None], one)[0] < 0.9


@pytest.mark.parametrize(("policy", "kept"), [("efp", [0, 2, 4]), ("fifo", [0, 1, 2, 3, 4])])
def test_efp_drops_the_memories_most_like_the_newest(reference: TorchEngine, policy: str, kept: list[int]) -> None:
    bank = memories(reference, [5, 7, 6, 7, 7])  # the newest shows what 1 and 3 show
    size = rtseg.track.BankSize(window=7, spatial=3)
    assert list(get_policy(policy)(bank, size).keep) == kept


def test_a_scene_is_recognised_by_the_latents_of_windows(reference: TorchEngine) -> None:
    """The global ones have no place, and do not count."""
    known = memories(reference, [1, 1])
    map_chw = known[0].map_chw
    assert coarse(map_chw).shape == (EDGE.memory_dim, SIDE, SIDE)
    assert torch.equal(coarse(map_chw), map_chw[:, SIDE:])
    matcher, mask = SceneMatcher(known), np.full((32, 32), -5.0, np.float32)
    changed = map_chw.clone()
    changed[:, :SIDE] = torch.randn_like(changed[:, :SIDE])
    assert matcher.similarity(changed.numpy(), mask) == pytest.approx(1, abs=1e-4)
    changed[:, SIDE:] = torch.randn_like(changed[:, SIDE:])
    assert matcher.similarity(changed.numpy(), mask) < 0.9


@pytest.mark.parametrize("policy", ["fifo", "efp-window", "confident", "anchor", "diverse", "distractor"])
def test_every_policy_tracks(reference: TorchEngine, policy: str) -> None:
    tracker = plain(rtseg.Tracker(reference, policy))
    picture = np.random.default_rng(0).integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)
    tracker.prompt(1, points=[(60, 60, 1)])
    masks = [tracker.step(np.roll(picture, 3 * t, axis=1)) for t in range(12)]
    assert all(np.isfinite(m.mask_logits_bhw).all() for m in masks)
    assert all(m.map_chw.shape[1:] == (2 * SIDE, SIDE) for o in tracker._objects.values() for m in o.bank.memories)


def test_a_memory_of_another_network_is_refused(reference: TorchEngine) -> None:
    """A map where latents are expected."""

    class Wrong:
        def __init__(self) -> None:
            self.engine = reference

        def __getattr__(self, name: str) -> Any:
            return getattr(reference, name)

        def remember(self, *given: Any) -> list[Remembered]:
            return [Remembered(torch.zeros(EDGE.memory_dim, 8, 8)) for _ in reference.remember(*given)]

    tracker: Any = rtseg.Tracker(Wrong())  # type: ignore[arg-type]
    tracker.prompt(1, points=[(60, 60, 1)])
    with pytest.raises(rtseg.RtsegError, match=r"memories have the shape \(8, 8\); expected \(8, 4\)"):
        tracker.step(np.zeros((SIZE, SIZE, 3), np.uint8))
