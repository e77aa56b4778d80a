"""On a GPU the host waits once for a frame, whatever the policy, the number of objects, and what happens to them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rtseg.engine import Decoded, Features, PromptBatch, Recall, Remembered
from rtseg.engine.arrays import copy_to_host, to_host
from rtseg.engine.recipe import Recipe
from rtseg.sam2 import get_preset
from rtseg.track import POLICIES, Tracker
from rtseg.track.cut_detector import CutDetector
from tests.engine.pretend_cuda import Pretended, pretend_cuda

SIDE, GRID = 32, 8


@pytest.fixture
def gpu() -> Iterator[Pretended]:
    with pretend_cuda() as gpu:
        gpu.answers = lambda operation, t: 1.0  # every object is seen
        yield gpu


class GpuEngine:
    """An engine that computes nothing and whose answers lie on a GPU; `launches` are its own."""

    def __init__(self, gpu: Pretended, device: str = "cuda:0") -> None:
        self.recipe = Recipe(model="nano", image_size=4 * SIDE, runtime="cuda", max_objects=4)
        self.preset, self.image_size, self.weights_hash = get_preset("nano"), 4 * SIDE, ""
        self.description, self.launches = "on a GPU", 0
        self._gpu, self._device = gpu, device

    def _made(self, *shape: int) -> Tensor:
        before = self._gpu.launches
        made = torch.ones(*shape, device=self._device)
        self.launches += self._gpu.launches - before
        return made

    def encode_image(self, image_hwc: Any) -> Features:
        dim = self.preset.dim
        sizes = ((dim, GRID), (dim // 4, 2 * GRID), (dim // 8, 4 * GRID))
        return Features(*(self._made(1, channels, side, side) for channels, side in sizes))

    def attend(self, features: Features, recalls: Sequence[Recall | None]) -> Tensor:
        return self._made(len(recalls), self.preset.dim, GRID, GRID)

    def decode(self, conditioned_bchw: Tensor, features: Features, prompts: PromptBatch) -> Decoded:
        b = len(conditioned_bchw)
        assert b == len(prompts.points_bpc)
        return Decoded(self._made(b, 1, SIDE, SIDE), self._made(b), self._made(b), self._made(b, self.preset.dim))

    def rivals(self, conditioned_bchw: Tensor, features: Features) -> Tensor:
        return self._made(len(conditioned_bchw), 2, SIDE, SIDE)

    def remember(
        self, features: Features, logits_b1hw: Tensor, score_b: Tensor, prompted: Sequence[bool]
    ) -> list[Remembered]:
        return [Remembered(self._made(self.preset.memory_dim, GRID, GRID)) for _ in prompted]

    def track(self, image_hwc: Any, recalls: Sequence[Recall]) -> tuple[Decoded, list[Remembered]]:
        features = self.encode_image(image_hwc)
        decoded = self.decode(self.attend(features, recalls), features, PromptBatch.none(len(recalls)))
        return decoded, self.remember(features, decoded.logits_b1hw, decoded.score_b, [False] * len(recalls))


@pytest.fixture(autouse=True)
def scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another scene begins with a white picture."""
    monkeypatch.setattr(CutDetector, "update", lambda self, image_hwc: (self, bool(image_hwc.min() == 255)))


def picture(white: bool = False) -> np.ndarray:
    return np.full((96, 128, 3), 255 if white else 90, np.uint8)


def speck(x: int, y: int) -> np.ndarray:
    mask_hw = np.zeros((96, 128), bool)
    mask_hw[y : y + 3, x : x + 3] = True
    return mask_hw


def events(tracker: Tracker, objects: int) -> Iterator[str]:
    """All that can happen to objects; the tracker is stepped after each."""
    for i in range(1, objects + 1):
        tracker.prompt(i, points=[(20 * i, 40, 1)])
    yield "all are new"
    for _ in range(9):
        yield "tracked"
    tracker.prompt(1, points=[(5, 5, 0)])
    yield "one is corrected"
    yield "tracked"
    tracker.prompt(1, mask=speck(30, 30))
    yield "one is given as a mask that is too small"
    tracker.prompt(objects + 1, box=(3, 3, 60, 60))
    yield "another joins"
    for _ in range(9):
        yield "tracked"
    yield "cut"
    yield "lost"
    tracker.prompt(1, box=(3, 3, 60, 60))
    yield "one is found by a person, the others are lost"
    tracker.remove(1)
    yield "one leaves"


@pytest.mark.parametrize("objects", [1, 3])
@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_one_wait_a_frame(gpu: Pretended, policy: str, objects: int) -> None:
    engine = GpuEngine(gpu, f"cuda:{objects // 2}")  # also on another device than the current one
    tracker = Tracker(engine, policy)  # type: ignore[arg-type]
    for what in events(tracker, objects):
        gpu.waits.clear()
        masks = tracker.step(picture(white=what == "cut"))
        assert len(gpu.waits) == 1, (what, gpu.waits)
        assert "rtseg/engine/arrays.py" in gpu.waits[0].where
        assert len(masks.lost) == (
            objects + 1 if what in ("cut", "lost") else objects * ("lost" in what or "leaves" in what)
        )
        assert np.isfinite(masks.mask_logits_bhw).all()


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_what_a_tracker_launches_does_not_grow_with_its_objects(gpu: Pretended, policy: str) -> None:
    added: dict[int, int] = {}
    for objects in (1, 4):
        engine = GpuEngine(gpu)
        tracker = Tracker(engine, policy)  # type: ignore[arg-type]
        for i in range(1, objects + 1):
            tracker.prompt(i, points=[(20 * i, 40, 1)])
        for _ in range(12):
            before = gpu.launches - engine.launches
            tracker.step(picture())
            added[objects] = gpu.launches - engine.launches - before
    assert added[1] == added[4] <= (14 if POLICIES[policy].needs_similarity else 6), added


def test_pinned_memory_is_kept(gpu: Pretended) -> None:
    tracker = Tracker(GpuEngine(gpu), "efp")  # type: ignore[arg-type]
    tracker.prompt(1, points=[(20, 40, 1)])
    for _ in range(8):
        tracker.step(picture())
    before = gpu.pinned_allocations
    for _ in range(8):
        tracker.step(picture())
    assert gpu.pinned_allocations == before


def test_a_second_wait_is_found(gpu: Pretended, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: an engine that reads its own answer, and a policy that does not declare what it needs."""

    class Reads(GpuEngine):
        def track(self, image_hwc: Any, recalls: Sequence[Recall]) -> tuple[Decoded, list[Remembered]]:
            decoded, written = super().track(image_hwc, recalls)
            assert bool(decoded.score_b[0] > 0)
            return decoded, written

    def waits(engine: GpuEngine, policy: str) -> int:
        tracker = Tracker(engine, policy)  # type: ignore[arg-type]
        tracker.prompt(1, points=[(20, 40, 1)])
        for _ in range(9):
            gpu.waits.clear()
            tracker.step(picture())
        return len(gpu.waits)

    assert waits(Reads(gpu), "fifo") == 2
    assert waits(GpuEngine(gpu), "efp") == 1
    undeclared = replace(POLICIES["efp"], needs_similarity=False)
    monkeypatch.setattr("rtseg.track.tracker.get_policy", lambda name: undeclared)
    assert waits(GpuEngine(gpu), "efp") == 2


def test_what_comes_in_one_copy_is_told_apart(gpu: Pretended) -> None:
    gpu.answers = lambda operation, t: np.arange(t.numel()).reshape(tuple(t.shape))
    away = [
        torch.ones(2, 3, device="cuda"),
        torch.ones(4, device="cuda", dtype=torch.float16),
        torch.ones((), device="cuda"),
    ]
    here = [np.full(3, 7, np.float32), torch.full((2,), 8.0)]
    first, numbers, second, tensor, scalar = copy_to_host([away[0], here[0], away[1], here[1], away[2]])
    assert len(gpu.waits) == 1
    assert first.tolist() == [[0, 1, 2], [3, 4, 5]] and second.tolist() == [6, 7, 8, 9] and scalar == 10
    assert numbers.tolist() == [7, 7, 7] and tensor.tolist() == [8, 8]
    here[0][:], first[:] = 0, 0  # all are their own
    assert numbers.tolist() == [7, 7, 7] and to_host(away[0])[0, 1] == 1 and first.sum() == 0


def test_threads_and_devices_do_not_land_on_one_another(gpu: Pretended) -> None:
    """Also of a tensor that was made in inference mode, and read outside of it."""
    found: dict[int, list[float]] = {}

    def read(number: int) -> None:
        with gpu.here():
            with torch.inference_mode():
                x = torch.ones(2, 3, device=f"cuda:{number % 2}")
            found[number] = to_host(x).ravel().tolist()

    read(0)
    for n in (1, 2):  # one after the other: what pretends to be a GPU is not made for two at once
        thread = threading.Thread(target=read, args=(n,))
        thread.start()
        thread.join()
    assert found == {n: [1.0] * 6 for n in range(3)} and gpu.pinned_allocations == 3
